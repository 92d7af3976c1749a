"""Alarms, quota, compaction by itself, hashes, defragmentation, health: beside the real etcd."""
import glob
import json
import os
import re
import sqlite3
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
        return 200, node.get(path)
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
        rounds = sum(n.metric("bns_etcd_hash_checks_total") for n in c.nodes)
        assert rounds >= 1
        assert sum(n.metric("bns_etcd_hash_differences_total") for n in c.nodes) == 0
        assert all(n.healthy() for n in c.nodes)
