// register: concurrent clients read, write and compare-and-set a few keys while faults happen around
// them; the history is checked with Porcupine and, as JSON lines, left for another checker.
//
// A failed read did not happen; a failed write may have happened at any later time, so it stays open to
// the end of the history. Prints one summary line; exits 1 when the history is not linearizable.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"bonsai/clients/dial"

	"github.com/anishathalye/porcupine"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

type input struct {
	op       string // read, write, cas
	key      int
	old, new int
}

type output struct {
	value   int // read: 0 = absent
	ok      bool
	unknown bool
}

type event struct {
	Index   int    `json:"index"`
	Time    int64  `json:"time"`
	Process int    `json:"process"`
	Type    string `json:"type"`
	F       string `json:"f"`
	Key     string `json:"key"`
	Value   any    `json:"value"`
}

var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[int][]porcupine.Operation{}
		for _, o := range history {
			k := o.Input.(input).key
			by[k] = append(by[k], o)
		}
		var out [][]porcupine.Operation
		for _, ops := range by {
			out = append(out, ops)
		}
		return out
	},
	Init: func() any { return 0 },
	Step: func(state, in, out any) (bool, any) {
		s, i, o := state.(int), in.(input), out.(output)
		switch i.op {
		case "read":
			return o.unknown || o.value == s, s
		case "write":
			return true, i.new
		default:
			if o.unknown {
				if s == i.old {
					return true, i.new
				}
				return true, s
			}
			if o.ok {
				return s == i.old, i.new
			}
			return s != i.old, s
		}
	},
	Equal: func(a, b any) bool { return a == b },
}

func main() {
	endpoints := flag.String("endpoints", "", "host:port, separated by commas")
	seconds := flag.Float64("seconds", 10, "length of the run")
	clients := flag.Int("clients", 8, "concurrent clients")
	keys := flag.Int("keys", 4, "registers")
	rate := flag.Duration("pause", 2*time.Millisecond, "between two calls of a client")
	history := flag.String("history", "", "file for the history, as JSON lines")
	prefix := flag.String("prefix", "reg/", "keys")
	seed := flag.Int64("seed", 1, "of the choices")
	flag.Parse()
	start := time.Now()
	end := start.Add(time.Duration(*seconds * float64(time.Second)))
	var mu sync.Mutex
	var ops []porcupine.Operation
	var lastRevision int64
	var unique, okCount, failCount int
	var longest time.Duration
	lastOK := time.Now()
	var wg sync.WaitGroup
	eps := strings.Split(*endpoints, ",")
	for p := 0; p < *clients; p++ {
		wg.Add(1)
		go func(p int) {
			defer wg.Done()
			rnd := rand.New(rand.NewSource(*seed*1000 + int64(p)))
			// one endpoint each, so that every member is read and written directly
			c, err := clientv3.New(dial.Config(eps[p%len(eps):p%len(eps)+1], time.Second))
			if err != nil {
				fmt.Fprintln(os.Stderr, "FAIL:", err)
				os.Exit(1)
			}
			defer c.Close()
			seen := int64(0)
			process := p // a client whose call has an unknown outcome goes on as another process
			for time.Now().Before(end) {
				in := input{key: rnd.Intn(*keys)}
				key := fmt.Sprintf("%s%d", *prefix, in.key)
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				var out output
				var rev int64
				mu.Lock()
				unique++
				in.new = unique
				mu.Unlock()
				from := time.Since(start)
				switch n := rnd.Intn(10); {
				case n < 5:
					in.op = "read"
					r, e := c.Get(ctx, key)
					err = e
					if e == nil {
						rev = r.Header.Revision
						if len(r.Kvs) == 1 {
							fmt.Sscan(string(r.Kvs[0].Value), &out.value)
						}
					}
				case n < 8:
					in.op = "write"
					r, e := c.Put(ctx, key, fmt.Sprint(in.new))
					err = e
					if e == nil {
						rev = r.Header.Revision
						out.ok = true
					}
				default:
					in.op = "cas"
					in.old = 1 + rnd.Intn(in.new)
					if g, e := c.Get(ctx, key, clientv3.WithSerializable()); e == nil && len(g.Kvs) == 1 && rnd.Intn(4) > 0 {
						fmt.Sscan(string(g.Kvs[0].Value), &in.old)
					}
					from = time.Since(start)
					r, e := c.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", fmt.Sprint(in.old))).
						Then(clientv3.OpPut(key, fmt.Sprint(in.new))).Commit()
					err = e
					if e == nil {
						rev = r.Header.Revision
						out.ok = r.Succeeded
					}
				}
				cancel()
				to := time.Since(start)
				mu.Lock()
				if err == nil {
					okCount++
					if gap := time.Since(lastOK); gap > longest {
						longest = gap
					}
					lastOK = time.Now()
					if rev < seen {
						fmt.Fprintf(os.Stderr, "FAIL: client %d saw revision %d after %d\n", p, rev, seen)
						os.Exit(1)
					}
					if rev > lastRevision {
						lastRevision = rev
					}
					seen = rev
				} else {
					failCount++
					out.unknown = true
				}
				refused := errors.Is(err, rpctypes.ErrNoSpace) // certainly not done
				if err == nil || in.op != "read" && !refused {
					ops = append(ops, porcupine.Operation{ClientId: process, Input: in, Output: out, Call: int64(from), Return: int64(to)})
				}
				if err != nil {
					process += *clients
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(50 * time.Millisecond) // each unknown outcome doubles what is possible
				}
				time.Sleep(*rate)
			}
		}(p)
	}
	wg.Wait()
	last := int64(time.Since(start))
	for i := range ops {
		if ops[i].Output.(output).unknown {
			ops[i].Return = last + 1
		}
	}
	if *history != "" {
		write(*history, ops, last)
	}
	result := porcupine.CheckOperationsTimeout(model, ops, 60*time.Second)
	fmt.Printf("%s ok=%d failed=%d revision=%d longest_gap_ms=%d\n", result, okCount, failCount, lastRevision, longest.Milliseconds())
	if result != porcupine.Ok || okCount == 0 {
		os.Exit(1)
	}
}

// write emits the history in time order: invoke, then ok, fail (certainly not done) or info (unknown).
func write(path string, ops []porcupine.Operation, last int64) {
	type timed struct {
		at int64
		e  event
	}
	var all []timed
	for _, o := range ops {
		in, out := o.Input.(input), o.Output.(output)
		e := event{Process: o.ClientId, F: in.op, Key: fmt.Sprint(in.key), Type: "invoke"}
		switch in.op {
		case "write":
			e.Value = in.new
		case "cas":
			e.Value = []int{in.old, in.new}
		}
		all = append(all, timed{o.Call, e})
		e.Type = "ok"
		if out.unknown {
			e.Type = "info"
		}
		if in.op == "read" {
			if out.value != 0 {
				e.Value = out.value
			}
		}
		if in.op == "cas" && !out.ok && !out.unknown {
			e.Type = "fail"
		}
		all = append(all, timed{o.Return, e})
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].at < all[j].at })
	f, err := os.Create(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	defer w.Flush()
	for i, t := range all {
		t.e.Index, t.e.Time = i, t.at
		line, _ := json.Marshal(t.e)
		w.Write(append(line, '\n'))
	}
}
