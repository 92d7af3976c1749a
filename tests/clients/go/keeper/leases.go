package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const ttl = 3 // seconds; small, and above what every server grants at least

// leases: of two kinds. Kept ones get a keepalive each 700 ms; left ones get none. The time of a lease
// begins, at the earliest, when the last acknowledged grant or keepalive began.
type leases struct {
	prefix string
	mu     sync.Mutex
	live   map[string]*lease // by key
	kept   int
	left   int
	lost   int // kept ones that ended all the same: allowed, when keepalives could not get through
}

type lease struct {
	id       clientv3.LeaseID
	earliest time.Time
	kept     bool
}

func newLeases(prefix string) *leases {
	return &leases{prefix: prefix + "lease/", live: map[string]*lease{}}
}

func (l *leases) run(run context.Context, c *clientv3.Client, id int) {
	var mine *lease
	for n := 0; run.Err() == nil; n++ {
		if mine == nil || !l.keep(c, mine) {
			mine = l.grant(c, fmt.Sprintf("%skept/%d.%d", l.prefix, id, n), true)
		}
		if n%4 == 0 {
			l.grant(c, fmt.Sprintf("%sleft/%d.%d", l.prefix, id, n), false)
		}
		select {
		case <-run.Done():
		case <-time.After(700 * time.Millisecond):
		}
	}
}

// grant makes a lease with one key. The key is known before it is written: its end may be told early.
func (l *leases) grant(c *clientv3.Client, key string, kept bool) *lease {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	began := time.Now()
	g, err := c.Grant(ctx, ttl)
	if err != nil {
		return nil
	}
	mine := &lease{id: g.ID, earliest: began.Add(time.Duration(g.TTL) * time.Second), kept: kept}
	l.mu.Lock()
	l.live[key] = mine
	if kept {
		l.kept++
	} else {
		l.left++
	}
	l.mu.Unlock()
	if _, err := c.Put(ctx, key, "x", clientv3.WithLease(g.ID)); err != nil {
		return nil // it may be there; if so it goes with the lease
	}
	return mine
}

// keep reports whether the lease is still there.
func (l *leases) keep(c *clientv3.Client, mine *lease) bool {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	began := time.Now()
	k, err := c.KeepAliveOnce(ctx, mine.id)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && k.TTL > 0 {
		if at := began.Add(time.Duration(k.TTL) * time.Second); at.After(mine.earliest) {
			mine.earliest = at
		}
		return true
	}
	return err != nil && time.Now().Before(mine.earliest)
}

// gone is told by a watch: the key was deleted.
func (l *leases) gone(key string, revision int64) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	mine := l.live[key]
	if mine == nil {
		return
	}
	if now.Before(mine.earliest) {
		failed("%s went %v before its time, at revision %d", key, mine.earliest.Sub(now), revision)
	}
	if mine.kept {
		l.lost++
	}
	delete(l.live, key)
}

// check waits until all leases have run out, which they must in the end.
func (l *leases) check(c *clientv3.Client) {
	eventually("leases run out", time.Minute, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), callTime)
		defer cancel()
		r, err := c.Get(ctx, l.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && r.Count > 0 {
			err = fmt.Errorf("%d keys are left", r.Count)
		}
		return err
	})
}

func (l *leases) String() string {
	return fmt.Sprintf("lease: kept=%d of which %d ran out, left=%d", l.kept, l.lost, l.left)
}
