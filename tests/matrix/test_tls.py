"""TLS from outside: real clients with certificates, members that speak mTLS, and who is refused.

The certificates are made here. The same wrong clients are shown to the real etcd where it matters.
"""
import os
import shutil
import socket
import subprocess
import tempfile

import pytest

from certs import Authority
from cluster import Cluster, wait_for
from conftest import need


class Pki:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="bonsai-tls-")
        self.ca = Authority(os.path.join(self.dir, "ca"))
        self.other = Authority(os.path.join(self.dir, "other"), "stranger")
        for name, usage in (("server", "serverAuth,clientAuth"), ("client", "clientAuth"),
                            ("serveronly", "serverAuth")):
            self.ca.issue(name, usage)
        self.ca.issue("expired", days="-1")
        self.other.issue("unknown")

    def pair(self, name):
        a = self.other if name == "unknown" else self.ca
        return a.path(name + ".pem"), a.path(name + ".key")

    def tls(self, name="client"):
        cert, key = self.pair(name)
        return {"ca": self.ca.ca, "cert": cert, "key": key}

    def flags(self, peers=False):
        cert, key = self.pair("server")
        flags = ["--cert-file", cert, "--key-file", key, "--client-cert-auth",
                 "--trusted-ca-file", self.ca.ca]
        if peers:
            flags += ["--peer-cert-file", cert, "--peer-key-file", key, "--peer-client-cert-auth",
                      "--peer-trusted-ca-file", self.ca.ca]
        return flags


@pytest.fixture(scope="module")
def pki():
    p = Pki()
    yield p
    shutil.rmtree(p.dir, ignore_errors=True)


@pytest.fixture(scope="module")
def one(pki):
    with Cluster(1, tls=pki.tls(), flags=pki.flags()) as c:
        yield c


@pytest.fixture(scope="module")
def three(pki):
    with Cluster(3, tls=pki.tls(), peer_tls=True, flags=pki.flags(peers=True)) as c:
        yield c


def etcdctl(cluster, *flags):
    """The exit code of a get with these TLS flags instead of the right ones."""
    need("etcdctl", "the client")
    r = subprocess.run(["etcdctl", "--endpoints", cluster.endpoints, "--dial-timeout", "1s",
                        "--command-timeout", "1s", *flags, "get", "x"],
                       env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True)
    return r.returncode


@pytest.mark.parametrize("size", [1, 3])
def test_etcdctl(size, request):
    need("etcdctl", "the client")
    c = request.getfixturevalue("one" if size == 1 else "three")
    assert c.ctl("put", "a", "1") == "OK\n"
    assert c.ctl("get", "a") == "a\n1\n"
    assert c.ctl("endpoint", "health").count("is healthy") == 0  # it says so on stderr
    assert len(c.ctl("member", "list").splitlines()) == size


def test_who_has_no_good_certificate_is_refused(pki, one):
    good = ["--cacert", pki.ca.ca]
    assert etcdctl(one, *good, *pair_flags(pki, "client")) == 0
    for name in ("unknown", "expired", "serveronly"):
        assert etcdctl(one, *good, *pair_flags(pki, name)) != 0, name
    assert etcdctl(one, *good) != 0
    assert etcdctl(one, "--cacert", pki.other.ca, *pair_flags(pki, "client")) != 0
    assert one.ctl("put", "after", "1") == "OK\n"


def pair_flags(pki, name):
    cert, key = pki.pair(name)
    return ["--cert", cert, "--key", key]


def test_plain_http_on_a_tls_port_is_told_so(one):
    n = one.nodes[0]
    with socket.create_connection((n.host, n.client), timeout=10) as s:
        s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while chunk := s.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert b"Client sent an HTTP request to an HTTPS server." in answer


def test_tls_on_a_plain_port_is_closed(pki):
    with Cluster(1) as c:
        n = c.nodes[0]
        r = subprocess.run(["openssl", "s_client", "-connect", n.endpoint, "-brief"],
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        assert r.returncode != 0
        assert wait_for("counted", lambda: n.metric("bns_tls_on_plain_port_total") == 1)
        with open(n.log) as f:
            assert "dial http:// instead of https://" in f.read()


def test_alpn(pki, one):
    n = one.nodes[0]
    cert, key = pki.pair("client")
    for offer, chosen in (("h2", "h2"), ("http/1.1", "http/1.1"), ("h2,http/1.1", "http/1.1")):
        for version in ("-tls1_2", "-tls1_3"):
            r = subprocess.run(
                ["openssl", "s_client", "-connect", n.endpoint, "-alpn", offer, version,
                 "-CAfile", pki.ca.ca, "-cert", cert, "-key", key],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
            assert f"ALPN protocol: {chosen}" in r.stdout, (offer, version, r.stdout, r.stderr)


def test_a_new_certificate_is_served_without_a_restart(pki):
    need("etcdctl", "the client")
    shutil.copy(pki.ca.path("server.pem"), pki.ca.path("moving.pem"))
    shutil.copy(pki.ca.path("server.key"), pki.ca.path("moving.key"))
    flags = ["--cert-file", pki.ca.path("moving.pem"), "--key-file", pki.ca.path("moving.key")]
    with Cluster(1, tls=pki.tls(), flags=flags) as c:
        n = c.nodes[0]
        watcher = subprocess.Popen(["openssl", "s_client", "-connect", n.endpoint, "-quiet"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)
        before = served(n)
        pki.ca.issue("moving", cn="second")
        wait_for("the new certificate", lambda: served(n) != before)
        with open(pki.ca.path("moving.pem"), "w") as f:
            f.write("nothing of use\n")
        second = served(n)
        wait_for("an error in the log", lambda: served(n) == second and "moving.pem" in read(n.log))
        assert c.ctl("put", "a", "1") == "OK\n"
        pki.ca.issue("moving", cn="third")
        wait_for("the third certificate", lambda: served(n) != second)
        # the connection of before is still served
        watcher.stdin.write(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        watcher.stdin.flush()
        assert b"etcdserver" in watcher.stdout.read()
        watcher.stdin.close()
        watcher.wait(timeout=20)
        watcher.stdout.close()


def read(path):
    with open(path, errors="replace") as f:
        return f.read()


def served(node):
    r = subprocess.run(["openssl", "s_client", "-connect", node.endpoint],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    begin = r.stdout.index("-----BEGIN CERTIFICATE-----")
    return r.stdout[begin:r.stdout.index("-----END CERTIFICATE-----")]


def test_members_refuse_a_stranger_and_elect_again(three):
    leader = wait_for("a leader", three.leader)
    leader.kill()
    wait_for("another leader", three.leader)
    living = [n for n in three.nodes if n.process is not None]
    for n in living:
        wait_for("healthy", n.healthy)
        assert three.ctl("put", "k", n.name, endpoint=n.endpoint) == "OK\n"
    leader.start()
    wait_for("healthy again", leader.healthy)
