"""Data directories on disks that fill up, rot and tear: refused or repaired, never lost in silence.

A disk is an ext4 of 256 MiB in a file, mounted by the test. Full means less than the reserve of
64 MiB, and then also less than one block: writes are refused with etcd's text, reads go on, and
writes go on by themselves once there is space again. What was acknowledged is always there.
A failed fdatasync, which strace makes happen, ends the process with exit code 6: what the disk has
is unknown, and only a restart may look at it again.
"""
import contextlib
import glob
import os
import subprocess

import pytest

import programs
from cluster import BIN, Cluster, wait_for
from needs import missing, need
from disk import Disk

NO_SPACE = "etcdserver: mvcc: database space exceeded"


@contextlib.contextmanager
def on_disks(size, shared):
    """A cluster on small disks: one for all, or one each."""
    need("etcdctl", "the real client")
    with contextlib.ExitStack() as stack:
        try:
            disks = [stack.enter_context(Disk(256)) for _ in range(1 if shared else size)]
        except OSError as e:
            missing("small disks", str(e))
        c = Cluster(size)
        for i, n in enumerate(c.nodes):
            n.dir = os.path.join(disks[0 if shared else i].path, n.name)
        with c:
            yield c, disks


def put_until_refused(c, acked, endpoint):
    """Puts until the disk is known to be full; every acknowledged key goes to `acked`."""
    def refused():
        key = f"k{len(acked)}"
        code, _, err = c.ctl("put", key, "x" * 1000, ok=None, endpoint=endpoint)
        if code == 0:
            acked.append(key)
            return False
        assert NO_SPACE in err, err
        return True
    wait_for("writes are refused", refused, 20)


def check_acked(c, acked, endpoint, serializable=False):
    more = ["--consistency=s"] if serializable else []
    out = c.ctl("get", "--prefix", "k", "--keys-only", *more, endpoint=endpoint)
    there = set(out.split())
    assert set(acked) <= there, sorted(set(acked) - there)


def put(c, key, endpoint):
    return c.ctl("put", key, "v", ok=None, endpoint=endpoint)[0] == 0


@pytest.mark.parametrize("size", [1, 3])
def test_a_full_disk_refuses_writes_until_there_is_space(size):
    with on_disks(size, shared=True) as (c, (disk,)):
        acked = []
        leader = wait_for("a leader", c.leader)
        for i in range(20):
            c.ctl("put", f"k{i}", "v", endpoint=leader.endpoint)
            acked.append(f"k{i}")
        disk.fill(leave_mib=16)
        put_until_refused(c, acked, leader.endpoint)
        for n in c.nodes:  # what any log accepted it can store: reads are confirmed and answered
            check_acked(c, acked, n.endpoint)
        code, _, err = c.ctl("txn", ok=None, endpoint=leader.endpoint, stdin="\n\nput t v\n\n\n")
        assert code != 0 or NO_SPACE in err, err
        disk.fill(leave_mib=0)
        for n in c.nodes:
            assert n.process.poll() is None
            check_acked(c, acked, n.endpoint)
            check_acked(c, acked, n.endpoint, serializable=True)
            code, _, err = c.ctl("put", "x", "v", ok=None, endpoint=n.endpoint)
            assert code != 0 and (NO_SPACE in err or size == 3), err
        disk.free()
        for n in c.nodes:
            wait_for(f"{n.name} takes writes again", lambda n=n: put(c, "z", n.endpoint))
            check_acked(c, acked, n.endpoint)
        for n in c.nodes:
            n.kill()
        for n in c.nodes:
            n.start()
        for n in c.nodes:
            wait_for("healthy after the restart", n.healthy)
            check_acked(c, acked, n.endpoint)


def test_killed_on_a_full_disk_it_starts_once_there_is_space():
    with on_disks(1, shared=True) as (c, (disk,)):
        n = c.nodes[0]
        acked = []
        disk.fill(leave_mib=16)
        put_until_refused(c, acked, n.endpoint)
        disk.fill(leave_mib=0)
        n.kill()
        n.start()
        # it may serve reads, or end by itself and say why; it must not hang or lose anything
        wait_for("up, or ended", lambda: n.process.poll() is not None or n.healthy())
        code = n.process.poll()
        assert code in (None, 1, 6), code
        if code is not None:
            with open(n.log) as f:
                assert "No space left on device" in f.read()
            n.process = None
        disk.free()
        if code is not None:
            n.start()
        wait_for("healthy", n.healthy)
        wait_for("writes", lambda: put(c, "z", n.endpoint))
        check_acked(c, acked, n.endpoint)


@pytest.mark.parametrize("whom", ["leader", "follower"])
def test_one_full_disk_of_three(whom):
    with on_disks(3, shared=False) as (c, disks):
        acked = []
        leader = wait_for("a leader", c.leader)
        full = leader if whom == "leader" else next(n for n in c.nodes if n is not leader)
        rest = [n for n in c.nodes if n is not full]
        disk = disks[c.nodes.index(full)]
        disk.fill(leave_mib=16)
        if whom == "leader":
            put_until_refused(c, acked, full.endpoint)
        else:
            for i in range(50):
                c.ctl("put", f"k{i}", "v", endpoint=leader.endpoint)
                acked.append(f"k{i}")
        for n in c.nodes:
            assert n.process.poll() is None
        for n in rest:
            check_acked(c, acked, n.endpoint)
        check_acked(c, [], full.endpoint, serializable=True)
        disk.free()
        for n in c.nodes:
            wait_for(f"{n.name} takes writes", lambda n=n: put(c, "z", n.endpoint), 30)
            check_acked(c, acked, n.endpoint)


def wal_of(node):
    return sorted(glob.glob(os.path.join(node.dir, "wal", "wal-*.seg")))


def run_to_exit(node):
    """Starts the node, waits for its end; exit code and what it said."""
    size = os.path.getsize(node.log)
    node.start()
    code = node.process.wait(timeout=30)
    node.process = None
    with open(node.log, errors="replace") as f:
        f.seek(size)
        return code, f.read()


def records(node):
    """(offset, bytes) of the entries in the newest segment, by bonsai wal dump."""
    directory = os.path.join(node.dir, "wal")
    out = programs.run([os.path.join(BIN, "bonsai"), "wal", "dump", directory])
    name = os.path.basename(wal_of(node)[-1])
    found = []
    for line in out.splitlines():
        field = dict(w.split("=", 1) for w in line.split(" ") if "=" in w)
        if field["type"] == "entry" and os.path.basename(field["file"]) == name:
            found.append((int(field["offset"]), int(field["bytes"])))
    return found


def write_at(path, offset, data):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


def flip(path, offset):
    with open(path, "rb") as f:
        f.seek(offset)
        byte = f.read(1)[0]
    write_at(path, offset, bytes([byte ^ 0x10]))


def test_a_flipped_byte_in_the_log_is_named_and_can_be_repaired():
    need("etcdctl", "the real client")
    with Cluster(1) as c:
        n = c.nodes[0]
        for i in range(10):
            c.ctl("put", f"k{i}", "v" * 100)
        n.kill()
        path = wal_of(n)[-1]
        offset, _ = records(n)[5]
        flip(path, offset + 40)
        code, said = run_to_exit(n)
        assert code == 4, said
        directory = os.path.join(n.dir, "wal")
        assert os.path.basename(path) in said and f"offset {offset}" in said, said
        assert f"bonsai wal repair {directory}" in said, said
        assert run_to_exit(n)[0] == 4  # nothing was changed by the first try
        bonsai = os.path.join(BIN, "bonsai")
        assert subprocess.run([bonsai, "wal", "verify", directory],
                              capture_output=True).returncode == 4
        r = subprocess.run([bonsai, "wal", "repair", directory], capture_output=True, text=True)
        assert r.returncode == 0 and "bytes given up" in r.stdout, r.stdout + r.stderr
        n.start()
        wait_for("healthy after the repair", n.healthy)
        there = set(c.ctl("get", "--prefix", "k", "--keys-only").split())
        assert there >= {"k0", "k1", "k2"}, there  # what lay before the damage
        c.ctl("put", "again", "v")


@pytest.mark.parametrize("tear", ["cut_record", "zeros", "garbage"])
def test_a_torn_tail_is_cut_and_logged(tear):
    need("etcdctl", "the real client")
    with Cluster(1) as c:
        n = c.nodes[0]
        for i in range(10):
            c.ctl("put", f"k{i}", "v" * 100)
        n.kill()
        path = wal_of(n)[-1]
        offset, size = records(n)[-1]
        end = os.path.getsize(path)
        if tear == "cut_record":  # the second half of the last record never reached the disk
            write_at(path, offset + size // 2, bytes(end - offset - size // 2))
        elif tear == "zeros":
            write_at(path, offset, bytes(end - offset))
        else:
            write_at(path, offset + size // 2, os.urandom(size))
        before = os.path.getsize(n.log)
        n.start()
        wait_for("healthy", n.healthy)
        with open(n.log, errors="replace") as f:
            f.seek(before)
            said = f.read()
        assert tear == "zeros" or "torn" in said, said
        there = set(c.ctl("get", "--prefix", "k", "--keys-only").split())
        assert there >= {f"k{i}" for i in range(9)}, there
        c.ctl("put", "again", "v")
        n.kill()
        n.start()
        wait_for("healthy again", n.healthy)
        assert c.ctl("get", "again", "--print-value-only") == "v\n"


def run_to_failure(c, node, acked):
    """Puts until the node has ended by itself; its exit code."""
    def ended():
        key = f"k{len(acked)}"
        code, _, _ = c.ctl("--command-timeout=1s", "put", key, "v", ok=None,
                           endpoint=node.endpoint)
        if code == 0:
            acked.append(key)
        return node.process.poll() is not None
    wait_for("it ends", ended, 60)
    code, node.process = node.process.returncode, None
    return code


@pytest.mark.parametrize("call", ["fdatasync", "pwritev"])
@pytest.mark.parametrize("size", [1, 3])
def test_a_failed_write_or_sync_ends_the_process(call, size, tmp_path):
    need("etcdctl", "the real client")
    need("strace", "making a system call fail")
    with Cluster(size) as c:
        leader = wait_for("a leader", c.leader)
        leader.kill()
        leader.prefix = ["strace", "-D", "-f", "-qq", "-e", f"trace={call}", "-e",
                         f"inject={call}:error=EIO:when=30+", "-o", str(tmp_path / "strace")]
        leader.start()
        wait_for("healthy", leader.healthy)
        acked = []
        assert run_to_failure(c, leader, acked) == 6
        with open(leader.log, errors="replace") as f:
            assert "Input/output error" in f.read()
        assert acked
        for other in c.nodes:
            if other is not leader:
                wait_for("the others go on", lambda o=other: put(c, "on", o.endpoint), 30)
                check_acked(c, acked, other.endpoint)
        leader.prefix = []
        leader.start()
        wait_for("healthy", leader.healthy)
        check_acked(c, acked, leader.endpoint)
        assert put(c, "again", leader.endpoint)
