// lease: a program of leases on etcd's own Go client. Exits 0 when all answers are right.
//
// For -seconds it keeps one lease alive while faults may happen around it, and lets others end: the
// kept one's key must never be missing, the others' keys must not vanish before their TTL and must
// vanish after it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sort"
	"strings"
	"time"

	"bonsai/clients/dial"
	"bonsai/clients/must"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// try repeats f while the cluster has no leader.
func try[T any](what string, f func(ctx context.Context) (T, error)) T {
	end := time.Now().Add(40 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		v, err := f(ctx)
		cancel()
		if err == nil {
			return v
		}
		must.Check(time.Now().Before(end), "%s: %v", what, err)
		time.Sleep(20 * time.Millisecond)
	}
}

type program struct {
	c      *clientv3.Client
	prefix string
}

func (p *program) present(key string) bool {
	return try("get "+key, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return p.c.Get(ctx, p.prefix+key)
	}).Count == 1
}

func (p *program) put(key string, id clientv3.LeaseID) {
	try("put "+key, func(ctx context.Context) (*clientv3.PutResponse, error) {
		return p.c.Put(ctx, p.prefix+key, "x", clientv3.WithLease(id))
	})
}

func (p *program) grant(ttl int64) clientv3.LeaseID {
	g := try("grant", func(ctx context.Context) (*clientv3.LeaseGrantResponse, error) {
		return p.c.Grant(ctx, ttl)
	})
	must.Check(g.TTL >= ttl && g.ID > 0, "grant: %v", g)
	return g.ID
}

// calls: each call of the service, once.
func (p *program) calls() {
	id := p.grant(600)
	p.put("b", id)
	p.put("a", id)
	ttl := try("ttl", func(ctx context.Context) (*clientv3.LeaseTimeToLiveResponse, error) {
		return p.c.TimeToLive(ctx, id, clientv3.WithAttachedKeys())
	})
	must.Check(ttl.GrantedTTL == 600 && ttl.TTL > 500 && ttl.TTL <= 602, "ttl: %v", ttl)
	sort.Slice(ttl.Keys, func(i, j int) bool { return string(ttl.Keys[i]) < string(ttl.Keys[j]) })
	must.Check(len(ttl.Keys) == 2 && string(ttl.Keys[0]) == p.prefix+"a", "keys: %q", ttl.Keys)
	once := try("keep alive", func(ctx context.Context) (*clientv3.LeaseKeepAliveResponse, error) {
		return p.c.KeepAliveOnce(ctx, id)
	})
	must.Check(once.ID == id && once.TTL == 600, "keep alive: %v", once)
	all := try("leases", func(ctx context.Context) (*clientv3.LeaseLeasesResponse, error) {
		return p.c.Leases(ctx)
	})
	found := false
	for _, l := range all.Leases {
		found = found || l.ID == id
	}
	must.Check(found, "the lease is not in the list")
	got := try("get", func(ctx context.Context) (*clientv3.GetResponse, error) {
		return p.c.Get(ctx, p.prefix+"a")
	})
	must.Check(got.Kvs[0].Lease == int64(id), "the key's lease: %v", got)
	for _, t := range []struct {
		result string
		value  clientv3.LeaseID
		holds  bool
	}{{"=", id, true}, {"=", 0, false}, {">", id - 1, true}, {"<", id, false}, {"!=", 0, true}} {
		txn := try("txn", func(ctx context.Context) (*clientv3.TxnResponse, error) {
			return p.c.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue(p.prefix+"a"), t.result, t.value)).Commit()
		})
		must.Check(txn.Succeeded == t.holds, "compare of a lease: %v", t)
	}
	try("revoke", func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) {
		r, err := p.c.Revoke(ctx, id)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) { // the first try got through
			return &clientv3.LeaseRevokeResponse{}, nil
		}
		return r, err
	})
	must.Check(!p.present("a") && !p.present("b"), "keys outlive their lease")
	gone := try("ttl", func(ctx context.Context) (*clientv3.LeaseTimeToLiveResponse, error) {
		return p.c.TimeToLive(ctx, id)
	})
	must.Check(gone.TTL == -1, "ttl of a lease that is gone: %v", gone)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := p.c.KeepAliveOnce(ctx, id)
	must.Check(errors.Is(err, rpctypes.ErrLeaseNotFound), "keep alive of a lease that is gone: %v", err)
	_, err = p.c.Grant(ctx, 9000000001)
	must.Check(err != nil && strings.Contains(err.Error(), "too large lease TTL"), "grant: %v", err)
}

// ends: a lease that nobody renews ends, and not early.
func (p *program) ends(ttl time.Duration, during func()) {
	asked := time.Now()
	id := p.grant(int64(ttl / time.Second))
	try("put", func(ctx context.Context) (*clientv3.PutResponse, error) {
		r, err := p.c.Put(ctx, p.prefix+"ends", "x", clientv3.WithLease(id))
		if errors.Is(err, rpctypes.ErrLeaseNotFound) && time.Since(asked) >= ttl {
			return r, nil // this program was that slow
		}
		return r, err
	})
	for {
		here := p.present("ends")
		after := time.Now()
		if !here {
			must.Check(after.Sub(asked) >= ttl, "the key was gone %v after the grant", after.Sub(asked))
			return
		}
		must.Check(after.Sub(asked) < ttl+60*time.Second, "the lease does not end")
		during()
		time.Sleep(20 * time.Millisecond)
	}
}

// untilNoLeader: a KeepAlive stream that wants a leader ends when there is none; one that does not
// care is told so by its renewal.
func (p *program) untilNoLeader() {
	id := p.grant(60)
	rpc := etcdserverpb.NewLeaseClient(p.c.ActiveConnection())
	open := func(ctx context.Context) etcdserverpb.Lease_LeaseKeepAliveClient {
		s, err := rpc.LeaseKeepAlive(ctx)
		must.Check(err == nil, "%v", err)
		must.Check(s.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(id)}) == nil, "send")
		r, err := s.Recv()
		must.Check(err == nil && r.TTL == 60, "renewal: %v %v", r, err)
		return s
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	wants, careless := open(clientv3.WithRequireLeader(ctx)), open(ctx)
	fmt.Println("READY")
	_, err := wants.Recv()
	must.Check(err != nil && strings.Contains(err.Error(), "etcdserver: no leader"), "%v", err)
	must.Check(careless.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(id)}) == nil, "send")
	_, err = careless.Recv()
	must.Check(err != nil && strings.Contains(err.Error(), "etcdserver: no leader"), "%v", err)
	refused, err := rpc.LeaseKeepAlive(clientv3.WithRequireLeader(ctx))
	must.Check(err == nil, "%v", err)
	_, err = refused.Recv()
	must.Check(err != nil && strings.Contains(err.Error(), "etcdserver: no leader"), "%v", err)
	fmt.Println("PASS")
}

func main() {
	noLeader := flag.Bool("until-no-leader", false, "only: what becomes of streams without a leader")
	endpoints := flag.String("endpoints", "", "host:port, separated by commas")
	prefix := flag.String("prefix", "go-lease/", "keys of this run")
	seconds := flag.Int("seconds", 3, "how long to keep a lease")
	flag.Parse()
	c, err := clientv3.New(dial.Config(strings.Split(*endpoints, ","), 5*time.Second))
	must.Check(err == nil, "%v", err)
	defer c.Close()
	p := &program{c, *prefix}
	if *noLeader {
		p.untilNoLeader()
		return
	}
	end := time.Now().Add(time.Duration(*seconds) * time.Second)

	id := p.grant(10)
	p.put("kept", id)
	ch, err := c.KeepAlive(context.Background(), id)
	must.Check(err == nil, "%v", err)
	beats := 0
	kept := func() {
		for {
			select {
			case r, open := <-ch:
				must.Check(open && r != nil && r.TTL > 0, "the kept lease was lost: %v", r)
				beats++
				continue
			default:
			}
			break
		}
		must.Check(p.present("kept"), "the key of the kept lease is gone")
	}
	fmt.Println("READY")
	p.calls()
	for once := true; once || time.Now().Before(end); once = false {
		p.ends(2*time.Second, kept)
	}
	kept()
	must.Check(beats > 0, "no answer to a keepalive")
	fmt.Println("PASS")
}
