"""Watch, by real clients and by hand, beside the real etcd and through the loss of a leader."""
import json
import os
import re
import signal
import subprocess
import time

import pytest

import h2raw
import programs
import watchraw
from cluster import ETCDCTL, Cluster, wait_for
from conftest import need

MASK = re.compile(r'"(cluster_id|member_id|raft_term)":\d+|"(ClusterID|MemberID|RaftTerm)" : \d+')


def put(c, key, value="x"):
    c.ctl("put", key, value, endpoint=c.nodes[0].endpoint)


# ---- every response, by hand ---------------------------------------------------------------------
# A write is an etcdctl line. A request is sent; then so many responses are read.
CREATE, CANCEL = watchraw.create, watchraw.cancel
SCRIPT = [
    "put a 1", "put a 2", "put b 1", "del a",
    (CREATE("a", start=1), 2), (CREATE("a", start=3), 2), (CREATE("a", "z", start=1), 2),
    (CREATE("a", "z", start=1, prev_kv=True), 2), (CREATE("a", "z", start=1, filters=[0]), 2),
    (CREATE("a", "z", start=1, filters=[1]), 2), (CREATE("a", "z", start=1, filters=[1, 0]), 1),
    (CREATE("z", "a"), 1), (CREATE("z", "z"), 1), (CREATE("b", "\0", id=40), 1),
    (CREATE("b", id=40), 1), (CREATE("q", id=-9), 1), (CREATE("q", id=3), 1),
    (CREATE("q", id=7), 1), (CREATE("q"), 1), (CANCEL(40), 1), (CREATE("q", id=40), 1),
    (CREATE("", ""), 1),
    (CREATE("", "\0"), 1), (CREATE("future", start=100), 1), (CANCEL(10), 1), (CANCEL(11), 1),
    *[(CANCEL(i), 1) for i in (0, 1, 2, 3, 4, 5, 6)],
    (CREATE("live", prev_kv=True), 1), (CREATE("live", "livf", filters=[0]), 1),
    "put live 1", 1, "put live 2", 1, "del live", 2, "put livelier 1",
    ("txn", '\nput live/1 a\nput live/2 b\ndel livelier\n\n\n', 1), "del --prefix live/", 1,
    "compaction 10", (CREATE("a", start=10, id=60), 1), (CREATE("live/1", start=11, id=61), 2),
]


def responses(c):
    """What each watch of the script was told, in order."""
    told = {}
    with watchraw.Stream(c.nodes[0]) as s:
        for step in SCRIPT:
            count = step if isinstance(step, int) else 0
            if isinstance(step, str):
                c.ctl(*step.split())
            elif isinstance(step, tuple) and step[0] == "txn":
                c.ctl("txn", stdin=step[1])
                count = step[2]
            elif isinstance(step, tuple):
                s.send(step[0])
                count = step[1]
            for _ in range(count):
                r = s.next()
                assert r is not None, f"the stream ended after {step!r}"
                told.setdefault(r.id, []).append(str(r))
    return told


def test_every_response_is_the_real_ones():
    need("etcd", "the real server, to compare with")
    need("etcdctl", "the real client")
    with Cluster(1) as ours, Cluster(1, real=True) as real:
        assert responses(ours) == responses(real)


def test_a_compacted_start_is_cancelled_as_the_real_one_does():
    need("etcd", "the real server, to compare with")
    told = []
    for real in (False, True):
        with Cluster(1, real=real) as c:
            for i in range(5):
                put(c, "a", str(i))
            c.ctl("compaction", "4")
            with watchraw.Stream(c.nodes[0]) as s:
                s.send(CREATE("a", start=3), CREATE("a", start=4))
                got = [s.next() for _ in range(4)]
                s.send(CANCEL(0), CANCEL(1))
                got += [s.next(), s.next()]
            # the real one leaves the revision of this header at 0
            told.append(sorted(str(r).replace("rev=0 canceled compact", "rev=6 canceled compact")
                               for r in got))
    assert told[0] == told[1]


# ---- etcdctl watch -------------------------------------------------------------------------------
HISTORY = ["put a 1", "put a 2", "put b x", "del a", "put a 3", "put c/1 y", "put c/2 z",
           "del --prefix c/", "put zz last"]
WATCHES = [
    "a --rev=1", "a --rev=1 --prev-kv", "a --rev=4", "a --rev=1 -w json", "a z --rev=1 -w json",
    "a c --rev=1 --prev-kv", "--prefix c/ --rev=1", "--prefix '' --rev=1 --prev-kv",
    "b --rev=1 -w fields", "--from-key b --rev=1 -w json", "a --rev=1 -w simple",
]


class Watcher:
    """An `etcdctl watch` whose output is read without waiting."""

    def __init__(self, c, line, endpoint=None):
        import shlex
        self.p = subprocess.Popen(
            [ETCDCTL, "--endpoints", endpoint or c.nodes[0].endpoint, "watch", *shlex.split(line)],
            env={**os.environ, "ETCDCTL_API": "3"}, stdout=subprocess.PIPE,
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        os.set_blocking(self.p.stdout.fileno(), False)
        self.text = ""

    def read(self):
        got = self.p.stdout.read()
        self.text += got.decode() if got else ""
        return MASK.sub("masked", self.text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.p.kill()
        self.p.wait()


@pytest.fixture(scope="module")
def pair():
    need("etcdctl", "the real client")
    need("etcd", "the real server, to compare with")
    with Cluster(1) as ours, Cluster(1, real=True) as real:
        for c in (ours, real):
            for line in HISTORY:
                c.ctl(*line.split())
        yield ours, real


def test_etcdctl_watch_prints_the_same(pair):
    for line in WATCHES:
        with Watcher(pair[1], line) as real, Watcher(pair[0], line) as ours:
            def same():
                return real.read() != "" and ours.read() == real.read()

            wait_for(f"watch {line}: the same", same)
            end = time.monotonic() + 0.3  # what comes still is the same, too
            wait_for("the end", lambda: not same() or time.monotonic() > end)
            wait_for(f"watch {line}: the same to the end", same)


def test_etcdctl_watch_follows(pair):
    told = []
    for c in pair:
        with Watcher(c, "--prefix live/ --prev-kv -w json --rev=11") as w:
            for line in ("put live/a 1", "put live/b 1", "put live/a 2", "del --prefix live/"):
                c.ctl(*line.split())
            wait_for("five events", lambda: w.read().count('"mod_revision"') >= 8)
            events = [e for line in w.text.splitlines() for e in json.loads(line)["Events"]]
            told.append(events)
    assert told[0] == told[1]


def test_etcdctl_asks_for_progress(one):
    need("etcdctl", "the real client")
    with Watcher(one, "-i -w json") as w:
        w.p.stdin.write(b"watch some\n")
        w.p.stdin.flush()

        def told():
            w.p.stdin.write(b"progress\n")
            w.p.stdin.flush()
            return '"Events":[]' in w.read() or '"Events":null' in w.read()
        wait_for("a progress response", told)


# ---- the loss of a leader ------------------------------------------------------------------------

def test_watches_live_through_leader_loss():
    """A watch on every member, by hand: the members that live tell all, in order, without an end of
    the stream; who asked for a leader is told when there is none."""
    with Cluster(3) as c:
        leader = wait_for("a leader", c.leader)
        followers = [n for n in c.nodes if n is not leader]
        streams = [watchraw.Stream(n) for n in followers]
        for s in streams:
            s.send(CREATE("k", "l", start=1))
            assert s.next().created
        for i in range(5):
            c.ctl("put", f"k{i}", "before")
        leader.kill()
        other = wait_for("another leader", c.leader)
        wait_for("healthy", other.healthy)
        living = ",".join(n.endpoint for n in followers)
        for i in range(5, 10):
            c.ctl("put", f"k{i}", "after", endpoint=living)
        for s in streams:
            keys = []
            while len(keys) < 10:
                r = s.next()
                assert r is not None, "the stream ended"
                keys += [e[1]["key"] for e in r.events]
            assert keys == [f"k{i}" for i in range(10)]
        with watchraw.Stream(followers[0], ("hasleader", "true")) as s:
            s.send(CREATE("k"))
            assert s.next().created
            followers[1].kill()  # no majority is left
            assert s.next() is None
            assert s.unavailable()
            streams[0].send(watchraw.progress())  # who did not ask for a leader goes on
            assert streams[0].next().id == -1


def test_a_stop_ends_streams_at_once(one):
    node = one.nodes[0]
    with watchraw.Stream(node) as s:
        s.send(CREATE("k"))
        assert s.next().created
        begun = time.monotonic()
        assert node.stop() == 0
        assert s.next() is None
        assert s.unavailable()
        assert time.monotonic() - begun < 4
    node.start()
    wait_for("healthy again", node.healthy)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("language", ["go", "node", "python"])
def test_programs(language, size, request):
    c = request.getfixturevalue("one" if size == 1 else "three")
    assert "PASS" in programs.run(programs.watch(language, c.endpoints))


def test_programs_through_leader_loss():
    """Watching programs that run while the leader is killed see every event once, in order."""
    with Cluster(3) as c:
        running = [subprocess.Popen(programs.watch(language, c.endpoints, "-through", "60"),
                                    stdout=subprocess.PIPE, text=True)
                   for language in ("go", "node", "python")]
        for p in running:
            assert p.stdout.readline() == "WATCHING\n"
        for i in range(60):
            if i == 20:
                leader = wait_for("a leader", c.leader)
                leader.kill()
                wait_for("another leader", c.leader)
            living = ",".join(n.endpoint for n in c.nodes if n.process is not None)
            wait_for("a put", lambda: c.ctl("put", f"through/{i:03d}", str(i), ok=None,
                                            endpoint=living)[0] == 0)
        for p in running:
            out, _ = p.communicate(timeout=60)
            assert p.returncode == 0 and "PASS" in out, out
        leader.start()
        wait_for("healthy again", leader.healthy)
        for language in ("go", "node", "python"):
            assert "PASS" in programs.run(programs.watch(language, c.endpoints))


# ---- slow readers, fairness ----------------------------------------------------------------------

def written_to(count, watched):
    """Peak memory of a server that takes so many values, beside a client that does not read; then
    that client reads."""
    value = b"v" * (512 * 1024)
    most = 0
    with Cluster(1, flags=["--quota-backend-bytes", str(4 << 30)]) as c:
        node = c.nodes[0]
        with watchraw.Writer(node) as w, \
                watchraw.Stream(node, window=65535, receive_buffer=65536) as s:
            s.send(CREATE("big/" if watched else "other/", "p"))
            assert s.next().created
            for i in range(count):
                w.put(f"big/{i:04d}", value)
                most = max(most, node.rss_kib())
            s.widen()
            keys = []
            while watched and len(keys) < count:
                r = s.next()
                assert r is not None, "the stream ended"
                keys += [e[1]["key"] for e in r.events]
                assert all(len(e[1]["value"]) == len(value) for e in r.events)
            assert not watched or keys == [f"big/{i:04d}" for i in range(count)]
            s.send(watchraw.progress())
            assert s.next().events == []
    return most


def test_a_client_that_does_not_read_costs_little_and_gets_all():
    """BNS_WATCH_SLOW_MB: how much passes it (48; the show takes 500). Compared with a server that
    takes the same with nobody watching it: log, store and allocator use tens of megabytes."""
    count = int(os.environ.get("BNS_WATCH_SLOW_MB", "48")) * 2
    alone, watched = written_to(count, False), written_to(count, True)
    print(f"{count // 2} MB passed: {watched} KiB, {alone} KiB without")
    assert watched - alone < 32 * 1024


def test_metrics_have_the_names_of_etcd(one):
    node = one.nodes[0]
    names = [f"etcd_debugging_mvcc_{n}_total" for n in
             ("watch_stream", "watcher", "slow_watcher", "events", "pending_events")]
    before = [node.metric(n) for n in names]
    with watchraw.Stream(node) as s, watchraw.Writer(node) as w:
        s.send(CREATE("metric"), CREATE("m", "n"))
        assert s.next().created and s.next().created
        w.put("metric", b"x")
        assert s.next().events and s.next().events
        assert [node.metric(n) - b for n, b in zip(names, before)] == [1, 2, 0, 2, 0]
    wait_for("the stream's end", lambda: node.metric(names[0]) == before[0])
    assert node.metric(names[1]) == before[1]


def test_events_are_not_starved_by_large_ranges(one):
    watchraw.events_beside_large_ranges(one.nodes[0])
