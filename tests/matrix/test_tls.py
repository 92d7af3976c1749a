"""TLS from outside: real clients with certificates, members that speak mTLS, and who is refused.

The certificates are made here. The same wrong clients are shown to the real etcd where it matters.
"""
import os
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest

import programs
import watchraw
from certs import Authority
from cluster import BIN, Cluster, wait_for
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


def environment(pki):
    t = pki.tls()
    return {**os.environ, "ETCDCTL_CACERT": t["ca"], "ETCDCTL_CERT": t["cert"],
            "ETCDCTL_KEY": t["key"]}


def kvtxn(language, endpoints, pki):
    if language == "go":
        command = [programs.go("kvtxn"), "-endpoints", endpoints]
    else:
        command = programs.node("kvtxn.js") + [endpoints]
    return programs.run(command, env=environment(pki))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("language", ["go", "node"])
def test_programs(language, size, pki, request):
    c = request.getfixturevalue("one" if size == 1 else "three")
    assert "PASS" in kvtxn(language, c.endpoints, pki)


@pytest.mark.parametrize("language", ["go", "node", "python"])
def test_watches_and_leases(language, pki, three):
    first = three.nodes[0].endpoint
    lease = {"go": lambda: [programs.go("lease"), "-endpoints", three.endpoints],
             "node": lambda: programs.node("lease.js") + [three.endpoints],
             "python": lambda: programs.python("lease.py") + [first]}
    running = subprocess.Popen(lease[language](), stdout=subprocess.PIPE, text=True,
                               env=environment(pki))
    watched = programs.run(programs.watch(language, three.endpoints), env=environment(pki))
    out, _ = running.communicate(timeout=120)
    assert running.returncode == 0, out
    assert "PASS" in watched


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
        n.signal(signal.SIGHUP)
        wait_for("read again", lambda: "reading files again" in read(n.log))
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


def test_a_leader_is_lost_under_clients_on_tls(pki, three):
    reg = subprocess.Popen([programs.go("register"), "-endpoints", three.endpoints, "-seconds",
                            "5"], stdout=subprocess.PIPE, text=True, env=environment(pki))
    leader = wait_for("a leader", three.leader)
    leader.kill()
    wait_for("another leader", three.leader)
    living = [n for n in three.nodes if n.process is not None]
    for n in living:
        wait_for("healthy", n.healthy)
        assert "PASS" in kvtxn("go", n.endpoint, pki)
    assert "PASS" in kvtxn("node", ",".join(n.endpoint for n in living), pki)
    out, _ = reg.communicate(timeout=120)
    assert reg.returncode == 0, out
    leader.start()
    wait_for("healthy again", leader.healthy)


def test_members_refuse_a_stranger(pki):
    """A member whose certificate another CA signed: the others go on without it."""
    cert, key = pki.pair("server")
    bad, bad_key = pki.pair("unknown")
    common = ["--peer-client-cert-auth", "--peer-trusted-ca-file", pki.ca.ca]
    c = Cluster(3, peer_tls=True, flags=common)
    try:
        for n in c.nodes[:2]:
            n.start("--peer-cert-file", cert, "--peer-key-file", key)
        third = c.nodes[2]
        third.start("--peer-cert-file", bad, "--peer-key-file", bad_key)
        for n in c.nodes[:2]:
            wait_for("healthy", n.healthy)
        wait_for("the stranger is refused",
                 lambda: any("rejected connection" in read(n.log) for n in c.nodes[:2]))
        with pytest.raises((OSError, AssertionError)):
            assert third.healthy()
        third.kill()
        third.start("--peer-cert-file", cert, "--peer-key-file", key)
        wait_for("healthy with the right one", third.healthy)
    finally:
        c.close()


def test_members_take_new_certificates(pki):
    """The files of all members change while they talk; a member that restarts is let in."""
    pki.ca.issue("peers")
    flags = ["--peer-cert-file", pki.ca.path("peers.pem"), "--peer-key-file",
             pki.ca.path("peers.key"), "--peer-client-cert-auth", "--peer-trusted-ca-file",
             pki.ca.path("trust.pem")]
    shutil.copy(pki.ca.ca, pki.ca.path("trust.pem"))
    with Cluster(3, peer_tls=True, flags=flags) as c:
        # from one CA to another: first both are trusted, then the certificates change
        with open(pki.ca.path("trust.pem"), "a") as f:
            f.write(read(pki.other.ca))
        n = c.nodes[2]
        pki.other.issue("peers")
        for name in ("peers.key", "peers.pem"):
            os.replace(pki.other.path(name), pki.ca.path(name))
        n.kill()
        n.start()
        wait_for("healthy with the new certificate", n.healthy)
        reloads = 'bns_tls_reloads_total{name="peer",result="ok"}'
        wait_for("taken by the others",
                 lambda: all(reloads + " 0" not in x.get("/metrics") for x in c.nodes[:2]))
        assert c.ctl("put", "a", "1") == "OK\n"


def test_common_name_of_members(pki):
    pki.ca.issue("member", cn="member.example")
    flags = ["--peer-cert-file", pki.ca.path("member.pem"), "--peer-key-file",
             pki.ca.path("member.key"), "--peer-client-cert-auth", "--peer-trusted-ca-file",
             pki.ca.ca, "--peer-cert-allowed-cn", "member.example"]
    with Cluster(3, peer_tls=True, flags=flags) as c:
        assert c.ctl("put", "a", "1") == "OK\n"


def refused(*flags, **env):
    """(exit code, stderr) of a member that must not start."""
    with tempfile.TemporaryDirectory() as d:
        r = subprocess.run([os.path.join(BIN, "etcd-lite"), "--data-dir", d + "/d", *flags],
                           capture_output=True, text=True, timeout=20,
                           env={**os.environ, **env})
        return r.returncode, r.stderr


HTTPS = ["--listen-client-urls", "https://127.0.0.1:0", "--advertise-client-urls",
         "https://127.0.0.1:0"]


def test_wrong_flags_have_etcds_words(pki):
    cert, key = pki.pair("server")
    wrong = pki.ca.path("client.key")
    pair = ["--cert-file", cert, "--key-file", key]
    for flags, text in (
            ([], "TLS key/cert (--cert-file, --key-file) must be provided for client url "
                 "https://127.0.0.1:0 with HTTPS scheme"),
            (["--cert-file", cert], f"KeyFile and CertFile must both be present[key: , "
                                    f"cert: {cert}]"),
            (["--cert-file", cert, "--key-file", wrong],
             "tls: private key does not match public key"),
            (["--cert-file", "none.pem", "--key-file", key], "none.pem: no such file"),
            (pair + ["--trusted-ca-file", "none.pem"], "none.pem: no such file"),
            (pair + ["--cipher-suites", "FOO"], 'unexpected TLS cipher suite "FOO"'),
            (pair + ["--tls-min-version", "TLS1.1"], 'unexpected TLS version "TLS1.1"'),
            (pair + ["--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"],
             "min version (TLS1.3) is greater than max version (TLS1.2)"),
    ):
        code, err = refused(*HTTPS, *flags)
        assert (code, text in err) == (3, True), (flags, code, err)
        assert len(err.splitlines()) == 1, err
    peer = "https://127.0.0.1:0"
    code, err = refused("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                        "--initial-cluster", "default=" + peer)
    assert code == 3 and "KeyFile and CertFile are not presented" in err


def test_mixed_urls_and_the_configuration_file(pki):
    """One member listens with TLS and without; its certificates stand in etcd's sections."""
    cert, key = pki.pair("server")
    c = Cluster(1, tls=pki.tls())
    n = c.nodes[0]
    plain = c.ports[1]
    path = os.path.join(c.dir, "etcd.conf.yml")
    with open(path, "w") as f:
        f.write(f"""name: n1
data-dir: {n.dir}
listen-client-urls: {n.url},http://127.0.0.1:{plain}
advertise-client-urls: {n.url}
client-transport-security:
  cert-file: {cert}
  key-file: {key}
  client-cert-auth: true
  trusted-ca-file: {pki.ca.ca}
cipher-suites: TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
log-level: warn
""")
    try:
        with open(n.log, "ab") as log:
            n.process = subprocess.Popen([os.path.join(BIN, "etcd-lite"), "--config-file", path],
                                         stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_for("healthy", n.healthy)
        assert "ignoring key and cert files" in read(n.log)
        assert c.ctl("put", "a", "1") == "OK\n"
        c.tls = None
        assert c.ctl("get", "a", endpoint=f"127.0.0.1:{plain}") == "a\n1\n"
        assert etcdctl(c, "--cacert", pki.ca.ca) != 0
        r = subprocess.run(["openssl", "s_client", "-connect", n.endpoint, "-tls1_2", "-cert",
                            pki.pair("client")[0], "-key", pki.pair("client")[1]],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
        assert "ECDHE-ECDSA-AES256-GCM-SHA384" in r.stdout
    finally:
        c.close()


def test_variables(pki):
    cert, key = pki.pair("server")
    code, err = refused(*HTTPS, ETCD_CERT_FILE=cert, ETCD_KEY_FILE="none.key")
    assert code == 3 and "none.key: no such file" in err
    code, err = refused(*HTTPS, ETCD_CERT_FILE=cert, ETCD_KEY_FILE=key,
                        ETCD_TRUSTED_CA_FILE="none.pem", ETCD_CLIENT_CERT_AUTH="true")
    assert code == 3 and "none.pem: no such file" in err


def test_renegotiation_is_refused(pki, one):
    n = one.nodes[0]
    cert, key = pki.pair("client")
    r = subprocess.run(["openssl", "s_client", "-connect", n.endpoint, "-tls1_2", "-CAfile",
                        pki.ca.ca, "-cert", cert, "-key", key], input="R\n", text=True,
                       capture_output=True, timeout=20)
    assert "no renegotiation" in r.stderr
    wait_for("counted", lambda: n.metric("bns_tls_renegotiations_total") >= 1)
    assert one.ctl("put", "after", "1") == "OK\n"


def test_a_thousand_half_finished_handshakes_stop_nobody(one):
    n = one.nodes[0]
    crowd = []
    try:
        before = n.rss_kib()
        for i in range(1200):
            s = socket.create_connection((n.host, n.client), timeout=10)
            if i % 2:
                s.sendall(bytes.fromhex("1603010200010001fc0303"))
            crowd.append(s)
        assert one.ctl("put", "in the crowd", "1") == "OK\n"
        open_now = next(float(line.rsplit(" ", 1)[1]) for line in n.get("/metrics").splitlines()
                        if line.startswith("bns_tls_handshakes_open"))
        assert 1000 <= open_now <= 1024
        assert n.rss_kib() - before < 64 * 1024
    finally:
        for s in crowd:
            s.close()
    wait_for("all of them are forgotten",
             lambda: n.metric("bns_tls_handshakes_open") <= 1)


def test_events_are_not_starved_by_large_ranges(one):
    watchraw.events_beside_large_ranges(one.nodes[0])
