"""Certificates that a server makes for itself, and certificates that are revoked: --auto-tls,
--peer-auto-tls, --self-signed-cert-validity, --client-crl-file, --peer-crl-file.
"""
import os
import signal
import subprocess

import pytest

from certs import Authority
from cluster import ETCD, Cluster, free_ports, wait_for
from conftest import need
from test_flags import Server, etcdctl
from test_tls import read

AUTO = ["--auto-tls", "--peer-auto-tls"]


def https(client, peer, name="default"):
    return ["--listen-client-urls", f"https://127.0.0.1:{client}",
            "--advertise-client-urls", f"https://127.0.0.1:{client}",
            "--listen-peer-urls", f"https://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"https://127.0.0.1:{peer}",
            "--initial-cluster", f"{name}=https://127.0.0.1:{peer}"]


def x509(path, *what):
    r = subprocess.run(["openssl", "x509", "-in", path, "-noout", *what], capture_output=True,
                       text=True)
    assert r.returncode == 0, r.stderr
    return r.stdout


@pytest.mark.parametrize("real", [False, True], ids=["ours", "etcd"])
def test_a_server_makes_its_certificate_once(tmp_path, real):
    if real:
        need("etcd", "the real one")
    client, peer = free_ports(2)
    data = tmp_path / "data"
    seen = []
    for value in ("1", "2"):
        with Server(tmp_path, "--data-dir", str(data), *AUTO, *https(client, peer),
                    real=real) as s:
            s.ready()
            pem = str(data / "fixtures/client/cert.pem")
            assert etcdctl(client, "put", "a", value, tls=["--cacert", pem]) == "OK\n"
            assert etcdctl(client, "get", "a", tls=["--cacert", pem]) == f"a\n{value}\n"
            r = subprocess.run(["curl", "-sS", "--cacert", pem,
                                f"https://127.0.0.1:{client}/version"], capture_output=True,
                               text=True)
            assert "etcdserver" in r.stdout, r.stderr
        seen.append([read(data / "fixtures" / side / name) for side in ("client", "peer")
                     for name in ("cert.pem", "key.pem")])
        text = x509(pem, "-text")
        assert "O = etcd" in text and "IP Address:127.0.0.1" in text
        assert "id-ecPublicKey" in text and "TLS Web Server Authentication" in text
        assert os.stat(data / "fixtures/client/key.pem").st_mode & 0o777 == 0o600
        assert seen[-1][1].startswith("-----BEGIN EC PRIVATE KEY-----")
    assert seen[0] == seen[1]


def test_how_long_it_lasts(tmp_path):
    client, peer = free_ports(2)
    with Server(tmp_path, "--data-dir", str(tmp_path / "d"), "--auto-tls",
                "--self-signed-cert-validity=3", *https(client, peer), "--peer-auto-tls") as s:
        s.ready()
        pem = str(tmp_path / "d/fixtures/client/cert.pem")
        day = 86400
        assert "will not expire" in x509(pem, "-checkend", str(1094 * day))
        r = subprocess.run(["openssl", "x509", "-in", pem, "-noout", "-checkend", str(1096 * day)])
        assert r.returncode == 1
    for years in ("0", "293"):
        with Server(tmp_path, "--data-dir", str(tmp_path / ("e" + years)), "--auto-tls",
                    "--self-signed-cert-validity=" + years, *https(client, peer),
                    "--peer-auto-tls") as s:
            assert s.p.wait(timeout=30) != 0
            assert "selfSignedCertValidity is invalid,it should be greater than 0" in s.said()


def test_a_given_certificate_wins_and_clients_are_still_asked(tmp_path):
    ca = Authority(str(tmp_path / "pki"))
    pem, key = ca.issue("server")
    friend = ["--cert", pem, "--key", key]
    client, peer = free_ports(2)
    asks = ["--client-cert-auth", "--trusted-ca-file", ca.ca]
    with Server(tmp_path, "--data-dir", str(tmp_path / "d"), *AUTO, "--cert-file", pem,
                "--key-file", key, *https(client, peer)) as s:
        s.ready()
        assert "ignoring client auto TLS since certs given" in s.said()
        assert not (tmp_path / "d/fixtures/client").exists()
        assert etcdctl(client, "put", "a", "1", tls=["--cacert", ca.ca]) == "OK\n"
    with Server(tmp_path, "--data-dir", str(tmp_path / "d"), *AUTO, *asks,
                *https(client, peer)) as s:
        s.ready()
        own = ["--cacert", str(tmp_path / "d/fixtures/client/cert.pem")]
        assert etcdctl(client, "get", "a", tls=own + friend) == "a\n1\n"
        with pytest.raises(AssertionError):
            etcdctl(client, "--command-timeout=1s", "get", "a", tls=own)


def test_the_configuration_file_may_ask_for_it(tmp_path):
    client, peer = free_ports(2)
    path = tmp_path / "conf.yml"
    path.write_text(f"""data-dir: {tmp_path}/d
listen-client-urls: https://127.0.0.1:{client}
advertise-client-urls: https://127.0.0.1:{client}
listen-peer-urls: https://127.0.0.1:{peer}
initial-advertise-peer-urls: https://127.0.0.1:{peer}
initial-cluster: default=https://127.0.0.1:{peer}
self-signed-cert-validity: 2
client-transport-security:
  auto-tls: true
peer-transport-security:
  auto-tls: true
""")
    with Server(tmp_path, "--config-file", str(path)) as s:
        s.ready()
        assert (tmp_path / "d/fixtures/peer/key.pem").exists()


def test_members_that_nobody_signed_for_make_a_cluster():
    with Cluster(3, peer_tls=True, flags=["--peer-auto-tls"]) as c:
        assert c.ctl("put", "a", "1") == "OK\n"
        c.nodes[2].kill()
        c.nodes[2].start()
        wait_for("healthy again", c.nodes[2].healthy)
        for n in c.nodes:
            assert c.ctl("get", "a", endpoint=n.endpoint) == "a\n1\n"
        certs = {read(os.path.join(n.dir, "fixtures/peer/cert.pem")) for n in c.nodes}
        assert len(certs) == 3


def test_one_that_nobody_signed_for_joins(tmp_path):
    """It asks the others who it is before it has a server: by then it has its certificate."""
    c1, p1, c2, p2 = free_ports(4)
    with Server(tmp_path, "--name", "n1", "--data-dir", str(tmp_path / "n1"), *AUTO,
                *https(c1, p1, "n1")) as first:
        first.ready()
        tls = ["--cacert", str(tmp_path / "n1/fixtures/client/cert.pem")]
        assert etcdctl(c1, "put", "a", "1", tls=tls) == "OK\n"
        etcdctl(c1, "member", "add", "n2", f"--peer-urls=https://127.0.0.1:{p2}", tls=tls)
        flags = https(c2, p2, "n2")
        flags[-1] = f"n1=https://127.0.0.1:{p1},n2=https://127.0.0.1:{p2}"
        with Server(tmp_path, "--name", "n2", "--data-dir", str(tmp_path / "n2"), *AUTO, *flags,
                    "--initial-cluster-state", "existing", name="second") as second:
            second.ready()
            tls = ["--cacert", str(tmp_path / "n2/fixtures/client/cert.pem")]
            assert etcdctl(c2, "get", "a", tls=tls) == "a\n1\n"


# ---- revoked certificates ---------------------------------------------------------------------
def refused(cluster, tls):
    before, cluster.tls = cluster.tls, tls
    try:
        code, _, _ = cluster.ctl("--command-timeout=1s", "get", "a", ok=None)
        return code != 0
    finally:
        cluster.tls = before


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    a = Authority(str(tmp_path_factory.mktemp("crl")))
    for name in ("server", "good", "lost"):
        a.issue(name)
    return a


def tls_of(ca, name):
    return {"ca": ca.ca, "cert": ca.path(name + ".pem"), "key": ca.path(name + ".key")}


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_a_revoked_client_is_refused(ca, form):
    crl = ca.revoke("lost", out=f"client-{form}.crl", form=form)
    flags = ["--cert-file", ca.path("server.pem"), "--key-file", ca.path("server.key"),
             "--client-cert-auth", "--trusted-ca-file", ca.ca, "--client-crl-file", crl]
    with Cluster(1, tls=tls_of(ca, "good"), flags=flags) as c:
        n = c.nodes[0]
        assert c.ctl("put", "a", "1") == "OK\n"
        assert refused(c, tls_of(ca, "lost"))
        assert n.metric("bns_tls_revoked_total") >= 1
        assert "certificate revoked" in read(n.log)
        r = subprocess.run(["openssl", "s_client", "-connect", n.endpoint, "-tls1_2", "-cert",
                            ca.path("lost.pem"), "-key", ca.path("lost.key")],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
        assert "certificate revoked" in r.stderr
        # found again: the next list does not have it
        ca.revoke(out=f"client-{form}.crl", form=form)
        wait_for("trusted again", lambda: not refused(c, tls_of(ca, "lost")))
        with open(crl, "w") as f:
            f.write("nothing of use\n")
        n.signal(signal.SIGHUP)
        wait_for("named in the log", lambda: "no revocation list in PEM or DER" in read(n.log))
        assert c.ctl("get", "a") == "a\n1\n"


def test_a_revoked_member_is_refused(ca):
    crl = ca.revoke("lost", out="peer.crl")
    common = ["--peer-client-cert-auth", "--peer-trusted-ca-file", ca.ca, "--peer-crl-file", crl]

    def pair(name):
        return ["--peer-cert-file", ca.path(name + ".pem"), "--peer-key-file",
                ca.path(name + ".key")]

    c = Cluster(3, peer_tls=True, flags=common)
    try:
        for n in c.nodes[:2]:
            n.start(*pair("good"))
        third = c.nodes[2]
        third.start(*pair("lost"))
        for n in c.nodes[:2]:
            wait_for("healthy", n.healthy)
        wait_for("refused", lambda: any("certificate revoked" in read(n.log) for n in c.nodes[:2]))
        with pytest.raises((OSError, AssertionError)):
            assert third.healthy()
        third.kill()
        third.start(*pair("good"))
        wait_for("healthy with the right one", third.healthy)
    finally:
        c.close()


def test_the_real_etcd_refuses_the_same_client(ca):
    need("etcd", "the real one")
    assert ETCD
    crl = ca.revoke("lost", out="real.crl", form="DER")
    flags = ["--cert-file", ca.path("server.pem"), "--key-file", ca.path("server.key"),
             "--client-cert-auth", "--trusted-ca-file", ca.ca, "--client-crl-file", crl]
    with Cluster(1, real=True, tls=tls_of(ca, "good"), flags=flags) as c:
        assert c.ctl("put", "a", "1") == "OK\n"
        assert refused(c, tls_of(ca, "lost"))
