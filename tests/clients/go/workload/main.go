// workload: concurrent clients of one kind on etcd's own Go client, while faults happen around them. The
// history goes to a file, as JSON lines, for check_history. Prints one summary line.
//
//	append  transactions that read and append to lists: reads, then one txn on what was read
//	set     puts of new keys, and reads of all of them
//	bank    transfers between accounts, and reads of all of them
//	watch   puts, deletes and transactions, and watchers on every member until all is told
//	lock    holders of one lock on their leases, and guarded writes; lock and lease in one history
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"strconv"
	"strings"
	"sync"
	"time"

	"bonsai/clients/dial"
	"bonsai/clients/must"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const timeout = 2 * time.Second

type worker struct {
	*client
	c      *clientv3.Client
	rnd    *rand.Rand
	prefix string
	fresh  func() int // a number that nobody had before
}

func (w *worker) key(n int) string { return fmt.Sprintf("%s%02d", w.prefix, n) }

func (w *worker) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), timeout)
}

// ---- append

const lists = 6

func (w *worker) appendStep() {
	var in []any
	keys := map[string]bool{}
	readOnly := w.rnd.Intn(3) == 0
	for i := 1 + w.rnd.Intn(4); i > 0; i-- {
		key := w.key(w.rnd.Intn(lists))
		keys[key] = true
		if readOnly || w.rnd.Intn(2) == 0 {
			in = append(in, []any{"r", key, nil})
		} else {
			in = append(in, []any{"append", key, w.fresh()})
		}
	}
	w.call("txn", "", in, func() (any, error) {
		ctx, cancel := w.ctx()
		defer cancel()
		var gets []clientv3.Op
		for k := range keys {
			gets = append(gets, clientv3.OpGet(k))
		}
		r, err := w.c.Txn(ctx).Then(gets...).Commit()
		if err != nil {
			return nil, failure{err} // it only read
		}
		now, revs := map[string][]int{}, map[string]int64{}
		for _, one := range r.Responses {
			for _, kv := range one.GetResponseRange().Kvs {
				revs[string(kv.Key)] = kv.ModRevision
				for _, word := range strings.Fields(string(kv.Value)) {
					n, err := strconv.Atoi(word)
					must.Check(err == nil, "%v", err)
					now[string(kv.Key)] = append(now[string(kv.Key)], n)
				}
			}
		}
		var out []any
		changed := map[string]bool{}
		for _, o := range in {
			op := o.([]any)
			key := op[1].(string)
			if op[0] == "r" {
				out = append(out, []any{"r", key, append([]int{}, now[key]...)})
			} else {
				now[key] = append(now[key], op[2].(int))
				changed[key] = true
				out = append(out, op)
			}
		}
		if len(changed) == 0 {
			return out, nil
		}
		return out, w.commit(ctx, keys, revs, changed, func(key string) string {
			return strings.Trim(fmt.Sprint(now[key]), "[]")
		})
	})
}

// Writes the changed keys if none of those that were read has changed since.
func (w *worker) commit(ctx context.Context, keys map[string]bool, revs map[string]int64,
	changed map[string]bool, value func(key string) string) error {
	var same []clientv3.Cmp
	var puts []clientv3.Op
	for k := range keys {
		same = append(same, clientv3.Compare(clientv3.ModRevision(k), "=", revs[k]))
	}
	for k := range changed {
		puts = append(puts, clientv3.OpPut(k, value(k)))
	}
	r, err := w.c.Txn(ctx).If(same...).Then(puts...).Commit()
	if err == nil && !r.Succeeded {
		return failure{fmt.Errorf("changed meanwhile")}
	}
	return err
}

// ---- set

func (w *worker) setStep() {
	ctx, cancel := w.ctx()
	defer cancel()
	if w.rnd.Intn(4) > 0 {
		n := w.fresh()
		w.call("add", "s", n, func() (any, error) {
			_, err := w.c.Put(ctx, fmt.Sprintf("%s%d", w.prefix, n), "")
			return n, err
		})
		return
	}
	w.call("read", "s", nil, func() (any, error) {
		r, err := w.c.Get(ctx, w.prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil {
			return nil, failure{err}
		}
		list := []int{}
		for _, kv := range r.Kvs {
			n, err := strconv.Atoi(strings.TrimPrefix(string(kv.Key), w.prefix))
			must.Check(err == nil, "%v", err)
			list = append(list, n)
		}
		return list, nil
	})
}

// ---- bank

const accounts, total = 5, 100

func (w *worker) bankStep() {
	ctx, cancel := w.ctx()
	defer cancel()
	if w.rnd.Intn(3) == 0 {
		w.call("read", "", nil, func() (any, error) {
			r, err := w.c.Get(ctx, w.prefix, clientv3.WithPrefix())
			if err != nil {
				return nil, failure{err}
			}
			all := map[string]int{}
			for _, kv := range r.Kvs {
				all[string(kv.Key)], err = strconv.Atoi(string(kv.Value))
				must.Check(err == nil, "%v", err)
			}
			return map[string]any{"accounts": all, "rev": r.Header.Revision}, nil
		})
		return
	}
	from := w.rnd.Intn(accounts)
	to := (from + 1 + w.rnd.Intn(accounts-1)) % accounts
	a, b, amount := w.key(from), w.key(to), 1+w.rnd.Intn(5)
	w.call("transfer", "", map[string]any{"from": a, "to": b, "amount": amount}, func() (any, error) {
		r, err := w.c.Txn(ctx).Then(clientv3.OpGet(a), clientv3.OpGet(b)).Commit()
		if err != nil {
			return nil, failure{err}
		}
		revs, money, both := map[string]int64{}, map[string]int{}, map[string]bool{a: true, b: true}
		for _, one := range r.Responses {
			kv := one.GetResponseRange().Kvs[0]
			revs[string(kv.Key)] = kv.ModRevision
			money[string(kv.Key)], _ = strconv.Atoi(string(kv.Value))
		}
		money[a] -= amount
		money[b] += amount
		if money[a] < 0 {
			return nil, failure{fmt.Errorf("not enough")}
		}
		return nil, w.commit(ctx, both, revs, both, func(key string) string { return strconv.Itoa(money[key]) })
	})
}

func openBank(c *clientv3.Client, h *history, prefix string) {
	var puts []clientv3.Op
	for i := 0; i < accounts; i++ {
		puts = append(puts, clientv3.OpPut(fmt.Sprintf("%s%02d", prefix, i), strconv.Itoa(total/accounts)))
	}
	end := time.Now().Add(20 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		_, err := c.Txn(ctx).Then(puts...).Commit()
		cancel()
		if err == nil {
			break
		}
		must.Check(time.Now().Before(end), "%v", err)
	}
	h.line(-1, "info", "config", "", map[string]any{"total": total})
}

// ---- main

func main() {
	kind := flag.String("kind", "append", "append, set, bank, watch, lock")
	endpoints := flag.String("endpoints", "", "host:port, separated by commas")
	seconds := flag.Float64("seconds", 5, "length of the run")
	clients := flag.Int("clients", 8, "concurrent clients")
	pause := flag.Duration("pause", 2*time.Millisecond, "between two calls of a client")
	path := flag.String("history", "history.jsonl", "file for the history")
	prefix := flag.String("prefix", "w/", "keys")
	seed := flag.Int64("seed", 1, "of the choices")
	flag.Parse()
	steps := map[string]func(*worker){"append": (*worker).appendStep, "set": (*worker).setStep,
		"bank": (*worker).bankStep, "watch": (*worker).writeStep, "lock": (*worker).lockStep}
	step := steps[*kind]
	must.Check(step != nil, "-kind %s: not known", *kind)

	eps := strings.Split(*endpoints, ",")
	connect := func(i int) *clientv3.Client { // one member each, so that all are used directly
		c, err := clientv3.New(dial.Config(eps[i%len(eps):i%len(eps)+1], timeout))
		must.Check(err == nil, "%v", err)
		return c
	}
	h := newHistory(*path)
	var mu sync.Mutex
	unique := 0
	fresh := func() int {
		mu.Lock()
		defer mu.Unlock()
		unique++
		return unique
	}
	if *kind == "bank" {
		openBank(connect(0), h, *prefix)
	}
	var watchers *watchers
	if *kind == "watch" {
		watchers = watchAll(connect, len(eps), h, *prefix)
	}
	end := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
	var wg sync.WaitGroup
	for i := 0; i < *clients; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			w := &worker{newClient(h), connect(i), rand.New(rand.NewSource(*seed*1000 + int64(i))), *prefix, fresh}
			defer w.c.Close()
			for time.Now().Before(end) {
				step(w)
				time.Sleep(*pause)
			}
		}(i)
	}
	wg.Wait()
	if watchers != nil {
		watchers.finish(connect(0))
	}
	h.close()
	fmt.Printf("%s: ok=%d fail=%d info=%d\n", *kind, h.counts["ok"], h.counts["fail"], h.counts["info"])
	must.Check(h.counts["ok"] > 30, "hardly anything worked")
}
