package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// sets: each member's client adds elements, one key each.
type sets struct {
	prefix         string
	mu             sync.Mutex
	acked, unknown map[string]bool
}

func newSets(prefix string) *sets {
	return &sets{prefix: prefix + "set/", acked: map[string]bool{}, unknown: map[string]bool{}}
}

func (s *sets) run(run context.Context, c *clientv3.Client, id int, pause time.Duration) {
	for n := 0; run.Err() == nil; n++ {
		key := fmt.Sprintf("%s%d/%d", s.prefix, id, n)
		ctx, cancel := context.WithTimeout(context.Background(), callTime)
		_, err := c.Put(ctx, key, "x")
		cancel()
		s.mu.Lock()
		if err == nil {
			s.acked[key] = true
		} else {
			s.unknown[key] = true
		}
		s.mu.Unlock()
		time.Sleep(pause)
	}
}

func (s *sets) check(c *clientv3.Client, name string) {
	there := map[string]bool{}
	if !eventually("reading the sets at "+name, time.Minute, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		r, err := c.Get(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err == nil {
			for _, kv := range r.Kvs {
				there[string(kv.Key)] = true
			}
		}
		return err
	}) {
		return
	}
	for key := range s.acked {
		if !there[key] {
			failed("%s: %s was acknowledged and is lost", name, key)
		}
	}
	for key := range there {
		if !s.acked[key] && !s.unknown[key] {
			failed("%s: %s was never written", name, key)
		}
	}
}

func (s *sets) String() string {
	return fmt.Sprintf("set: acked=%d unknown=%d", len(s.acked), len(s.unknown))
}

// lists: values grow by compare-and-set; an append is read, then a transaction on what was read.
type lists struct {
	prefix         string
	mu             sync.Mutex
	acked, unknown map[int][]string // by list
	reads          map[int][]string // what was read, as text; each once
	known          map[int]int      // bytes of the longest value that a finished call has seen or made
	count          int
}

const listCount = 8

func newLists(prefix string) *lists {
	return &lists{prefix: prefix + "list/", acked: map[int][]string{}, unknown: map[int][]string{},
		reads: map[int][]string{}, known: map[int]int{}}
}

func (l *lists) run(run context.Context, c *clientv3.Client, id int, pause time.Duration) {
	for n := 0; run.Err() == nil; n++ {
		list := n % listCount
		l.append(c, list, fmt.Sprintf("%d.%d", id, n))
		time.Sleep(pause)
	}
}

func (l *lists) append(c *clientv3.Client, list int, element string) {
	key := fmt.Sprintf("%s%d", l.prefix, list)
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	l.mu.Lock()
	before := l.known[list]
	l.mu.Unlock()
	r, err := c.Get(ctx, key)
	if err != nil {
		return
	}
	value, revision := "", int64(0)
	if len(r.Kvs) == 1 {
		value, revision = string(r.Kvs[0].Value), r.Kvs[0].ModRevision
	}
	if len(value) < before {
		failed("list %d: a read saw %d bytes after %d were known", list, len(value), before)
	}
	l.saw(list, value)
	next := value + element + ","
	t, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
		Then(clientv3.OpPut(key, next)).Commit()
	if err == nil && !t.Succeeded {
		return
	}
	if err == nil {
		l.saw(list, next)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.acked[list] = append(l.acked[list], element)
		l.count++
	} else {
		l.unknown[list] = append(l.unknown[list], element)
	}
}

func (l *lists) saw(list int, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(value) > l.known[list] {
		l.known[list] = len(value)
	}
	if n := len(l.reads[list]); n == 0 || l.reads[list][n-1] != value {
		l.reads[list] = append(l.reads[list], value)
	}
}

func (l *lists) check(c *clientv3.Client, name string) {
	for list := 0; list < listCount; list++ {
		final := ""
		if !eventually("reading the lists at "+name, time.Minute, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), callTime)
			defer cancel()
			r, err := c.Get(ctx, fmt.Sprintf("%s%d", l.prefix, list))
			if err == nil && len(r.Kvs) == 1 {
				final = string(r.Kvs[0].Value)
			}
			return err
		}) {
			return
		}
		l.checkOne(name, list, final)
	}
}

func (l *lists) checkOne(name string, list int, final string) {
	times := map[string]int{}
	for _, e := range strings.Split(strings.TrimSuffix(final, ","), ",") {
		times[e]++
	}
	for _, e := range l.acked[list] {
		if times[e] != 1 {
			failed("%s: list %d: %s was acknowledged and is there %d times", name, list, e, times[e])
		}
		delete(times, e)
	}
	for _, e := range l.unknown[list] {
		if times[e] > 1 {
			failed("%s: list %d: %s is there %d times", name, list, e, times[e])
		}
		delete(times, e)
	}
	delete(times, "")
	for e := range times {
		failed("%s: list %d: %s was never acknowledged, nor left open", name, list, e)
	}
	for _, r := range l.reads[list] {
		if !strings.HasPrefix(final, r) {
			failed("%s: list %d: a read was no beginning of the final list", name, list)
			return
		}
	}
}

func (l *lists) String() string {
	open := 0
	for _, u := range l.unknown {
		open += len(u)
	}
	return fmt.Sprintf("append: acked=%d unknown=%d", l.count, open)
}
