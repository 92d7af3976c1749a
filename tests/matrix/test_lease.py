"""Leases: etcdctl against etcd-lite and the real etcd, three client libraries through leader loss.

Lease ids are the server's choice: each is masked as <n>, n = its place in the order of grants.
"""
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

import programs
from cluster import ROOT, Cluster, wait_for
from conftest import need

PYTHON = "/usr/bin/python3"

# One history; {n} is the id of the n-th lease granted.
HISTORY = [
    "lease grant 300", "lease grant 0", "lease revoke {2}", "lease grant 400",  # 0: two seconds
    "lease grant 9000000000",
    "lease grant 9000000001", "lease grant abc", "lease list",
    "put a 1 --lease={1}", "put b 1 --lease={1}", "put c 1 --lease={3}", "get a", "get a b",
    "lease timetolive {1}", "lease timetolive {1} --keys", "lease timetolive {3} --keys",
    "lease timetolive 1234", "lease timetolive 1234 --keys",
    "lease keep-alive {1} --once", "lease keep-alive 1234 --once",
    "put b 2", "lease timetolive {1} --keys", "put b 3 --ignore-lease", "get b",
    "put a 2 --ignore-lease", "get a", "put a --ignore-value --lease={3}", "get a",
    "lease timetolive {1} --keys", "lease timetolive {3} --keys", "put a x --lease=1234",
    "put a 9 --lease={1}", "put new y --ignore-lease", "put b 4 --lease={1}", "del b",
    "lease timetolive {1} --keys",
    ("txn", 'version("a") > "0"\n\nput t 1 --lease={3}\nput u 1\n\nput lost 1\n\n'),
    ("txn", 'version("a") > "0"\n\nput t 2\nput u 1 --lease=1234\n\nput lost 1\n\n'),
    ("txn", 'version("none") > "0"\n\nput lost 1\n\nput u 2 --lease={3}\ndel c\n\n'),
    "lease timetolive {3} --keys", "lease revoke {3}", "get '' --prefix --keys-only",
    "lease revoke {3}", "lease revoke 1234", "lease timetolive {3}", "put c 2 --lease={3}",
    "lease keep-alive {3} --once", "get '' --prefix", "lease revoke {1}", "get '' --prefix",
    "lease grant 500", "lease revoke {5}", "lease list -w simple", "lease revoke {4}",
]

MASK = re.compile(r'"(cluster_id|member_id|raft_term)":\d+')
STAMP = re.compile(r'^\{"level":.*?\n', re.M)
LEFT = re.compile(r'("ttl":|remaining\()(\d+)')


class Session:
    """Runs etcdctl; knows the ids of the leases that this server granted."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.ids = []

    def hide(self, text):
        for n, lease in enumerate(self.ids, 1):
            for form in (f"{lease:016x}", f"{lease:x}", str(lease)):
                text = re.sub(rf"(?<![0-9a-f]){form}(?![0-9a-f])", f"<{n}>", text)
        return text

    def run(self, step):
        line, stdin = step if isinstance(step, tuple) else (step, None)
        hexes = [None] + [f"{i:x}" for i in self.ids]
        args = shlex.split(line.format(*hexes))
        if "-w" not in args:
            args += ["-w", "json"]
        code, out, err = self.cluster.ctl(*args, ok=None,
                                          stdin=stdin and stdin.format(*hexes),
                                          endpoint=self.cluster.nodes[-1].endpoint)
        if args[:2] == ["lease", "grant"] and code == 0:
            self.ids.append(json.loads(out)["ID"])
        out = self.hide(MASK.sub(r'"\1":0', out))
        # seconds left: the server may be slow, by less than a minute
        out = LEFT.sub(lambda m: m[1] + str((int(m[2]) + 59) // 60 * 60), out)
        if args[0] == "lease" and args[1] in ("list", "timetolive"):
            out = self.sort(out)
        return code, out, STAMP.sub("", self.hide(err))

    @staticmethod
    def sort(out):
        """Keys and leases come in no particular order from the real etcd."""
        try:
            doc = json.loads(re.sub(r"<(\d+)>", r'"<\1>"', out))
        except ValueError:
            return "\n".join(sorted(out.splitlines()))
        for field in ("keys", "leases"):
            if doc.get(field):
                doc[field].sort(key=str)
        return json.dumps(doc, sort_keys=True)


@pytest.mark.parametrize("size", [1, 3])
def test_the_same_history_gives_the_same_answers(size):
    need("etcdctl", "the real client")
    need("etcd", "the real server, to compare with")
    with Cluster(size) as ours, Cluster(size, real=True) as real:
        mine, theirs = Session(ours), Session(real)
        for step in HISTORY:
            want = theirs.run(step)
            got = mine.run(step)
            assert got == want, f"after {step!r}\n real {want}\n ours {got}"


CHOSEN = """
import sys, etcd3
host, port = sys.argv[1].split(":")
c = etcd3.client(host=host, port=int(port), timeout=10)
a, b = c.lease(300, lease_id=11), c.lease(300, lease_id=(1 << 62) + 5)
for i in range(20):
    c.put("k%d" % i, "v", lease=(a, b, None)[i % 3])
c.put("k1", "moved", lease=a)
c.delete("k3")
a.revoke()
"""


def test_hashes_of_leased_keys_equal_those_of_the_real_etcd():
    need("etcdctl", "the real client")
    need("etcd", "the real server, to compare with")
    need_python()
    hashes = []
    for real in (False, True):
        with Cluster(1, real=real) as c:
            programs.run([PYTHON, "-c", CHOSEN, c.nodes[0].endpoint])
            out = json.loads(c.ctl("endpoint", "hashkv", "-w", "json"))
            hashes.append((out[0]["HashKV"]["hash"], out[0]["HashKV"]["header"]["revision"]))
    assert hashes[0] == hashes[1]


def test_etcdctl_keeps_a_lease_alive_and_lets_it_go():
    need("etcdctl", "the real client")
    with Cluster(3) as c:
        lease = json.loads(c.ctl("lease", "grant", "2", "-w", "json"))["ID"]
        c.ctl("put", "kept", "x", f"--lease={lease:x}")
        leader = wait_for("a leader", c.leader)
        follower = next(n for n in c.nodes if n is not leader)
        keeper = subprocess.Popen(
            ["etcdctl", "--endpoints", follower.endpoint, "lease", "keep-alive", f"{lease:x}"],
            env={**os.environ, "ETCDCTL_API": "3"}, stdout=subprocess.PIPE, text=True)
        try:
            for _ in range(5):  # answers come every third of the TTL: twice the TTL passes
                assert "keepalived with TTL(2)" in keeper.stdout.readline()
            assert c.ctl("get", "kept", "--print-value-only") == "x\n"
        finally:
            keeper.kill()
            keeper.communicate()
        wait_for("the key goes", lambda: c.ctl("get", "kept") == "")
        assert leader.metric("etcd_debugging_server_lease_expired_total") == 1
        assert leader.metric("etcd_debugging_lease_renewed_total") >= 5
        assert follower.metric("etcd_debugging_lease_revoked_total") == 1
        assert f"{lease:016x}" not in c.ctl("lease", "list")


def test_a_stop_does_not_wait_for_keepalive_streams():
    need("etcdctl", "the real client")
    with Cluster(1) as c:
        lease = json.loads(c.ctl("lease", "grant", "60", "-w", "json"))["ID"]
        keeper = subprocess.Popen(
            ["etcdctl", "--endpoints", c.nodes[0].endpoint, "lease", "keep-alive", f"{lease:x}"],
            env={**os.environ, "ETCDCTL_API": "3"}, stdout=subprocess.PIPE, text=True)
        try:
            assert "keepalived" in keeper.stdout.readline()
            assert c.nodes[0].stop() == 0
        finally:
            keeper.kill()
            keeper.communicate()
        c.nodes[0].start()
        wait_for("healthy again", c.nodes[0].healthy)
        assert f"{lease:016x}" in c.ctl("lease", "list")


def need_python():
    if subprocess.run([PYTHON, "-c", "import etcd3"], capture_output=True).returncode != 0:
        need("python3-etcd3", "the Python client")


def lease_programs(cluster, endpoints, seconds):
    """Starts the program of each language; all run at once."""
    need_python()
    several = ",".join(n.endpoint for n in endpoints)
    commands = {
        "go": [programs.go("lease"), "-endpoints", several, "-seconds", str(seconds)],
        "node": programs.node("lease.js") + [several, str(seconds)],
        "python": [PYTHON, os.path.join(ROOT, "tests", "clients", "python", "lease.py"),
                   endpoints[0].endpoint, str(seconds)],
    }
    return {name: subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for name, c in commands.items()}


def all_ready(running):
    for name, p in running.items():
        line = p.stdout.readline()
        assert line == "READY\n", f"{name}: {line}{p.communicate(timeout=60)[0]}"


def all_pass(running):
    for name, p in running.items():
        out, _ = p.communicate(timeout=120)
        sys.stdout.write(f"{name}: {out}")
        assert p.returncode == 0 and out.endswith("PASS\n"), f"{name}: {out}"


@pytest.mark.parametrize("size", [1, 3])
def test_programs_before_during_and_after_leader_loss(size):
    with Cluster(size) as c:
        first = lease_programs(c, c.nodes, 1)
        all_ready(first)
        all_pass(first)
        leader = wait_for("a leader", c.leader)
        others = [n for n in c.nodes if n is not leader] or [leader]
        during = lease_programs(c, others, 7)
        all_ready(during)
        leader.kill()
        if size == 1:
            leader.start()
        else:
            wait_for("another leader", c.leader)
        all_pass(during)
        if size > 1:
            leader.start()
        wait_for("healthy again", leader.healthy)
        last = lease_programs(c, [leader], 1)
        all_ready(last)
        all_pass(last)
        lists = set()
        for n in c.nodes:
            out = c.ctl("lease", "list", "-w", "json", endpoint=n.endpoint)
            lists.add(str(sorted(x["id"] for x in json.loads(out).get("leases") or [])))
        assert len(lists) == 1


def ttl(cluster, lease, endpoint=None):
    out = cluster.ctl("lease", "timetolive", f"{lease:x}", "-w", "json", endpoint=endpoint)
    return json.loads(out)["ttl"]


def test_what_is_left_of_a_lease_is_handed_over_and_survives_a_restart():
    need("etcdctl", "the real client")
    with Cluster(3) as c:
        lease = json.loads(c.ctl("lease", "grant", "500", "-w", "json"))["ID"]
        wait_for("some of it has passed", lambda: ttl(c, lease) <= 495)
        old = wait_for("a leader", c.leader)
        assert old.stop() == 0
        new = wait_for("another leader", c.leader)
        assert 400 < ttl(c, lease, new.endpoint) <= 496
        assert "keepalived with TTL(500)" in c.ctl("lease", "keep-alive", "--once", f"{lease:x}",
                                                   endpoint=new.endpoint)
        assert ttl(c, lease, new.endpoint) >= 499
    with Cluster(1) as c:
        lease = json.loads(c.ctl("lease", "grant", "12", "-w", "json"))["ID"]
        node = c.nodes[0]
        wait_for("a checkpoint", lambda: node.metric("bns_etcd_lease_checkpoints_total") >= 1)
        wait_for("it is on the disk", lambda: ttl(c, lease) <= 5)
        node.kill()
        node.start()
        wait_for("healthy", node.healthy)
        assert 0 <= ttl(c, lease) <= 7
    with Cluster(1, flags=["--experimental-enable-lease-checkpoint=false"]) as c:
        lease = json.loads(c.ctl("lease", "grant", "500", "-w", "json"))["ID"]
        wait_for("some of it has passed", lambda: ttl(c, lease) <= 497)
        assert c.nodes[0].stop() == 0
        c.nodes[0].start()
        wait_for("healthy", c.nodes[0].healthy)
        assert ttl(c, lease) >= 499
