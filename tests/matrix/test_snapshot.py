"""A member that comes back behind the log gets a snapshot.

One follower is down while 200,000 small entries are put. It comes back, is killed in the middle of
receiving the snapshot, comes back again, and ends equal to the others. Puts go on meanwhile about
as quickly as before. Then puts and gets through every member.
"""
import json
import os
import signal

import load
from cluster import Cluster, wait_for

ENTRIES = 200_000
KEYS = 1_000_000
SMALL = {"keys": KEYS, "value_bytes": 100}


def put_entries(node, count):
    done = 0
    while done < count:
        done += load.run(node.endpoint, clients=64, conns=4, seconds=4, **SMALL)["ops"]


def log_since(node, mark):
    with open(node.log, errors="replace") as f:
        f.seek(mark)
        return f.read()


def state(cluster, node):
    """What this member alone holds of a sample of the keys, and its revision."""
    r = json.loads(cluster.ctl("get", "--prefix", "bench/00001", "--consistency=s", "-w", "json",
                               endpoint=node.endpoint))
    return r["header"]["revision"], r["kvs"]


def start_and_measure(leader, node):
    """Starts the node under a light load; p99 of the puts until after the snapshot."""
    run = load.start(leader.endpoint, clients=4, conns=2, seconds=4, keys=1000, value_bytes=100)
    node.start()
    wait_for("the snapshot", lambda: node.metric("raft_snapshots_installed_total") == 1, 60)
    wait_for("healthy", node.healthy, 60)
    return load.finish(run)["p99_us"]


def test_a_follower_far_behind_comes_back_by_snapshot():
    with Cluster(3, flags=["--snapshot-count", "10000"]) as c:
        leader = wait_for("a leader", c.leader)
        late = next(n for n in c.nodes if n is not leader)
        load.run(leader.endpoint, clients=64, conns=4, seconds=1, **SMALL)
        late.kill()
        put_entries(leader, ENTRIES)

        mark = os.path.getsize(late.log)
        late.start()
        wait_for("it receives", lambda: "receiving a snapshot" in log_since(late, mark), 60)
        late.signal(signal.SIGKILL)
        late.kill()
        said = log_since(late, mark)
        print("killed in the middle:", "snapshot installed" not in said)

        before, during = [], []
        for attempt in range(3):  # a busy machine spoils one measurement, not three
            before.append(load.run(leader.endpoint, clients=4, conns=2, seconds=3, keys=1000,
                                   value_bytes=100)["p99_us"])
            during.append(start_and_measure(leader, late))
            print(f"p99 of puts: before {before[-1]} us, during {during[-1]} us")
            if during[-1] <= 2 * before[-1] or attempt == 2:
                break
            late.kill()
            put_entries(leader, 40_000)
        assert min(during) <= max(2 * max(before), 50_000), (before, during)

        assert leader.metric("raft_snapshots_sent_total") >= 1
        applied = "etcd_server_proposals_applied_total"
        wait_for("all applied the same", lambda: len({n.metric(applied) for n in c.nodes}) == 1, 60)
        first, *rest = (state(c, n) for n in c.nodes)
        assert len(first[1]) > 100
        for other in rest:
            assert other == first
        assert len({n.metric("etcd_debugging_mvcc_keys_total") for n in c.nodes}) == 1
        hashes = json.loads(c.ctl("endpoint", "hashkv", "-w", "json", timeout=60))
        assert len({h["HashKV"]["hash"] for h in hashes}) == 1 and len(hashes) == 3, hashes

        for writer in c.nodes:  # through every member, read by every member
            c.ctl("put", f"by/{writer.name}", "v", endpoint=writer.endpoint)
            for reader in c.nodes:
                assert c.ctl("get", f"by/{writer.name}", "--print-value-only",
                             endpoint=reader.endpoint) == "v\n"
        late.kill()
        late.start()  # what was installed is durable
        wait_for("healthy", late.healthy, 60)
        wait_for("equal", lambda: state(c, late)[1] == first[1], 60)
