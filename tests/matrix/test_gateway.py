"""The JSON gateway against the real one, and against clients that know nothing but JSON.

Masked: ids, term, and what follows from our version (3.6 instead of 3.4): HTTP 400 instead of 412
for code 9, texts of JSON that does not parse, `code` in errors of streams, 501 for GET.
"""
import http.client
import json

import pytest

from cluster import Cluster, free_ports, wait_for
from conftest import need
from jsonclient import Client, Refused, Stream, b64, of, unb64

A, B, C, Z = (b64(x) for x in "abcz")

# (path, body); the body as text or as what becomes JSON. A third element: only statuses and codes
# are compared, because the text names the parser's own words.
CALLS = [
    ("kv/range", {"key": A}), ("kv/put", {"key": A, "value": B}),
    ("kv/put", {"key": A, "value": C, "prev_kv": True}),
    ("kv/put", {"key": A, "value": B, "prevKv": True}),
    ("kv/range", {"key": A}), ("kv/range", {"key": A, "revision": "2"}),
    ("kv/range", {"key": A, "revision": 2}), ("kv/range", {"key": A, "revision": "99"}),
    ("kv/range", {"key": A, "count_only": True}), ("kv/range", {"key": A, "keysOnly": True}),
    ("kv/put", {"key": B, "value": ""}), ("kv/put", {"key": C}), ("kv/put", {"key": ""}),
    ("kv/range", {}), ("kv/range", ""), ("kv/range", "null"), ("kv/range", '{"key":"YQ=="} x'),
    ("kv/range", {"key": A, "range_end": Z}), ("kv/range", {"key": A, "range_end": Z, "limit": 1}),
    ("kv/range", {"key": A, "range_end": Z, "sort_order": "DESCEND", "sort_target": "VERSION"}),
    ("kv/range", {"key": A, "range_end": Z, "sort_order": 2, "sortTarget": 4}),
    ("kv/range", {"key": A, "range_end": Z, "sort_order": "NONE", "nobody": {"knows": [1, {}]}}),
    ("kv/range", {"key": "AA==", "range_end": "AA=="}),
    ("kv/put", {"key": A, "ignore_value": True}), ("kv/put", {"key": Z, "ignore_value": True}),
    ("kv/put", {"key": A, "value": B, "ignore_value": True}),
    ("kv/put", {"key": A, "value": B, "lease": "1234"}),
    ("kv/deleterange", {"key": Z}), ("kv/deleterange", {"key": C, "prev_kv": True}),
    ("kv/deleterange", {"key": ""}),
    ("kv/txn", {"compare": [{"key": A, "target": "VERSION", "result": "GREATER", "version": "1"}],
                "success": [{"request_range": {"key": A}}, {"request_put": {"key": C, "value": C}},
                            {"request_delete_range": {"key": B, "prev_kv": True}}],
                "failure": [{"request_put": {"key": Z}}]}),
    ("kv/txn", {"compare": [{"key": A, "target": "VALUE", "value": Z}],
                "success": [{"requestPut": {"key": Z}}],
                "failure": [{"requestRange": {"key": C}}]}),
    ("kv/txn", {"compare": [{"key": Z, "target": "CREATE", "create_revision": "0"}],
                "success": [{"request_txn": {"success": [{"request_put": {"key": Z}}]}}]}),
    ("kv/txn", {"compare": [{"key": A, "range_end": Z, "target": "MOD", "result": "NOT_EQUAL",
                             "mod_revision": "0"}]}),
    ("kv/txn", {"success": [{}]}), ("kv/txn", {}),
    ("kv/txn", {"success": [{"request_put": {"key": A}}, {"request_put": {"key": A}}]}),
    ("kv/txn", {"success": [{"request_range": {"key": A}}] * 129}),
    ("kv/compaction", {"revision": "5"}), ("kv/compaction", {"revision": "5"}),
    ("kv/compaction", {"revision": "99"}), ("kv/range", {"key": A, "revision": "3"}),
    ("kv/compaction", {"revision": 6, "physical": True}),
    ("lease/grant", {"TTL": "100", "ID": "7"}), ("lease/grant", {"TTL": 100, "ID": 7}),
    ("lease/grant", {"TTL": "9000000001"}), ("kv/put", {"key": A, "value": B, "lease": "7"}),
    ("lease/timetolive", {"ID": "7", "keys": True}), ("kv/lease/timetolive", {"ID": "9"}),
    ("lease/leases", {}), ("kv/lease/leases", {}),
    ("lease/keepalive", {"ID": "7"}), ("lease/keepalive", '{"ID":"7"}\n{"ID":"9"}'),
    ("lease/keepalive", '{"ID":"7"}{"ID":'), ("lease/keepalive", ""),
    ("lease/revoke", {"ID": "7"}), ("kv/lease/revoke", {"ID": "7"}), ("kv/range", {"key": A}),

    ("kv/nothing", {}), ("nothing", {}), ("kv/range/", {"key": A}),
    ("kv/put", {"key": "!!"}, 0), ("kv/put", "{", 0), ("kv/put", "[]", 0),
    ("kv/put", '{"key":5}', 0),
    ("kv/put", "5", 0), ("kv/put", '"x"', 0), ("kv/put", '{"key"}', 0), ("kv/put", "{'key':''}", 0),
    ("kv/range", {"key": A, "limit": "a"}, 0), ("kv/range", {"key": A, "limit": 1.5}, 0),
    ("kv/range", {"key": A, "limit": True}, 0), ("kv/range", {"key": A, "sort_order": "WHAT"}, 0),
    ("kv/range", {"key": A, "limit": "9223372036854775808"}, 0),
    ("kv/range", '{"key":"YQ==","limit":NaN}', 0), ("kv/range", {"key": {"a": 1}}, 0),
    ("kv/range", {"key": A, "serializable": "true"}, 0), ("kv/txn", {"compare": {}}, 0),
    ("kv/txn", "{\"x\":" + "[" * 20000 + "]" * 20000 + "}", 0),
]

MASKED = {"cluster_id", "member_id", "raft_term", "ID", "dbSize", "dbSizeInUse", "name",
          "peerURLs", "clientURLs"}


def masked(v):
    if isinstance(v, dict):
        return {k: "*" if k in MASKED and not isinstance(x, dict) else masked(x)
                for k, x in v.items()}
    return [masked(x) for x in v] if isinstance(v, list) else v


def answer(client, path, body, loose=False):
    text = body if isinstance(body, str) else json.dumps(body)
    status, headers, got = client.raw("/v3/" + path, text.encode())
    kind = headers.get("Content-Type")
    if kind != "application/json":
        return status, kind, got.decode().strip()
    lines = [json.loads(line) for line in got.decode().splitlines()]
    if loose:
        return status, kind, [x.get("code") for x in lines]
    if status == 412:
        status = 400
    return status, kind, masked(lines)


@pytest.fixture(scope="module")
def both():
    need("etcd", "the real server, to compare with")
    with Cluster(1) as ours, Cluster(1, real=True) as real:
        yield of(ours.nodes[0]), of(real.nodes[0])


def test_the_same_calls_give_the_same_answers(both):
    ours, real = both
    for path, body, *loose in CALLS:
        want = answer(real, path, body, bool(loose))
        got = answer(ours, path, body, bool(loose))
        assert got == want, f"{path} {str(body)[:200]}\n real {want}\n ours {got}"


def test_other_methods_are_refused_and_options_are_not(both):
    for method in ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]:
        want, got = (c.raw("/v3/kv/range", method=method) for c in reversed(both))
        assert got[0] == want[0], method
        assert got[2].strip() == want[2].strip()
        for name in ["Methods", "Origin", "Headers"]:
            name = "Access-Control-Allow-" + name
            assert got[1].get(name) == want[1].get(name)


def test_a_deadline_ends_a_watch_with_an_error_line(both):
    for c in both:
        status, _, body = c.raw("/v3/watch", json.dumps({"create_request": {"key": A}}).encode(),
                                headers={"Grpc-Timeout": "200m"})
        first, last = (json.loads(line) for line in body.splitlines())
        assert status == 200
        assert first["result"]["created"]
        last = last["error"]
        if c is both[0] or last["grpc_code"] != 2:  # the real one mistakes itself now and then
            assert (last["grpc_code"], last["http_code"]) == (4, 504)
            assert last["message"] == "context deadline exceeded"
        status, _, body = c.raw("/v3/kv/range", b"{}", headers={"Grpc-Timeout": "x"})
        assert (status, json.loads(body)["message"]) == (400, "invalid grpc-timeout: x")


def test_messages_that_are_too_large_are_refused(both):
    for size, status, text in [(3000000, 429, "grpc: received message larger than max "
                                              "(3000008 vs. 2097152)"),
                               (1600000, 400, "etcdserver: request is too large")]:
        for c in both:
            with pytest.raises(Refused) as e:
                c.put("k", "v" * size)
            assert (e.value.status, e.value.text) == (status, text)
    assert both[0].get("k") is None


def test_what_is_not_text_is_refused(one):
    c = of(one.nodes[0])
    bodies = [b'{"key":"\xff"}', b'{"\xc0\x80":1}', b'{"key":"YQ==\\u0000"}', b"\x00",
              b"\xef\xbb\xbf{",
              b'{"success":[' + b'{"request_txn":{"success":[' * 100 + b"]}}" * 100 + b"]}",
              b'{"compare":[' + b"{}," * 100000 + b"{}]}"]
    for body in bodies:
        status, _, text = c.raw("/v3/kv/txn" if b"[" in body else "/v3/kv/range", body)
        assert status == 400, body[:40]
        assert len(text) < 1000
        assert json.loads(text)["code"] == 3


def test_a_watch_begins_before_its_body_ends_and_takes_more_requests(both):
    for c in both[:1]:
        with Stream(c, "watch", {"create_request": {"key": b64("w")}}) as s:
            assert s.next()["created"]
            c.put("w", "1")
            kv = s.next()["events"][0]["kv"]
            assert (unb64(kv["key"]), unb64(kv["value"])) == ("w", "1")
            s.send({"create_request": {"key": b64("v"), "watch_id": "9"}})
            assert s.next()["watch_id"] == "9"
            s.half_close()  # the watches go on
            c.call("kv/deleterange", key=b64("w"))
            event = s.next()["events"][0]
            assert event["type"] == "DELETE"
            assert "value" not in event["kv"]


def metric(node, name):
    try:
        return node.metric(name)
    except KeyError:
        return 0


def test_a_client_that_hangs_up_ends_its_watch(one):
    n = one.nodes[0]
    with Stream(of(n), "watch", {"create_request": {"key": A}}) as s:
        assert s.next()["created"]
        assert metric(n, "etcd_debugging_mvcc_watcher_total") == 1
    wait_for("no watcher", lambda: metric(n, "etcd_debugging_mvcc_watcher_total") == 0)


def test_a_reader_that_stops_costs_little_and_misses_nothing(one):
    n = one.nodes[0]
    c = of(n)
    value = "x" * 100000
    c.put("s", value)
    with Stream(c, "watch", {"create_request": {"key": b64("s")}}) as s:
        assert s.next()["created"]
        before = n.rss_kib()
        first = int(c.put("s", value)["header"]["revision"])
        for _ in range(400):
            last = int(c.put("s", value)["header"]["revision"])
        assert n.rss_kib() - before < 100 * 1024  # the 40 MB are in the store's cache at most
        seen = []
        while not seen or seen[-1] < last:
            seen += [int(e["kv"]["mod_revision"]) for e in s.next().get("events", [])]
        assert seen == list(range(first, last + 1))


def test_http_may_have_a_port_of_its_own():
    """Where it has, the other port speaks gRPC alone."""
    need("etcdctl", "the gRPC client")
    port = free_ports(3)[2]  # the first two are the cluster's
    c = Cluster(1, flags=["--listen-client-http-urls", f"http://127.0.0.1:{port}"])
    n = c.nodes[0]
    try:
        n.start()
        web = Client(n.host, port)
        wait_for("healthy", lambda: web.raw("/health", method="GET")[0] == 200)
        c.ctl("put", "a", "1")
        assert web.get("a") == "1"
        with pytest.raises((http.client.HTTPException, OSError)):
            of(n).get("a")
    finally:
        c.close()


def test_hosts_and_origins():
    with Cluster(1, flags=["--host-whitelist", "good.example,127.0.0.1",
                           "--cors", "http://a.example,http://b.example"]) as ours:
        c = of(ours.nodes[0])
        status, _, text = c.raw("/v3/kv/range", b"{}", headers={"Host": "evil.example:80"})
        assert status == 421
        assert b"--host-whitelist" in text
        assert c.raw("/version", method="GET", headers={"Host": "evil.example"})[0] == 421
        assert c.raw("/version", method="GET", headers={"Host": "good.example:1"})[0] == 200
        for origin, allowed in [("http://b.example", True), ("http://c.example", False)]:
            _, headers, _ = c.raw("/version", method="GET", headers={"Origin": origin})
            assert headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
