// watch: a program of watches on etcd's own Go client. Exits 0 when every event was right.
//
//	watch -endpoints a,b,c               history, filters, fragments, progress, compaction, many watches
//	watch -endpoints a,b,c -through 60   through/000 .. 059, written by someone else, each once, in order
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"bonsai/clients/dial"
	"bonsai/clients/must"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// collect reads until it has n events.
func collect(w clientv3.WatchChan, n int) []*clientv3.Event {
	var events []*clientv3.Event
	for len(events) < n {
		r, open := <-w
		must.Check(open, "the channel was closed after %d events", len(events))
		must.Check(r.Err() == nil, "watch: %v", r.Err())
		events = append(events, r.Events...)
	}
	must.Check(len(events) == n, "%d events, not %d", len(events), n)
	return events
}

func through(ctx context.Context, c *clientv3.Client, n int) {
	w := c.Watch(ctx, "through/", clientv3.WithPrefix(), clientv3.WithRev(1))
	fmt.Println("WATCHING")
	for i, e := range collect(w, n) {
		must.Check(string(e.Kv.Key) == fmt.Sprintf("through/%03d", i), "event %d is %s", i, e.Kv.Key)
	}
}

func history(ctx context.Context, c *clientv3.Client, prefix string) {
	first := must.Value(c.Put(ctx, prefix+"a", "1")).Header.Revision
	must.Value(c.Put(ctx, prefix+"a", "2"))
	must.Value(c.Delete(ctx, prefix+"a"))
	events := collect(c.Watch(ctx, prefix+"a", clientv3.WithRev(first), clientv3.WithPrevKV()), 3)
	must.Check(events[0].IsCreate() && events[0].PrevKv == nil, "create: %v", events[0])
	must.Check(events[1].IsModify() && string(events[1].PrevKv.Value) == "1", "modify: %v", events[1])
	must.Check(events[2].Type == mvccpb.DELETE && string(events[2].PrevKv.Value) == "2", "delete: %v", events[2])
	only := collect(c.Watch(ctx, prefix+"a", clientv3.WithRev(first), clientv3.WithFilterPut()), 1)
	must.Check(only[0].Type == mvccpb.DELETE, "filter: %v", only[0])
}

func fragments(ctx context.Context, c *clientv3.Client, prefix string) {
	value := strings.Repeat("v", 900*1024)
	var first int64
	for i := 0; i < 4; i++ {
		r := must.Value(c.Put(ctx, fmt.Sprintf("%sbig/%d", prefix, i), value))
		if i == 0 {
			first = r.Header.Revision
		}
	}
	must.Value(c.Delete(ctx, prefix+"big/", clientv3.WithPrefix()))
	w := c.Watch(ctx, prefix+"big/", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithPrevKV(), clientv3.WithFragment())
	for i, e := range collect(w, 8) {
		must.Check(string(e.Kv.Key) == fmt.Sprintf("%sbig/%d", prefix, i%4), "event %d is %s", i, e.Kv.Key)
		must.Check(i < 4 || len(e.PrevKv.Value) == len(value), "the previous value is cut")
	}
}

func progress(ctx context.Context, c *clientv3.Client, prefix string) {
	w := c.Watch(ctx, prefix+"none", clientv3.WithCreatedNotify())
	r := <-w
	must.Check(r.Created, "created: %v", r)
	rev := must.Value(c.Put(ctx, prefix+"other", "x")).Header.Revision
	for {
		must.Check(c.RequestProgress(ctx) == nil, "progress")
		select {
		case r = <-w:
		case <-time.After(time.Second): // a member that is behind tells an older revision first
			continue
		}
		must.Check(r.IsProgressNotify(), "progress: %v", r)
		if r.Header.Revision >= rev {
			return
		}
	}
}

func many(ctx context.Context, c *clientv3.Client, prefix string) {
	var watches []clientv3.WatchChan
	for i := 0; i < 100; i++ {
		w := c.Watch(ctx, prefix+"many", clientv3.WithCreatedNotify())
		must.Check((<-w).Created, "created")
		watches = append(watches, w)
	}
	rev := must.Value(c.Put(ctx, prefix+"many", "x")).Header.Revision
	for _, w := range watches {
		must.Check(collect(w, 1)[0].Kv.ModRevision == rev, "revision")
	}
}

func compaction(ctx context.Context, c *clientv3.Client, prefix string) {
	old := must.Value(c.Put(ctx, prefix+"c", "1")).Header.Revision
	now := must.Value(c.Put(ctx, prefix+"c", "2")).Header.Revision
	if _, err := c.Compact(ctx, now); err != nil {
		must.Check(errors.Is(err, rpctypes.ErrCompacted), "compact: %v", err)
	}
	r := clientv3.WatchResponse{}
	for r.Err() == nil { // a member that has not heard of the compaction still tells the old events
		r = <-c.Watch(ctx, prefix+"c", clientv3.WithRev(old))
	}
	must.Check(errors.Is(r.Err(), rpctypes.ErrCompacted) && r.CompactRevision >= now, "compacted: %v", r.Err())
}

func main() {
	endpoints := flag.String("endpoints", "", "host:port, separated by commas")
	prefix := flag.String("prefix", "gowatch/", "keys of this run")
	n := flag.Int("through", 0, "how many keys under through/ to see")
	flag.Parse()
	config := dial.Config(strings.Split(*endpoints, ","), 5*time.Second)
	config.DialKeepAliveTime = 10 * time.Second
	config.DialKeepAliveTimeout = 5 * time.Second
	c := must.Value(clientv3.New(config))
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	ctx = clientv3.WithRequireLeader(ctx)
	if *n > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), 100*time.Second) // through the time without one
		defer cancel()
		through(ctx, c, *n)
	} else {
		history(ctx, c, *prefix)
		fragments(ctx, c, *prefix)
		progress(ctx, c, *prefix)
		many(ctx, c, *prefix)
		compaction(ctx, c, *prefix)
		must.Value(c.Delete(ctx, *prefix, clientv3.WithPrefix()))
	}
	fmt.Println("PASS")
}
