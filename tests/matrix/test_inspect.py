"""What etcd has not: reads on any member that see what their client has written."""
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
import urllib.parse
from http.client import HTTPException

import pytest

import programs
from cluster import BIN, ROOT, Cluster, wait_for
from conftest import need
from jsonclient import Client, Refused, Stream, b64, unb64

TOKEN = "Grpc-Metadata-Bonsai-Min-Revision"


def lite(node, *args, ok=True):
    r = subprocess.run([f"{BIN}/etcd-lite", "--endpoints", node.endpoint, *args],
                       capture_output=True, text=True, timeout=30)
    if ok:
        assert r.returncode == 0, r.stderr
    return r.stdout if ok else (r.returncode, r.stdout, r.stderr)


# ---- reads with a session's token --------------------------------------------------------------

class Session:
    """Writes on one member, reads on another; keeps the highest revision that it was told."""

    def __init__(self):
        self.seen = 0

    def call(self, node, path, token=True, timeout=10, **request):
        c = Client(node.host, node.client, timeout=timeout)
        headers = {TOKEN: str(self.seen)} if token else {}
        status, _, body = c.raw("/v3/" + path, json.dumps(request).encode(), headers=headers)
        answer = json.loads(body)
        if status != 200:
            raise Refused(status, answer)
        self.seen = max(self.seen, int(answer["header"]["revision"]))
        return answer

    def put(self, node, key, value):
        return int(self.call(node, "kv/put", key=b64(key), value=b64(value))["header"]["revision"])

    def read(self, node, key, **more):
        r = self.call(node, "kv/range", key=b64(key), serializable=True, **more)
        kvs = r.get("kvs", [])
        return (int(r["header"]["revision"]), unb64(kvs[0]["value"]) if kvs else None,
                int(kvs[0]["mod_revision"]) if kvs else 0)


@pytest.fixture(scope="module")
def members():
    with Cluster(3) as c:
        yield c


def test_a_token_that_is_no_revision_is_refused(members):
    s = Session()
    for bad in ("", "-1", "x", "1.5", "9223372036854775808"):
        s.seen = bad
        with pytest.raises(Refused) as e:
            s.read(members.nodes[0], "k")
        assert (e.value.status, e.value.code, e.value.text) == (
            400, 3, "etcdserver: bonsai-min-revision is not a revision")


def test_the_command_line_waits_for_a_revision(members):
    leader = wait_for("a leader", members.leader)
    other = next(n for n in members.nodes if n is not leader)
    rev = json.loads(lite(leader, "put", "cli", "v", "-w", "json"))["header"]["revision"]
    out = lite(other, "get", "cli", "--consistency=s", "--at-least-rev", str(rev),
               "--print-value-only")
    assert out == "v\n"
    code, _, err = lite(other, "get", "cli", "--at-least-rev", str(rev), ok=False)
    assert code == 128 and "--consistency=s" in err
    code, _, err = lite(other, "get", "cli", "--consistency=s", "--at-least-rev", str(rev + 1000),
                        "--command-timeout=1s", ok=False)
    assert code == 1 and "context deadline exceeded" in err
    waits = other.metric("bns_min_revision_waits_total")
    assert waits >= 1


class Work:
    """What the sessions share."""

    def __init__(self, nodes, sessions):
        self.nodes, self.reads = nodes, [0] * sessions
        self.asked = [None] * sessions  # whom each session is reading from just now
        self.paused = None  # nobody writes there
        self.over = threading.Event()


def session_work(w, number, history):
    """Writes one key on one member, reads it on another; what it asked and was told as lines."""
    s, dice, key, process, count = Session(), random.Random(number), f"own/{number}", 0, 0

    def say(kind, f, value):
        history.write(json.dumps({"time": time.monotonic_ns(), "process": process, "type": kind,
                                  "f": f, "key": key, "value": value}) + "\n")

    while not w.over.is_set():
        writer, reader = dice.sample(w.nodes, 2)
        if writer is w.paused:
            writer, reader = reader, writer
        count += 1
        say("invoke", "put", str(count))
        try:
            say("ok", "put", {"value": str(count), "rev": s.put(writer, key, str(count))})
        except (OSError, HTTPException, Refused):
            say("info", "put", None)
            process += 1
        say("invoke", "get", None)
        w.asked[number] = reader
        try:
            at, value, mod = s.read(reader, key)
            say("ok", "get", {"value": value, "rev": mod, "at": at})
            w.reads[number] += 1
        except (OSError, HTTPException, Refused):
            say("fail", "get", None)
        w.asked[number] = None


def pause_follower(c, w, leader):
    """When it wakes up it finds the reads of sessions that have all written meanwhile."""
    w.paused = next(n for n in c.nodes if n is not leader)
    w.paused.signal(signal.SIGSTOP)
    try:
        wait_for("all wait for it", lambda: all(a is w.paused for a in w.asked))
    finally:
        w.paused.signal(signal.SIGCONT)
        w.paused = None


def pause_leader(c, w, node):
    others = [n for n in c.nodes if n is not node]
    node.signal(signal.SIGSTOP)
    try:
        wait_for("another leader", lambda: any(n.is_leader() for n in others))
    finally:
        node.signal(signal.SIGCONT)


def kill(c, w, node):
    node.kill()
    wait_for("another leader", lambda: c.leader() not in (None, node))
    node.start()


def test_sessions_read_their_writes_on_any_member_under_faults(tmp_path):
    """The history of a session is one of a single register: its own reads, on other members than
    its writes, must fit into a linear order while members are paused and killed."""
    files = [open(tmp_path / f"h{i}.jsonl", "w") for i in range(4)]
    with Cluster(3) as c:
        w = Work(c.nodes, len(files))
        threads = [threading.Thread(target=session_work, args=(w, i, f))
                   for i, f in enumerate(files)]
        for t in threads:
            t.start()
        try:
            for fault in (pause_follower, pause_leader, kill, pause_follower):
                node = wait_for("a leader", c.leader)
                fault(c, w, node)
                wait_for("healthy", node.healthy)
                was = list(w.reads)
                wait_for("reads go on", lambda: all(n > b + 10 for n, b in zip(w.reads, was)))
        finally:
            w.over.set()
            for t in threads:
                t.join()
        waits = sum(n.metric("bns_min_revision_waits_total") for n in c.nodes)
    for f in files:
        f.close()
        programs.check("register", f.name)
    print(f"{sum(w.reads)} reads, {waits:.0f} of them waited")
    assert waits > 0


# ---- inspection --------------------------------------------------------------------------------

def look(node, what, token=None, **params):
    c = Client(node.host, node.client)
    c.token = token
    query = urllib.parse.urlencode(params)
    status, _, body = c.raw(f"/inspect/{what}?{query}", method="GET")
    if status != 200:
        raise Refused(status, json.loads(body))
    return json.loads(body)


def pages(node, what, rows, cursor="cursor", **params):
    """All rows of all pages."""
    out, page = [], look(node, what, **params)
    out += page[rows]
    while "next" in page:
        page = look(node, what, **{cursor: page["next"]}, **params)
        out += page[rows]
    return out


def test_inspect_raft_and_members(members):
    leader = wait_for("a leader", members.leader)
    lite(leader, "put", "raft", "x")
    r = look(leader, "raft")
    assert r["role"] == "leader" and r["leader"] == r["member"] and r["commit"] >= r["applied"] > 0
    assert r["log"]["first"] <= r["log"]["last"] and r["log"]["bytes"] > 0
    assert sorted(r["configuration"]["voters"]) == sorted(
        [r["member"]] + [p["id"] for p in r["peers"]])
    for p in r["peers"]:
        assert p["state"] == "replicate" and p["connected_ms"] >= 0 and p["heard_ms_ago"] < 30000
    wait_for("both have all", lambda: all(
        p["match"] == p["next"] - 1 and p["match"] >= r["commit"]
        for p in look(leader, "raft")["peers"]))
    other = next(n for n in members.nodes if n is not leader)
    f = look(other, "raft")
    assert f["role"] == "follower" and f["leader"] == r["member"]
    assert all("match" not in p for p in f["peers"])  # only the leader knows
    m = look(other, "members")["members"]
    assert [x["leader"] for x in m if x["id"] == r["member"]] == [True]
    assert sum(x["this"] for x in m) == 1 and {x["name"] for x in m} == {"n1", "n2", "n3"}
    assert all(x["client_urls"] and x["peer_urls"] for x in m)
    out = lite(leader, "inspect", "raft", "--cluster")
    cells = [x.strip() for x in out.split("|")]
    assert cells.count("leader") == 1 and cells.count("follower") == 2 and "replicate" in cells
    assert "n2" in lite(leader, "inspect", "members")


def test_inspect_index_goes_by_pages(members):
    leader = wait_for("a leader", members.leader)
    c = Client(leader.host, leader.client)
    for i in range(60):
        c.call("kv/put", key=b64(f"page/{i:02}"), value=b64("v" * (10 * i)))
    for i in range(5):
        c.call("kv/put", key=b64("page/07"), value=b64("again"))
    c.call("kv/deleterange", key=b64("page/08"))
    whole = look(leader, "index", limit=10000, top=100)
    assert whole["looked_at"] == whole["keys"] and "next" not in whole
    assert whole["keys"] == whole["alive"] + 1 and whole["revisions"] >= 66
    sizes = [k["bytes"] for k in whole["largest"]]
    assert sizes == sorted(sizes, reverse=True)
    parts = pages(leader, "index", "largest", cursor="from", limit=7, top=7)
    assert sorted(k["key"] for k in parts) == sorted(k["key"] for k in whole["largest"])
    seven = next(k for k in parts if unb64(k["key"]) == "page/07")
    assert (seven["revisions"], seven["version"], seven["deleted"]) == (6, 6, False)
    assert next(k for k in parts if unb64(k["key"]) == "page/08")["deleted"]
    r = json.loads(lite(leader, "inspect", "index", "--limit=0", "--top=3", "-w", "json"))[0]
    assert [k["key"] for k in r["index"]["largest"]] == [k["key"] for k in whole["largest"][:3]]
    assert "page/59" in lite(leader, "inspect", "index")


def test_inspect_leases_goes_by_pages(members):
    leader = wait_for("a leader", members.leader)
    other = next(n for n in members.nodes if n is not leader)
    c = Client(leader.host, leader.client)
    ids = {f"{int(c.call('lease/grant', TTL=500 + i)['ID']) & (2**64 - 1):x}" for i in range(40)}
    some = sorted(ids)[0]
    c.call("kv/put", key=b64("leased"), value=b64("x"), lease=int(some, 16))
    got = pages(leader, "leases", "leases", limit=6)
    assert ids <= {x["id"] for x in got} and len(got) == len({x["id"] for x in got})
    one = next(x for x in got if x["id"] == some)
    assert one["keys"] == 1 and 0 < one["remaining"] <= one["ttl"]
    wait_for("applied there", lambda: ids <= {x["id"] for x in pages(other, "leases", "leases")})
    there = look(other, "leases", limit=10000)
    assert not there["clock_runs_here"] and "remaining" not in there["leases"][0]
    assert some in lite(leader, "inspect", "leases", "--limit=0")


def test_inspect_watchers_tells_streams_and_how_far_they_are_behind(members):
    node = members.nodes[0]
    before = look(node, "watchers")["count"]
    c = Client(node.host, node.client)
    streams = [Stream(c, "watch", {"create_request": {"key": b64(f"w{i}"), "range_end": b64("w~")}})
               for i in range(5)]
    try:
        wait_for("all stand", lambda: look(node, "watchers")["watches"] >= 5)
        got = pages(node, "watchers", "streams", limit=2)
        assert len(got) == before + 5
        mine = [s for s in got if s["some"] and unb64(s["some"][0]["key"]).startswith("w")]
        assert len(mine) == 5 and all(s["client"].startswith("127.0.0.1:") for s in mine)
        one = look(node, "watchers", stream=mine[0]["stream"])
        assert len(one["watchers"]) == 1 and one["watchers"][0]["behind_by"] == 0
        assert unb64(one["watchers"][0]["range_end"]) == "w~"
        out = lite(node, "inspect", "watchers", "--stream", str(mine[0]["stream"]))
        assert "w~" in out
    finally:
        for s in streams:
            s.close()
    wait_for("gone", lambda: look(node, "watchers")["count"] == before)
    with pytest.raises(Refused) as e:
        look(node, "watchers", stream=mine[0]["stream"])
    assert e.value.status == 404


@pytest.mark.parametrize("what,params", [
    ("index", {"limit": 0}), ("index", {"limit": 10001}), ("index", {"limit": "x"}),
    ("index", {"top": 101}), ("index", {"from": "!"}), ("leases", {"cursor": "-1"}),
    ("leases", {"cursor": 2**64}), ("watchers", {"stream": ""})])
def test_inspect_refuses_bad_parameters(members, what, params):
    with pytest.raises(Refused) as e:
        look(members.nodes[0], what, **params)
    assert e.value.status == 400 and e.value.body["code"] == 3


def test_inspect_is_for_root_alone_once_auth_is_on():
    with Cluster(1) as c:
        node = c.nodes[0]
        lite(node, "user", "add", "root:secret")
        lite(node, "user", "add", "ann:hers")
        lite(node, "role", "add", "root")
        lite(node, "user", "grant-role", "root", "root")
        lite(node, "auth", "enable")
        api = Client(node.host, node.client)
        ann = api.call("auth/authenticate", name="ann", password="hers")["token"]
        root = api.call("auth/authenticate", name="root", password="secret")["token"]
        for what in ("raft", "members", "index", "leases", "watchers"):
            for token, status in ((None, 400), ("nonsense.1", 401), (ann, 403)):
                with pytest.raises(Refused) as e:
                    look(node, what, token)
                assert e.value.status == status, (what, token, e.value)
            look(node, what, root)
            look(node, what, "Bearer " + root)
            lite(node, "inspect", what, "--user", "root:secret")
        code, out, err = lite(node, "inspect", "index", ok=False)
        assert code == 1 and "user name is empty" in err and "key" not in out.lower()
        code, _, err = lite(node, "--user", "ann:hers", "inspect", "index", ok=False)
        assert code == 1 and "permission denied" in err


# ---- metrics -----------------------------------------------------------------------------------

# What etcd's Grafana dashboard and the Prometheus alerts of etcd's mixin ask for: name, and the
# labels that they select or group by.
DASHBOARDS = {
    "etcd_server_has_leader": (), "etcd_server_leader_changes_seen_total": (),
    "etcd_server_proposals_failed_total": (), "etcd_server_proposals_pending": (),
    "etcd_server_proposals_committed_total": (), "etcd_server_proposals_applied_total": (),
    "etcd_server_quota_backend_bytes": (), "etcd_server_is_leader": (),
    "etcd_server_slow_apply_total": (), "etcd_server_slow_read_indexes_total": (),
    "etcd_server_read_indexes_failed_total": (), "etcd_server_health_failures": (),
    "etcd_server_client_requests_total": ("type", "client_api_version"),
    "etcd_server_version": ("server_version",), "etcd_cluster_version": ("cluster_version",),
    "etcd_server_id": ("server_id",),
    "etcd_mvcc_db_total_size_in_bytes": (), "etcd_mvcc_db_total_size_in_use_in_bytes": (),
    "etcd_debugging_mvcc_db_total_size_in_bytes": (), "etcd_debugging_mvcc_keys_total": (),
    "etcd_debugging_mvcc_watcher_total": (), "etcd_debugging_mvcc_slow_watcher_total": (),
    "etcd_disk_wal_fsync_duration_seconds_bucket": ("le",),
    "etcd_disk_backend_commit_duration_seconds_bucket": ("le",),
    "etcd_network_client_grpc_received_bytes_total": (),
    "etcd_network_client_grpc_sent_bytes_total": (),
    "etcd_network_peer_sent_bytes_total": ("To",),
    "etcd_network_peer_received_bytes_total": ("From",),
    "etcd_network_peer_round_trip_time_seconds_bucket": ("To", "le"),
    "grpc_server_started_total": ("grpc_method", "grpc_service", "grpc_type"),
    "grpc_server_handled_total": ("grpc_code", "grpc_method", "grpc_service", "grpc_type"),
    "grpc_server_msg_received_total": ("grpc_method", "grpc_service", "grpc_type"),
    "grpc_server_msg_sent_total": ("grpc_method", "grpc_service", "grpc_type"),
    "process_resident_memory_bytes": (), "process_cpu_seconds_total": (),
    "process_open_fds": (), "process_max_fds": (), "process_start_time_seconds": (),
    "process_virtual_memory_bytes": (), "os_fd_used": (), "os_fd_limit": (),
}
OURS = {"side"}  # a label that we have beside etcd's


def series(node):
    """{name: set of label sets}"""
    out = {}
    for line in node.get("/metrics").splitlines():
        m = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$", line)
        if m:
            labels = re.findall(r'(\w+)="(?:[^"\\]|\\.)*"', m[2] or "")
            out.setdefault(m[1], set()).add(frozenset(labels))
    return out


def families(found):
    return {re.sub(r"_(bucket|sum|count)$", "", n) for n in found}


def exercise(c):
    for n in c.nodes:
        c.ctl("put", "a", "b", endpoint=n.endpoint)
        c.ctl("get", "a", endpoint=n.endpoint)
    wait_for("pings have come back everywhere", lambda: all(
        re.search(r"^etcd_network_peer_round_trip_time_seconds_count\{.*\} [1-9]",
                  n.get("/metrics"), re.M) for n in c.nodes), 60)


def test_metrics_of_dashboards_and_alerts_are_there_with_their_labels(members):
    exercise(members)
    node = members.leader()
    found = series(node)
    for name, labels in DASHBOARDS.items():
        assert name in found, name
        assert all(set(s) - OURS == set(labels) for s in found[name]), (name, found[name])
    assert node.metric("etcd_disk_backend_commit_duration_seconds_count") > 0
    assert node.metric("etcd_network_peer_sent_bytes_total") > 0
    assert node.metric("etcd_network_peer_received_bytes_total") > 0
    assert node.metric("process_max_fds") >= node.metric("process_open_fds") > 0


def test_what_a_real_etcd_has_more_is_named_in_the_readme(members):
    need("etcd", "the real server")
    exercise(members)
    with open(os.path.join(ROOT, "etcd-lite", "README.md")) as f:
        readme = f.read()
    with Cluster(3, real=True) as real:
        exercise(real)
        theirs = series(wait_for("a leader", real.leader))
        for name, labels in DASHBOARDS.items():  # so the list is etcd's, too
            assert name in theirs and set(labels) in [set(s) for s in theirs[name]], name
    ours = series(members.leader())
    for name in sorted(families(theirs) - families(ours)):
        if not name.startswith(("go_", "promhttp_", "etcd_grpc_proxy_", "etcd_debugging_")):
            assert f"`{name}`" in readme, name


def test_clients_cannot_make_up_labels(members):
    node = members.nodes[0]
    c = Client(node.host, node.client)
    for version in ["9.1", 'x"} 1\n', "1" * 40] + [f"7.{i}" for i in range(40)]:
        c.raw("/v3/kv/range", json.dumps({"key": b64("a")}).encode(),
              headers={"Grpc-Metadata-Client-Api-Version": version.replace("\n", "")})
    text = node.get("/metrics")
    versions = set(re.findall(r'client_api_version="([^"]*)"', text))
    assert "unknown" in versions and len(versions) <= 8, versions
