"""Steps for one member: what etcdctl's other verbs say, watches with every option, and refusals
that the keys' own steps do not meet."""
import json
import os

from cluster import wait_for
from jsonclient import b64, unb64
from sidebyside import canceled, delete, equal, follow, get, put, tell_all, txn, watch


def ctl(line, stdin):
    return "ctl", line, stdin


def snapshots(both):
    """save, then status: the same revision; the file's hash and size are each server's own, and the
    rows of buckets that 3.4 does not have yet count too."""
    said = []
    for s in both:
        path = os.path.join(s.cluster.dir, "saved")
        code, out, err = s.cluster.ctl("snapshot", "save", path, ok=None)
        assert (code, os.path.exists(path)) == (0, True), err
        status = json.loads(s.cluster.ctl("snapshot", "status", path, "-w", "json"))
        assert {"hash", "totalKey", "totalSize"} < set(status)
        said.append((out.replace(path, "<path>"), status["revision"], sorted(status)))
        code, out, err = s.cluster.ctl("snapshot", "status", path + ".none", ok=None)
        said[-1] += (code, out, err.replace(path, "<path>"))
        os.remove(path)
    equal("snapshot save, status", said)


def hashes(both):
    """The same keys at the same revisions: the same hash, as a number."""
    said = []
    for s in both:
        out = json.loads(s.cluster.ctl("endpoint", "hashkv", "-w", "json"))[0]["HashKV"]
        said.append((out["hash"], out["compact_revision"], out["header"]["revision"]))
    equal("endpoint hashkv", said)


def locks():
    """A command under the lock sees the lock's key and revision."""
    def under(words):
        def run(both):
            said = []
            for s in both:
                code, out, err = s.cluster.ctl("lock", *words, ok=None)
                said.append((code, out, s.hide(err)))
            equal(f"lock {words}", said)
        return run

    tell_key = ["sh", "-c", "echo ${ETCD_LOCK_KEY%/*} $ETCD_LOCK_REV; exit 3"]
    return [under(["job", "true"]), under(["job", "--", *tell_key]), under(["--ttl=5", "job",
        "false"]),
            under(["job", "no-such-command"]), under([]), get("job/", "job0"), "get job/ --prefix"]


def elections():
    """elect until it is told to stop; the key is named by a lease of the server's choice."""
    def until_leads(both):
        said = []
        for s in both:
            kv = wait_for("a leader", lambda s=s: leader_of(s), 30)
            name, lease = unb64(kv["key"]).split("/")
            s.call(lease, "lease of pisa")
            said.append((name, kv["value"], kv["create_revision"], kv["version"]))
        equal("elect city pisa", said)

    return [follow("elect city pisa", 2, until_leads), get("city/", "city0", count_only=True)]


def leader_of(side):
    r = side.json("election/leader", {"name": b64("city")})
    kv = r["out"][0].get("kv") if r["status"] == 200 else None
    return kv


def leases():
    return ["lease grant 600", "lease grant 0", "lease grant 9000000001", "lease grant x",
            "lease grant", ("lease/grant", {"TTL": "300", "ID": "8101"}),
            f"put le/a 1 --lease={8101:x}",
            f"lease timetolive {8101:x}", f"lease timetolive {8101:x} --keys",
            f"lease timetolive {8101:x} --keys -w json", "lease timetolive 1 --keys",
            "lease timetolive zz", f"lease keep-alive {8101:x} --once", "lease keep-alive 1 --once",
            ("lease/timetolive", {"ID": "8101", "keys": True}), f"lease revoke {8101:x}",
            f"lease revoke {8101:x}", "get le/ --prefix", f"lease timetolive {8101:x} --keys",
            "lease revoke zz", ("lease/timetolive", {"ID": "8101", "keys": True})]


def watches():
    base = {"key": b64("w/"), "range_end": b64("w0")}
    changes = [put("w/a", "1"), "put w/a 2", txn([], [put("w/b", "1"), put("w/c", "1")]),
               delete("w/", "w0")]
    steps = [watch({**base, **more}, *changes) for more in (
        {"filters": ["NOPUT"], "prev_kv": True},
        {"filters": ["NODELETE", "NODELETE"]}, {"progress_notify": True}, {"fragment": True},
        {"watch_id": "7"}, {"watch_id": "7", "prev_kv": True, "fragment": True,
                            "progress_notify": True, "filters": ["NODELETE"]})]
    steps += [canceled({**base, "start_revision": "1"}),
              canceled({"key": b64("b"), "range_end": b64("a")}),
              canceled({"key": b64("b"), "range_end": b64("b")})]

    def old(both):  # from a revision that is known to both
        first = [int(s.json(*put("wc/a", "0"))["out"][0]["header"]["revision"]) for s in both]
        assert first[0] == first[1]
        tell_all(["put wc/a 1", "put wc/b 1", "del wc/a", "put wc/c 1"], both)
        for flags, lines in (("", 15), ("--prev-kv", 19), ("-w json", 1), ("-w fields", 20)):
            follow(f"watch wc/ --prefix --rev={first[0]} {flags}", lines)(both)
        follow(f"watch wc/ wc/b --rev={first[0]} -w json", 1)(both)
        follow(f"watch wc/b --rev={first[0]} -w json", 1)(both)
        follow("watch wc/ --prefix --rev=1", 0)(both)

    return steps + [old]


def refusals():
    """What nothing else provokes."""
    big = "x" * 1600000
    return [
        put("big", big), put("big", "x" * 2200000), get("", sort_order=1), put("k", "v",
        ignore_value=True), put("k", "", ignore_lease=True, lease="5"),
        put("nokey", "", ignore_lease=True), put("k", "", ignore_value=True, lease="404"),
        "put", "put a b c d", "get", "get a b c", "get a --rev=x", "get a --order=SIDEWAYS",
        "get a --sort-by=COLOUR", "get a --consistency=maybe", "get a b --prefix",
        "get a --from-key --prefix",
        "del", "del a b c", "del a b --prefix", "del a --prefix --from-key", "compaction",
        "compaction x",
        "txn x", "no-such-verb", "endpoint nothing", "snapshot save", "snapshot status none",
        "move-leader", "move-leader zz", "move-leader 1234",
        ("maintenance/transfer-leadership", {"targetID": "4660"}),
        ("maintenance/transfer-leadership", {}),
        ("cluster/member/remove", {"ID": "4660"}), ("cluster/member/promote", {"ID": "4660"}),
        ("cluster/member/update", {"ID": "4660", "peerURLs": ["http://127.0.0.1:1"]}),
        ("cluster/member/add", {"peerURLs": ["127.0.0.1:1"]}), ("cluster/member/add", {}),
        ("cluster/member/add", {"peerURLs": [], "isLearner": True}),
        ("cluster/member/remove", {}),
    ]


def corrupt():
    alarm = {"action": "ACTIVATE", "memberID": "5", "alarm": "CORRUPT"}
    return [("maintenance/alarm", alarm), put("k", "1"), delete("k"), txn([], [put("k", "1")]),
            ("lease/grant", {"TTL": "60"}), "put k 1", "alarm list", "alarm disarm", "alarm list",
            put("k", "1"), "get k"]


def users():
    """With etcdctl alone; the passwords come from stdin where it asks for them."""
    root = "--user root:r"
    return [
        ctl("user add root --interactive=false", "r\n"), ctl("user add ann --interactive=false",
        "a\n"),
        "user add bob:b", "user add bob:b", "user add none --no-user-password", "user add '':x",
        "user list", "user get ann", "user get nobody", "role add app", "role add app", "role list",
        "role grant-permission app readwrite /app/ --prefix", "role grant-permission app read /one",
        "role grant-permission app write /from --from-key", "role grant-permission app rw /x",
        "role grant-permission none read /x", "role get app", "role get none",
        "user grant-role ann app", "user grant-role ann none", "user grant-role none app",
        "user get ann --detail", "role revoke-permission app /one",
        "role revoke-permission app /one",
        "role revoke-permission none /one", "user revoke-role bob app", "user revoke-role none app",
        "auth enable", "user grant-role root root", "role add root", "user grant-role root root",
        "auth enable", "auth enable", "get /app/x", "--user ann:a get /app/x",
        "--user ann:wrong get /app/x", "--user nobody:a get /app/x", "--user none:x get /app/x",
        "--user ann:a put /app/x 1", "--user ann:a put /other 1", "--user ann:a get /other",
        "--user ann:a get / --prefix", "--user ann:a del /app/x --prev-kv", "--user ann:a get /fz",
        "--user ann:a put /g 1", ctl("--user ann:a txn", '\nput /app/x 1\nget /app/x\n\n\n'),
        ctl("--user ann:a txn", '\nput /other 1\n\n\n'), ctl("--user ann:a txn",
        'mod("/o") = "0"\n\n\n\n'),
        "--user ann:a user add x:y", "--user ann:a user get ann", "--user ann:a user get root",
        "--user ann:a role get app", "--user ann:a role add x", "--user ann:a auth disable",
        "--user ann:a alarm disarm", "--user ann:a lease grant 60",
        "--user ann:a member add x --peer-urls=http://127.0.0.1:1",
        "--user ann:a member remove 1234",
        ctl(f"{root} user passwd ann --interactive=false", "new\n"), "--user ann:a get /app/x",
        "--user ann:new get /app/x", f"{root} user revoke-role ann app",
        "--user ann:new get /app/x",
        f"{root} user delete root", f"{root} user revoke-role root root",
        f"{root} role delete root",
        f"{root} user grant-role ann app", f"{root} role delete app", f"{root} user get ann",
        f"{root} user delete ann", "--user ann:new get /app/x", f"{root} auth disable",
        "auth disable",
        "user delete root", "user delete bob", "user delete none", "user delete none",
        "role delete root", "role delete root", "user list", "role list"]


def endpoints():
    return ["endpoint health", "endpoint status -w json", "defrag", "alarm list", "alarm disarm",
            "member list", "version",
            ("maintenance/status", {}), ("maintenance/defragment", {}), snapshots]


# the hashes before keys that are named by a lease of the server's choice
STEPS = (watches() + [hashes] + leases() + locks() + elections() + refusals() + corrupt() +
         users() + endpoints())
