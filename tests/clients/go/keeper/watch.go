package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// watch: all keys of one member, from one revision on, by a client that resumes by itself.
type watch struct {
	name     string
	from     int64
	leases   *leases
	events   int
	sum      uint64 // of every event, in order
	revision int64  // the last that was complete
	versions map[string]int64
	mu       sync.Mutex
	last     int64 // watch until then; 0: not yet known
	cancel   context.CancelFunc
	ctx      context.Context
}

func newWatch(name string, from int64, leases *leases) *watch {
	w := &watch{name: name, from: from, revision: from - 1, leases: leases, versions: map[string]int64{}}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

func (w *watch) run(c *clientv3.Client) {
	all := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(w.from), clientv3.WithProgressNotify(),
		clientv3.WithPrevKV()}
	for r := range c.Watch(w.ctx, "", all...) {
		if err := r.Err(); err != nil && w.ctx.Err() == nil {
			failed("%s: the watch ended: %v", w.name, err)
			return
		}
		for _, e := range r.Events {
			w.take(e)
		}
		if r.IsProgressNotify() && r.Header.Revision > w.revision {
			failed("%s: progress told revision %d, but only %d was seen", w.name, r.Header.Revision, w.revision)
		}
		w.mu.Lock()
		over := w.last != 0 && w.revision >= w.last
		w.mu.Unlock()
		if over {
			w.cancel()
			return
		}
	}
}

func (w *watch) take(e *clientv3.Event) {
	kv, key := e.Kv, string(e.Kv.Key)
	w.events++
	h := fnv.New64a()
	fmt.Fprint(h, w.sum, e.Type, kv.ModRevision, kv.Version, kv.CreateRevision, key, 0, kv.Value)
	w.sum = binary.BigEndian.Uint64(h.Sum(nil))
	if kv.ModRevision != w.revision && kv.ModRevision != w.revision+1 {
		failed("%s: revision %d after %d", w.name, kv.ModRevision, w.revision)
	}
	w.mu.Lock()
	w.revision = kv.ModRevision
	w.mu.Unlock()
	before, seen := w.versions[key]
	if e.Type == mvccpb.DELETE {
		w.versions[key] = 0
		w.leases.gone(key, kv.ModRevision)
		return
	}
	if seen && kv.Version != before+1 {
		failed("%s: %s has version %d after %d", w.name, key, kv.Version, before)
	}
	if seen && before > 0 && (e.PrevKv == nil || e.PrevKv.Version != before) {
		failed("%s: %s at version %d comes without its previous version", w.name, key, kv.Version)
	}
	w.versions[key] = kv.Version
}

// finish says what the last revision is. The watch may have gone there before: then it is over.
func (w *watch) finish(last int64) {
	w.mu.Lock()
	w.last = last
	done := w.revision >= last
	w.mu.Unlock()
	if done {
		w.cancel()
		return
	}
	go func() {
		select {
		case <-w.ctx.Done():
		case <-time.After(time.Minute):
			failed("%s: saw revision %d, not %d", w.name, w.revision, last)
			w.cancel()
		}
	}()
}

func (w *watch) compare(o *watch) {
	if w.events != o.events || w.sum != o.sum {
		failed("%s told %d events, %s %d, or others", w.name, w.events, o.name, o.events)
	}
}

func (w *watch) String() string { return fmt.Sprintf("watch: events=%d", w.events) }
