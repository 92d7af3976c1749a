// locksraw: the services Lock and Election called as they are, through etcd's own generated stubs
// (v3lockpb, v3electionpb) and no library on top. Exits 0 when all answers are right.
package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"

	"bonsai/clients/dial"
	"bonsai/clients/must"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// is: the call was refused with this code and text.
func is(err error, code codes.Code, text string) {
	s, ok := status.FromError(err)
	must.Check(ok && s.Code() == code && s.Message() == text, "want %v %q, got %v", code, text, err)
}

func lease(ctx context.Context, c *clientv3.Client, ttl int64) int64 {
	return int64(must.Value(c.Grant(ctx, ttl)).ID)
}

// first waits until `count` keys stand in the queue of this name.
func queued(ctx context.Context, c *clientv3.Client, name string, count int64) {
	for {
		r := must.Value(c.Get(ctx, name+"/", clientv3.WithPrefix(), clientv3.WithCountOnly()))
		if r.Count == count {
			return
		}
	}
}

func locks(ctx context.Context, c *clientv3.Client) {
	l := v3lockpb.NewLockClient(c.ActiveConnection())
	name := []byte("raw-lock")
	one, two := lease(ctx, c, 60), lease(ctx, c, 60)
	a := must.Value(l.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: one}))
	must.Check(string(a.Key) == fmt.Sprintf("raw-lock/%x", one), "key %q", a.Key)
	again := must.Value(l.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: one}))
	must.Check(string(again.Key) == string(a.Key), "again %q", again.Key)

	// A lease of its own: the library sends a call again whose deadline the server saw first, and
	// what the repeated one takes away later must not be somebody else's place.
	late := lease(ctx, c, 60)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	_, err := l.Lock(short, &v3lockpb.LockRequest{Name: name, Lease: late})
	cancel()
	must.Check(status.Code(err) == codes.DeadlineExceeded, "held by another: %v", err)
	queued(ctx, c, "raw-lock", 1) // who gave up has left the queue
	must.Value(c.Revoke(ctx, clientv3.LeaseID(late)))

	got := make(chan *v3lockpb.LockResponse)
	go func() {
		got <- must.Value(l.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: two}))
	}()
	queued(ctx, c, "raw-lock", 2)
	select {
	case <-got:
		must.Check(false, "two holders")
	default:
	}
	must.Value(l.Unlock(ctx, &v3lockpb.UnlockRequest{Key: a.Key}))
	b := <-got
	must.Check(string(b.Key) == fmt.Sprintf("raw-lock/%x", two), "key %q", b.Key)
	kv := must.Value(c.Get(ctx, string(b.Key))).Kvs[0]
	must.Check(kv.Lease == two && kv.CreateRevision > a.Header.Revision, "fencing token of %v", kv)
	must.Value(c.Revoke(ctx, clientv3.LeaseID(two)))
	queued(ctx, c, "raw-lock", 0)

	_, err = l.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: two})
	is(err, codes.Unknown, "etcdserver: requested lease not found")
	must.Value(c.Revoke(ctx, clientv3.LeaseID(one)))
}

func elections(ctx context.Context, c *clientv3.Client) {
	e := v3electionpb.NewElectionClient(c.ActiveConnection())
	name := []byte("raw-vote")
	_, err := e.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
	is(err, codes.Unknown, "election: no leader")
	seen := must.Value(e.Observe(ctx, &v3electionpb.LeaderRequest{Name: name}))
	one, two := lease(ctx, c, 60), lease(ctx, c, 60)
	a := must.Value(e.Campaign(ctx, &v3electionpb.CampaignRequest{
		Name: name, Lease: one, Value: []byte("a")})).Leader
	must.Check(a.Lease == one && string(a.Name) == "raw-vote", "leader %v", a)
	next := func(value string) {
		kv := must.Value(seen.Recv()).Kv
		must.Check(string(kv.Value) == value, "seen %v, want %s", kv, value)
	}
	next("a")
	must.Value(e.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: a, Value: []byte("a!")}))
	next("a!")
	got := make(chan *v3electionpb.LeaderKey)
	go func() {
		got <- must.Value(e.Campaign(ctx, &v3electionpb.CampaignRequest{
			Name: name, Lease: two, Value: []byte("b")})).Leader
	}()
	queued(ctx, c, "raw-vote", 2)
	kv := must.Value(e.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})).Kv
	must.Check(string(kv.Value) == "a!" && kv.CreateRevision == a.Rev, "leader %v", kv)
	must.Value(e.Resign(ctx, &v3electionpb.ResignRequest{Leader: a}))
	b := <-got
	must.Check(b.Rev > a.Rev, "fencing tokens %d and %d", a.Rev, b.Rev)
	next("b")
	_, err = e.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: a, Value: []byte("late")})
	is(err, codes.Unknown, "election: not leader")
	_, err = e.Proclaim(ctx, &v3electionpb.ProclaimRequest{Value: []byte("who")})
	is(err, codes.Unknown, `"leader" field must be provided`)
	must.Value(e.Resign(ctx, &v3electionpb.ResignRequest{Leader: b}))
	_, err = e.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
	is(err, codes.Unknown, "election: no leader")
	for _, id := range []int64{one, two} {
		must.Value(c.Revoke(ctx, clientv3.LeaseID(id)))
	}
}

func main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	c := must.Value(clientv3.New(dial.Config(strings.Split(*endpoints, ","), 10*time.Second)))
	locks(ctx, c)
	elections(ctx, c)
	fmt.Println("PASS")
}
