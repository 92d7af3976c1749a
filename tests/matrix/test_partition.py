"""Three members on a network of their own, and the leader cut off from the others.

Both ways, or in one direction only: a leader that still sends but hears nobody, and one that hears
but is heard by nobody. Clients reach every member all the time. Histories are linearizable by
Porcupine and by our own checker; a minority refuses writes and linearizable reads and serves
serializable ones; after healing all members hold the same, with all that was acknowledged.
"""
import json
import os
import subprocess

import pytest

import netns
import programs
from cluster import BIN, Cluster, wait_for
from needs import missing, need

CUTS = {
    "both_ways": lambda net, me, other: (net.cut(me, other), net.cut(other, me)),
    "cannot_send": lambda net, me, other: net.cut(me, other),
    "cannot_hear": lambda net, me, other: net.cut(other, me),
}


@pytest.fixture(scope="module")
def members():
    """A cluster of three, the network under it; the test's thread sits at the bridge."""
    need("ip", "network namespaces")
    need("etcdctl", "the real client")
    reason = netns.available()
    if reason:
        missing("network namespaces", reason)
    programs.go("register")  # built while the thread still has the usual network
    with netns.Net(3) as net, net.inside():
        cluster = Cluster(3, hosts=net.hosts)
        for i, n in enumerate(cluster.nodes):
            n.prefix = net.prefix(i)
        with cluster:
            yield cluster, net


def isolate(cluster, net, leader, cut):
    me = cluster.nodes.index(leader)
    for other in range(3):
        if other != me:
            cut(net, me, other)


def state(cluster, node):
    """Revision, and every key with its value and revisions, as this member alone has them."""
    r = json.loads(cluster.ctl("get", "--prefix", "", "--consistency=s", "-w", "json",
                               endpoint=node.endpoint))
    return r["header"]["revision"], r.get("kvs", [])


def converged(cluster):
    first, *rest = (state(cluster, n) for n in cluster.nodes)
    return all(s == first for s in rest)


def start_load(cluster, seed, history):
    return subprocess.Popen(
        [programs.go("register"), "-endpoints", cluster.endpoints, "-seconds", "7",
         "-seed", str(seed), "-prefix", f"reg{seed}/", "-history", history],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def check(run, history):
    out, _ = run.communicate(timeout=240)
    assert run.returncode == 0, out
    print(out.strip())
    programs.check("register", history)


@pytest.mark.parametrize("name", CUTS)
def test_an_isolated_leader_leaves_the_history_linearizable(members, name, tmp_path):
    cluster, net = members
    history = str(tmp_path / "history.jsonl")
    old = wait_for("a leader", cluster.leader)
    others = [n for n in cluster.nodes if n is not old]
    run = start_load(cluster, list(CUTS).index(name) + 1, history)
    try:
        wait_for("the load runs", lambda: old.metric("etcd_mvcc_put_total") > 0)
        isolate(cluster, net, old, CUTS[name])
        new = wait_for("another leader", lambda: next((n for n in others if n.is_leader()), None))
        key = f"acked/{name}"
        wait_for("the majority writes",
                 lambda: cluster.ctl("put", key, "yes", endpoint=new.endpoint), 30)
        wait_for("the old leader stepped down", lambda: not old.is_leader())
    finally:
        net.heal()
    wait_for("the old leader is back", old.healthy, 30)
    check(run, history)
    wait_for("all hold the same", lambda: converged(cluster), 30)
    for n in cluster.nodes:
        assert cluster.ctl("get", key, "--print-value-only", endpoint=n.endpoint) == "yes\n"


@pytest.mark.parametrize("whom", ["leader", "follower"])
def test_a_minority_refuses_what_needs_a_quorum(members, whom):
    cluster, net = members
    leader = wait_for("a leader", cluster.leader)
    lone = leader if whom == "leader" else next(n for n in cluster.nodes if n is not leader)
    cluster.ctl("put", "before", "1")
    wait_for("replicated", lambda: converged(cluster))
    isolate(cluster, net, lone, CUTS["both_ways"])
    try:
        for words in (("put", "before", "2"), ("get", "before"), ("del", "before")):
            code, out, err = cluster.ctl("--command-timeout=2s", *words, ok=None,
                                         endpoint=lone.endpoint)
            assert code != 0, (words, out)
            assert "timed out" in err or "deadline" in err or "no leader" in err, err
        assert cluster.ctl("get", "before", "--consistency=s", "--print-value-only",
                           endpoint=lone.endpoint) == "1\n"
        majority = next(n for n in cluster.nodes if n is not lone)
        wait_for("the majority writes", lambda: cluster.ctl(
            "put", "during", whom, endpoint=majority.endpoint), 30)
        assert whom not in cluster.ctl("get", "during", "--consistency=s", "--print-value-only",
                                       endpoint=lone.endpoint)
    finally:
        net.heal()
    # what timed out may yet have happened: only what was acknowledged is known
    wait_for("back", lone.healthy, 30)
    wait_for("all hold the same", lambda: converged(cluster), 30)
    got = cluster.ctl("get", "during", "--print-value-only", endpoint=lone.endpoint)
    assert got == whom + "\n"


EVENT = '{"index":%d,"time":%d,"process":%d,"type":"%s","f":"%s","key":"k","value":%s}\n'


@pytest.mark.parametrize("seen, code", [("1", 0), ("null", 1), ("2", 1)])
def test_our_checker_tells_a_stale_read(seen, code, tmp_path):
    history = tmp_path / "h.jsonl"
    history.write_text("".join(EVENT % (i, i, *e) for i, e in enumerate([
        (1, "invoke", "write", "1"), (1, "ok", "write", "1"),
        (2, "invoke", "read", "null"), (2, "ok", "read", seen)])))
    r = subprocess.run([os.path.join(BIN, "check_history"), "register", str(history)],
                       capture_output=True, text=True, timeout=60)
    assert r.returncode == code, r.stdout + r.stderr


def test_our_checker_refuses_what_is_no_history(tmp_path):
    history = tmp_path / "h.jsonl"
    history.write_text("no history\n")
    r = subprocess.run([os.path.join(BIN, "check_history"), "register", str(history)],
                       capture_output=True, text=True, timeout=60)
    assert r.returncode == 2 and "line 1" in r.stderr, r.stderr
