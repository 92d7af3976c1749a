"""What one client may cost, and what happens at each limit: a named refusal, and life goes on."""
import socket
import subprocess
import urllib.error

import pytest

import h2raw as h2
import load
from cluster import Cluster, wait_for
from conftest import need

GIB = 1 << 30
NO_SPACE = "etcdserver: mvcc: database space exceeded"


def peak_while(process, node):
    """Highest resident memory of the node until the process ends, KiB."""
    peak = 0
    while True:
        peak = max(peak, node.rss_kib())
        try:
            process.wait(0.02)
            return peak
        except subprocess.TimeoutExpired:
            pass


def test_a_client_that_never_reads_costs_a_bounded_amount():
    size = 32 * 1024
    with Cluster(1) as c:
        n = c.nodes[0]
        load.run(n.endpoint, clients=4, seconds=1, keys=128, value_bytes=size)
        alone = load.run(n.endpoint, clients=8, conns=2, op="get", keys=128, seconds=1)
        assert n.stop() == 0  # memory as it is when idle, and nothing cached
        n.start()
        wait_for("healthy", n.healthy)
        idle = n.rss_kib()
        with h2.Conn(n, (4, h2.WINDOW_MAX), receive_buffer=4096) as deaf:
            deaf.send(h2.frame(h2.WINDOW, payload=(h2.WINDOW_MAX - 65535).to_bytes(4, "big")))
            everything = h2.field(1, b"bench/") + h2.field(2, b"bench0")
            for i in range(100):  # up to 4 MiB each, none of it ever read
                deaf.send(h2.request(2 * i + 1, "/etcdserverpb.KV/Range", everything))
            got, peak = 0, 0
            while got < GIB:
                run = load.start(n.endpoint, clients=8, conns=2, op="get", keys=128, seconds=2)
                peak = max(peak, peak_while(run, n))
                others = load.finish(run)
                got += others["ops"] * size
            print(f"idle {idle >> 10} MiB, peak {peak >> 10} MiB, {got / GIB:.1f} GiB read")
            assert peak - idle < 64 * 1024
            assert others["ops_per_s"] > 0.2 * alone["ops_per_s"]
        c.ctl("put", "after", "v")


def test_a_full_quota_refuses_writes_and_serves_reads():
    need("etcdctl", "the real client")
    with Cluster(1, flags=["--quota-backend-bytes", str(2 << 20)]) as c:
        n = c.nodes[0]

        def full():
            code, _, err = c.ctl("put", "big", stdin="v" * 200_000, ok=None)
            assert code == 0 or NO_SPACE in err, err
            return code != 0
        wait_for("the quota is full", full)
        assert len(c.ctl("get", "big", "--print-value-only")) == 200_001
        c.ctl("del", "big")  # what makes room is never refused
        n.kill()
        n.start()
        wait_for("it answers", lambda: c.ctl("get", "big", ok=None)[0] == 0)
        with pytest.raises(urllib.error.HTTPError) as e:
            n.healthy()
        assert "ALARM NOSPACE" in e.value.read().decode()
        code, _, err = c.ctl("put", "big", stdin="v" * 200_000, ok=None)
        assert code != 0 and NO_SPACE in err, err


def test_limits_of_requests_have_their_texts():
    need("etcdctl", "the real client")
    with Cluster(1, flags=["--max-txn-ops", "3"]) as c:
        for words, stdin, text in (
                (["put", "", "v"], None, "etcdserver: key is not provided"),
                (["get", ""], None, "etcdserver: key is not provided"),
                (["get", "a", "--rev=99"], None, "required revision is a future revision"),
                (["txn"], "\n" + "put k v\n" * 4 + "\n\n", "too many operations in txn request"),
                (["txn"], "\nput k 1\nput k 2\n\n\n", "duplicate key given in txn request"),
                (["put", "k", "--lease=1234"], "v", "requested lease not found")):
            code, out, err = c.ctl(*words, stdin=stdin, ok=None)
            assert code != 0 and text in err, (words, out, err)


def test_a_thousand_connections():
    with Cluster(1) as c:
        n = c.nodes[0]
        load.run(n.endpoint, clients=4, seconds=0.3)
        idle = n.rss_kib()
        alone = load.run(n.endpoint, clients=4, seconds=1)
        held = [h2.Conn(n) for _ in range(900)]
        among = load.run(n.endpoint, clients=100, seconds=1)
        print(f"{(n.rss_kib() - idle) / 1000:.0f} KiB a connection")
        assert among["ops_per_s"] > 0.3 * alone["ops_per_s"]
        assert n.rss_kib() - idle < 64 * 1024
        for k in held:
            k.s.close()
        wait_for("all are let go", lambda: n.metric("bns_grpc_connections") < 10)


def test_no_descriptor_left_refuses_new_connections_only():
    need("prlimit", "few descriptors")
    with Cluster(1, prefix=["prlimit", "--nofile=80:80"]) as c:
        n = c.nodes[0]
        bystander = load.start(n.endpoint, clients=2, seconds=2)
        wait_for("it puts", lambda: n.metric("etcd_mvcc_put_total") > 10)
        held = []
        for _ in range(120):
            s = socket.socket()
            s.settimeout(5)
            held.append(s)
            try:
                s.connect((n.host, n.client))
            except ConnectionError:
                pass  # turned away at once
        result = load.finish(bystander)
        assert result["errors"] == 0 and result["ops"] > 10
        for s in held:
            s.close()
        wait_for("new ones are served", n.healthy)
        assert n.metric("conn_refused_total") >= 1
        c.ctl("put", "after", "v")
