// locks: the concurrency package of etcd's own Go client: Session, Mutex, Election. Exits 0 when all
// answers are right.
//
// Several sessions take one lock in turn and count under it; they campaign one after the other
// while another one observes. With -seconds it goes on for so long, while faults may happen.
package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"time"

	"bonsai/clients/dial"
	"bonsai/clients/must"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

var (
	mu     sync.Mutex
	newest int64 // fencing token that the protected thing has seen
	turns  int
)

// The protected thing: refuses a token older than the newest.
func write(token int64) bool {
	mu.Lock()
	defer mu.Unlock()
	if token < newest {
		return false
	}
	newest = token
	turns++
	return true
}

func session(c *clientv3.Client) *concurrency.Session {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		l, err := c.Grant(ctx, 5)
		cancel()
		if err == nil {
			s, err := concurrency.NewSession(c, concurrency.WithLease(l.ID))
			if err == nil {
				return s
			}
		}
	}
}

func locker(c *clientv3.Client, end time.Time) {
	s := session(c)
	defer func() { s.Close() }()
	for n := 0; n < 5 || time.Now().Before(end); n++ {
		m := concurrency.NewMutex(s, "go-lock")
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := m.Lock(ctx)
		if err == nil {
			r, err := c.Get(ctx, m.Key())
			if err == nil && len(r.Kvs) == 1 {
				write(r.Kvs[0].CreateRevision)
			}
			_ = m.Unlock(ctx) // the lease ends it otherwise
		}
		cancel()
		select {
		case <-s.Done():
			s = session(c)
		default:
			if err != nil {
				s.Close()
				s = session(c)
			}
		}
	}
}

func elect(c *clientv3.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	watcher := concurrency.NewElection(session(c), "go-elect")
	seen := watcher.Observe(ctx)
	for i := 0; i < 3; i++ {
		s := session(c)
		e := concurrency.NewElection(s, "go-elect")
		value := fmt.Sprint("leader-", i)
		must.Check(e.Campaign(ctx, value) == nil, "campaign")
		for r := range seen {
			if string(r.Kvs[0].Value) == value {
				break
			}
		}
		l, err := watcher.Leader(ctx)
		must.Check(err == nil && string(l.Kvs[0].Value) == value, "leader: %v", err)
		must.Check(e.Proclaim(ctx, value+"!") == nil, "proclaim")
		r := <-seen
		must.Check(string(r.Kvs[0].Value) == value+"!", "seen %q", r.Kvs[0].Value)
		must.Check(e.Resign(ctx) == nil, "resign")
		s.Close()
	}
	_, err := watcher.Leader(ctx)
	must.Check(err == concurrency.ErrElectionNoLeader, "no leader: %v", err)
}

func main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "")
	seconds := flag.Float64("seconds", 0, "")
	flag.Parse()
	c, err := clientv3.New(dial.Config(strings.Split(*endpoints, ","), 10*time.Second))
	must.Check(err == nil, "%v", err)
	elect(c)
	fmt.Println("READY")
	end := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
	var all sync.WaitGroup
	for i := 0; i < 4; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			locker(c, end)
		}()
	}
	all.Wait()
	must.Check(turns >= 8, "the lock went round %d times", turns)
	fmt.Println("PASS", turns)
}
