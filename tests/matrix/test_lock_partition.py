"""Locks and elections while the network is cut: who holds is on the wrong side, and does not know.

The members have a namespace each (netns.py). A holder that sits beside its member is cut off with
it; the resource hears everybody all the time, as a disk or a machine of another kind would. So
nothing but the fencing token keeps an old holder's write out.
"""
import signal
import threading

import pytest

import programs
from callers import Caller
from cluster import wait_for
from jsonclient import Client, Refused, b64
from locking import Fenced, Guarded, History, Holder, Worker, history_of, work
from test_partition import CUTS, isolate, members  # noqa: F401 (a fixture)

HUB = "10.94.0.254"
KINDS = ("lock", "election")


def keys(cluster, node, prefix):
    """Keys under the prefix as this member alone has them, the oldest first."""
    out = cluster.ctl("get", prefix + "/", "--prefix", "--keys-only", "--consistency=s",
                      "--sort-by=CREATE", endpoint=node.endpoint)
    return out.split()


def write_in_the_store(node, name, held):
    """A transaction with a token, for a resource that is in the store itself; was it done?"""
    client = Client(node.host, node.client, timeout=1)
    try:
        return client.call(
            "kv/txn", compare=[{"key": b64(held["key"]), "target": "CREATE",
                                "create_revision": str(held["token"])}],
            success=[{"request_put": {"key": b64(name + "-data"),
                                      "value": b64(str(held["token"]))}}]
        ).get("succeeded", False)
    finally:
        client.close()


@pytest.mark.parametrize("whom", ["leader", "follower"])
def test_a_holder_that_is_cut_off_changes_nothing(members, whom, tmp_path):  # noqa: F811
    cluster, net = members
    leader = wait_for("a leader", cluster.leader)
    lone = leader if whom == "leader" else next(n for n in cluster.nodes if n is not leader)
    rest = [n for n in cluster.nodes if n is not lone]
    beside = net.prefix(cluster.nodes.index(lone))
    names = {kind: f"{kind}-of-{whom}" for kind in KINDS}
    disks = {kind: Guarded(host=HUB) for kind in KINDS}
    holders, old, new = [], {}, {}

    def start(to, number, prefix):
        started = {kind: Holder(to, disks[kind], kind, names[kind], number + i, prefix=prefix)
                   for i, kind in enumerate(KINDS)}
        holders.extend(started.values())
        return started

    try:
        for disk in disks.values():
            disk.__enter__()
        ours = start(lone, 1, beside)
        for kind in KINDS:
            old[kind] = ours[kind].mark("held")
            assert ours[kind].write() == "ok"
        isolate(cluster, net, lone, CUTS["both_ways"])
        wait_for("a leader there", lambda: any(n.is_leader() for n in rest))
        theirs = start(rest[0], 11, ())
        for kind in KINDS:
            new[kind] = theirs[kind].mark("held")
            assert new[kind]["token"] > old[kind]["token"]
            assert theirs[kind].write() == "ok"
            # who was cut off sees its key still there, and its write is refused
            assert keys(cluster, lone, names[kind])[0] == old[kind]["key"]
            assert keys(cluster, rest[0], names[kind])[0] == new[kind]["key"]
            assert ours[kind].write() == "fail"
        refused_in_the_store(cluster, lone, rest[0], old, new, names)
        net.heal()
        for kind in KINDS:
            ours[kind].mark("lost")
            assert ours[kind].write() == "fail"
            wait_for("the old key is gone there too", lambda kind=kind: keys(
                cluster, lone, names[kind]) == [new[kind]["key"]])
            assert theirs[kind].write() == "ok"
            assert cluster.ctl("get", names[kind] + "-data", "--print-value-only",
                               endpoint=lone.endpoint) == f"{new[kind]['token']}\n"
            order = [token for token, _ in disks[kind].resource.written]
            assert order == [old[kind]["token"]] + 2 * [new[kind]["token"]]
    finally:
        net.heal()
        for h in holders:
            h.__exit__()
        for disk in disks.values():
            disk.__exit__()
    path = history_of(holders, tmp_path / "history.jsonl")
    for kind in ("lock", "lease"):
        code, said = programs.verdict(kind, path)
        assert code == 0, said


def refused_in_the_store(cluster, lone, there, old, new, names):
    """What the old holder asks the store to do: not done on its side, refused on the other."""
    for kind, name in names.items():
        with pytest.raises((Refused, OSError)):
            write_in_the_store(lone, name, old[kind])
        assert not write_in_the_store(there, name, old[kind])
        assert write_in_the_store(there, name, new[kind])
    with Caller(there.endpoint) as c:
        mine = dict(name=names["election"], key=old["election"]["key"],
                    rev=old["election"]["token"])
        assert c.call("Proclaim", leader=mine, value="still me")["text"] == "election: not leader"
        asked = c.call("Leader", lone.endpoint, name=names["election"], seconds=1)
        assert asked.get("code") in (4, 14), asked  # no old leader is told
        c.ok("Resign", leader=mine)  # of nobody
        leads = c.ok("Leader", name=names["election"])["kv"]
        assert leads["create_revision"] == new["election"]["token"]


def test_with_fencing_no_two_effects_whatever_becomes_of_the_network(
        members, tmp_path):  # noqa: F811
    """Cut both ways and one way, killed, paused; workers whose leases end meanwhile."""
    cluster, net = members
    path = str(tmp_path / "history.jsonl")
    history, stop = History(path), threading.Event()

    def another_leader(old):
        others = [n for n in cluster.nodes if n is not old]
        wait_for("another leader", lambda: any(n.is_leader() for n in others), 30)
        return old

    def cut(how):
        def run():
            leader = wait_for("a leader", cluster.leader, 30)
            isolate(cluster, net, leader, CUTS[how])
            return another_leader(leader)
        return run

    def kill():
        leader = wait_for("a leader", cluster.leader, 30)
        leader.kill()
        return another_leader(leader)

    def pause():
        leader = wait_for("a leader", cluster.leader, 30)
        leader.signal(signal.SIGSTOP)
        return another_leader(leader)

    faults = [(cut(how), lambda _: net.heal()) for how in CUTS]
    faults += [(kill, lambda n: n.start()), (pause, lambda n: n.signal(signal.SIGCONT))]
    with Fenced() as disk, Fenced() as other:
        workers = [Worker(i, history, cluster, (disk, other)[i % 2], stop, KINDS[i % 2], patience=4)
                   for i in range(4)]
        try:
            work(workers, faults, stop)
        finally:
            net.heal()
    history.file.close()
    programs.check("lock", path)
    programs.check("lease", path)
