// kvtxn: a program of KV and transactions on etcd's own Go client. Exits 0 when all answers are right.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"bonsai/clients/dial"
	"bonsai/clients/must"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	endpoints := flag.String("endpoints", "", "host:port, separated by commas")
	prefix := flag.String("prefix", "go/", "keys of this run")
	flag.Parse()
	c := must.Value(clientv3.New(dial.Config(strings.Split(*endpoints, ","), 5*time.Second)))
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	kv := func(name string) string { return *prefix + name }

	must.Value(c.Delete(ctx, *prefix, clientv3.WithPrefix()))
	first := must.Value(c.Put(ctx, kv("a"), "1"))
	second := must.Value(c.Put(ctx, kv("a"), "2", clientv3.WithPrevKV()))
	must.Check(second.Header.Revision > first.Header.Revision, "revision did not grow")
	must.Check(string(second.PrevKv.Value) == "1", "prev_kv is %q", second.PrevKv.Value)
	got := must.Value(c.Get(ctx, kv("a")))
	must.Check(got.Count == 1 && string(got.Kvs[0].Value) == "2" && got.Kvs[0].Version == 2, "get: %v", got)
	old := must.Value(c.Get(ctx, kv("a"), clientv3.WithRev(first.Header.Revision)))
	must.Check(string(old.Kvs[0].Value) == "1", "old revision: %v", old)

	for i := 0; i < 100; i++ {
		must.Value(c.Put(ctx, kv(fmt.Sprintf("p/%03d", i)), fmt.Sprint(i)))
	}
	page := must.Value(c.Get(ctx, kv("p/"), clientv3.WithPrefix(), clientv3.WithLimit(10)))
	must.Check(len(page.Kvs) == 10 && page.More && page.Count == 100, "page: %d %v %d", len(page.Kvs), page.More, page.Count)
	desc := must.Value(c.Get(ctx, kv("p/"), clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(1)))
	must.Check(string(desc.Kvs[0].Key) == kv("p/099"), "last key: %s", desc.Kvs[0].Key)
	must.Check(must.Value(c.Get(ctx, kv("p/"), clientv3.WithPrefix(), clientv3.WithCountOnly())).Count == 100, "count")

	txn := must.Value(c.Txn(ctx).If(
		clientv3.Compare(clientv3.Value(kv("a")), "=", "2"),
		clientv3.Compare(clientv3.Version(kv("none")), "=", 0),
	).Then(
		clientv3.OpPut(kv("a"), "3"), clientv3.OpGet(kv("a")), clientv3.OpDelete(kv("p/"), clientv3.WithPrefix()),
		clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value(kv("a")), "=", "3")},
			[]clientv3.Op{clientv3.OpPut(kv("nested"), "yes")}, []clientv3.Op{clientv3.OpPut(kv("nested"), "no")}),
	).Else(clientv3.OpPut(kv("a"), "lost")).Commit())
	must.Check(txn.Succeeded, "txn took the wrong branch")
	must.Check(string(txn.Responses[1].GetResponseRange().Kvs[0].Value) == "3", "a later op does not see an earlier write")
	must.Check(txn.Responses[2].GetResponseDeleteRange().Deleted == 100, "deleted %d", txn.Responses[2].GetResponseDeleteRange().Deleted)
	nested := must.Value(c.Get(ctx, kv("nested")))
	// a nested transaction compares at the state before the whole one: there a was still "2"
	must.Check(string(nested.Kvs[0].Value) == "no", "nested: %s", nested.Kvs[0].Value)
	must.Check(nested.Kvs[0].ModRevision == txn.Header.Revision, "one txn, two revisions")

	big := bytes.Repeat([]byte("x"), 1024*1024)
	must.Value(c.Put(ctx, kv("big"), string(big)))
	must.Check(bytes.Equal(must.Value(c.Get(ctx, kv("big"))).Kvs[0].Value, big), "a value of 1 MiB came back changed")

	_, err := c.Put(ctx, "", "x")
	must.Check(errors.Is(err, rpctypes.ErrEmptyKey), "empty key: %v", err)
	_, err = c.Get(ctx, kv("a"), clientv3.WithRev(1<<40))
	must.Check(errors.Is(err, rpctypes.ErrFutureRev), "future revision: %v", err)
	_, err = c.Put(ctx, kv("x"), strings.Repeat("x", 1600*1024))
	must.Check(errors.Is(err, rpctypes.ErrRequestTooLarge), "too large: %v", err)
	_, err = c.Txn(ctx).Then(clientv3.OpPut(kv("d"), "1"), clientv3.OpPut(kv("d"), "2")).Commit()
	must.Check(errors.Is(err, rpctypes.ErrDuplicateKey), "duplicate key: %v", err)
	must.Value(c.Delete(ctx, *prefix, clientv3.WithPrefix()))
	fmt.Println("PASS")
}
