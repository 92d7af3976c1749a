"""Alarms, quota, compaction by itself, hashes, defragmentation, health: beside the real etcd."""
import json
import re
import urllib.error

import h2raw as h2
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
