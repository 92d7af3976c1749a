// kvtxn: a program of KV and transactions on etcd's own Go client. Exits 0 when all answers are right.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"bonsai/clients/dial"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func check(ok bool, format string, args ...any) {
	if !ok {
		fmt.Fprintf(os.Stderr, "FAIL: "+format+"\n", args...)
		os.Exit(1)
	}
}

func must[T any](v T, err error) T {
	check(err == nil, "%v", err)
	return v
}

func main() {
	endpoints := flag.String("endpoints", "", "host:port, separated by commas")
	prefix := flag.String("prefix", "go/", "keys of this run")
	flag.Parse()
	c := must(clientv3.New(dial.Config(strings.Split(*endpoints, ","), 5*time.Second)))
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	kv := func(name string) string { return *prefix + name }

	must(c.Delete(ctx, *prefix, clientv3.WithPrefix()))
	first := must(c.Put(ctx, kv("a"), "1"))
	second := must(c.Put(ctx, kv("a"), "2", clientv3.WithPrevKV()))
	check(second.Header.Revision > first.Header.Revision, "revision did not grow")
	check(string(second.PrevKv.Value) == "1", "prev_kv is %q", second.PrevKv.Value)
	got := must(c.Get(ctx, kv("a")))
	check(got.Count == 1 && string(got.Kvs[0].Value) == "2" && got.Kvs[0].Version == 2, "get: %v", got)
	old := must(c.Get(ctx, kv("a"), clientv3.WithRev(first.Header.Revision)))
	check(string(old.Kvs[0].Value) == "1", "old revision: %v", old)

	for i := 0; i < 100; i++ {
		must(c.Put(ctx, kv(fmt.Sprintf("p/%03d", i)), fmt.Sprint(i)))
	}
	page := must(c.Get(ctx, kv("p/"), clientv3.WithPrefix(), clientv3.WithLimit(10)))
	check(len(page.Kvs) == 10 && page.More && page.Count == 100, "page: %d %v %d", len(page.Kvs), page.More, page.Count)
	desc := must(c.Get(ctx, kv("p/"), clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(1)))
	check(string(desc.Kvs[0].Key) == kv("p/099"), "last key: %s", desc.Kvs[0].Key)
	check(must(c.Get(ctx, kv("p/"), clientv3.WithPrefix(), clientv3.WithCountOnly())).Count == 100, "count")

	txn := must(c.Txn(ctx).If(
		clientv3.Compare(clientv3.Value(kv("a")), "=", "2"),
		clientv3.Compare(clientv3.Version(kv("none")), "=", 0),
	).Then(
		clientv3.OpPut(kv("a"), "3"), clientv3.OpGet(kv("a")), clientv3.OpDelete(kv("p/"), clientv3.WithPrefix()),
		clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Value(kv("a")), "=", "3")},
			[]clientv3.Op{clientv3.OpPut(kv("nested"), "yes")}, []clientv3.Op{clientv3.OpPut(kv("nested"), "no")}),
	).Else(clientv3.OpPut(kv("a"), "lost")).Commit())
	check(txn.Succeeded, "txn took the wrong branch")
	check(string(txn.Responses[1].GetResponseRange().Kvs[0].Value) == "3", "a later op does not see an earlier write")
	check(txn.Responses[2].GetResponseDeleteRange().Deleted == 100, "deleted %d", txn.Responses[2].GetResponseDeleteRange().Deleted)
	nested := must(c.Get(ctx, kv("nested")))
	// a nested transaction compares at the state before the whole one: there a was still "2"
	check(string(nested.Kvs[0].Value) == "no", "nested: %s", nested.Kvs[0].Value)
	check(nested.Kvs[0].ModRevision == txn.Header.Revision, "one txn, two revisions")

	big := bytes.Repeat([]byte("x"), 1024*1024)
	must(c.Put(ctx, kv("big"), string(big)))
	check(bytes.Equal(must(c.Get(ctx, kv("big"))).Kvs[0].Value, big), "a value of 1 MiB came back changed")

	_, err := c.Put(ctx, "", "x")
	check(errors.Is(err, rpctypes.ErrEmptyKey), "empty key: %v", err)
	_, err = c.Get(ctx, kv("a"), clientv3.WithRev(1<<40))
	check(errors.Is(err, rpctypes.ErrFutureRev), "future revision: %v", err)
	_, err = c.Put(ctx, kv("x"), strings.Repeat("x", 1600*1024))
	check(errors.Is(err, rpctypes.ErrRequestTooLarge), "too large: %v", err)
	_, err = c.Txn(ctx).Then(clientv3.OpPut(kv("d"), "1"), clientv3.OpPut(kv("d"), "2")).Commit()
	check(errors.Is(err, rpctypes.ErrDuplicateKey), "duplicate key: %v", err)
	must(c.Delete(ctx, *prefix, clientv3.WithPrefix()))
	fmt.Println("PASS")
}
