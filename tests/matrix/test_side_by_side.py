"""One history, told to etcd-lite and to the real etcd by two tongues: etcdctl and JSON over HTTP.

The two servers get the same calls one after the other, whatever the tongue; every answer must be
equal, refusals with their codes and texts included. sidebyside.py says what a step is and what is
hidden, and names what differs on purpose.
"""
import pytest

import steps_cluster
import steps_ctl
from cluster import Cluster, free_ports
from conftest import need
from jsonclient import b64, of
from sidebyside import (REFUSALS, Side, canceled, cmp, delete, equal, get, put, tell_all, txn,
                        watch)
from test_gateway import CALLS
from test_members import Growing

KEYS = [f"k/{c}{n}" for c in "abc" for n in range(4)]


def keys_and_ranges():
    steps = []
    for n, key in enumerate(KEYS):  # by turns
        steps.append(put(key, str(n)) if n % 2 else f"put {key} {n}")
    for key in KEYS[:6]:
        steps += [f"get {key}", get(key), put(key, "again", prev_kv=True), f"put {key} 3 --prev-kv"]
    for order in ["NONE", "ASCEND", "DESCEND"]:
        for target in ["KEY", "VERSION", "CREATE", "MOD", "VALUE"]:
            steps.append(get("k/", "k0", sort_order=order, sort_target=target, limit=5))
    for revision in ["-1", "1", "2", "9", "14", "20", "1000"]:
        steps += [get("k/", "k0", revision=revision), get("k/a0", revision=revision),
                  f"get k/ k0 --rev={revision}"]
    for more in [{"count_only": True}, {"keys_only": True}, {"serializable": True},
                 {"min_mod_revision": "9"}, {"max_mod_revision": "9"}, {"limit": "3"},
                 {"min_create_revision": "9"}, {"max_create_revision": "5"},
                 {"min_mod_revision": "20", "limit": "2"}, {"limit": "-1"},
                 {"sort_order": "DESCEND", "limit": "2", "max_mod_revision": "20"}]:
        steps.append(get("k/", "k0", **more))
    steps += [get("k/c0", "k/a0"), get("\0", "\0"), get("k/c", "\0"), get(""), get("", "\0"),
              "get '' --prefix --keys-only", "get k/c --from-key", "get k/ k0 --order=DESCEND",
              delete("nothing"), delete("k/c3", prev_kv=True), "del k/c2 --prev-kv", "del k/c2",
              delete("k/c", "k/d"), get("k/c", "k/d"), "del nothing --prefix"]
    return steps


def transactions():
    steps = []
    for result in ["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]:
        for target, value in [("VERSION", {"version": "3"}), ("CREATE", {"create_revision": "2"}),
                              ("MOD", {"mod_revision": "15"}), ("LEASE", {"lease": "0"}),
                              ("VALUE", {"value": b64("3")})]:
            steps.append(txn([cmp("k/a0", target, result, **value)], [get("k/a0")], [get("k/a1")]))
            steps.append(txn([cmp("none", target, result, **value)], [put("won", target)],
                             [put("lost", target)]))
    steps += [
        get("won"), get("lost"),
        txn([], [put("t1", "1"), get("t1"), delete("t1"), get("t1"), put("t2", "2")]),
        txn([], [txn([], [put("n1", "1"), txn([], [put("n2", "2")])]), get("n", "o")]),
        txn([cmp("k/", "MOD", "GREATER", range_end=b64("k0"), mod_revision="0")], [get("k/a0")]),
        txn([cmp("zzz", "MOD", "EQUAL", range_end=b64("zzzz"), mod_revision="0")], [get("k/a0")]),
        txn([], [put("d", "1"), put("d", "2")]), txn([], [put("d", "1"), delete("a", "z")]),
        txn([], [delete("a", "z"), delete("b", "c")]), txn([], [put("", "1")]),
        txn([], [get("k/a0", revision="100000")]), txn([], [get("k/a0", revision="2")]),
        txn([], [put("x", "1", lease="404")]), txn([], [put("x", "", ignore_value=True)]),
        txn([], [put(f"many{n}", "x") for n in range(128)]),
        txn([], [put(f"many{n}", "x") for n in range(129)]),
        txn([cmp("a", "VERSION", "EQUAL", version="1")] * 129, []),
        'value("k/a0") = "3"\nversion("k/a0") > "2"\n\nput e1 then\nget k/a0\n\nput e1 else\n\n',
        'mod("none") = "0"\n\nput e2 made\n\nget e2\n\n',
        'mod("e2") = "0"\n\nput e2 2\n\nget e2\n\n',
        "get e --prefix",
    ]
    return steps


def compactions():
    steps = []
    for revision in [0, 5, 5, 4, 12, 100000]:
        steps += [("kv/compaction", {"revision": str(revision)}), f"compaction {revision}"]
    steps += ["compaction 20 --physical", ("kv/compaction", {"revision": 21, "physical": True})]
    for revision in [1, 20, 21, 22]:
        steps += [get("k/a0", revision=revision), f"get k/a0 --rev={revision}",
                  txn([], [get("k/a0", revision=revision)]),
                  txn([], [put("c", "1"), get("k/a0", revision=revision)])]
    return steps


def watches():
    everything = {"key": b64("w"), "range_end": b64("x")}
    changes = [put("w/a", "1"), "put w/a 2", delete("w/a"), "put w/b 1",
               txn([], [put("w/c", "1"), put("w/d", "1"), delete("w/b")]), put("v", "no"),
               "del w/ w0"]
    return [
        watch(everything, *changes), watch({**everything, "prev_kv": True}, *changes),
        watch({**everything, "filters": ["NODELETE"]}, *changes),
        watch({**everything, "start_revision": "24", "prev_kv": True}),
        watch({"key": b64("w/a"), "range_end": b64("\0"), "filters": []}, *changes),
        watch({"key": b64("\0"), "range_end": b64("\0"), "start_revision": "30"}),
        canceled({"key": b64("w"), "start_revision": "3"}),
        canceled({"key": b64("w"), "range_end": b64("a")}),
    ]


def leases():
    steps = []
    for ttl in ["600", "0", "-5", "9000000000", "9000000001"]:
        steps.append(("lease/grant", {"TTL": ttl, "ID": str(1000 + len(steps))}))
    # two of them are raised to 2 s: when they end is each server's own
    steps += [("lease/revoke", {"ID": "1001"}), ("lease/revoke", {"ID": "1002"})]
    steps += [("lease/grant", {"TTL": "500", "ID": "7001"}),
              ("lease/grant", {"TTL": 500, "ID": 7001}), put("l/a", "1", lease="7001"),
              put("l/b", "1", lease=7001), f"put l/c 1 --lease={7001:x}", get("l/", "l0"),
              ("lease/timetolive", {"ID": "7001", "keys": True}), put("l/b", "free"),
              ("lease/timetolive", {"ID": "7001", "keys": True}), "get l/ --prefix",
              ("lease/timetolive", {"ID": "1", "keys": True}), ("lease/timetolive", {}),
              ("lease/keepalive", {"ID": "7001"}), ("lease/keepalive", {"ID": "1"}),
              ("lease/keepalive", {}), ("lease/leases", {}), ("kv/lease/leases", {}),
              txn([cmp("l/a", "LEASE", "EQUAL", lease="7001")], [put("l/d", "x", lease="7001")]),
              put("l/a", "", ignore_value=True, ignore_lease=True),
              put("l/a", "2", ignore_lease=True), get("l/a"), put("l/e", "1", lease="404"),
              f"put l/e 1 --lease={404:x}", ("lease/revoke", {"ID": "404"}),
              ("lease/revoke", {"ID": "7001"}), get("l/", "l0"),
              ("kv/lease/revoke", {"ID": "7001"}), f"lease timetolive {7001:x} --keys"]
    return steps


def alarms():
    no_space = {"action": "ACTIVATE", "memberID": "5", "alarm": "NOSPACE"}
    return [("maintenance/alarm", {}), "alarm list", ("maintenance/alarm", no_space),
            ("maintenance/alarm", {"action": "GET"}), "alarm list", put("full", "1"), "put full 1",
            ("lease/grant", {"TTL": "60", "ID": "8001"}), txn([], [put("full", "1")]),
            txn([], [get("k/a0")]), get("k/a0"), delete("k/a1"),
            ("maintenance/alarm", {**no_space, "action": 2}), ("maintenance/alarm", {}),
            put("room", "1"), "get room"]


def locks():
    def by(n):
        return f"{n:x}"

    key = "lock/" + by(9001)
    return [
        ("lease/grant", {"TTL": "600", "ID": "9001"}),
        ("lease/grant", {"TTL": "600", "ID": "9002"}),
        ("lock/lock", {"name": b64("lock"), "lease": "9001"}), get("lock/", "lock0"), get(key),
        ("lock/lock", {"name": b64("lock"), "lease": 9001}), f"get {key} -w json",
        ("lock/unlock", {"key": b64(key)}), ("lock/unlock", {"key": b64(key)}),
        ("lock/lock", {"name": b64("lock"), "lease": "9002"}),
        txn([cmp("lock/" + by(9002), "CREATE", "GREATER", create_revision="0")],
            [put("safe", "1")]),
        ("lease/revoke", {"ID": "9002"}), get("lock/", "lock0"),
        ("lock/lock", {"name": b64("lock"), "lease": "12345"}), ("lock/unlock", {}),
    ]


def elections():
    name = b64("vote")
    mine = {"name": name, "key": b64(f"vote/{9001:x}"), "lease": "9001"}

    def with_rev(path, **more):  # the revision that the campaign gave
        def run(both):
            said = []
            for s in both:
                kv = s.client.call("election/leader", name=name)["kv"]
                leader = {**mine, "rev": kv["create_revision"]}
                said.append([s.json(path, {"leader": leader, **more}),
                             s.json("election/leader", {"name": name})])
            equal(path, said)
        return run

    def observed(both):
        said = []
        for side in both:
            with side.stream("election/observe", {"name": name}) as s:
                s.half_close()
                said.append(side.result(s.next()))
        equal("election/observe", said)

    return [
        ("election/leader", {"name": name}), ("election/leader", {}),
        ("election/campaign", {"name": name, "lease": "9001", "value": b64("one")}),
        ("election/leader", {"name": name}), observed,
        ("election/campaign", {"name": name, "lease": "9001", "value": b64("two")}),
        ("election/leader", {"name": name}), with_rev("election/proclaim", value=b64("three")),
        ("election/proclaim", {"leader": {**mine, "rev": "1"}, "value": b64("no")}),
        ("election/proclaim", {"value": b64("no")}), ("election/resign", {}),
        with_rev("election/proclaim", value=b64("four")), observed, get("vote", "vote0"),
        ("election/resign", {"leader": {**mine, "rev": "1"}}), get("vote", "vote0"),
        ("election/campaign", {"name": name, "lease": "77", "value": b64("x")}),
        ("election/campaign", {"name": name, "lease": "9001", "value": b64("x")}),
        ("lease/revoke", {"ID": "9001"}), ("election/leader", {"name": name}),
    ]


def members():
    return ["member list", ("cluster/member/list", {}), ("maintenance/defragment", {})]


def users():
    """Both tongues without a token; with one, only JSON (the token differs: it is not compared)."""
    def as_root(*calls):
        def run(both):
            for s in both:
                s.client.login("root", "r")
            try:
                tell_all(calls, both)
            finally:
                for s in both:
                    s.client.token = None
        return run

    perm = {"permType": "READWRITE", "key": b64("u/"), "range_end": b64("u0")}
    return [
        ("auth/enable", {}), ("auth/disable", {}), ("auth/authenticate", {"name": "root"}),
        ("auth/user/add", {"name": "root", "password": "r"}), "user list", ("auth/enable", {}),
        ("auth/user/add", {"name": "root", "password": "x"}), ("auth/user/add", {}),
        ("auth/user/add", {"name": "u", "password": "u"}), ("auth/user/list", {}),
        ("auth/user/add", {"name": "n", "options": {"no_password": True}}), "user get n",
        ("auth/role/add", {"name": "root"}), ("auth/role/add", {"name": "ru"}),
        ("auth/role/add", {"name": "ru"}), ("auth/role/add", {}), "role list",
        ("auth/role/grant", {"name": "ru", "perm": perm}), "role get ru",
        ("auth/role/grant", {"name": "none", "perm": perm}),
        ("auth/role/grant", {"name": "ru", "perm": {"permType": 0, "key": b64("r")}}),
        ("auth/role/get", {"role": "ru"}), ("auth/role/get", {"role": "none"}),
        ("auth/user/grant", {"user": "root", "role": "root"}), "user get root",
        ("auth/user/grant", {"user": "u", "role": "ru"}), ("auth/user/get", {"name": "u"}),
        ("auth/user/grant", {"user": "u", "role": "none"}),
        ("auth/user/grant", {"user": "none", "role": "ru"}), ("auth/user/get", {"name": "none"}),
        ("auth/user/changepw", {"name": "u", "password": "v"}),
        ("auth/user/changepw", {"name": "none", "password": "v"}),
        ("auth/user/revoke", {"name": "n", "role": "ru"}),
        ("auth/role/revoke", {"role": "ru", "key": b64("r")}),
        ("auth/role/revoke", {"role": "ru", "key": b64("none")}),
        ("auth/authenticate", {"name": "u", "password": "v"}), ("auth/enable", {}),
        put("u/a", "1"), get("u/a"), "get u/a", "put u/a 1", ("auth/user/list", {}),
        ("auth/authenticate", {"name": "u", "password": "wrong"}),
        "put u/a 2 --user u:v", "put v/a 2 --user u:v", "get u/a --user u:v", "get v --user u:v",
        "user list --user u:v", "user get u --user u:v", "role get ru --user u:v",
        "role get root --user u:v", "user list --user root:r", "get u/a --user u:wrong",
        "del u/ u0 --user u:v", "compaction 5 --user root:r", "member list --user u:v",
        as_root(put("v/a", "1"), get("v/a"), ("auth/user/delete", {"name": "n"}),
                ("auth/user/delete", {"name": "root"}), ("auth/role/delete", {"role": "root"}),
                ("auth/role/delete", {"role": "ru"}), ("auth/user/get", {"name": "u"}),
                ("auth/disable", {})),
        "user delete u", "user delete root", "role delete root", ("auth/user/list", {}),
        ("auth/role/list", {}), ("auth/role/delete", {"role": "none"}),
    ]


FLAGS = ["--bcrypt-cost", "4"]
HISTORY = (keys_and_ranges() + transactions() + compactions() + watches() + leases() + alarms() +
           locks() + elections() + members() + users() +
           # but one whose sort has ties, which the real one puts in any order
           [c for c in CALLS if len(c) == 2 and "sortTarget" not in c[1]])


def need_etcd():
    need("etcdctl", "the real client")
    need("etcd", "the real server, to compare with")


def test_one_history_in_two_tongues():
    need_etcd()
    assert len(HISTORY) >= 300
    with Cluster(1, flags=FLAGS) as ours, Cluster(1, real=True, flags=FLAGS) as real:
        tell_all(HISTORY, (Side(ours), Side(real)))


def test_one_member_in_the_words_of_etcdctl():
    need_etcd()
    with Cluster(1, flags=FLAGS) as ours, Cluster(1, real=True, flags=FLAGS) as real:
        tell_all(steps_ctl.STEPS, (Side(ours), Side(real)))


def test_members_come_and_go():
    need_etcd()
    with Growing(4) as ours:
        real = Growing(4, real=True)
        own = ours.ports[:2] + real.ports[:2]
        spare = [p for p in free_ports(16) if p not in own]
        ours.ports[2:], real.ports[2:] = spare[:6], spare[6:12]
        with real:
            both = Side(ours), Side(real)
            for s in both:
                steps_cluster.prepare(s)
            tell_all(steps_cluster.members(), both)


# Texts of etcd's errors, without "etcdserver: ", which the histories above have met on both sides.
MET = """key is not provided|key not found|value is provided|lease is provided
too many operations in txn request|duplicate key given in txn request|request is too large
given member URLs are invalid|requested lease not found|lease already exists|user name is empty
role name is empty|authentication failed, invalid user ID or password|invalid auth management
member not found|permission denied|corrupt cluster|mvcc: database space exceeded
Peer URLs already exists|re-configuration failed due to not enough started members
can only promote a learner member|can only promote a learner member which is in sync with leader
too many learner members in cluster|root user does not exist|root user does not have root role
user name already exists|user name not found|role name already exists|role name not found
role is not granted to the user|permission is not granted to the role
authentication is not enabled|not leader|rpc not supported for learner|bad leader transferee
mvcc: required revision has been compacted|mvcc: required revision is a future revision
too large lease TTL|unhealthy cluster"""


def test_every_refusal_that_can_be_provoked_was():
    if not REFUSALS:
        pytest.skip("the histories of this file were not asked for")
    met = {r if isinstance(r, str) else r[1] for r in REFUSALS}
    texts = MET.replace("\n", "|").split("|")
    missing = [t for t in texts if not any(m.endswith("etcdserver: " + t) for m in met)]
    assert not missing, missing
