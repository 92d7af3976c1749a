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

// lists: values grow by compare-and-set: the list is read, then a transaction stands on what was read.
type lists struct {
	prefix  string
	mu      sync.Mutex
	list    map[int]*list
	acked   int
	unknown int
	history *history
}

type list struct {
	acked, unknown []int
	reads          []string
	known          int // bytes of the longest value that a finished call has seen or made
}

const (
	listsAtOnce = 8
	turnsOfList = 400 // of a client, over all lists at once; then come others, or they grow too long
)

func newLists(prefix string) *lists {
	return &lists{prefix: prefix + "list/", list: map[int]*list{}, history: newHistory()}
}

func (l *lists) at(number int) *list {
	if l.list[number] == nil {
		l.list[number] = &list{}
	}
	return l.list[number]
}

func (l *lists) run(run context.Context, c *clientv3.Client, id int, pause time.Duration) {
	process := id
	for n := 1; run.Err() == nil; n++ {
		l.append(c, n%listsAtOnce+n/turnsOfList*listsAtOnce, id*perClient+n, &process)
		time.Sleep(pause)
	}
}

func elements(value string) []int {
	out := []int{}
	for _, word := range strings.Split(strings.TrimSuffix(value, ","), ",") {
		if element, err := strconv.Atoi(word); err == nil {
			out = append(out, element)
		}
	}
	return out
}

// read is one transaction of the history; it happened or left no trace.
func (l *lists) read(ctx context.Context, c *clientv3.Client, number int, process *int) (string, int64, error) {
	value, revision, name := "", int64(0), strconv.Itoa(number)
	began := time.Now()
	r, err := c.Get(ctx, l.prefix+name)
	if err != nil {
		return "", 0, err
	}
	if len(r.Kvs) == 1 {
		value, revision = string(r.Kvs[0].Value), r.Kvs[0].ModRevision
	}
	l.history.call(process, "txn", "", [][]any{{"r", name, nil}}, [][]any{{"r", name, elements(value)}}, "ok", began)
	return value, revision, nil
}

func (l *lists) append(c *clientv3.Client, number, element int, process *int) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	l.mu.Lock()
	before := l.at(number).known
	l.mu.Unlock()
	value, revision, err := l.read(ctx, c, number, process)
	if err != nil {
		return
	}
	if len(value) < before {
		failed("list %d: a read saw %d bytes after %d were known", number, len(value), before)
	}
	l.saw(number, value)
	next := value + strconv.Itoa(element) + ","
	key := l.prefix + strconv.Itoa(number)
	began := time.Now()
	t, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
		Then(clientv3.OpPut(key, next)).Commit()
	end := "ok"
	switch {
	case err != nil:
		end = "info"
	case !t.Succeeded:
		end = "fail"
	}
	op := [][]any{{"append", strconv.Itoa(number), element}}
	l.history.call(process, "txn", "", op, op, end, began)
	if end == "ok" {
		l.saw(number, next)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch end {
	case "ok":
		l.at(number).acked = append(l.at(number).acked, element)
		l.acked++
	case "info":
		l.at(number).unknown = append(l.at(number).unknown, element)
		l.unknown++
	}
}

func (l *lists) saw(number int, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.at(number)
	if len(value) > x.known {
		x.known = len(value)
	}
	if n := len(x.reads); n == 0 || x.reads[n-1] != value {
		x.reads = append(x.reads, value)
	}
}

func (l *lists) check(c *clientv3.Client, name string, reader int) {
	for number, x := range l.list {
		final := ""
		if !eventually("reading the lists at "+name, time.Minute, func() (err error) {
			ctx, cancel := context.WithTimeout(context.Background(), callTime)
			defer cancel()
			final, _, err = l.read(ctx, c, number, &reader)
			return err
		}) {
			return
		}
		x.check(fmt.Sprintf("%s: list %d", name, number), final)
	}
}

func (x *list) check(name string, final string) {
	times := map[int]int{}
	for _, e := range elements(final) {
		times[e]++
	}
	for _, e := range x.acked {
		if times[e] != 1 {
			failed("%s: %d was acknowledged and is there %d times", name, e, times[e])
		}
		delete(times, e)
	}
	for _, e := range x.unknown {
		if times[e] > 1 {
			failed("%s: %d is there %d times", name, e, times[e])
		}
		delete(times, e)
	}
	for e := range times {
		failed("%s: %d was never acknowledged, nor left open", name, e)
	}
	for _, r := range x.reads {
		if !strings.HasPrefix(final, r) {
			failed("%s: a read was no beginning of the final list", name)
			return
		}
	}
}

func (l *lists) String() string {
	return fmt.Sprintf("append: acked=%d unknown=%d", l.acked, l.unknown)
}
