"""/metrics, beside those of a real etcd: names, types, labels, buckets; and that they count."""
import json
import re
import urllib.request

import pytest

from cluster import Cluster, free_ports, wait_for, Node
from needs import need

SAME = [
    "grpc_server_handling_seconds", "etcd_disk_backend_snapshot_duration_seconds",
    "etcd_mvcc_hash_duration_seconds", "etcd_mvcc_hash_rev_duration_seconds",
    "etcd_network_active_peers", "etcd_server_learner_promote_successes",
    "etcd_server_snapshot_apply_in_progress_total", "etcd_snap_db_save_total_duration_seconds",
]


def shapes(text):
    """{family: (type, help, label sets without their values, bounds of buckets)}"""
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.M))
    out = {n: (t, helps[n], set(), []) for n, t in types.items()}
    for name, labels in re.findall(r"^([a-z_0-9]+)(?:\{(.*)\})? \S+$", text, re.M):
        family = name if name in out else re.sub(r"_(bucket|sum|count)$", "", name)
        pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
        bound = pairs.pop("le", None)
        out[family][2].add(frozenset(pairs))
        if bound is not None and bound not in out[family][3]:
            out[family][3].append(bound)
    return out


def methods(text):
    return set(re.findall(r'^grpc_server_handling_seconds_count\{(.*)\} ', text, re.M))


def count(node, name, **labels):
    for line in node.get("/metrics").splitlines():
        if line.startswith(name) and all(f'{k}="{v}"' in line for k, v in labels.items()):
            return float(line.rsplit(" ", 1)[1])
    raise KeyError(name)


@pytest.fixture(scope="module")
def pair():
    with Cluster(2, flags=["--metrics=extensive"]) as c:
        yield c


def test_names_types_labels_and_buckets_are_those_of_a_real_etcd(pair):
    need("etcd", "the real server")

    def seen(node):
        text = node.get("/metrics")
        return text if "\netcd_network_active_peers{" in text else None

    with Cluster(2, real=True, flags=["--metrics=extensive"]) as real:
        theirs = wait_for("peers of the real one", lambda: seen(real.nodes[0]))
    ours = wait_for("peers", lambda: seen(pair.nodes[0]))
    for name in SAME:
        assert shapes(ours)[name] == shapes(theirs)[name], name
    assert methods(theirs) <= methods(ours)


def test_without_extensive_there_are_no_such_histograms():
    with Cluster(1) as c:
        assert "grpc_server_handling_seconds" not in c.nodes[0].get("/metrics")
        assert "etcd_mvcc_hash_duration_seconds_count 0" in c.nodes[0].get("/metrics")


def test_calls_hashes_and_snapshots_are_timed(pair, tmp_path):
    need("etcdctl", "the real client")
    node = pair.nodes[0]
    handled = dict(grpc_service="etcdserverpb.KV", grpc_method="Put", grpc_type="unary")
    name = "grpc_server_handling_seconds"
    was = count(node, name + "_count", **handled)
    for i in range(5):
        pair.ctl("put", "k", str(i), endpoint=node.endpoint)
    assert count(node, name + "_count", **handled) == was + 5
    assert count(node, name + "_bucket", le="+Inf", **handled) == was + 5
    assert 0 < count(node, name + "_sum", **handled) < 60
    was = [node.metric(n + "_count") for n in SAME[1:4]]
    pair.ctl("snapshot", "save", str(tmp_path / "s.db"), endpoint=node.endpoint)
    node_json(node, "/v3/maintenance/hash")
    node_json(node, "/v3/maintenance/hash")
    pair.ctl("endpoint", "hashkv", endpoint=node.endpoint)
    wait_for("all are counted", lambda: [node.metric(n + "_count") for n in SAME[1:4]]
             == [was[0] + 1, was[1] + 2, was[2] + 1])


def node_json(node, path):
    with urllib.request.urlopen(node.url + path, data=b"{}", timeout=10) as r:
        return json.load(r)


def test_a_promotion_a_snapshot_between_members_and_connections_are_counted():
    need("etcdctl", "the real client")
    flags = ["--snapshot-count=20", "--snapshot-catchup-entries=1"]
    with Cluster(1, flags=flags) as c:
        first = c.nodes[0]
        for i in range(60):
            c.ctl("put", f"k{i}", "v")
        new = Node.__new__(Node)
        c.ports += free_ports(2)
        c.hosts = c.hosts * 2
        Node.__init__(new, c, 2)
        out = c.ctl("member", "add", new.name, "--learner", "--peer-urls=" + new.peer_url,
                    endpoint=first.endpoint)
        member = re.search(r"Member *([0-9a-f]+) added", out)[1]
        c.initial += f",{new.name}={new.peer_url}"
        c.nodes.append(new)
        new.start("--initial-cluster-state", "existing")
        wait_for("the learner is promoted", lambda: c.ctl(
            "member", "promote", member, endpoint=first.endpoint, ok=None)[0] == 0, 60)
        assert first.metric("etcd_server_learner_promote_successes") == 1
        assert first.metric("etcd_disk_backend_snapshot_duration_seconds_count") >= 1
        wait_for("it serves", new.healthy)
        assert new.metric("etcd_server_learner_promote_successes") == 0
        assert new.metric("etcd_snap_db_save_total_duration_seconds_count") >= 1
        assert new.metric("etcd_server_snapshot_apply_in_progress_total") == 0
        assert count(first, "etcd_network_active_peers", Remote=member) == 1
        new.kill()
        wait_for("its connection is gone",
                 lambda: count(first, "etcd_network_active_peers", Remote=member) == 0)
