"""etcdctl 3.4 against etcd-lite and against the real etcd: the same history gives the same answers.

Masked: cluster id, member id, Raft term. Everything else, revisions and error texts included, is
equal.
"""
import json
import re
import urllib.error
import urllib.request

import pytest

from cluster import Cluster, wait_for
from conftest import need

# One history. A string is an etcdctl command line; a tuple adds text for stdin.
HISTORY = [
    "get a", "put a 1", "get a", "put a 2", "put b x --prev-kv", "put b y --prev-kv",
    "get a --rev=2", "get a --rev=3", "get a --rev=99", "get --prefix a", "get a z", "get a b",
    "put c 3", "put d 4", "put e 5", "put ee 55", "put zz last",
    "get --prefix e", "get --from-key d", "get '' --prefix", "get '' --from-key --limit=2",
    "get a z --limit=3", "get a z --limit=3 --rev=6", "get a z --keys-only", "get a z --count-only",
    "get a z --order=DESCEND", "get a z --sort-by=VERSION",
    "get a z --sort-by=CREATE --order=DESCEND",
    "get a z --sort-by=MODIFY --order=ASCEND --limit=2", "get a z --sort-by=VALUE --order=DESCEND",
    "get a --consistency=s", "get missing", "get missing --prefix --count-only",
    "put a 3 --ignore-value", "put a --ignore-value", "put nokey --ignore-value",
    "put a v --ignore-lease", "put nokey v --ignore-lease", "put a v --lease=1234",
    "del missing", "del b", "del b", "get b", "get b --rev=5", "put b again", "get b",
    "del c e", "del --prefix e --prev-kv", "get '' --prefix --keys-only", "del zz --prev-kv",
    ("txn", 'value("a") = "v"\n\nput a won\nget a\n\nput a lost\n\n'),
    ("txn", 'value("a") = "won"\n\nput a won2\nput t 1\nget a\nget t\n\nput a lost\n\n'),
    ("txn", 'value("a") = "nope"\n\nput a x\n\nget a\ndel t\n\n'),
    ("txn", 'value("a") != "nope"\n\nget a\n\nget t\n\n'),
    ("txn", 'version("a") > "1"\nmod("a") < "1000"\ncreate("a") = "2"\n\n'
            'put u 1\nput v 2\ndel u\n\n\n'),
    ("txn", 'create("none") = "0"\n\nput none made\n\nget none\n\n'),
    ("txn", 'create("none") = "0"\n\nput none made\n\nget none\n\n'),
    ("txn", 'value("void") != "x"\n\nput bad 1\n\nput good 1\n\n'),
    ("txn", '\nput p 1\nput p 2\n\n\n'),
    ("txn", '\nget a\nget none\n\n\n'),
    ("txn", '\n\n\n'),
    ("txn", '\ndel --prefix ""\nput fresh 1\n\n\n'),
    "get '' --prefix", "put k1 a", "put k1 b", "put k2 c", "del k1", "put k3 d",
    "compaction 5", "get a --rev=4", "get a --rev=5", "compaction 5", "compaction 4",
    "compaction 9999", "get '' --prefix --rev=20", "compaction 21 --physical", "get k1 --rev=21",
    "get '' --prefix", "get k3 -w fields", "get k3 -w simple", "get k3 --print-value-only",
]

MASK = re.compile(r'"(cluster_id|member_id|raft_term)":\d+')
MASK_FIELDS = re.compile(r'"(ClusterID|MemberID|RaftTerm)" : \d+')
STAMP = re.compile(r'^\{"level":.*?\n', re.M)  # etcdctl's own log lines carry the time and endpoint


def split(line):
    import shlex
    return shlex.split(line)


def run(cluster, step):
    line, stdin = step if isinstance(step, tuple) else (step, None)
    args = split(line)
    if "-w" not in args:
        args += ["-w", "json"]
    code, out, err = cluster.ctl(*args, ok=None, stdin=stdin, endpoint=cluster.nodes[0].endpoint)
    out = MASK_FIELDS.sub(r'"\1" : 0', MASK.sub(r'"\1":0', out))
    return code, out, STAMP.sub("", err)


@pytest.mark.parametrize("size", [1, 3])
def test_the_same_history_gives_the_same_answers(size):
    need("etcdctl", "the real client")
    need("etcd", "the real server, to compare with")
    with Cluster(size) as ours, Cluster(size, real=True) as real:
        for step in HISTORY:
            want = run(real, step)
            got = run(ours, step)
            assert got == want, f"after {step!r}\n real {want}\n ours {got}"


def test_every_member_answers_every_client(three):
    need("etcdctl", "the real client")
    for n in three.nodes:
        three.ctl("put", "via-" + n.name, n.name, endpoint=n.endpoint)
    for n in three.nodes:
        for m in three.nodes:
            out = three.ctl("get", "via-" + m.name, "--print-value-only", endpoint=n.endpoint)
            assert out == m.name + "\n"


def test_member_list_and_status(three):
    need("etcdctl", "the real client")
    members = json.loads(three.ctl("member", "list", "-w", "json"))["members"]
    assert sorted(m["name"] for m in members) == ["n1", "n2", "n3"]
    # every member tells the client URLs that each has published
    for n in three.nodes:
        def published():
            out = json.loads(three.ctl("member", "list", "-w", "json", endpoint=n.endpoint))
            return {u for m in out["members"] for u in m.get("clientURLs", [])} == {
                x.url for x in three.nodes}
        wait_for("client URLs", published)
    status = json.loads(three.ctl("endpoint", "status", "--cluster", "-w", "json"))
    leaders = {s["Status"]["leader"] for s in status}
    assert len(status) == 3 and len(leaders) == 1 and leaders.pop() in {m["ID"] for m in members}
    three.ctl("endpoint", "health")


def test_ids_are_those_that_etcd_computes(one):
    need("etcd", "the real server, to compare with")
    with Cluster(1, real=True) as real:
        real.kill = None
        ours = json.loads(one.ctl("get", "x", "-w", "json"))["header"]
        # the ids depend on peer URLs only: give a second etcd-lite the real one's ports
        ports = real.ports
        want = json.loads(real.ctl("get", "x", "-w", "json"))["header"]
        real.close()
        twin = Cluster(1)
        twin.ports = ports
        twin.initial = real.initial
        twin.nodes[0].client, twin.nodes[0].peer = ports
        with twin:
            got = json.loads(twin.ctl("get", "x", "-w", "json"))["header"]
        assert (got["cluster_id"], got["member_id"]) == (want["cluster_id"], want["member_id"])
        assert ours["member_id"] != got["member_id"]


def test_members_have_the_same_hash(three):
    need("etcdctl", "the real client")
    for i in range(20):
        three.ctl("put", f"hash/{i}", str(i))
    rev = json.loads(three.ctl("get", "hash/1", "-w", "json"))["header"]["revision"]
    hashes = set()
    for n in three.nodes:
        three.ctl("get", "hash/1", endpoint=n.endpoint)  # linearizable: this member is up to date
        out = three.ctl("endpoint", "hashkv", f"--rev={rev}", "-w", "json", endpoint=n.endpoint)
        hashes.add(json.loads(out)[0]["HashKV"]["hash"])
    assert len(hashes) == 1, hashes


def test_what_is_missing_is_unimplemented(one):
    request = urllib.request.Request(one.nodes[0].url + "/v3/maintenance/downgrade", b"{}")
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(request, timeout=10)
    assert e.value.code == 501 and json.loads(e.value.read())["code"] == 12


def test_a_range_of_ten_mebibytes(one):
    need("etcdctl", "the real client")
    value = "v" * (1024 * 1024)
    for i in range(10):
        one.ctl("put", f"big/{i}", stdin=value)
    out = one.ctl("get", "--prefix", "big/", "--print-value-only")
    assert len(out) == 10 * (len(value) + 1)
    one.ctl("del", "--prefix", "big/")


def test_a_restart_keeps_everything(one):
    need("etcdctl", "the real client")
    node = one.nodes[0]
    one.ctl("put", "kept", "yes")
    before = json.loads(one.ctl("get", "kept", "-w", "json"))
    assert node.stop() == 0
    node.start()
    wait_for("healthy again", node.healthy)
    one.ctl("put", "kept2", "yes")
    node.kill()
    node.start()
    wait_for("healthy again", node.healthy)
    after = json.loads(one.ctl("get", "kept", "-w", "json"))
    assert before["kvs"] == after["kvs"]
    assert after["header"]["revision"] == before["header"]["revision"] + 1
    assert one.ctl("get", "kept2", "--print-value-only") == "yes\n"
