"""Bugs that etcd had, tried on live members (docs/etcd-bugs.md has the whole list).

Most of it is JSON over HTTP: a test needs no more than to say what it wants many times at once.
"""
import contextlib
import http.client
import re
import signal
import threading
import time

import load
import watchraw
from cluster import Cluster, wait_for
from jsonclient import Client, Refused, b64, unb64

BIG_TXN = ["--max-txn-ops", "4000"]


def client(node, **more):
    return Client(node.host, node.client, **more)


def put_many(c, prefix, count, lease=0, value="v", chunk=2500):
    """count keys, prefix and seven digits, in transactions."""
    for start in range(0, count, chunk):
        ops = [{"request_put": {"key": b64(f"{prefix}{i:07d}"), "value": b64(value),
                                "lease": str(lease)}}
               for i in range(start, min(start + chunk, count))]
        c.call("kv/txn", success=ops)


def prefix_end(prefix):
    return b64(prefix[:-1] + chr(ord(prefix[-1]) + 1))


def count_of(c, prefix, **more):
    return int(c.call("kv/range", key=b64(prefix), range_end=prefix_end(prefix), count_only=True,
                      **more).get("count", "0"))


def hash_kv(c):
    answer = c.call("maintenance/hashkv")
    return answer["header"]["revision"], answer["hash"]


@contextlib.contextmanager
def beside(*jobs):
    """Each job is called again and again by a thread of its own; an exception fails the test."""
    stop, failed = threading.Event(), []

    def run(job):
        try:
            while not stop.is_set():
                job()
        except Exception as e:  # shown below
            failed.append(e)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for t in threads:
        t.start()
    try:
        yield failed
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not failed, failed


def turns_longer_than(node, seconds):
    """How many turns of the loop there were; the histogram has powers of two, so at least that."""
    most = total = 0
    for line in node.get("/metrics").splitlines():
        m = re.match(r'loop_lag_seconds_bucket\{le="([^"]+)"\} (\d+)', line)
        if m and m.group(1) != "+Inf" and float(m.group(1)) <= seconds:
            most = max(most, int(m.group(2)))
        elif m:
            total = max(total, int(m.group(2)))
    assert total > 0, "no histogram of turns"
    return total - most


def test_members_agree_when_auth_is_enabled_under_load():
    """14571: who was refused, and who was not, must be the same on all members."""
    with Cluster(3) as c:
        clients = [client(n) for n in c.nodes]
        root = clients[0]
        root.call("auth/user/add", name="root", password="r")
        root.call("auth/user/grant", user="root", role="root")
        root.call("auth/role/add", name="w")
        root.call("auth/role/grant", name="w", perm={
            "permType": "READWRITE", "key": b64("a"), "range_end": b64("b")})
        root.call("auth/user/add", name="ann", password="a")
        root.call("auth/user/grant", user="ann", role="w")
        written = [0, 0]

        def write(number, who):
            w = client(c.nodes[number % 3])
            if who:
                with contextlib.suppress(Refused):  # auth may be off
                    w.token = w.call("auth/authenticate", name=who, password=who[0])["token"]
            for i in range(20):
                try:
                    w.call("kv/put", key=b64(f"{'ab'[i % 2]}{number}"), value=b64(str(i)))
                    written[1 if w.token else 0] += 1
                except Refused as e:
                    assert e.code in (3, 7, 16), e
            w.close()

        with beside(*(lambda n=n: write(n, ("", "ann", "root")[n % 3]) for n in range(6))):
            for _ in range(2):
                root.token = None
                root.call("auth/enable")
                root.token = root.call("auth/authenticate", name="root", password="r")["token"]
                before = written[1]
                wait_for("writes with a token", lambda: written[1] > before + 20, 60)
                root.call("auth/disable")
                root.token, before = None, written[0]
                wait_for("writes without", lambda: written[0] > before + 20, 60)
            root.call("auth/enable")
            root.token = root.call("auth/authenticate", name="root", password="r")["token"]
        for m in clients:
            m.token = m.call("auth/authenticate", name="root", password="r")["token"]
        # linearizable: each has applied all that there is
        for m in clients:
            m.call("kv/range", key=b64("a"))
        assert len({hash_kv(m) for m in clients}) == 1, [hash_kv(m) for m in clients]
        told = []
        for m in clients:
            users = {u: m.call("auth/user/get", name=u).get("roles", []) for u in ("root", "ann")}
            told.append((users, m.call("auth/role/get", role="w")["perm"],
                         m.call("auth/status")["authRevision"]))
        assert told[0] == told[1] == told[2], told


def test_no_lease_ends_while_members_are_defragmented():
    """13312, 13313: keepalives are answered while all members give space back."""
    with Cluster(3, flags=BIG_TXN) as c:
        a = client(c.nodes[0])
        put_many(a, "fill", 10000, value="x" * 300, chunk=1000)
        leases = [int(a.call("lease/grant", TTL="5")["ID"]) for _ in range(20)]
        a.call("kv/txn", success=[{"request_put": {
            "key": b64(f"kept{i:03d}"), "value": b64("x"), "lease": str(lease)}}
            for i, lease in enumerate(leases)])
        keeper = client(c.nodes[1])

        def keep():
            for line in keeper.lines("lease/keepalive", *({"ID": str(i)} for i in leases)):
                assert int(line["result"].get("TTL", "0")) == 5, line

        keep()
        revision = int(a.call("kv/deleterange", key=b64("fill"), range_end=prefix_end("fill"))
                       ["header"]["revision"])
        a.call("kv/compaction", revision=str(revision), physical=True)
        with beside(keep):
            end = time.monotonic() + 6  # longer than the TTL, or nothing is shown
            rounds = 0
            while rounds < 2 or time.monotonic() < end:
                for n in c.nodes:
                    client(n, timeout=60).call("maintenance/defragment")
                rounds += 1
        assert count_of(a, "kept") == len(leases)


def test_a_leader_that_stood_still_reads_nothing_old():
    """20418: read at once from the one that slept, however often."""
    with Cluster(3) as c:
        client(c.nodes[0]).call("kv/put", key=b64("x"), value=b64("0"))
        for number in range(1, 3):
            old = wait_for("a leader", c.leader)
            others = [n for n in c.nodes if n is not old]
            old.signal(signal.SIGSTOP)
            answers = []
            # sent while it sleeps: it will find them all when it wakes
            asking = [threading.Thread(target=lambda: answers.append(ask(old))) for _ in range(4)]
            try:
                wait_for("another leader", lambda: any(n.is_leader() for n in others), 30)
                wait_for("a write", lambda: client(others[0]).call(
                    "kv/put", key=b64("x"), value=b64(str(number))), 30)
                for t in asking:
                    t.start()
            finally:
                old.signal(signal.SIGCONT)
            for t in asking:
                t.join()
            assert answers == [number] * 4
            wait_for("all follow", lambda: all(n.healthy() for n in c.nodes), 30)


def ask(node):
    """x, linearizable; asked again when the member says that it cannot know."""
    def once():
        c = client(node, timeout=30)
        try:
            return c.call("kv/range", key=b64("x"))["kvs"][0]["value"]
        except Refused as e:
            assert e.code == 14, e
            return None
        finally:
            c.close()

    return int(unb64(wait_for("an answer", once, 30)))


def test_a_compacted_read_in_a_transaction_is_refused_by_all():
    """18667: whatever is still there physically, the logical number decides."""
    with Cluster(3, flags=BIG_TXN) as c:
        a = client(c.nodes[0])
        for i in range(4):
            put_many(a, "k", 2500, value=str(i))
        revision = int(a.call("kv/put", key=b64("x"), value=b64("x"))["header"]["revision"])
        a.call("kv/compaction", revision=str(revision))  # the rows go in slices, behind this
        for at, code in ((revision - 1, 11), (revision, None), (revision + 50, 11)):
            for n in c.nodes:
                try:
                    client(n).call("kv/txn", success=[
                        {"request_put": {"key": b64("y"), "value": b64("y")}},
                        {"request_range": {"key": b64("k0000001"), "revision": str(at)}}])
                    assert code is None, (n.name, at)
                except Refused as e:
                    assert e.code == code, (n.name, at, e)
        members = [client(n) for n in c.nodes]
        for m in members:
            assert m.call("kv/range", key=b64("y"))["kvs"][0]["version"] == "3"
        assert len({hash_kv(m) for m in members}) == 1


def test_the_revision_never_goes_back_through_crashes_in_compaction_and_defragmentation():
    """17780, 14685: killed while rows go and while pages go, one member alone."""
    with Cluster(1, flags=BIG_TXN) as c:
        n = c.nodes[0]
        highest = 0
        for number in range(4):
            a = client(n)
            put_many(a, "k", 5000, value=str(number) * 400)
            highest = int(a.call("kv/put", key=b64("last"), value=b64(str(number)))
                          ["header"]["revision"])
            before = None
            if number % 2:
                a.call("kv/compaction", revision=str(highest))
                before = hash_kv(a)[1]
                asked = threading.Thread(target=defrag, args=(n,))
                asked.start()
                wait_for("pages go, or are gone", lambda: not asked.is_alive() or
                         n.metric("etcd_disk_defrag_inflight") == 1)
            else:
                a.call("kv/compaction", revision=str(highest - 1))
                before = hash_kv(a)[1]
                asked = None
            n.kill()
            if asked:
                asked.join()
            n.start()
            wait_for("it is back", n.healthy, 30)
            a = client(n)
            r = a.call("kv/range", key=b64("last"))
            assert int(r["header"]["revision"]) == highest
            assert r["kvs"][0]["mod_revision"] == str(highest)
            assert count_of(a, "k") == 5000
            assert hash_kv(a)[1] == before


def defrag(node):
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):  # it is killed
        client(node).call("maintenance/defragment")


def test_the_tombstone_at_the_compacted_revision_is_an_event_on_all_members():
    """18089, 19179: the delete at which history begins, and the hashes of the members."""
    with Cluster(3) as c:
        members = [client(n) for n in c.nodes]
        a = members[0]
        for i in range(3):
            a.call("kv/put", key=b64("t"), value=b64(str(i)))
        at = int(a.call("kv/deleterange", key=b64("t"))["header"]["revision"])
        a.call("kv/put", key=b64("u"), value=b64("1"))
        a.call("kv/compaction", revision=str(at), physical=True)
        for n in c.nodes:
            assert count_of(client(n), "t") == 0
            with watchraw.Stream(n) as s:
                s.send(watchraw.create("t", start=at))
                assert s.next().created
                assert str(s.next()).endswith(f" -t@{at}")
        assert len({hash_kv(m) for m in members}) == 1
        a.call("kv/compaction", revision=str(at + 1), physical=True)  # now it may go
        for m in members:
            m.call("kv/range", key=b64("t"))
        assert len({hash_kv(m) for m in members}) == 1


def test_a_watch_in_the_future_gets_nothing_before(three):
    """20221: on every member, with progress asked for."""
    a = client(three.nodes[0])
    now = int(a.call("kv/put", key=b64("f"), value=b64("0"))["header"]["revision"])
    for n in three.nodes:
        with watchraw.Stream(n) as s:
            s.send(watchraw.create("f", start=now + 4))
            assert s.next().created
            s.send(watchraw.progress())
            for i in range(1, 6):
                a.call("kv/put", key=b64("f"), value=b64(str(i)))
            got = []
            while not any(r.events for r in got):
                got.append(s.next())
            notices = [r for r in got if not r.events]
            assert all(r.revision >= now + 3 for r in notices), [str(r) for r in got]
            assert " +f=4@" in str(got[-1]), [str(r) for r in got]
        now += 5


def test_a_hundred_thousand_keys_go_in_one_entry_and_nobody_waits_for_a_heartbeat():
    """Sizes: a delete and the end of a lease with very many keys are long, their turns are not."""
    keys, slow = 100000, ["--heartbeat-interval", "300", "--election-timeout", "3000"]
    with Cluster(3, flags=BIG_TXN + slow) as c:
        leader = wait_for("a leader", c.leader)
        a = client(leader, timeout=120)
        put_many(a, "d", keys, chunk=500)
        lease = a.call("lease/grant", TTL="600")["ID"]
        put_many(a, "l", keys, lease=int(lease), chunk=500)
        small = a.call("lease/grant", TTL="6")["ID"]
        a.call("kv/put", key=b64("small"), value=b64("1"), lease=small)
        terms = {n.metric("raft_term") for n in c.nodes}
        long_before = [turns_longer_than(n, 0.5) for n in c.nodes]
        keeper, reader = client(c.nodes[0], timeout=60), client(c.nodes[1], timeout=60)
        counts = set()

        def keep():
            line = keeper.lines("lease/keepalive", {"ID": small})[0]
            assert line["result"].get("TTL") == "6", line

        def read():
            counts.add(count_of(reader, "d"))

        with beside(keep, read):
            looked = a.call("lease/timetolive", ID=lease, keys=True)
            assert len(looked["keys"]) == keys
            gone = a.call("kv/deleterange", key=b64("d"), range_end=prefix_end("d"))
            assert gone["deleted"] == str(keys)
            a.call("lease/revoke", ID=lease)
        assert counts <= {0, keys}, counts
        members = [client(n, timeout=60) for n in c.nodes]
        assert [count_of(m, "l") for m in members] == [0, 0, 0]
        assert count_of(a, "small") == 1
        assert {n.metric("raft_term") for n in c.nodes} == terms
        assert [turns_longer_than(n, 0.5) for n in c.nodes] == long_before
        assert len({hash_kv(m) for m in members}) == 1


def test_ended_leases_go_under_overload():
    """Revocations are not starved by more writes than the members can take."""
    with Cluster(3) as c:
        a = client(c.nodes[0])
        leases = [a.call("lease/grant", TTL="2")["ID"] for _ in range(100)]
        for i, lease in enumerate(leases):
            a.call("kv/put", key=b64(f"short{i}"), value=b64("x"), lease=lease)
        flood = load.start(c.endpoints, clients=512, conns=16, seconds=12, value_bytes=1024)
        try:
            wait_for("the leases are over", lambda: count_of(a, "short", serializable=True) == 0,
                     10)
            assert flood.poll() is None, "the load was over first"
        finally:
            flood.kill()
            flood.communicate()
