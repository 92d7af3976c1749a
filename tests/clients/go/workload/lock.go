package main

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const leaseSeconds = 2

// ---- lock: a key that hangs on the holder's lease; its create revision is the fencing token

// One life of a holder: a lease, then the lock, guarded writes and keepalives, a release or none.
func (w *worker) lockStep() {
	id := int64(1_000_000 + w.fresh())
	name := fmt.Sprint(id)
	lives := false
	w.call("grant", name, map[string]any{"ttl_ms": leaseSeconds * 1000}, func() (any, error) {
		ctx, cancel := w.ctx()
		defer cancel()
		r, err := pb.NewLeaseClient(w.c.ActiveConnection()).LeaseGrant(ctx,
			&pb.LeaseGrantRequest{TTL: leaseSeconds, ID: id})
		if err != nil {
			return nil, err
		}
		lives = true
		return map[string]any{"ttl_ms": r.TTL * 1000}, nil
	})
	if !lives {
		return
	}
	lock := w.prefix + "lock"
	holder := w.process
	token := w.acquire(lock, name, clientv3.LeaseID(id))
	for i := w.rnd.Intn(8); i > 0 && token != 0 && w.process == holder; i-- {
		w.use(lock, token)
		if w.process == holder && w.rnd.Intn(3) == 0 {
			w.keepalive(name, clientv3.LeaseID(id))
		}
		time.Sleep(time.Duration(w.rnd.Intn(20)) * time.Millisecond)
	}
	if w.process != holder {
		return // another process now: the lock and the lease are not its own
	}
	if token != 0 && w.rnd.Intn(4) > 0 {
		w.release(lock, token)
	} else if w.rnd.Intn(2) == 0 {
		w.call("revoke", name, nil, func() (any, error) {
			ctx, cancel := w.ctx()
			defer cancel()
			_, err := w.c.Revoke(ctx, clientv3.LeaseID(id))
			return nil, err
		})
	}
	if w.rnd.Intn(4) == 0 {
		time.Sleep(time.Duration(w.rnd.Intn(leaseSeconds*1500)) * time.Millisecond)
	}
	w.look(name, clientv3.LeaseID(id))
}

// The token, or 0: somebody else holds it, or nobody knows.
func (w *worker) acquire(lock, lease string, id clientv3.LeaseID) (token int64) {
	w.call("acquire", "lock", map[string]any{"lease": lease}, func() (any, error) {
		ctx, cancel := w.ctx()
		defer cancel()
		r, err := w.c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(lock), "=", 0)).
			Then(clientv3.OpPut(lock, lease, clientv3.WithLease(id))).Commit()
		if err == rpctypes.ErrLeaseNotFound {
			return nil, failure{err}
		}
		if err != nil {
			return nil, err
		}
		if !r.Succeeded {
			return nil, failure{fmt.Errorf("held")}
		}
		token = r.Header.Revision
		return map[string]any{"token": token, "lease": lease}, nil
	})
	return token
}

// A write that only the holder of this very token may do.
func (w *worker) use(lock string, token int64) {
	w.call("use", "disk", map[string]any{"token": token}, func() (any, error) {
		return nil, w.guarded(lock, token, clientv3.OpPut(w.prefix+"disk", fmt.Sprint(token)))
	})
}

func (w *worker) release(lock string, token int64) {
	w.call("release", "lock", nil, func() (any, error) {
		return nil, w.guarded(lock, token, clientv3.OpDelete(lock))
	})
}

func (w *worker) guarded(lock string, token int64, op clientv3.Op) error {
	ctx, cancel := w.ctx()
	defer cancel()
	r, err := w.c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(lock), "=", token)).Then(op).Commit()
	if err == nil && !r.Succeeded {
		return failure{fmt.Errorf("not the holder any more")}
	}
	return err
}

func (w *worker) keepalive(name string, id clientv3.LeaseID) {
	w.call("keepalive", name, nil, func() (any, error) {
		ctx, cancel := w.ctx()
		defer cancel()
		r, err := w.c.KeepAliveOnce(ctx, id)
		if err == rpctypes.ErrLeaseNotFound {
			return map[string]any{"ttl_ms": 0}, nil
		}
		if err != nil {
			return nil, err
		}
		return map[string]any{"ttl_ms": r.TTL * 1000}, nil
	})
}

func (w *worker) look(name string, id clientv3.LeaseID) {
	w.call("look", name, nil, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		r, err := w.c.TimeToLive(ctx, id)
		if err != nil {
			return nil, failure{err}
		}
		if r.TTL < 0 {
			return map[string]any{"ttl_ms": -1}, nil
		}
		return map[string]any{"ttl_ms": r.TTL * 1000}, nil
	})
}
