"""Members come, are promoted, change their URLs, are removed; side by side with the real etcd.

What etcdctl prints is compared with a real etcd's after masking ids. A cluster grows from one
member to five, loses one for good, gets another in its place and shrinks to one, under a load whose
history is linearizable.
"""
import re
import subprocess

import pytest

import programs
from cluster import ETCD, Cluster, Node, free_ports, wait_for
from needs import need

LAX = ["--strict-reconfig-check=false"]


class Growing(Cluster):
    """Starts with one member; more join it."""

    def __init__(self, most, **options):
        super().__init__(1, **options)
        self.hosts = ["127.0.0.1"] * most
        self.ports += [p for p in free_ports(2 * most) if p not in self.ports]

    def ctl1(self, *args, ok=True):
        return self.ctl(*args, endpoint=self.nodes[0].endpoint, ok=ok)

    def ids(self):
        lines = self.ctl1("member", "list").splitlines()
        return {line.split(", ")[3]: line.split(", ")[0] for line in lines}

    def add(self, *flags):
        """member add, then the member itself, with what the command printed."""
        n = Node(self, len(self.nodes) + 1)
        out = self.ctl1("member", "add", n.name, "--peer-urls=" + n.peer_url, *flags)
        n.process = None
        self.initial = re.search('ETCD_INITIAL_CLUSTER="(.*)"', out).group(1)
        self.nodes.append(n)
        n.start("--initial-cluster-state", "existing")
        wait_for(f"{n.name} has joined", lambda: n.url in self.ctl1("member", "list"))
        return n

    def remove(self, node):
        return self.ctl1("member", "remove", self.ids()[node.peer_url])


def said(node):
    with open(node.log, errors="replace") as f:
        return f.read()


def hash_kv(c, node, revision):
    # etcdctl's hashkv looks at one endpoint at a time; the numbers are compared by the caller
    out = c.ctl("endpoint", "hashkv", "--rev", str(revision), endpoint=node.endpoint)
    return out.split(", ")[1].strip()


def test_grow_replace_and_shrink_under_load(tmp_path):
    need("etcdctl", "the real client")
    history = str(tmp_path / "h.jsonl")
    with Growing(6, flags=LAX) as c:
        first = c.nodes[0]
        run = subprocess.Popen(
            [programs.go("register"), "-endpoints", first.endpoint, "-seconds", "12", "-seed", "5",
             "-prefix", "grow/", "-history", history],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(4):
            wait_for("healthy", c.add().healthy)
        dead = c.nodes[2]
        dead.kill()
        c.remove(dead)
        new = c.add()
        wait_for("healthy", new.healthy)
        c.ctl1("put", "at", "five")
        for n in (c.nodes[1], new):
            assert c.ctl("get", "at", "--print-value-only", endpoint=n.endpoint) == "five\n"
        assert hash_kv(c, first, 2) == hash_kv(c, new, 2)
        for n in (c.nodes[4], c.nodes[3], new, c.nodes[1]):
            c.remove(n)
            assert n.process.wait(timeout=20) == 0
            assert "permanently removed from the cluster" in said(n)
        assert len(c.ids()) == 1
        c.ctl1("put", "at", "one")
        out, _ = run.communicate(timeout=180)
        assert run.returncode == 0, out
        programs.check("register", history)
        first.stop()
        first.start("--initial-cluster-state", "existing")
        wait_for("healthy after a restart", first.healthy)
        assert c.ctl1("get", "at", "--print-value-only") == "one\n"
        # the one that is removed stays so, whatever it is told
        c.nodes[1].start("--initial-cluster-state", "existing")
        assert c.nodes[1].process.wait(timeout=20) == 3
        assert "must be removed before it can be added again" in said(c.nodes[1])


def test_the_leader_is_removed(tmp_path):
    with Cluster(3, flags=LAX) as c:
        leader = wait_for("a leader", c.leader)
        others = [n for n in c.nodes if n is not leader]
        member = next(line.split(", ")[0] for line in c.ctl("member", "list").splitlines()
                      if leader.peer_url in line)
        c.ctl("member", "remove", member, endpoint=others[0].endpoint)
        assert leader.process.wait(timeout=20) == 0
        wait_for("another leads", lambda: any(n.is_leader() for n in others))
        c.ctl("put", "k", "v", endpoint=others[1].endpoint)
        for n in others:
            n.kill()
            n.start()
        for n in others:
            wait_for("healthy after a restart", n.healthy)


def test_leadership_moves_where_it_is_told():
    with Cluster(3) as c:
        leader = wait_for("a leader", c.leader)
        target = next(n for n in c.nodes if n is not leader)
        ids = {line.split(", ")[3]: line.split(", ")[0]
               for line in c.ctl("member", "list").splitlines()}
        out = c.ctl("move-leader", ids[target.peer_url])
        assert out.startswith("Leadership transferred from")
        assert target.is_leader()
        code, _, err = c.ctl("move-leader", "1234", ok=None)
        assert code != 0 and "bad leader transferee" in err


def history(c):
    """What etcdctl answers to all the rules, one after the other; ids and ports masked."""
    out = []
    names = {}

    def call(*args):
        code, stdout, stderr = c.ctl1(*args, ok=None)
        text = stdout + re.sub(r"\{.*?\}", "", stderr)
        for url, name in names.items():
            text = text.replace(url, name)
        text = re.sub(r"[0-9a-f]{15,16}", "ID", text)
        # members come in the order of their ids
        out.append((args[0], args[1], code, sorted(re.split('[\\s,"]+', text))))

    def learner():
        n = Node(c, len(c.nodes) + 1)
        names[n.peer_url] = n.name
        names[n.url] = n.name
        return n

    for n in c.nodes:
        names[n.peer_url] = n.name
        names[n.url] = n.name
    a, only = learner(), next(iter(c.ids().values()))
    call("member", "remove", only)
    call("member", "remove", "1234")
    call("member", "promote", "1234")
    call("member", "promote", only)
    call("member", "update", "1234", "--peer-urls=http://127.0.0.1:1")
    call("member", "add", "bad", "--peer-urls=127.0.0.1:1")
    call("member", "add", a.name, "--learner", "--peer-urls=" + a.peer_url)
    # another URL too: within one second the same ones are the same id
    call("member", "add", "again", "--peer-urls=http://127.0.0.1:3," + a.peer_url)
    call("member", "add", "b", "--learner", "--peer-urls=http://127.0.0.1:2")
    ids = c.ids()
    call("member", "promote", ids[a.peer_url])
    call("member", "list")
    call("member", "update", ids[a.peer_url], "--peer-urls=http://127.0.0.1:1")
    call("member", "update", only, "--peer-urls=http://127.0.0.1:1")
    call("member", "remove", ids[a.peer_url])
    call("member", "remove", ids[a.peer_url])
    call("member", "list")
    return out


def test_the_rules_are_etcds():
    if ETCD is None:
        pytest.skip("etcd: the real server")
    answers = []
    for real in (False, True):
        with Growing(3, real=real) as c:
            answers.append(history(c))
    for ours, theirs in zip(*answers):
        assert ours == theirs


def test_a_learner_reads_is_promoted_and_counts():
    with Growing(3, flags=LAX) as c:
        c.ctl1("put", "k", "v")
        n = c.add("--learner")
        wait_for("replicated", lambda: c.ctl("get", "k", "--consistency=s", "--print-value-only",
                                             endpoint=n.endpoint) == "v\n")
        for call in (["put", "k", "w"], ["get", "k"], ["lease", "grant", "10"], ["member", "list"]):
            code, _, err = c.ctl(*call, endpoint=n.endpoint, ok=None)
            assert code != 0 and "rpc not supported for learner" in err, (call, err)
        c.ctl("endpoint", "status", endpoint=n.endpoint)
        c.ctl1("member", "promote", c.ids()[n.peer_url])
        wait_for("it votes", lambda: "rpc not supported" not in
                 c.ctl("get", "k", endpoint=n.endpoint, ok=None)[2])
        c.ctl("put", "k", "w", endpoint=n.endpoint)
        n.kill()
        code, _, err = c.ctl("put", "k", "x", "--command-timeout=2s", ok=None,
                             endpoint=c.nodes[0].endpoint)
        assert code != 0, "a voter that is down counts"


def test_flags_of_another_cluster_are_refused():
    with Growing(3, flags=LAX) as c:
        n = Node(c, 2)
        c.ctl1("member", "add", n.name, "--peer-urls=" + n.peer_url)
        c.nodes.append(n)
        c.initial += f",{n.name}={n.peer_url},n3=http://127.0.0.1:3"
        n.start("--initial-cluster-state", "existing")
        assert n.process.wait(timeout=20) == 3
        assert "member count is unequal" in said(n)
