"""Programs that speak JSON only: the library etcd3gw, and a client written from the description."""
import json
import shutil
import subprocess
import threading

import pytest

import programs
from cluster import Cluster, wait_for
from conftest import need
from jsonclient import Client, Refused, Stream, b64, of, unb64
from needs import missing
from test_tls import Pki

GW = """
import sys, threading, etcd3gw
from etcd3gw.utils import _encode
host, port = sys.argv[1].split(":")
c = etcd3gw.client(host=host, port=int(port), timeout=20)
c.delete_prefix("gw/")
assert c.put("gw/a", "1") and c.get("gw/a") == [b"1"]
assert c.create("gw/b", "x") and not c.create("gw/b", "y")
assert c.replace("gw/a", "1", "2") and not c.replace("gw/a", "1", "3")
r = c.transaction({"compare": [{"key": _encode("gw/a"), "result": "EQUAL", "target": "VALUE",
                                "value": _encode("2")}],
                   "success": [{"request_put": {"key": _encode("gw/c"), "value": _encode("won")}}],
                   "failure": []})
assert r["succeeded"] and c.get("gw/c") == [b"won"]
assert [m["key"] for _, m in c.get_prefix("gw/")] == [b"gw/a", b"gw/b", b"gw/c"]
assert c.get_all(sort_order="descend")[0][1]["key"] == b"gw/c"
assert c.delete("gw/a") and not c.delete("gw/a")
lease = c.lease(ttl=60)
c.put("gw/l", "leased", lease=lease)
assert lease.keys() == [b"gw/l"] and lease.refresh() == 60 and 50 < lease.ttl() <= 60
lease.revoke()
assert c.get("gw/l") == []
events, cancel = c.watch_prefix("gw/w")
for n in range(5):
    c.put("gw/w%d" % n, str(n))
assert [next(events)["kv"]["key"] for n in range(5)] == [b"gw/w%d" % n for n in range(5)]
cancel()
def later():
    c.put("gw/once", "now")
t = threading.Timer(0.2, later)
t.start()
assert c.watch_once("gw/once", timeout=10)["kv"]["value"] == b"now"
t.join()
with c.lock(id="gw", ttl=20) as one:
    assert one.is_acquired()
    two = c.lock(id="gw", ttl=20)
    assert not two.acquire()
assert two.acquire() and two.release()
assert len(c.members()) == int(sys.argv[2]) and c.status()["version"]
print("PASS")
"""


@pytest.mark.parametrize("size", [1, 3])
def test_etcd3gw(size, request):
    cluster = request.getfixturevalue("one" if size == 1 else "three")
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import etcd3gw"], capture_output=True).returncode != 0:
        missing("python3-etcd3gw", "a client of the JSON gateway")
    for n in cluster.nodes:
        assert "PASS" in programs.run([python, "-c", GW, n.endpoint, str(size)])


# ---- written from the description ---------------------------------------------------------------
def keys(c):
    first = int(c.put("p/a", "1")["header"]["revision"])
    assert c.put("p/a", "2", prev_kv=True)["prev_kv"]["value"] == b64("1")
    assert c.get("p/a") == "2"
    old = c.call("kv/range", key=b64("p/a"), revision=first)
    assert unb64(old["kvs"][0]["value"]) == "1"
    with pytest.raises(Refused) as e:
        c.call("kv/range", key=b64("p/a"), revision=first + 1000)
    assert (e.value.status, e.value.code) == (400, 11)
    assert c.call("kv/deleterange", key=b64("p/"), range_end=b64("p0"))["deleted"] == "1"
    assert c.get("p/a") is None


def compare_and_swap(c, key, old, new):
    return c.call("kv/txn",
                  compare=[{"key": b64(key), "target": "VALUE", "value": b64(old)}],
                  success=[{"request_put": {"key": b64(key), "value": b64(new)}}]
                  ).get("succeeded", False)


def transactions(c):
    c.put("n", "0")
    made = []

    def add():
        mine, done = Client(c.host, c.port, c.tls), 0
        mine.token = c.token
        while done < 20:
            old = mine.get("n")
            done += compare_and_swap(mine, "n", old, str(int(old) + 1))
        made.append(done)

    threads = [threading.Thread(target=add) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert made == [20] * 3
    assert c.get("n") == "60"


def watches(c):
    with Stream(c, "watch", {"create_request": {"key": b64("e"), "range_end": b64("f"),
                                                "prev_kv": True}}) as s:
        assert s.next()["created"]
        for n in range(50):
            c.put(f"e{n % 5}", str(n))
        seen = []
        while len(seen) < 50:
            seen += s.next()["events"]
    assert [unb64(e["kv"]["value"]) for e in seen] == [str(n) for n in range(50)]
    assert unb64(seen[-1]["prev_kv"]["value"]) == "44"
    revisions = [int(e["kv"]["mod_revision"]) for e in seen]
    assert revisions == sorted(set(revisions))
    # again, from the middle: nothing missing, nothing twice
    again = c.connect()
    again.request("POST", "/v3/watch", b'{"create_request":{"key":"ZQ==","range_end":"Zg==",'
                  b'"start_revision":"%d"}}' % revisions[25])
    r, lines = again.getresponse(), []
    while len(lines) < 25:
        lines += json.loads(r.readline())["result"].get("events", [])
    assert [e["kv"] for e in lines] == [e["kv"] for e in seen[25:]]
    again.close()


def leases(c):
    granted = c.call("lease/grant", TTL=2)
    assert granted["TTL"] == "2"
    c.put("leased", "x", lease=granted["ID"])
    for _ in range(3):
        (line,) = c.lines("lease/keepalive", {"ID": granted["ID"]})
        assert line["result"]["TTL"] == "2"
    assert c.get("leased") == "x"
    wait_for("the lease to end", lambda: c.get("leased") is None)
    (line,) = c.lines("lease/keepalive", {"ID": granted["ID"]})
    assert "TTL" not in line["result"]


def locks(c):
    ids = [c.call("lease/grant", TTL=60)["ID"] for _ in range(2)]
    held = c.call("lock/lock", name=b64("L"), lease=ids[0])["key"]
    other, got = Client(c.host, c.port, c.tls), []
    other.token = c.token
    waiting = threading.Thread(
        target=lambda: got.append(other.call("lock/lock", name=b64("L"), lease=ids[1])["key"]))
    waiting.start()
    wait_for("the other to stand in the queue",
             lambda: c.call("kv/range", key=b64("L/"), range_end=b64("L0"))["count"] == "2")
    assert not got
    c.call("lock/unlock", key=held)
    waiting.join(timeout=20)
    assert got and got[0] != held
    c.call("lock/unlock", key=got[0])
    for n in ids:
        c.call("lease/revoke", ID=n)


def elections(c):
    lease = c.call("lease/grant", TTL=60)["ID"]
    leader = c.call("election/campaign", name=b64("E"), lease=lease, value=b64("me"))["leader"]
    with Stream(c, "election/observe", {"name": b64("E")}) as s:
        s.half_close()
        assert unb64(s.next()["kv"]["value"]) == "me"
        c.call("election/proclaim", leader=leader, value=b64("still me"))
        assert unb64(s.next()["kv"]["value"]) == "still me"
    assert unb64(c.call("election/leader", name=b64("E"))["kv"]["value"]) == "still me"
    c.call("election/resign", leader=leader)
    with pytest.raises(Refused) as e:
        c.call("election/leader", name=b64("E"))
    assert e.value.text == "election: no leader"
    c.call("lease/revoke", ID=lease)


def users(c):
    """Turns passwords on for everyone: the last program of a cluster."""
    for name in ["root", "reader"]:
        c.call("auth/user/add", name=name, password=name + "-secret")
        c.call("auth/role/add", name=name)
        c.call("auth/user/grant", user=name, role=name)
    c.call("auth/role/grant", name="reader",
           perm={"permType": "READ", "key": b64("open/"), "range_end": b64("open0")})
    c.call("auth/enable")
    try:
        with pytest.raises(Refused) as e:
            c.get("open/a")
        assert (e.value.status, e.value.text) == (400, "etcdserver: user name is empty")
        with pytest.raises(Refused) as e:
            c.login("root", "wrong")
        assert e.value.code == 3
        c.token = "nobody.7"
        with pytest.raises(Refused) as e:
            c.get("open/a")
        assert (e.value.status, e.value.code) == (401, 16)
        c.token = None
        c.login("root", "root-secret")
        c.put("open/a", "1")
        c.put("closed/a", "1")
        assert c.call("auth/user/list")["users"] == ["reader", "root"]
        c.login("reader", "reader-secret")
        assert c.get("open/a") == "1"
        for refused in [lambda: c.get("closed/a"), lambda: c.put("open/a", "2"),
                        lambda: c.call("auth/user/list")]:
            with pytest.raises(Refused) as e:
                refused()
            assert (e.value.status, e.value.code) == (403, 7)
        with Stream(c, "watch", {"create_request": {"key": b64("closed/a")}}) as s:
            said = s.next()
            assert said["canceled"] and "permission denied" in said["cancel_reason"]
        with Stream(c, "watch", {"create_request": {"key": b64("open/a")}}) as s:
            assert s.next()["created"]
    finally:
        c.token = None
        c.login("root", "root-secret")
        c.call("auth/disable")
        c.token = None
        for name in ["root", "reader"]:
            c.call("auth/user/delete", name=name)
            c.call("auth/role/delete", role=name)


PROGRAMS = [keys, transactions, watches, leases, locks, elections, users]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_from_the_description(program, three):
    assert three.nodes[1].get("/version")  # such clients ask first
    program(of(three.nodes[1]))


def test_over_tls():
    need("openssl", "to make certificates")
    pki = Pki()
    try:
        with Cluster(1, tls=pki.tls(), flags=pki.flags()) as c:
            for program in PROGRAMS:
                program(of(c.nodes[0]))
    finally:
        shutil.rmtree(pki.dir, ignore_errors=True)
