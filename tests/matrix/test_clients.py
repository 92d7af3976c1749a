"""Programs on real client libraries, on one and three members, and while the leader is lost.

Which client is tried with what, and where: the table of README.md beside this file.
"""
import os
import shutil
import subprocess

import pytest

import programs
from cluster import Cluster, wait_for
from test_tls import Pki

PYTHON = """
import os, sys, etcd3
host, port = sys.argv[1].split(":")
ca, cert, key = (os.environ.get("ETCDCTL_" + n) for n in ("CACERT", "CERT", "KEY"))
c = etcd3.client(host=host, port=int(port), timeout=10, ca_cert=ca, cert_cert=cert, cert_key=key)
c.delete_prefix("py/")
c.put("py/a", "1")
assert c.get("py/a")[0] == b"1"
assert c.put_if_not_exists("py/b", "x") and not c.put_if_not_exists("py/b", "y")
assert c.replace("py/a", "1", "2") and not c.replace("py/a", "1", "3")
ok, _ = c.transaction(compare=[c.transactions.value("py/a") == "2"],
                      success=[c.transactions.put("py/c", "won")], failure=[])
assert ok and c.get("py/c")[0] == b"won"
assert len(list(c.get_prefix("py/"))) == 3
assert c.delete("py/a") and not c.delete("py/a")
c.compact(c.status().raft_index and int(c.get("py/b")[1].mod_revision))
print("PASS")
"""


def kvtxn(language, cluster):
    """The command of that language's KV and txn program; skips when its toolchain is missing."""
    if language == "go":
        return [programs.go("kvtxn"), "-endpoints", cluster.endpoints]
    return programs.node("kvtxn.js") + [cluster.endpoints]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("language", ["go", "node"])
def test_programs(language, size, request):
    cluster = request.getfixturevalue("one" if size == 1 else "three")
    assert "PASS" in programs.run(kvtxn(language, cluster))


def python_kv(endpoint):
    """The command of the Python KV and txn program; skips when its package is missing."""
    return [programs.python("locks.py")[0], "-c", PYTHON, endpoint]


@pytest.mark.parametrize("size", [1, 3])
def test_python_client(size, request):
    cluster = request.getfixturevalue("one" if size == 1 else "three")
    for n in cluster.nodes:
        assert "PASS" in programs.run(python_kv(n.endpoint))


# ---- locks and elections with what each client has for them --------------------------------------
LOCKS = {
    "go": lambda c: [programs.go("locks"), "-endpoints", c.endpoints],
    "go-stubs": lambda c: [programs.go("locksraw"), "-endpoints", c.endpoints],
    "node": lambda c: programs.node("locks.js") + [c.endpoints],
    "python": lambda c: programs.python("locks.py") + [c.nodes[-1].endpoint],
}


@pytest.mark.parametrize("language", LOCKS)
def test_locks_and_elections(language, three):
    assert "PASS" in programs.run(LOCKS[language](three))


@pytest.fixture(scope="module")
def tls():
    """A member that wants certificates, and the environment of its clients."""
    pki = Pki()
    try:
        files = pki.tls()
        with Cluster(1, tls=files, flags=pki.flags()) as c:
            yield c, {**os.environ, "ETCDCTL_CACERT": files["ca"], "ETCDCTL_CERT": files["cert"],
                      "ETCDCTL_KEY": files["key"]}
    finally:
        shutil.rmtree(pki.dir, ignore_errors=True)


@pytest.mark.parametrize("language", LOCKS)
def test_locks_and_elections_over_tls(language, tls):
    cluster, env = tls
    assert "PASS" in programs.run(LOCKS[language](cluster), env=env)


def test_python_client_over_tls(tls):
    cluster, env = tls
    assert "PASS" in programs.run(python_kv(cluster.nodes[0].endpoint), env=env)


def test_programs_before_during_and_after_leader_loss():
    with Cluster(3) as c:
        assert all("PASS" in programs.run(kvtxn(language, c)) for language in ("go", "node"))
        reg = subprocess.Popen(
            [programs.go("register"), "-endpoints", c.endpoints, "-seconds", "6"],
            stdout=subprocess.PIPE, text=True)
        leader = wait_for("a leader", c.leader)
        leader.kill()
        wait_for("another leader", c.leader)
        living = [n for n in c.nodes if n.process is not None]
        for n in living:
            wait_for("healthy", n.healthy)
            assert "PASS" in programs.run([programs.go("kvtxn"), "-endpoints", n.endpoint])
        left = ",".join(n.endpoint for n in living)
        assert "PASS" in programs.run(programs.node("kvtxn.js") + [left])
        out, _ = reg.communicate(timeout=120)
        assert reg.returncode == 0, out
        leader.start()
        wait_for("healthy again", leader.healthy)
        assert all("PASS" in programs.run(kvtxn(language, c)) for language in ("go", "node"))
