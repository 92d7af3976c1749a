"""The services Lock and Election: the same calls to etcd-lite and to the real etcd; queues,
cancels, leases that end; through leader loss.

Lease ids that a server chose, and what is made of them, are masked.
"""
import os
import re
import signal
import subprocess
import threading

import pytest

import programs
from callers import Caller
from cluster import Cluster, wait_for
from conftest import need
from locking import Fenced, Guarded, History, Holder, Worker, history_of, work

LONG = "n" * 100000

# (call, fields); the leases 1 to 3 exist.
HISTORY = [
    ("LeaseGrant", dict(TTL=600, ID=1)), ("LeaseGrant", dict(TTL=600, ID=0x7eadbeef)),
    ("LeaseGrant", dict(TTL=600, ID=-5)),
    ("Lock", dict(name="a", lease=1)), ("Lock", dict(name="a", lease=1)),
    ("Range", dict(key="a", range_end="b")),
    ("Lock", dict(name="a", lease=77)), ("Lock", dict(name="", lease=0x7eadbeef)),
    ("Lock", dict(name="b", lease=-5)), ("Range", dict(key="b/", range_end="b0")),
    ("Lock", dict(name="ü\x00x", lease=1)), ("Lock", dict(name=LONG, lease=1)),
    ("Lock", dict(name=20 * LONG, lease=1)),
    ("Unlock", dict(key="a/1")), ("Unlock", dict(key="a/1")), ("Unlock", {}),
    ("Unlock", dict(key="none")), ("Range", dict(key="a", range_end="b")),
    ("Lock", dict(name="chosen")), ("LeaseTimeToLive", dict(ID=1)),
    ("Leader", dict(name="e")), ("Leader", {}),
    ("Campaign", dict(name="e", lease=1, value="one")),
    ("Campaign", dict(name="e", lease=1, value="one")),
    ("Campaign", dict(name="e", lease=1, value="two")), ("Leader", dict(name="e")),
    ("Campaign", dict(name="e", lease=99, value="x")), ("Campaign", dict(name="f", value="x")),
    ("Campaign", dict(name="g", lease=1)), ("Leader", dict(name="g")),
    ("Proclaim", dict(value="x")), ("Proclaim", dict(leader={}, value="x")),
    ("Proclaim", dict(leader=dict(name="e", key="e/1", rev=1, lease=1), value="x")),
    ("Proclaim", dict(leader=dict(name="e", key="e/9", rev=1, lease=1), value="x")),
    ("Proclaim", dict(leader=dict(name="g", key="e/1", rev="e", lease=1), value="three")),
    ("Proclaim", dict(leader=dict(key="e/1", rev="e", lease=0x7eadbeef), value="four")),
    ("Proclaim", dict(leader=dict(key="e/1", rev="e", lease=98), value="five")),
    ("Leader", dict(name="e")),
    ("Resign", {}), ("Resign", dict(leader={})),
    ("Resign", dict(leader=dict(name="e", key="e/1", rev=1, lease=1))),
    ("Leader", dict(name="e")),
    ("Resign", dict(leader=dict(name="e", key="e/1", rev="e", lease=1))),
    ("Leader", dict(name="e")), ("Range", dict(key="e/", range_end="e0")),
    ("Proclaim", dict(leader=dict(name="e", key="e/1", rev="e", lease=1), value="six")),
    ("Put", dict(key="oo/", value="not a session's")), ("Leader", dict(name="oo")),
    ("Lock", dict(name="oo", lease=1, seconds=2)), ("Range", dict(key="oo/", range_end="oo0")),
    ("Campaign", dict(name="oo", lease=1, value="v", seconds=2)),
    ("Range", dict(key="oo/", range_end="oo0")),
    ("LeaseRevoke", dict(ID=1)), ("Range", dict(key="\0", range_end="\0")),
]


def play(cluster):
    out, rev = [], 0
    with Caller(cluster.nodes[-1].endpoint) as c:
        for call, fields in HISTORY:
            fields = dict(fields)
            if fields.get("leader", {}).get("rev") == "e":
                fields["leader"] = {**fields["leader"], "rev": rev}
            r = c.call(call, **fields)
            if fields.get("key") == "oo/" and call == "Range":  # what was given up goes soon
                wait_for("the key goes", lambda: c.ok(call, **fields)["count"] == 1)
                r = c.call(call, **fields)
            if call == "Campaign" and fields["name"] == "e" and "ok" in r:
                rev = r["ok"]["leader"]["rev"]
            text = re.sub(r"'(cluster_id|member_id|raft_term)': \d+", r"'\1': 0", str(r))
            text = re.sub(r"(f|chosen)/[0-9a-f]+", r"\1/<id>", text)
            text = re.sub(r"'lease': \d{12,}", "'lease': <id>", text)
            text = re.sub(r"'TTL': 5\d\d", "'TTL': 600", text)
            out.append((call, str(fields)[:200], text))
    return out


@pytest.mark.parametrize("size", [1, 3])
def test_the_same_calls_give_the_same_answers(size):
    need("etcd", "the real server, to compare with")
    with Cluster(size, real=True) as real:
        want = play(real)
    with Cluster(size) as ours:
        got = play(ours)
    for w, g in zip(want, got):
        assert g == w, f"\n real {w}\n ours {g}"


# ---- queues ------------------------------------------------------------------------------------


def keys(c, prefix, to=None):
    r = c.call("Range", to, key=prefix, range_end=prefix[:-1] + chr(ord(prefix[-1]) + 1))
    return r["ok"].get("count", 0) if "ok" in r else -1


def grant(c, ttl=60, to=None):
    return c.ok("LeaseGrant", to, TTL=ttl)["ID"]


def test_a_queue_is_served_in_order_and_who_goes_leaves_it(three):
    with Caller() as c:
        ends = [n.endpoint for n in three.nodes]
        leases = [grant(c, to=ends[0]) for _ in range(6)]
        c.ok("Lock", ends[0], name="q", lease=leases[0])
        calls = []
        for i, lease in enumerate(leases[1:]):
            calls.append(c.start("Lock", ends[i % 3], name="q", lease=lease, seconds=60))
            wait_for("it stands in the queue", lambda i=i: keys(c, "q/", ends[0]) == i + 2)
        c.cancel(calls[1])  # the second one goes; the fourth one's lease ends
        wait_for("its key goes", lambda: keys(c, "q/", ends[0]) == 5)
        c.ok("LeaseRevoke", ends[1], ID=leases[4])
        assert c.result(calls[3]) == {"code": 2, "text": "mutex: session is expired"}
        assert not c.answered(calls[0])
        c.ok("Unlock", ends[2], key=f"q/{leases[0]:x}")
        for n in (0, 2, 4):
            r = c.result(calls[n])["ok"]
            assert r["key"] == f"q/{leases[n + 1]:x}"
            assert not any(c.answered(calls[k]) for k in (2, 4) if k > n)
            c.ok("Unlock", ends[n % 3], key=r["key"])


def test_observers_see_each_leader_and_each_value(three):
    with Caller() as c:
        a, b, other = (n.endpoint for n in three.nodes)
        seen = c.start("Observe", other, name="o", seconds=60)
        one = c.ok("Campaign", a, name="o", lease=grant(c, to=a), value="1")["leader"]
        assert c.next(seen)["kv"]["value"] == "1"
        c.ok("Proclaim", b, leader=one, value="2")
        assert c.next(seen)["kv"]["value"] == "2"
        call = c.start("Campaign", b, name="o", lease=grant(c, to=b), value="3", seconds=60)
        wait_for("it stands in the queue", lambda: keys(c, "o/", a) == 2)
        c.ok("Resign", other, leader=one)
        two = c.result(call)["ok"]["leader"]
        assert c.next(seen)["kv"]["value"] == "3"
        late = c.start("Observe", a, name="o", seconds=60)
        assert c.next(late)["kv"]["key"] == two["key"]
        assert c.call("Proclaim", a, leader=one, value="x")["text"] == "election: not leader"
        c.cancel(late)
        c.ok("Resign", a, leader=two)


def test_a_waiter_survives_the_leader_and_gets_the_lock():
    with Cluster(3) as cluster, Caller() as c:
        old = wait_for("a leader", cluster.leader)
        there = next(n for n in cluster.nodes if n is not old).endpoint
        c.ok("Lock", there, name="w", lease=grant(c, to=there))
        holder = c.ok("Range", there, key="w/", range_end="w0")["kv"]
        call = c.start("Lock", there, name="w", lease=grant(c, to=there), seconds=60)
        wait_for("it waits", lambda: keys(c, "w/", there) == 2)
        old.kill()
        wait_for("another leader", lambda: any(
            n.process is not None and n.is_leader() for n in cluster.nodes))
        assert not c.answered(call)
        c.ok("Unlock", there, key=holder["key"])
        token = c.result(call)["ok"]["header"]["revision"]
        assert token > holder["create_revision"]


# ---- fencing -----------------------------------------------------------------------------------


def token_of(c, key, to=None):
    return c.ok("Range", to, key=key)["kv"]["create_revision"]


def test_who_overslept_its_lease_changes_nothing(one):
    with Fenced() as disk, Caller(one.nodes[0].endpoint) as c:
        mine = c.ok("Lock", name="f", lease=grant(c, ttl=2))["key"]
        token = token_of(c, mine)
        assert disk.write(token, "mine") == 200
        theirs = c.ok("Lock", name="f", lease=grant(c), seconds=60)["key"]  # mine was not renewed
        assert disk.write(token_of(c, theirs), "theirs") == 200
        assert disk.write(token, "mine, late") == 412  # nobody has told me that it is not mine
        assert disk.read()["value"] == "theirs"
        c.ok("Unlock", key=theirs)


def test_with_fencing_no_two_effects_whatever_happens_to_the_members():
    with Cluster(3) as cluster, Fenced() as disk:
        path = os.path.join(cluster.dir, "history.jsonl")
        history, stop = History(path), threading.Event()
        workers = [Worker(i, history, cluster, disk, stop) for i in range(4)]

        def pause():
            leader = wait_for("a leader", cluster.leader, 30)
            leader.signal(signal.SIGSTOP)
            others = [n for n in cluster.nodes if n is not leader]
            wait_for("another leader", lambda: any(n.is_leader() for n in others), 30)
            return leader

        def kill():
            leader = wait_for("a leader", cluster.leader, 30)
            leader.kill()
            return leader

        def wake(leader):
            leader.signal(signal.SIGCONT)

        faults = [(pause, wake), (kill, lambda leader: leader.start()), (pause, wake)]
        work(workers, faults, stop)
        history.file.close()
        programs.check("lock", path)
        programs.check("lease", path)


@pytest.mark.parametrize("kind, fencing", [("lock", True), ("lock", False), ("election", False)],
                         ids=["fenced-lock", "unfenced-lock", "unfenced-election"])
def test_the_checker_finds_the_write_of_a_paused_holder(kind, fencing, one, tmp_path):
    """Two processes; the first is stopped for longer than its lease lives and then writes. With
    fencing nothing is wrong with that; without, our checker must say what is: so it would."""
    name = f"{kind}-{fencing}"
    with Guarded(fencing) as disk, Holder(one.nodes[0], disk, kind, name, 1) as first:
        token = first.mark("held")["token"]
        assert first.write() == "ok"
        first.pause()
        first.tell_to_write()
        with Holder(one.nodes[0], disk, kind, name, 2) as second:
            assert second.mark("held")["token"] > token
            assert second.write() == "ok"
            first.wake()
            assert first.written() == ("fail" if fencing else "ok")
            first.mark("lost")
    order = [token < t for t, _ in disk.resource.written]  # whose writes had an effect
    assert order == ([False, True] if fencing else [False, True, False])
    path = history_of([first, second], tmp_path / "history.jsonl")
    assert programs.verdict("lease", path)[0] == 0
    code, said = programs.verdict("lock", path)
    assert (code, "stale-holder" in said) == ((0, False) if fencing else (1, True)), said


# ---- real clients ------------------------------------------------------------------------------


def test_etcdctl_locks_and_elects(three):
    need("etcdctl", "the real client")
    three.ctl("lock", "ctl", "true")  # takes it, runs the command, lets go
    with Caller() as c:
        ends = [n.endpoint for n in three.nodes]
        held = c.ok("Lock", ends[0], name="ctl", lease=grant(c, to=ends[0]))["key"]
        env = {**os.environ, "ETCDCTL_API": "3"}
        waiter = subprocess.Popen(["etcdctl", "--endpoints", ends[1], "lock", "ctl", "echo", "in"],
                                  env=env, stdout=subprocess.PIPE, text=True)
        wait_for("it waits", lambda: keys(c, "ctl/", ends[0]) == 2)
        c.ok("Unlock", ends[2], key=held)
        assert waiter.communicate(timeout=30)[0] == "in\n"
        leader = subprocess.Popen(["etcdctl", "--endpoints", ends[2], "elect", "ctl-e", "me"],
                                  env=env, stdout=subprocess.PIPE, text=True)
        assert leader.stdout.readline().startswith("ctl-e/")
        assert leader.stdout.readline() == "me\n"
        assert c.ok("Leader", ends[0], name="ctl-e")["kv"]["value"] == "me"
        leader.send_signal(signal.SIGINT)
        leader.communicate(timeout=30)


def test_the_go_concurrency_package_through_leader_loss():
    program = programs.go("locks")
    with Cluster(3) as cluster:
        p = subprocess.Popen([program, "-endpoints", cluster.endpoints, "-seconds", "6"],
                             stdout=subprocess.PIPE, text=True)
        try:
            assert p.stdout.readline() == "READY\n"
            leader = wait_for("a leader", cluster.leader)
            leader.kill()
            wait_for("another leader", cluster.leader)
            leader.start()
            out = p.communicate(timeout=90)[0]
            assert p.returncode == 0 and "PASS" in out, out
        finally:
            p.kill()
            p.communicate()
