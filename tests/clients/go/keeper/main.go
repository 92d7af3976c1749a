// keeper: what must hold over a whole run, whatever happens to the servers. Sets and lists are written,
// everything is watched, leases are kept and left, until SIGTERM; then the servers must be whole again,
// and it is checked that
//
//	set     what was acknowledged is there, and nothing that nobody wrote
//	append  each acknowledged id is in its list once; every read was a beginning of the final list, and
//	        held all that was known when it began
//	watch   every member told every revision, in order, once (-watch)
//	lease   no key with a lease went before its time to live had passed since the last keepalive that
//	        was acknowledged began; every lease that was left is gone in the end (-lease)
//
// Prints one summary line; exits 1 when something does not hold.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"bonsai/clients/dial"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

const callTime = 2 * time.Second

var (
	failures   []string
	failuresMu sync.Mutex
)

func failed(format string, args ...any) {
	failuresMu.Lock()
	defer failuresMu.Unlock()
	if len(failures) < 20 {
		failures = append(failures, fmt.Sprintf(format, args...))
	}
}

func connect(endpoint string) *clientv3.Client {
	quick := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}
	config := dial.Config([]string{endpoint}, time.Second)
	config.DialKeepAliveTime, config.DialKeepAliveTimeout = 2*time.Second, 2*time.Second
	config.DialOptions = []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
		Backoff: quick, MinConnectTimeout: time.Second})}
	c, err := clientv3.New(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
	return c
}

// eventually repeats until f succeeds: for the time after the faults.
func eventually(what string, limit time.Duration, f func() error) bool {
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return true
		}
	}
	failed("%s: not within %v: %v", what, limit, err)
	return false
}

func main() {
	endpoints := flag.String("endpoints", "", "host:port, separated by commas")
	prefix := flag.String("prefix", "keeper/", "of all keys written here")
	pause := flag.Duration("pause", 10*time.Millisecond, "between two calls of a client")
	doWatch := flag.Bool("watch", false, "watch all keys of the servers at every member")
	doLease := flag.Bool("lease", false, "keep leases")
	setFile := flag.String("set-history", "", "file for the history of the sets, as JSON lines")
	listFile := flag.String("list-history", "", "file for the history of the lists, as JSON lines")
	limit := flag.Duration("limit", 10*time.Minute, "ends then without SIGTERM")
	flag.Parse()
	eps := strings.Split(*endpoints, ",")
	run, stop := context.WithCancel(context.Background())
	var clients []*clientv3.Client
	for _, e := range eps {
		clients = append(clients, connect(e))
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)

	var writers, watchers sync.WaitGroup
	sets, lists, leases := newSets(*prefix), newLists(*prefix), newLeases(*prefix)
	var watches []*watch
	if *doWatch {
		from := firstRevision(clients[0])
		for i, c := range clients {
			w := newWatch(eps[i], from, leases)
			watches = append(watches, w)
			watchers.Add(1)
			go func(c *clientv3.Client) { defer watchers.Done(); w.run(c) }(c)
		}
	}
	for i, c := range clients {
		i, c := i, c
		for _, work := range []func(context.Context, *clientv3.Client, int, time.Duration){sets.run, lists.run} {
			work := work
			writers.Add(1)
			go func() { defer writers.Done(); work(run, c, i, *pause) }()
		}
		if *doLease {
			writers.Add(1)
			go func() { defer writers.Done(); leases.run(run, c, i) }()
		}
	}
	fmt.Println("running")
	select {
	case <-signals:
	case <-time.After(*limit):
	}
	stop()
	writers.Wait()
	for i, c := range clients {
		sets.check(c, eps[i], 100+i)
		lists.check(c, eps[i], 100+i)
	}
	if *doLease {
		leases.check(clients[0])
	}
	if *doWatch {
		last := lastRevision(clients[0])
		for _, w := range watches {
			w.finish(last)
		}
		watchers.Wait()
		for _, w := range watches[1:] {
			w.compare(watches[0])
		}
	}
	for file, h := range map[string]*history{*setFile: sets.history, *listFile: lists.history} {
		if file != "" {
			if err := h.write(file); err != nil {
				failed("%v", err)
			}
		}
	}
	fmt.Printf("%s %s %s", sets, lists, leases)
	for _, w := range watches {
		fmt.Printf(" %s", w)
	}
	fmt.Println()
	for _, f := range failures {
		fmt.Println("FAIL:", f)
	}
	if len(failures) > 0 {
		os.Exit(1)
	}
}

func firstRevision(c *clientv3.Client) (rev int64) {
	eventually("a first revision", time.Minute, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), callTime)
		defer cancel()
		r, err := c.Get(ctx, "nothing")
		if err == nil {
			rev = r.Header.Revision
		}
		return err
	})
	return rev + 1
}

func lastRevision(c *clientv3.Client) int64 { return firstRevision(c) - 1 }
