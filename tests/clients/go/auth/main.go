// auth: a user of etcd's own Go client: what it may, what it may not, a token that expires meanwhile,
// changes of its roles while it works. With -root it first makes the user, and turns auth on.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: %s: %v\n", what, err)
		os.Exit(1)
	}
}

func denied(what string, err error, text string) {
	if err == nil || !strings.Contains(err.Error(), text) {
		must(what, fmt.Errorf("want %q, got %v", text, err))
	}
}

func dial(endpoints, user, password string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: strings.Split(endpoints, ","),
		DialTimeout: 10 * time.Second, Username: user, Password: password})
}

func makeUsers(ctx context.Context, endpoints, password string) *clientv3.Client {
	c, err := dial(endpoints, "", "")
	must("dial", err)
	_, err = c.UserAdd(ctx, "root", "top")
	must("user add root", err)
	_, err = c.UserGrantRole(ctx, "root", "root")
	must("grant root", err)
	_, err = c.UserAdd(ctx, "ann", password)
	must("user add", err)
	_, err = c.RoleAdd(ctx, "app")
	must("role add", err)
	_, err = c.RoleGrantPermission(ctx, "app", "/app/", clientv3.GetPrefixRangeEnd("/app/"),
		clientv3.PermissionType(clientv3.PermReadWrite))
	must("grant permission", err)
	_, err = c.UserGrantRole(ctx, "ann", "app")
	must("grant role", err)
	_, err = c.AuthEnable(ctx)
	must("enable", err)
	c.Close()
	root, err := dial(endpoints, "root", "top")
	must("dial as root", err)
	st, err := root.AuthStatus(ctx)
	must("status", err)
	if !st.Enabled || st.AuthRevision == 0 {
		must("status", fmt.Errorf("%v", st))
	}
	return root
}

func main() {
	endpoints := flag.String("endpoints", "", "host:port,...")
	idle := flag.Duration("idle", 0, "longer than a token lives")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	root := makeUsers(ctx, *endpoints, "hers")
	ann, err := dial(*endpoints, "ann", "hers")
	must("dial as ann", err)

	for i := 0; i < 20; i++ { // on all members in turn, with one token
		_, err = ann.Put(ctx, "/app/go", fmt.Sprint(i))
		must("put", err)
	}
	_, err = ann.Put(ctx, "/other", "1")
	denied("put", err, "permission denied")
	_, err = ann.Get(ctx, "/app/", clientv3.WithFromKey())
	denied("get", err, "permission denied")
	w := <-ann.Watch(ctx, "/other")
	denied("watch", w.Err(), "permission denied")

	watch := ann.Watch(ctx, "/app/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	w = <-watch
	must("watch", w.Err())
	_, err = root.Put(ctx, "/app/seen", "1")
	must("put as root", err)
	w = <-watch
	must("event", w.Err())
	if len(w.Events) == 0 || string(w.Events[0].Kv.Key) != "/app/seen" {
		must("event", fmt.Errorf("%v", w))
	}

	time.Sleep(*idle)
	_, err = ann.Put(ctx, "/app/go", "later") // a new token when the old one is gone
	must("put after a while", err)
	_, err = root.UserRevokeRole(ctx, "ann", "app")
	must("revoke", err)
	_, err = ann.Put(ctx, "/app/go", "gone")
	denied("put without the role", err, "permission denied")
	_, err = root.UserChangePassword(ctx, "ann", "new")
	must("change password", err)
	_, err = dial(*endpoints, "ann", "hers")
	denied("the old password", err, "invalid user ID or password")
	_, err = root.UserGrantRole(ctx, "ann", "app")
	must("grant role again", err)
	fmt.Println("OK")
}
