"""The C client of common/client/etcd against etcd-lite and against the real etcd: every feature
gives the same on both. tests/clients/c/etcd_try.c is the client, which is told what to do by lines.
"""
import os
import re
import subprocess

import pytest

from certs import Authority
from cluster import BIN, ROOT, Cluster, wait_for
from cprogram import PROGRAM, Try
from needs import missing, need


@pytest.fixture(scope="module", autouse=True)
def program():
    if not os.path.exists(PROGRAM):
        missing("etcd_try", "the C client as a program: build it")


def cluster(server, size=1, **more):
    if server == "etcd":
        need("etcd", "the C client against the real etcd")
    return Cluster(size, real=server == "etcd", **more)


both = pytest.mark.parametrize("server", ["etcd-lite", "etcd"])


@both
def test_keys_and_transactions(server):
    with cluster(server) as s, Try(s) as c:
        assert c.ok("put a 1") == "put a ok 2"
        assert c.ok("put ab 2") == "put ab ok 3"
        assert c.ok("get a") == "get a 1"
        assert c.ok("get none") == "get none -"
        assert c.ok("count a") == "count a 2"
        assert c.ok("swap a 3 7") == "swap a no"  # it was put at revision 2
        assert c.ok("swap a 3 2") == "swap a yes"
        assert c.ok("swap new 1 0") == "swap new yes"  # there was none
        assert c.ok("swap new 2 0") == "swap new no"
        assert c.ok("get a") == "get a 3"
        assert c.ok("del a") == "del a ok 6"
        assert c.ok("get a") == "get a -"
        assert c.ask("put k v none") == "put k ok 7"  # a lease's name that there is not: none
        assert c.ok("compact 5") == "compact 5 ok 7"
        assert c.ask("compact 5") == \
            "compact 5 error 11 etcdserver: mvcc: required revision has been compacted: " \
            "etcdserver: mvcc: required revision has been compacted"
        assert c.end() == 0


@both
def test_a_watch_resumes_over_a_restart(server):
    with cluster(server) as s, Try(s) as c:
        c.ok("watchall w k 1")
        for i in range(5):
            assert c.ok(f"put k{i} v{i}") == f"put k{i} ok {i + 2}"
        c.until("watch w put k4")
        s.nodes[0].kill()
        s.nodes[0].start()
        wait_for("it is back", s.nodes[0].healthy)
        assert c.ok("put k5 v5") == "put k5 ok 7"
        c.until("watch w put k5")
        c.ok("del k0")
        c.until("watch w delete k0")
        told = [x for x in c.lines if x.startswith("watch w ") and "created" not in x]
        puts = [f"watch w put k{i} v{i} {i + 2}" for i in range(6)]
        assert told == puts + ["watch w delete k0 8"]


@both
def test_a_watch_over_a_compaction(server):
    """Behind the compaction it goes on; before it, the oldest revision that is left is told."""
    with cluster(server) as s, Try(s) as c:
        c.ok("watch w k 1")
        for i in range(4):
            c.ok(f"put k v{i}")
        c.until("watch w put k v3")
        c.ok("compact 5")
        s.nodes[0].kill()
        s.nodes[0].start()
        wait_for("it is back", s.nodes[0].healthy)
        c.ok("put k v4")
        c.until("watch w put k v4")
        told = [x for x in c.lines if x.startswith("watch w put")]
        assert told == [f"watch w put k v{i} {i + 2}" for i in range(5)]
        c.tell("watch late k 2")
        assert c.until("watch late lost") == \
            "watch late lost 11 etcdserver: mvcc: required revision has been compacted (5)"
        c.ok("watch from k 5")
        c.until("watch from put k v3 5")
        c.until("watch from put k v4 6")


@both
def test_a_lease_is_kept_alive_over_a_restart_and_its_end_is_told(server):
    with cluster(server) as s, Try(s) as c, Try(s) as other:
        c.ok("lease l 6")
        c.ok("put bound here l")
        before = len(c.lines)
        c.until("lease l kept", before)
        s.nodes[0].kill()
        s.nodes[0].start()
        wait_for("it is back", s.nodes[0].healthy)
        before = len(c.lines)
        for _ in range(4):  # four thirds of its life, and more
            c.until("lease l kept", before)
            before = len(c.lines)
        assert other.ok("get bound") == "get bound here"
        granted = c.until("lease l granted").split()[3]
        s.ctl("lease", "revoke", granted)
        assert c.until("lease l lost") == "lease l lost 5 etcdserver: requested lease not found"
        assert other.ok("get bound") == "get bound -"
        c.ok("lease m 60")
        c.ok("put again here m")
        assert c.end() == 0  # closed: revoked, so that nobody waits a minute
        wait_for("the key goes", lambda: other.ok("get again") == "get again -")


@both
def test_locks_have_one_holder_with_growing_tokens(server):
    """Two of ours and an etcdctl in one queue; who is let in has the larger token."""
    with cluster(server) as s, Try(s) as a, Try(s) as b:
        a.ok("lease l 10")
        b.ok("lease l 10")
        a.until("lease l granted")
        b.until("lease l granted")
        first = int(a.ok("lock x mutex l").split()[3])
        b.tell("lock x mutex l")
        wait_for("both are in the queue", lambda: a.ok("count mutex/") == "count mutex/ 2")
        third = subprocess.Popen(["etcdctl", "--endpoints", s.endpoints, "lock", "mutex", "true"],
                                 env={**os.environ, "ETCDCTL_API": "3"}, stdout=subprocess.PIPE)
        try:
            wait_for("all are", lambda: a.ok("count mutex/") == "count mutex/ 3")
            assert not [x for x in b.lines if x.startswith("lock x held")]
            a.ok("close x")
            a.until("unlocked 0")
            second = int(b.until("lock x held").split()[3])
            assert second > first
            assert third.poll() is None
            b.ok("close x")
            third.communicate(timeout=30)
            assert third.returncode == 0
        finally:
            third.kill()
            third.wait()
        # a holder whose key is deleted is told
        key = a.ok("lock y mutex l").split()[4]
        assert b.ok(f"del {key}").startswith(f"del {key} ok")
        assert a.until("lock y lost") == "lock y lost 10 the lock's key has gone"


@both
def test_an_election_is_seen_by_who_observes(server):
    with cluster(server) as s, Try(s) as a, Try(s) as b, Try(s) as o:
        o.ok("observe e chair")
        assert o.until("observe e") == "observe e none"
        for c in (a, b):
            c.ok("lease l 6")
            c.until("lease l granted")
        a.ok("lock x chair l ann")
        o.until("observe e leader ann")
        b.tell("lock x chair l bob")
        wait_for("both run", lambda: o.ok("count chair/") == "count chair/ 2")
        assert a.ok("proclaim x anna") == "proclaim x yes"
        o.until("observe e leader anna")
        listen = s.ctl("get", "--prefix", "chair/", "--sort-by=CREATE", "--print-value-only")
        assert listen.split() == ["anna", "bob"]
        before = len(o.lines)
        a.ok("close x")
        b.until("lock x held")
        o.until("observe e leader bob", before)
        before = len(o.lines)
        b.process.kill()  # nobody resigns: its lease runs out
        o.until("observe e none", before, seconds=60)


@both
def test_members_come_and_go_for_everybody(server):
    with cluster(server) as s, Try(s) as a, Try(s) as b, Try(s) as view:
        view.ok("peers p svc/")
        a.ok("member ann svc/ at:1 3")
        view.until("peers p there ann at:1")
        b.ok("member bob svc/ at:2 3")
        view.until("peers p there bob at:2")
        b.tell("peers p svc/")
        b.until("peers p synced")
        assert {x.split()[3] for x in b.lines if x.startswith("peers p there")} == {"ann", "bob"}
        # a name has one registration: who comes second waits for the first one's end
        with Try(s) as twin:
            twin.tell("member ann svc/ at:9 3")
            before = len(view.lines)
            a.ok("close ann")
            twin.until("member ann up")
            view.until("peers p there ann at:9", before)
        # the server is started again: everybody stays
        before = len(view.lines)
        s.nodes[0].kill()
        s.nodes[0].start()
        wait_for("it is back", s.nodes[0].healthy)
        b.process.kill()  # bob goes without a word
        view.until("peers p gone bob", before, seconds=60)


@both
def test_all_endpoints_go_away_and_come_back(server):
    with cluster(server, 3) as s, Try(s, "--timeout", "2s") as c:
        c.ok("watch w k")
        c.ok("lease l 60")
        c.until("lease l granted")
        c.ok("lock x mutex l")
        c.ok("put k 1")
        c.until("watch w put k 1")
        for n in s.nodes:
            n.kill()
        assert re.match(r"get k error 4 context deadline exceeded", c.ask("get k"))
        assert re.match(r"put k error (4|14)", c.ask("put k 2"))
        for n in s.nodes:
            n.start()
        for n in s.nodes:
            wait_for("it is back", n.healthy)
        wait_for("it is put", lambda: c.ask("put k 3").startswith("put k ok"))
        c.until("watch w put k 3")
        assert not [x for x in c.lines if " lost " in x]
        assert c.ok("proclaim x me") == "proclaim x yes"
        assert c.end() == 0


def root(s):
    s.ctl("user", "add", "root:secret")
    s.ctl("role", "add", "root")
    s.ctl("user", "grant-role", "root", "root")
    s.ctl("auth", "enable")


@both
def test_a_token_is_renewed(server):
    """The server is started again and knows no token any more; with one that has run out, too."""
    with cluster(server, flags=["--auth-token-ttl", "1"]) as s:
        root(s)
        with Try(s, "--user", "root", "--password", "wrong") as c:
            assert c.ask("put k 1").startswith(
                "put k error 3 etcdserver: authentication failed, invalid user ID or password")
        with Try(s) as c:
            assert c.ask("put k 1").startswith("put k error 3 etcdserver: user name is empty")
        with Try(s, "--user", "root", "--password", "secret") as c:
            c.ok("put k 1")
            c.ok("watch w k")
            c.ok("lease l 6")
            c.until("lease l granted")
            for i in range(2):
                s.nodes[0].kill()
                s.nodes[0].start()
                wait_for("it is back", s.nodes[0].healthy)
                wait_for("it is put", lambda v=i: c.ask(f"put k r{v}").startswith("put k ok"))
                c.until(f"watch w put k r{i}")
            before = len(c.lines)
            for _ in range(2):  # 3 s apart: with a token of 1 s
                c.until("lease l kept", before)
                before = len(c.lines)
            assert c.ok("put k late").startswith("put k ok")
            assert c.ok("get k") == "get k late"
            c.until("watch w put k late")
            assert not [x for x in c.lines if " lost " in x]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    a = Authority(str(tmp_path_factory.mktemp("certs")))
    a.issue("server")
    a.issue("client")
    return a


@both
@pytest.mark.parametrize("mutual", [False, True])
def test_over_tls(server, mutual, authority, tmp_path):
    tls = {"ca": authority.ca, "cert": authority.path("client.pem"),
           "key": authority.path("client.key")}
    flags = ["--cert-file", authority.path("server.pem"),
             "--key-file", authority.path("server.key")]
    if mutual:
        flags += ["--client-cert-auth", "--trusted-ca-file", authority.ca]
    other = Authority(str(tmp_path), "other")
    cert, key = other.issue("stranger")
    with cluster(server, flags=flags, tls=tls) as s:
        with Try(s) as c:
            c.ok("watch w k")
            assert c.ok("put k v") == "put k ok 2"
            c.until("watch w put k v 2")
            c.ok("lease l 6")
            c.until("lease l granted")
            c.ok("lock x mutex l")
            c.ok("member ann svc/ here 3")
            before = len(c.lines)
            c.until("lease l kept", before)
            s.nodes[0].kill()
            s.nodes[0].start()
            wait_for("it is back", s.nodes[0].healthy)
            wait_for("it is put", lambda: c.ask("put k w").startswith("put k ok"))
            c.until("watch w put k w")
            assert c.end() == 0
        fresh = ["--timeout", "1s"]
        refused = [["--cacert", other.ca]]  # the server's certificate is by somebody else
        refused += [["--server-name", "elsewhere"]]  # nor is it for that name
        for more in refused:
            with Try(s, *fresh, *more) as c:
                r = c.ask("put k never")
                assert r.startswith("put k error 4 context deadline exceeded: "), (more, r)
                assert "(unknown)" not in r, (more, r)  # nothing was sent
        if mutual:  # and ours must be by whom it trusts; TLS 1.3 lets us send before it says so
            with Try(s, *fresh, "--cert", cert, "--key", key) as c:
                r = c.ask("put k never")
                assert re.match("put k error (4|14) .*not authenticated", r), r
        with Try(s, *fresh) as c:
            assert c.ok("get k") == "get k w"


@both
def test_the_example_of_the_readme(server):
    """Its commands as they stand there; two workers, one after the other leads."""
    with open(os.path.join(ROOT, "common", "client", "README.md")) as f:
        commands = re.findall(r"^```sh\n(.*?)^```$", f.read(), re.M | re.S)[0].splitlines()
    worker = "build/release/bin/example_worker"
    assert commands == [f"{worker} ann & {worker} bob"]
    program = os.path.join(BIN, "example_worker")
    if not os.path.exists(program):
        missing("example_worker", "the example of common/client/README.md")
    with cluster(server) as s:
        told = subprocess.run(
            commands[0].replace(worker, program) + "; wait",
            shell=True, capture_output=True, text=True, timeout=60,
            env={**os.environ, "ETCDCTL_ENDPOINTS": s.endpoints})
        print(told.stdout, told.stderr)
        assert told.returncode == 0 and told.stderr == ""
        lines = told.stdout.splitlines()
        tokens = [int(re.search(r"token (\d+)", x).group(1)) for x in lines if "leads" in x]
        assert len(tokens) == 2 and tokens[0] < tokens[1]
        for name in ("ann", "bob"):
            assert f"{name}: sees {name}" in lines
            assert [x.split(" at ")[0] for x in lines if x.startswith(f"{name}: job")] == \
                [f"{name}: job {i} done" for i in (1, 2, 3)]
            assert f"{name}: resigned" in lines
        jobs = [x.split(":")[0] for x in lines if ": job" in x]
        assert jobs in (["ann"] * 3 + ["bob"] * 3, ["bob"] * 3 + ["ann"] * 3)
        wait_for("nothing is left behind but the work", lambda: s.ctl(
            "get", "--prefix", "example/", "--keys-only").split() == ["example/job"])
