"""Alarms, quota, compaction by itself, hashes, defragmentation, health: beside the real etcd."""
import glob
import json
import os
import re
import sqlite3
import time
import urllib.error

import h2raw as h2
import load
from cluster import Cluster, wait_for
from conftest import need

NO_SPACE = "etcdserver: mvcc: database space exceeded"
CORRUPT = "etcdserver: corrupt cluster"


def status_code(node, path):
    """HTTP status and body."""
    try:
        return 200, node.get(path, timeout=15)
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def fill(c, key="big", size=200_000):
    """Puts until the quota is used up."""
    def full():
        code, _, err = c.ctl("put", key, stdin="v" * size, ok=None)
        assert code == 0 or NO_SPACE in err, err
        return code != 0
    wait_for("the quota is full", full)


def full_story(c):
    """What a client sees of a full quota, from the first refusal to the disarming; without what
    differs by nature: member ids and sizes."""
    told = []

    def tell(*args, stdin=None):
        code, out, err = c.ctl(*args, stdin=stdin, ok=None)
        error = err.strip().splitlines()[-1] if code else ""
        told.append((args[0], code, re.sub(r"\d+", "N", out), error))
    fill(c)
    tell("alarm", "list")
    tell("put", "small", stdin="v")
    tell("lease", "grant", "60")
    tell("txn", stdin="\nput a 1\n\n\n")
    tell("txn", stdin="\ndel a\n\n\n")
    tell("txn", stdin="\nget a\n\n\n")
    tell("del", "big")
    status = json.loads(c.ctl("endpoint", "status", "-w", "json"))[0]["Status"]
    told.append([re.sub(r"\d+", "N", e) for e in status["errors"]])
    tell("compact", str(status["header"]["revision"]))
    tell("defrag")
    told[-1] = told[-1][:2]  # it names the endpoint
    tell("put", "small", stdin="v")
    tell("alarm", "disarm")
    tell("alarm", "list")
    tell("put", "small", stdin="v")
    return told


def test_a_full_quota_is_an_alarm_as_with_etcd():
    need("etcdctl", "the real client")
    need("etcd", "the real server")
    quota = ["--quota-backend-bytes", str(2 << 20)]
    with Cluster(1, real=True, flags=quota) as c:
        real = full_story(c)
    with Cluster(1, flags=quota + ["--auto-disarm=false"]) as c:
        assert full_story(c) == real


def test_no_space_clears_itself_when_there_is_room():
    need("etcdctl", "the real client")
    with Cluster(3, flags=["--quota-backend-bytes", str(2 << 20)]) as c:
        fill(c)
        for n in c.nodes:
            assert "alarm:NOSPACE" in c.ctl("alarm", "list", endpoint=n.endpoint)
            code, body = status_code(n, "/health")
            assert (code, json.loads(body)) == (503, {"health": "false",
                                                      "reason": "ALARM NOSPACE"})
            assert status_code(n, "/health?exclude=NOSPACE")[0] == 200
            code, _, err = c.ctl("put", "x", "1", endpoint=n.endpoint, ok=None)
            assert code != 0 and NO_SPACE in err, err
        c.ctl("del", "big")
        revision = json.loads(c.ctl("get", "x", "-w", "json"))["header"]["revision"]
        c.ctl("compact", str(revision), "--physical")
        wait_for("the alarm is gone", lambda: c.ctl("alarm", "list") == "")
        c.ctl("put", "x", "1")
        assert all(n.healthy() for n in c.nodes)


def test_corrupt_blocks_keys_and_leases():
    need("etcdctl", "the real client")
    with Cluster(1) as c:
        n = c.nodes[0]
        c.ctl("put", "a", "1")
        lease = c.ctl("lease", "grant", "600").split()[1]
        alarm_request(n, 1, 77, 2)
        for args in (["put", "a", "2"], ["get", "a"], ["get", "a", "--consistency=s"], ["del", "a"],
                     ["compact", "1"], ["lease", "grant", "60"], ["lease", "revoke", lease],
                     ["lease", "timetolive", lease], ["lease", "list"]):
            code, _, err = c.ctl(*args, ok=None)
            assert code != 0 and CORRUPT in err, (args, err)
        assert json.loads(status_code(n, "/health")[1])["reason"] == "ALARM CORRUPT"
        assert c.ctl("alarm", "list") == "memberID:77 alarm:CORRUPT \n"
        assert c.ctl("alarm", "disarm") == "memberID:77 alarm:CORRUPT \n"
        assert c.ctl("get", "a", "--print-value-only") == "1\n"


def unary(node, path, body=b""):
    """One call for which etcdctl has no verb; the frames of its answer."""
    with h2.Conn(node) as conn:
        conn.send(h2.request(1, path, body))
        return conn.until(lambda f: f[0] == h2.HEADERS and f[1] & h2.END_STREAM)


def integer(no, n):
    """A protobuf field of a varint."""
    return bytes([no << 3]) + h2.number(n)


def alarm_request(node, action, member, kind):
    frames = unary(node, "/etcdserverpb.Maintenance/Alarm",
                   integer(1, action) + integer(2, member) + integer(3, kind))
    assert any(f[0] == h2.DATA for f in frames)


def compacted(node):
    return node.metric("etcd_debugging_mvcc_compact_revision")


def test_history_is_compacted_by_itself():
    need("etcdctl", "the real client")
    flags = ["--auto-compaction-mode=periodic", "--auto-compaction-retention=1s"]
    with Cluster(3, flags=flags) as c:
        for i in range(5):
            c.ctl("put", "a", str(i))
        wait_for("all have compacted to the last put",
                 lambda: all(compacted(n) >= 6 for n in c.nodes))
        code, _, err = c.ctl("get", "a", "--rev=3", ok=None)
        assert code != 0 and "required revision has been compacted" in err
        assert c.ctl("get", "a", "--print-value-only") == "4\n"
        c.leader().kill()
        new = wait_for("a new leader", c.leader)
        c.ctl("put", "a", "5", endpoint=new.endpoint)
        wait_for("the new leader goes on",
                 lambda: all(compacted(n) >= 7 for n in c.nodes if n.process))


def test_flags_of_compaction_are_checked():
    for flags, text in ((["--auto-compaction-mode=hourly"],
                         'unknown auto-compaction-mode "hourly"'),
                        (["--auto-compaction-retention=soon"], "error parsing")):
        c = Cluster(1, flags=flags)
        try:
            c.nodes[0].start()
            assert c.nodes[0].process.wait(10) != 0
            with open(c.nodes[0].log) as f:
                assert text in f.read()
            c.nodes[0].process = None
        finally:
            c.close()


def alter(node):
    """One bit of one stored value, behind the back of a member that is not running."""
    path = glob.glob(os.path.join(node.dir, "kv", "kv-*.db"))[0]
    db = sqlite3.connect(path)
    main, sub, kv = db.execute("SELECT main, sub, kv FROM rev WHERE main > 0 LIMIT 1").fetchone()
    assert kv.endswith(b"sound")
    db.execute("UPDATE rev SET kv = ? WHERE main = ? AND sub = ?",
               (kv[:-1] + bytes([kv[-1] ^ 1]), main, sub))
    db.commit()
    db.close()


def odd_member_is_found(flags, provoke=lambda c: None):
    with Cluster(3, flags=flags) as c:
        for i in range(20):
            c.ctl("put", f"k{i:02}", "sound")
        assert len({c.ctl("endpoint", "hashkv", endpoint=n.endpoint).split(",")[1]
                    for n in c.nodes}) == 1
        victim = next(n for n in c.nodes if not n.is_leader())
        assert victim.stop() == 0
        alter(victim)
        victim.start()
        wait_for("healthy or alarmed", lambda: victim.get("/version"))
        member = json.loads(wait_for("it answers", lambda: c.ctl(
            "endpoint", "status", "-w", "json", endpoint=victim.endpoint)))[0]
        member = member["Status"]["header"]["member_id"]
        provoke(c)
        expected = f"memberID:{member} alarm:CORRUPT \n"
        wait_for("the alarm", lambda: c.ctl("alarm", "list") == expected)
        for n in c.nodes:
            wait_for("it refuses", lambda: CORRUPT in c.ctl("get", "k00", endpoint=n.endpoint,
                                                           ok=None)[2])


def test_a_member_with_other_data_is_found_by_the_periodic_check():
    need("etcdctl", "the real client")
    odd_member_is_found(["--experimental-corrupt-check-time=1s"])


def test_a_member_with_other_data_is_found_after_a_compaction():
    need("etcdctl", "the real client")
    odd_member_is_found(["--experimental-compact-hash-check-enabled",
                         "--experimental-compact-hash-check-time=1s"],
                        lambda c: c.ctl("compact", "10"))


def test_a_member_with_other_data_is_found_at_its_start():
    need("etcdctl", "the real client")
    odd_member_is_found(["--experimental-initial-corrupt-check"])


def test_checks_do_not_cry_wolf_under_load():
    with Cluster(3, flags=["--corrupt-check-time=1s", "--auto-compaction-retention=1s"]) as c:
        load.run(c.endpoints, clients=16, seconds=4, keys=500)
        wait_for("a round", lambda: sum(n.metric("bns_etcd_hash_checks_total")
                                        for n in c.nodes) >= 1, 30)
        assert sum(n.metric("bns_etcd_hash_differences_total") for n in c.nodes) == 0
        assert all(n.healthy() for n in c.nodes)


READY = ["data_corruption", "serializable_read", "linearizable_read", "non_learner"]


def test_livez_and_readyz_as_etcd_answers_them():
    with Cluster(3) as c:
        n = c.nodes[0]
        for path in ("/livez", "/readyz", "/livez/serializable_read",
                     *("/readyz/" + name for name in READY)):
            assert status_code(n, path) == (200, "ok"), path
        assert status_code(n, "/readyz?verbose") == (
            200, "".join(f"[+]{name} ok\n" for name in READY) + "/readyz check passed\n")
        assert status_code(n, "/livez?verbose=1")[1] == \
            "[+]serializable_read ok\n/livez check passed\n"
        assert status_code(n, "/readyz/nothing")[0] == 404
        alarm_request(n, 1, 5, 2)
        code, body = status_code(n, "/readyz")
        assert code == 503 and body.startswith(
            "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n")
        assert body.endswith("/readyz check failed\n")
        assert status_code(n, "/readyz?exclude=data_corruption") == (200, "ok")
        assert status_code(n, "/livez") == (200, "ok")  # a restart would not help
        alarm_request(n, 2, 5, 2)
        for other in c.nodes[1:]:
            other.kill()
        wait_for("no quorum", lambda: status_code(n, "/readyz")[0] == 503)
        code, body = status_code(n, "/readyz?verbose")
        assert "[-]linearizable_read failed: range error: etcdserver: " in body
        assert status_code(n, "/livez") == (200, "ok")
        assert status_code(n, "/readyz?exclude=linearizable_read") == (200, "ok")
        assert json.loads(status_code(n, "/health")[1])["reason"] == "RAFT NO LEADER"
        assert status_code(n, "/health?serializable=true")[0] == 200


def health(node, service):
    return unary(node, "/grpc.health.v1.Health/Check", h2.field(1, service) if service else b"")


def test_grpc_health():
    with Cluster(1) as c:
        n = c.nodes[0]
        data = [f[3] for f in health(n, b"") if f[0] == h2.DATA and f[3]]
        assert data == [h2.message(b"\x08\x01")]  # SERVING
        assert not [f for f in health(n, b"etcdserverpb.KV") if f[0] == h2.DATA]  # NOT_FOUND
        for service, state in ((b"", b"\x08\x01"), (b"nope", b"\x08\x03")):
            with h2.Conn(n) as conn:
                conn.send(h2.request(1, "/grpc.health.v1.Health/Watch", h2.field(1, service)))
                first = conn.until(lambda f: f[0] == h2.DATA and f[3])[-1]
                assert first[3] == h2.message(state)
        with h2.Conn(n) as conn:
            conn.send(h2.request(1, "/grpc.health.v1.Health/Watch", b""))
            conn.until(lambda f: f[0] == h2.DATA and f[3])
            n.signal(15)
            told = conn.until(lambda f: f[0] == h2.DATA and f[3])[-1]
            assert told[3] == h2.message(b"\x08\x02")  # NOT_SERVING
            assert n.process.wait(20) == 0
            n.process = None


def test_quota_flag():
    need("etcdctl", "the real client")
    for value, quota in (("0", 2147483648), ("-1", 0), (str(9 << 30), 9 << 30)):
        with Cluster(1, flags=["--quota-backend-bytes", value]) as c:
            assert c.nodes[0].metric("etcd_server_quota_backend_bytes") == quota
            c.ctl("put", "a", "1")
            with open(c.nodes[0].log) as f:
                assert ("8 GiB" in f.read()) == (value == str(9 << 30))


def test_metrics_have_etcds_names():
    with Cluster(1) as c:
        c.ctl("put", "a", "1")
        text = c.nodes[0].get("/metrics")
        for name in ("etcd_server_id{server_id=", 'etcd_server_version{server_version="3.6.0"} 1',
                     'etcd_cluster_version{cluster_version="3.6"} 1',
                     "etcd_server_leader_changes_seen_total ", "etcd_server_proposals_pending 0",
                     "etcd_server_proposals_failed_total ", "etcd_server_health_success ",
                     "etcd_server_health_failures 0", "etcd_server_read_indexes_failed_total ",
                     "etcd_disk_wal_fsync_duration_seconds_count ",
                     "etcd_network_client_grpc_sent_bytes_total{",
                     "etcd_network_client_grpc_received_bytes_total{",
                     "etcd_debugging_mvcc_put_total 1", "etcd_disk_defrag_inflight 0"):
            assert "\n" + name in text, name
        assert c.nodes[0].metric("etcd_network_client_grpc_received_bytes_total") > 0
        assert c.nodes[0].metric("etcd_disk_wal_fsync_duration_seconds_count") > 0


def test_storage_in_memory():
    need("etcdctl", "the real client")
    with Cluster(1, flags=["--storage=memory"]) as c:
        n = c.nodes[0]
        for i in range(50):
            c.ctl("put", f"k{i}", "v" * 1000)
        c.ctl("compact", "40", "--physical")
        c.ctl("defrag")
        assert len(c.ctl("get", "k", "--prefix", "--keys-only").split()) == 50
        assert not os.path.exists(n.dir)
        with open(n.log) as f:
            assert "UNSAFE: --storage memory" in f.read()
        best = 1e9
        for _ in range(10):
            assert n.stop() == 0
            begin = time.perf_counter()
            n.start()
            wait_for("ready", lambda: n.healthy(), seconds=10)
            best = min(best, time.perf_counter() - begin)
        print(f"start to healthy {best * 1000:.1f} ms, {n.rss_kib()} KiB")
        assert best < 0.5
        assert c.ctl("get", "k", "--prefix") == ""
    with Cluster(3, flags=["--storage=memory"]) as c:
        for i in range(60):
            c.ctl("put", f"k{i}", "1", endpoint=c.nodes[i % 3].endpoint)
        for n in c.nodes:
            wait_for("each has all of it", lambda: len(c.ctl(
                "get", "k", "--prefix", "--keys-only", "--consistency=s",
                endpoint=n.endpoint).split()) == 60)
