"""Users with passwords and with certificates, through real clients; and what must not be found.

Tokens live for two seconds here, so that every program also meets one that has expired.
"""
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

import pytest

import programs
from certs import Authority
from cluster import BIN, Cluster
from conftest import need

FLAGS = ["--bcrypt-cost", "4", "--auth-token", "simple,2"]
PASSWORD = "quite-a-secret"


def make_users(cluster):
    """root, and ann, who may do all below /app/."""
    for line in (["user", "add", "root:top"], ["user", "grant-role", "root", "root"],
                 ["user", "add", "ann:" + PASSWORD], ["role", "add", "app"],
                 ["role", "grant-permission", "app", "readwrite", "/app/", "--prefix"],
                 ["user", "grant-role", "ann", "app"], ["auth", "enable"]):
        cluster.ctl(*line)


def test_the_go_client_on_all_members():
    with Cluster(3, flags=FLAGS) as c:
        out = programs.run([programs.go("auth"), "-endpoints", c.endpoints, "-idle", "4s"])
        assert out.strip() == "OK"


def test_the_node_client():
    need("etcdctl", "to make users")
    with Cluster(1, flags=FLAGS) as c:
        make_users(c)
        out = programs.run(programs.node("auth.js") + [c.endpoints, "ann", PASSWORD, "4"])
        assert out.strip() == "OK"


class Pki:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="bonsai-auth-")
        self.ca = Authority(self.dir)
        for name, cn in (("server", "server"), ("ann", "ann"), ("root", "root"),
                         ("nobody", "nobody")):
            self.ca.issue(name, cn=cn)

    def pair(self, name):
        return self.ca.path(name + ".pem"), self.ca.path(name + ".key")

    def tls(self, name):
        cert, key = self.pair(name)
        return {"ca": self.ca.ca, "cert": cert, "key": key}


@pytest.fixture(scope="module")
def pki():
    p = Pki()
    yield p
    shutil.rmtree(p.dir, ignore_errors=True)


def tls_flags(pki, *more):
    cert, key = pki.pair("server")
    return [*FLAGS, "--cert-file", cert, "--key-file", key, *more]


def test_the_python_client_which_sends_tokens_over_tls_only(pki):
    need("etcdctl", "to make users")
    with Cluster(1, tls=pki.tls("nobody"), flags=tls_flags(pki)) as c:
        make_users(c)
        out = programs.run(programs.python("auth.py") +
                           [c.endpoints, "ann", PASSWORD, "4", pki.ca.ca])
        assert out.strip() == "OK"


def test_the_name_in_the_certificate_is_the_user(pki):
    need("etcdctl", "the client")
    more = ["--client-cert-auth", "--trusted-ca-file", pki.ca.ca]
    with Cluster(1, tls=pki.tls("root"), flags=tls_flags(pki, *more)) as c:
        make_users(c)

        def ctl(name, *args):
            c.tls = pki.tls(name)
            return c.ctl(*args, ok=None)

        assert ctl("ann", "put", "/app/a", "1")[0] == 0
        assert "permission denied" in ctl("ann", "put", "/other", "1")[2]
        assert "permission denied" in ctl("ann", "user", "list")[2]
        assert ctl("root", "user", "list")[1].split() == ["ann", "root"]
        assert "permission denied" in ctl("nobody", "put", "/app/a", "1")[2]
        # a token wins over the certificate
        assert ctl("root", "--user", "ann:" + PASSWORD, "put", "/app/a", "2")[0] == 0
        assert "permission denied" in ctl("root", "--user", "ann:" + PASSWORD, "put", "/b", "2")[2]
        # a gateway's connection says nothing about who sends the request
        c.tls = pki.tls("root")
        r = urllib.request.Request(c.nodes[0].url + "/v3/kv/range", data=b'{"key":"L2FwcC9h"}')
        with pytest.raises(urllib.error.HTTPError) as e:
            urllib.request.urlopen(r, timeout=10, context=c.ssl_context())
        assert e.value.code == 400
        assert json.loads(e.value.read())["message"] == "etcdserver: user name is empty"


def test_the_gateway_takes_a_token():
    need("etcdctl", "to make users")
    with Cluster(1, flags=FLAGS) as c:
        make_users(c)

        def call(path, body, token=None):
            r = urllib.request.Request(c.nodes[0].url + path, data=json.dumps(body).encode())
            if token:
                r.add_header("Authorization", token)
            try:
                with urllib.request.urlopen(r, timeout=10) as a:
                    return json.loads(a.read())
            except urllib.error.HTTPError as e:
                return json.loads(e.read())

        token = call("/v3/auth/authenticate", {"name": "ann", "password": PASSWORD})["token"]
        assert "revision" in call("/v3/kv/put", {"key": "L2FwcC9h"}, token)["header"]
        assert "revision" in call("/v3/kv/put", {"key": "L2FwcC9h"}, "Bearer " + token)["header"]
        assert call("/v3/kv/put", {"key": "eA=="}, token)["message"] == \
            "etcdserver: permission denied"
        assert call("/v3/kv/put", {"key": "eA=="}, "abcdefghijklmnop.1")["message"] == \
            "etcdserver: invalid auth token"
        assert call("/v3/auth/authenticate", {"name": "ann", "password": "x"})["message"] == \
            "etcdserver: authentication failed, invalid user ID or password"


def test_a_password_is_in_no_file():
    need("etcdctl", "the client")
    with Cluster(1, flags=FLAGS + ["--log-level", "debug"]) as c:
        make_users(c)
        assert c.ctl("--user", "ann:" + PASSWORD, "put", "/app/a", "1") == "OK\n"
        c.ctl("--user", "root:top", "user", "passwd", "ann", "--interactive=false",
              stdin=PASSWORD + "2\n")
        assert c.ctl("--user", f"ann:{PASSWORD}2", "put", "/app/a", "found-in-files") == "OK\n"
        assert c.nodes[0].stop() == 0
        files = [c.nodes[0].log]
        for where, _, names in os.walk(c.nodes[0].dir):
            files += [os.path.join(where, n) for n in names]
        found = b""
        for f in files:
            with open(f, "rb") as b:
                data = b.read()
            assert PASSWORD.encode() not in data, f
            found += data if b"found-in-files" in data else b""
        assert found  # the search would have found it


def test_tokens_of_another_type_are_refused_at_the_start():
    for value in ("jwt,pub-key=a,priv-key=b,sign-method=RS256", "simple,x", "other"):
        r = subprocess.run([os.path.join(BIN, "etcd-lite"), "--auth-token", value],
                           capture_output=True, text=True, timeout=20)
        assert r.returncode != 0 and "--auth-token" in r.stderr, (value, r.stderr)
