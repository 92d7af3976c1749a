package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// perClient is more than one client makes elements: so numbers tell who made them.
const perClient = 1000000

// sets: each member's client adds elements, one key each.
type sets struct {
	prefix         string
	mu             sync.Mutex
	acked, unknown map[int]bool
	history        *history
}

func newSets(prefix string) *sets {
	return &sets{prefix: prefix + "set/", acked: map[int]bool{}, unknown: map[int]bool{}, history: newHistory()}
}

func (s *sets) run(run context.Context, c *clientv3.Client, id int, pause time.Duration) {
	process := id
	for n := 1; run.Err() == nil; n++ {
		element := id*perClient + n
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), callTime)
		_, err := c.Put(ctx, s.prefix+strconv.Itoa(element), "x")
		cancel()
		end := "ok"
		s.mu.Lock()
		if err == nil {
			s.acked[element] = true
		} else {
			s.unknown[element] = true
			end = "info"
		}
		s.mu.Unlock()
		s.history.call(&process, "add", "s", element, element, end, began)
		time.Sleep(pause)
	}
}

func (s *sets) check(c *clientv3.Client, name string, reader int) {
	there := map[int]bool{}
	list := []int{}
	began := time.Now()
	if !eventually("reading the sets at "+name, time.Minute, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		began = time.Now()
		r, err := c.Get(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err == nil {
			for _, kv := range r.Kvs {
				element, _ := strconv.Atoi(strings.TrimPrefix(string(kv.Key), s.prefix))
				there[element] = true
				list = append(list, element)
			}
		}
		return err
	}) {
		return
	}
	s.history.call(&reader, "read", "s", nil, list, "ok", began)
	for element := range s.acked {
		if !there[element] {
			failed("%s: %d was acknowledged and is lost", name, element)
		}
	}
	for element := range there {
		if !s.acked[element] && !s.unknown[element] {
			failed("%s: %d was never written", name, element)
		}
	}
}

func (s *sets) String() string {
	return fmt.Sprintf("set: acked=%d unknown=%d", len(s.acked), len(s.unknown))
}
