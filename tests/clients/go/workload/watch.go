package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"bonsai/clients/must"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ---- watch: writers

func (w *worker) writeStep() {
	ctx, cancel := w.ctx()
	defer cancel()
	key, other := w.key(w.rnd.Intn(8)), w.key(8+w.rnd.Intn(4))
	switch w.rnd.Intn(6) {
	case 0:
		w.call("delete", key, nil, func() (any, error) {
			r, err := w.c.Delete(ctx, key)
			if err != nil {
				return nil, err
			}
			return map[string]any{"rev": r.Header.Revision, "deleted": r.Deleted > 0}, nil
		})
	case 1:
		a, b := w.value(), w.value()
		in := []any{[]any{"put", key, a}, []any{"put", other, b}}
		w.call("txn", "", in, func() (any, error) {
			r, err := w.c.Txn(ctx).Then(clientv3.OpPut(key, a), clientv3.OpPut(other, b)).Commit()
			if err != nil {
				return nil, err
			}
			return map[string]any{"rev": r.Header.Revision}, nil
		})
	default:
		value := w.value()
		w.call("put", key, value, func() (any, error) {
			r, err := w.c.Put(ctx, key, value)
			if err != nil {
				return nil, err
			}
			return map[string]any{"rev": r.Header.Revision}, nil
		})
	}
}

func (w *worker) value() string { return fmt.Sprintf("v%d", w.fresh()) }

// ---- watch: watchers

type watchers struct {
	h      *history
	prefix string
	wg     sync.WaitGroup
	done   chan struct{} // closed when the last revision is known
	last   int64
}

// On every member: one from the beginning, and one that is closed and opened again where it stood.
func watchAll(dial func(int) *clientv3.Client, members int, h *history, prefix string) *watchers {
	ws := &watchers{h: h, prefix: prefix, done: make(chan struct{})}
	for i := 0; i < members; i++ {
		for _, again := range []bool{false, true} {
			ws.wg.Add(1)
			go func(c *clientv3.Client, again bool) {
				defer ws.wg.Done()
				defer c.Close()
				ws.watch(c, h.process(), again)
			}(dial(i), again)
		}
	}
	return ws
}

func (ws *watchers) watch(c *clientv3.Client, process int, again bool) {
	next := int64(1)
	for !ws.finished(next) {
		ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(context.Background()))
		ws.h.line(process, "invoke", "watch", ws.prefix, map[string]any{"prefix": true, "start": next})
		next = ws.read(ctx, c, process, next, again)
		cancel()
		ws.h.line(process, "info", "watch", ws.prefix, nil)
	}
}

// Everything up to the last revision was told.
func (ws *watchers) finished(next int64) bool {
	select {
	case <-ws.done:
		return next > ws.last
	default:
		return false
	}
}

// Reads until the watch ends, or for a while when it is opened again later; the next revision to ask for.
func (ws *watchers) read(ctx context.Context, c *clientv3.Client, process int, next int64, again bool) int64 {
	ch := c.Watch(ctx, ws.prefix, clientv3.WithPrefix(), clientv3.WithRev(next), clientv3.WithCreatedNotify())
	ask := time.NewTicker(200 * time.Millisecond)
	defer ask.Stop()
	for turns := 0; !ws.finished(next); {
		select {
		case r, ok := <-ch:
			if !ok || r.Err() != nil {
				return next
			}
			next = ws.tell(process, &r, next)
		case <-ask.C:
			// what stands still is told to be complete
			_ = c.RequestProgress(ctx)
			if turns++; again && turns == 3 {
				return next
			}
		}
	}
	return next
}

func (ws *watchers) tell(process int, r *clientv3.WatchResponse, next int64) int64 {
	out := map[string]any{"rev": r.Header.Revision}
	switch {
	case r.Created:
		out["created"] = true
	case r.IsProgressNotify():
		out["progress"] = true
		if r.Header.Revision >= next {
			next = r.Header.Revision + 1
		}
	default:
		var events []any
		for _, e := range r.Events {
			var value any
			kind := "delete"
			if e.Type == clientv3.EventTypePut {
				kind, value = "put", string(e.Kv.Value)
			}
			events = append(events, []any{kind, string(e.Kv.Key), value, e.Kv.ModRevision})
			next = e.Kv.ModRevision + 1
		}
		out["events"] = events
	}
	ws.h.line(process, "ok", "watch", ws.prefix, out)
	return next
}

// The writers have stopped: all watchers read until they were told everything.
func (ws *watchers) finish(c *clientv3.Client) {
	end := time.Now().Add(30 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		r, err := c.Get(ctx, ws.prefix)
		cancel()
		if err == nil {
			ws.last = r.Header.Revision
			break
		}
		must.Check(time.Now().Before(end), "no answer after the writers stopped: %v", err)
	}
	close(ws.done)
	all := make(chan struct{})
	go func() { ws.wg.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(30 * time.Second):
		must.Check(false, "watchers are not told all up to revision %d", ws.last)
	}
}
