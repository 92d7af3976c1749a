"""Snapshots to a real etcd and back: the way in and the way out.

One history (versions, deletions, a compaction that stands on a deletion, leases, users, values of
1.4 MB, 100,000 keys) is written to a real etcd or to ours; its snapshot is restored by the other
side's tool and started; keys now and at older revisions, leases, users and HashKV must be equal.
Then the refusals, a client that does not read, a cluster of three out of one file.
"""
import base64
import json
import os
import subprocess
import urllib.request

import pytest

import h2raw as h2
from cluster import BIN, ETCDCTL, Cluster, wait_for

OURS = os.path.join(BIN, "etcd-lite")
ENV = {**os.environ, "ETCDCTL_API": "3"}
BATCH = 2000
FLAGS = ["--max-txn-ops", str(BATCH)]
DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")


def b64(s):
    return base64.b64encode(s.encode() if isinstance(s, str) else s).decode()


def call(node, path, body):
    r = urllib.request.Request(node.url + path, json.dumps(body).encode())
    with urllib.request.urlopen(r, timeout=60) as answer:
        return json.load(answer)


def write_history(c, keys):
    """Many keys in few transactions, then a little of everything."""
    node = c.nodes[0]
    for at in range(0, keys, BATCH):
        puts = [{"requestPut": {"key": b64(f"many/{i:06d}"), "value": b64(f"v{i}" * 8)}}
                for i in range(at, min(at + BATCH, keys))]
        call(node, "/v3/kv/txn", {"success": puts})
    for version in range(5):
        c.ctl("put", "versions", f"v{version}")
    c.ctl("put", "big", stdin="b" * 1_400_000)
    c.ctl("put", "big", stdin="B" * 1_400_000)
    c.ctl("put", "dead", "x")
    c.ctl("del", "dead")
    at = json.loads(c.ctl("get", "x", "-w", "json"))["header"]["revision"]
    c.ctl("compact", str(at), "--physical")
    c.ctl("put", "dead", "again")
    c.ctl("put", "dead2", "x")
    c.ctl("del", "dead2")
    lease = c.ctl("lease", "grant", "1000").split()[1]
    c.ctl("put", "leased", "x", "--lease", lease)
    c.ctl("lease", "grant", "777")
    c.ctl("put", "\x7fodd key", "ä\nb")


def write_users(c):
    c.ctl("user", "add", "root:r00t")
    c.ctl("user", "add", "ann:pw")
    c.ctl("role", "add", "readers")
    c.ctl("role", "grant-permission", "readers", "--prefix=true", "read", "many/")
    c.ctl("user", "grant-role", "ann", "readers")


def view(c, rev):
    """All that a client can see, but for ids of members and the cluster."""
    node = c.nodes[0]
    at = c.ctl("endpoint", "hashkv", "--rev", str(rev), "-w", "json")
    leases = sorted(c.ctl("lease", "list").split("\n")[1:])
    keys = {i: sorted(call(node, "/v3/lease/timetolive", {"ID": str(int(i, 16)), "keys": True})
                      .get("keys", [])) for i in leases if i}
    get = []
    for back in (0, 2, 5):
        for some in ([" ", "many/"], ["many0", "--from-key"], ["many/", "--prefix", "--limit=3"]):
            r = json.loads(c.ctl("get", *some, "--rev", str(rev - back), "-w", "json"))
            get.append([r.get("kvs"), r.get("count")])
    h = json.loads(at)[0]["HashKV"]
    return {"hash": h["hash"], "compacted": h["compact_revision"], "leases": keys, "get": get}


def users(c):
    return [c.ctl("user", "list"), c.ctl("user", "get", "ann"), c.ctl("role", "get", "readers")]


def revision(c):
    return json.loads(c.ctl("get", "x", "-w", "json"))["header"]["revision"]


def save(c, path):
    c.ctl("snapshot", "save", path, timeout=120)
    size = os.path.getsize(path)
    assert size % 512 == 32
    return path


def status(path, tool):
    r = subprocess.run([tool, "snapshot", "status", path, "-w", "json"], env=ENV, text=True,
                       capture_output=True, timeout=120)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


class Restored(Cluster):
    """A cluster whose members begin with a snapshot; tool: ours, or etcdctl."""

    def __init__(self, path, size=1, real=False, more=()):
        super().__init__(size, real=real)
        for n in self.nodes:
            r = subprocess.run(
                [ETCDCTL if real else OURS, "snapshot", "restore", path, "--data-dir", n.dir,
                 "--name", n.name, "--initial-cluster", self.initial,
                 "--initial-advertise-peer-urls", n.peer_url, *more],
                env=ENV, capture_output=True, text=True, timeout=120)
            assert r.returncode == 0, r.stderr


@pytest.mark.parametrize("real", [True, False], ids=["from-etcd", "from-ours"])
def test_there_and_back(real, tmp_path):
    keys = 20_000 if real else 100_000
    with Cluster(1, real=real, flags=FLAGS) as a:
        write_history(a, keys)
        if real:
            write_users(a)
        rev = revision(a)
        first = view(a, rev)
        people = users(a) if real else None
        one = save(a, str(tmp_path / "one"))
    told = status(one, OURS)
    assert told["revision"] == rev and told["totalKey"] == keys + 5
    assert told["hash"] == status(one, ETCDCTL)["hash"]
    with Restored(one, real=not real) as b:  # the other side
        assert revision(b) == rev
        assert view(b, rev) == first
        if people:
            assert users(b) == people
        b.ctl("put", "more", "there")
        second = view(b, rev + 1)
        two = save(b, str(tmp_path / "two"))
    assert status(two, OURS)["hash"] == status(two, ETCDCTL)["hash"]
    with Restored(two, real=real) as c:
        assert revision(c) == rev + 1
        assert view(c, rev + 1) == second
        assert c.ctl("get", "more", "--print-value-only") == "there\n"
        if people:
            assert users(c) == people


def refusal(tool, *args):
    r = subprocess.run([tool, "snapshot", *args], env=ENV, capture_output=True, text=True,
                       timeout=60)
    return r.returncode, r.stderr.strip().split("\n")[-1]


def test_refusals_are_etcds(tmp_path):
    with Cluster(1, real=True) as c:
        c.ctl("put", "a", "1")
        whole = save(c, str(tmp_path / "whole"))
    data = bytearray(open(whole, "rb").read())
    bare, broken, short = (str(tmp_path / n) for n in ("bare", "broken", "short"))
    open(bare, "wb").write(data[:-32])
    data[5000] ^= 1
    open(broken, "wb").write(data)
    open(short, "wb").write(b"x" * 10)
    cases = [
        ("restore", bare), ("restore", broken), ("restore", short), ("restore",),
        ("restore", whole, "extra"), ("restore", str(tmp_path / "nope")),
        ("restore", whole, "--name", "zz"),
        ("restore", whole, "--name", "n1", "--initial-cluster", "n1=http://127.0.0.1:1"),
        ("status", str(tmp_path / "nope")), ("status",),
    ]
    for i, args in enumerate(cases):
        def where(who):
            return ("--data-dir", str(tmp_path / f"{who}{i}")) if args[0] == "restore" else ()
        assert refusal(OURS, *args, *where("ours")) == refusal(ETCDCTL, *args, *where("real")), args
        assert not os.path.exists(tmp_path / f"ours{i}")
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("")
    assert refusal(OURS, "restore", whole, "--data-dir", str(full)) == (
        1, f'Error: data-dir "{full}" not empty or could not be read')
    for flag in (("--mark-compacted",), ("--bump-revision", "5")):
        assert refusal(OURS, "restore", whole, *flag) == (
            128, "Error: --mark-compacted required if --revision-bump > 0")
    assert refusal(OURS, "status", short)[0] == 1
    with Restored(bare, more=["--skip-hash-check"]) as c:
        assert c.ctl("get", "a", "--print-value-only") == "1\n"
    with Restored(whole, more=["--bump-revision", "1000000", "--mark-compacted"]) as c:
        assert revision(c) == 1_000_002
        assert c.ctl("get", "a", "--print-value-only") == "1\n"
        code, _, err = c.ctl("get", "a", "--rev", "2", ok=None)
        assert code != 0 and "required revision has been compacted" in err
    assert not refusal(OURS, "restore", "--help")[0]


def test_an_unfinished_directory_is_refused(tmp_path):
    d = tmp_path / "d"
    d.mkdir()
    (d / "identity").write_text("etcd-lite restore not finished\n")
    r = subprocess.run([OURS, "--data-dir", str(d), "--listen-client-urls", "http://127.0.0.1:0",
                        "--advertise-client-urls", "http://127.0.0.1:1"],
                       capture_output=True, text=True, timeout=30)
    assert r.returncode != 0 and "was not finished" in r.stdout + r.stderr


def test_three_members_out_of_one_file(tmp_path):
    with Cluster(1, real=True, flags=FLAGS) as c:
        write_history(c, 500)
        rev = revision(c)
        first = view(c, rev)
        path = save(c, str(tmp_path / "one"))
    with Restored(path, size=3) as c:
        wait_for("a leader", c.leader)
        c.ctl("put", "after", "x")
        wait_for("all have it", lambda: {h["HashKV"]["header"]["revision"] for h in json.loads(
            c.ctl("endpoint", "hashkv", "-w", "json"))} == {rev + 1})
        assert view(c, rev) == first
        hashes = json.loads(c.ctl("endpoint", "hashkv", "--rev", str(rev + 1), "-w", "json"))
        assert len({h["HashKV"]["hash"] for h in hashes}) == 1 and len(hashes) == 3


def test_a_snapshot_beside_writes_and_a_client_that_does_not_read(tmp_path):
    with Cluster(1, flags=FLAGS) as c:
        node = c.nodes[0]
        write_history(c, 40_000)
        call(node, "/v3/kv/put", {"key": b64("k"), "value": b64("x" * 1_000_000)})
        rss = node.rss_kib()
        lazy = [h2.Conn(node, receive_buffer=4096) for _ in range(4)]
        for conn in lazy:  # the window is HTTP/2's default; nobody reads
            conn.send(h2.request(1, "/etcdserverpb.Maintenance/Snapshot", b""))
        wait_for("the files", lambda: sum(
            n.endswith(".bolt") for n in os.listdir(os.path.join(node.dir, "kv"))) == 4)
        code, _, err = c.ctl("snapshot", "save", str(tmp_path / "no"), ok=None)
        assert code != 0 and "too many requests" in err
        for i in range(200):
            c_rev = call(node, "/v3/kv/put", {"key": b64(f"w{i}"), "value": b64("x")})
        assert int(c_rev["header"]["revision"]) > 200
        assert node.rss_kib() - rss < 32 * 1024
        for conn in lazy:
            conn.s.close()
        wait_for("they are gone", lambda: not any(
            n.startswith("snap-") for n in os.listdir(os.path.join(node.dir, "kv"))))
        path = save(c, str(tmp_path / "yes"))
        assert status(path, ETCDCTL)["revision"] == revision(c)


def test_what_etcd_3_6_wrote_is_taken(tmp_path):
    """The file was written by etcd 3.6.4; its HashKV, as that server told it, stands beside it."""
    with open(os.path.join(DATA, "etcd-3.6.json")) as f:
        said = json.load(f)
    path = os.path.join(DATA, "etcd-3.6.snapshot")
    assert status(path, OURS) == said["status"]
    with Restored(path) as c:
        assert view(c, said["revision"]) == said["view"]
        with open(save(c, str(tmp_path / "again")), "rb") as f:
            assert b"\n\x03ann\x12" in f.read()  # a user, as etcd keeps it
