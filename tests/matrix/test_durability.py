"""A put is acknowledged after its fdatasync, and not one fdatasync more than needed.

strace counts the calls on the daemon, with the file of each: those of the log are exactly what the
log's own metric says, all others belong to the store's checkpoints or to the start. One client
alone: one fdatasync a put. 64 at a time: at most one in ten puts, because what queued during a
sync goes out with the next. And no put is quicker than the disk.
"""
import os
import re
import statistics
import time

import load
from cluster import Cluster, wait_for
from conftest import need

CALL = re.compile(r"(fsync|fdatasync|sync_file_range|syncfs|msync|sync)\(\d+<([^>]*)>(.*)")


def traced(out, flags=()):
    need("strace", "counting system calls")
    # -D: the daemon is our child, strace its grandchild
    return Cluster(1, flags=flags, prefix=[
        "strace", "-D", "-f", "-y", "-qq", "-e", "trace=fsync,fdatasync,sync,syncfs,msync,"
        "sync_file_range", "-e", "signal=none", "-o", out])


def syncs(out):
    """Calls by kind of file: log, store, names (directories), other."""
    count = {"log": 0, "store": 0, "names": 0, "other": 0}
    with open(out) as f:
        for line in f:
            call = CALL.search(line)
            if call is None:
                assert "resumed>" in line or "exited with" in line, line
                continue
            path = call.group(2)
            if call.group(1) == "sync_file_range":  # only starts writes, acknowledges nothing
                assert "/wal/wal-" in path, line
                assert re.search(r", SYNC_FILE_RANGE_WRITE( <unfinished|\))", call.group(3)), line
                continue
            name = os.path.basename(path)
            if "/wal/wal-" in path:
                assert call.group(1) == "fdatasync", line
                count["log"] += 1
            elif name.startswith("kv-"):
                count["store"] += 1
            elif name in ("wal", "kv", "n1"):
                count["names"] += 1
            else:
                count["other"] += 1
    return count


def settled(node, out):
    """The metric of the log and what strace saw, once both stand still and agree."""
    seen = {}

    def agree():
        seen["metric"], seen["calls"] = node.metric("wal_fsync_total"), syncs(out)
        return seen["metric"] == seen["calls"]["log"]

    try:
        wait_for("metric and strace agree", agree)
    except AssertionError as e:
        raise AssertionError(f"{e}: {seen}") from None
    return seen["metric"], seen["calls"]


def test_every_sync_is_accounted_for(tmp_path):
    out = str(tmp_path / "strace")
    with traced(out) as c:
        n = c.nodes[0]
        before, calls = settled(n, out)
        one = load.run(n.endpoint, clients=1, seconds=2)
        after, _ = settled(n, out)
        # beside one a put: the seal behind the last, and spare segments
        assert one["ops"] <= after - before <= one["ops"] * 1.02 + 5, (one, after - before)
        for conns in (4, 64):
            before, calls = settled(n, out)
            many = load.run(n.endpoint, clients=64, conns=conns, seconds=2)
            after, now = settled(n, out)
            a_put = (after - before) / many["ops"]
            print(f"fdatasync a put, 64 clients on {conns} connections: {a_put:.3f}")
            assert a_put <= 0.1
            # the store syncs when it checkpoints: the log of SQLite, then the database
            assert now["store"] - calls["store"] <= 2 + many["ops"] / 500, (calls, now)
            assert now["other"] == calls["other"], (calls, now)
        assert n.stop() == 0


def test_without_fsync_nothing_is_synced(tmp_path):
    """What the counts above would be if the daemon did not care."""
    out = str(tmp_path / "strace")
    with traced(out, ["--unsafe-no-fsync"]) as c:
        n = c.nodes[0]
        before = syncs(out)["log"]
        assert load.run(n.endpoint, clients=1, seconds=0.5)["ops"] > 0
        assert syncs(out)["log"] == before


def test_a_majority_syncs_every_put():
    with Cluster(3) as c:
        leader = wait_for("a leader", c.leader)
        before = [n.metric("wal_fsync_total") for n in c.nodes]
        one = load.run(leader.endpoint, clients=1, seconds=2)
        after = [n.metric("wal_fsync_total") for n in c.nodes]
        each = {n.name: b - a for n, a, b in zip(c.nodes, before, after)}
        print("leader:", leader.name, "syncs:", each, "puts:", one["ops"])
        # a put waits for the leader and for the quicker follower, whichever that is
        assert each[leader.name] >= one["ops"]
        assert sum(each.values()) >= 2 * one["ops"]


def disk_p50_us(directory, seconds=0.5):
    """Of appending 300 bytes to a file that has its blocks, and fdatasync."""
    took = []
    with open(os.path.join(directory, "probe"), "w+b", buffering=0) as f:
        f.write(bytes(1 << 20))
        os.fsync(f.fileno())
        f.seek(0)
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(took) < 3000:
            begin = time.monotonic()
            f.write(bytes(300))
            os.fdatasync(f.fileno())
            took.append((time.monotonic() - begin) * 1e6)
    return statistics.median(took)


def test_no_put_is_quicker_than_the_disk():
    with Cluster(1) as c:
        n = c.nodes[0]
        for _attempt in range(4):  # a busy disk may change its mood between two measurements
            disk, puts = [], []
            for _round in range(8):  # in turns: mostly the mood is the same for both
                disk.append(disk_p50_us(c.dir, 0.15))
                puts.append(load.run(n.endpoint, clients=1, seconds=0.15)["p50_us"])
            print(f"p50: disk {disk} us, put {puts} us")
            if min(puts) >= 0.8 * min(disk):  # of medians: both in their best mood
                return
        raise AssertionError((disk, puts))
