"""Command lines that start the real etcd, as manifests and examples have them, given to etcd-lite
under the name `etcd`: it starts, says so in the words that tools wait for, and serves. What it
cannot do it refuses, and says why.
"""
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest

from certs import Authority
from cluster import BIN, ETCD, free_ports, wait_for
from conftest import need

READY = "ready to serve client requests"


class Server:
    """One process, called as `etcd`; of the real one the same with real=True."""

    def __init__(self, tmp, *flags, env=None, real=False, name="etcd"):
        self.link = tmp / name
        if not self.link.exists():
            self.link.symlink_to(ETCD if real else os.path.join(BIN, "etcd-lite"))
        self.log = tmp / (name + ".log")
        with open(self.log, "wb") as log:
            self.p = subprocess.Popen([self.link, *flags], stdout=log, stderr=log, cwd=tmp,
                                      env={**os.environ, **(env or {})})

    def said(self):
        return self.log.read_text(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.p.terminate()
        self.p.wait(timeout=30)

    def ready(self):
        def serves():
            assert self.p.poll() is None, self.said()
            return READY in self.said()
        wait_for("its log", serves, 30)


def lines(server):
    """The log's lines, each of which is JSON; READY is ours, on stdout."""
    return [json.loads(x) for x in server.said().splitlines() if not x.startswith("READY ")]


def etcdctl(client, *args, tls=()):
    need("etcdctl", "the client")
    scheme = "https" if tls else "http"
    r = subprocess.run(["etcdctl", "--endpoints", f"{scheme}://127.0.0.1:{client}", *tls, *args],
                       env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return r.stdout


def status(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as r:
            return r.status
    except urllib.error.HTTPError as e:
        return e.code


def urls(client, peer, name="default", host="127.0.0.1"):
    return ["--listen-client-urls", f"http://{host}:{client}",
            "--advertise-client-urls", f"http://{host}:{client}",
            "--listen-peer-urls", f"http://{host}:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"{name}=http://127.0.0.1:{peer}"]


def test_a_manifest_of_kubeadm(tmp_path):
    ca = Authority(str(tmp_path / "pki"))
    pem, key = ca.issue("server")
    client, peer, metrics = free_ports(3)
    flags = [
        f"--advertise-client-urls=https://127.0.0.1:{client}", f"--cert-file={pem}",
        "--client-cert-auth=true", f"--data-dir={tmp_path}/data",
        "--experimental-initial-corrupt-check=true",
        "--experimental-watch-progress-notify-interval=5s", "--feature-gates="
        "InitialCorruptCheck=true", "--watch-progress-notify-interval=5s",
        f"--initial-advertise-peer-urls=https://127.0.0.1:{peer}",
        f"--initial-cluster=node=https://127.0.0.1:{peer}", f"--key-file={key}",
        f"--listen-client-urls=https://127.0.0.1:{client}",
        f"--listen-metrics-urls=http://127.0.0.1:{metrics}",
        f"--listen-peer-urls=https://127.0.0.1:{peer}", "--name=node", f"--peer-cert-file={pem}",
        "--peer-client-cert-auth=true", f"--peer-key-file={key}",
        f"--peer-trusted-ca-file={ca.ca}", "--snapshot-count=10000", f"--trusted-ca-file={ca.ca}"]
    with Server(tmp_path, *flags) as s:
        s.ready()
        tls = ["--cacert", ca.ca, "--cert", pem, "--key", key]
        assert etcdctl(client, "put", "/registry/a", "1", tls=tls) == "OK\n"
        for path in ("/health?exclude=NOSPACE&serializable=true", "/health?serializable=false",
                     "/livez", "/readyz", "/metrics"):
            assert status(metrics, path) == 200, path
        assert any(x["msg"] == READY for x in lines(s))


EXAMPLES = {
    "jetcd": (["--name", "etcd0", "--enable-pprof", "--log-level", "debug", "--log-outputs",
               "stdout", "--logger=zap"], {}),
    "procfile": (["--name", "etcd0", "--initial-cluster-token", "etcd-cluster-1",
                  "--initial-cluster-state", "new", "--enable-pprof", "--logger=zap",
                  "--log-outputs=stderr"], {}),
    "patroni": (["--name", "etcd0"],
                {"ETCD_INITIAL_CLUSTER_STATE": "new", "ETCD_INITIAL_CLUSTER_TOKEN": "tutorial",
                 "ETCD_UNSUPPORTED_ARCH": "arm64", "ETCD_ENABLE_V2": "false"}),
    "compose": (["--name", "etcd0", "--auto-compaction-mode=periodic",
                 "--auto-compaction-retention=1", "--quota-backend-bytes=8589934592",
                 "--max-request-bytes=10485760", "--max-txn-ops=10000", "--max-snapshots=10",
                 "--max-wals", "10", "--heartbeat-interval=100", "--election-timeout=1000",
                 "--backend-batch-limit=10000", "--backend-batch-interval=10ms",
                 "--grpc-keepalive-min-time=5s", "--grpc-keepalive-interval=2h0m0s",
                 "--grpc-keepalive-timeout=20s", "--metrics=extensive", "--enable-v2=false"],
                {"ALLOW_NONE_AUTHENTICATION": "yes", "ETCD_LOG_LEVEL": "info"}),
    "3.6": (["--name", "etcd0", "--socket-reuse-port=false", "--socket-reuse-address=true",
             "--max-learners=1", "--compaction-batch-limit=1000", "--bootstrap-defrag-threshold-"
             "megabytes=0", "--compact-hash-check-time=1m0s", "--log-format=json",
             "--warning-apply-duration=100ms", "--snapshot-catchup-entries=5000",
             "--feature-gates=CompactHashCheck=true,StopGRPCServiceOnDefrag=true"], {}),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_start_and_serve(example, tmp_path):
    flags, env = EXAMPLES[example]
    client, peer = free_ports(2)
    with Server(tmp_path, "--data-dir", str(tmp_path / "d"),
                *urls(client, peer, "etcd0", "0.0.0.0" if example == "jetcd" else "127.0.0.1"),
                *flags, env=env) as s:
        s.ready()
        assert etcdctl(client, "put", "a", "1") == "OK\n"
        assert all({"level", "ts", "msg"} <= set(x) for x in lines(s))
        assert ("is reachable from other machines" in s.said()) == (example == "jetcd")


def test_every_flag_of_etcd_is_taken_with_its_default(tmp_path):
    """All that `etcd --help` lists, with the value it names."""
    need(ETCD, "the real etcd")
    r = subprocess.run([ETCD, "--help"], capture_output=True, text=True)
    found = re.findall(r"^  --([a-z0-9-]+)(?: '?([^'\n]*)'?)?$", r.stdout + r.stderr, re.M)
    assert len(found) >= 80
    client, peer = free_ports(2)
    odd = {"name", "data-dir", "version", "config-file", "max-concurrent-streams",
           "listen-peer-urls", "listen-client-urls", "initial-advertise-peer-urls",
           "initial-cluster", "advertise-client-urls", "backend-batch-interval",
           "log-outputs", "auto-compaction-retention"}
    flags = [f"--{name}={value}" for name, value in found if name not in odd]
    flags += ["--log-outputs=default", "--auto-compaction-retention=0"]
    with Server(tmp_path, "--data-dir", str(tmp_path / "d"), *urls(client, peer), *flags) as s:
        s.ready()
        assert etcdctl(client, "put", "a", "1") == "OK\n"


def test_paths_of_the_metrics_port_are_etcds(tmp_path):
    need(ETCD, "the real etcd")
    got = []
    for real in (True, False):
        client, peer, metrics = free_ports(3)
        with Server(tmp_path, "--data-dir", str(tmp_path / str(real)), *urls(client, peer),
                    "--listen-metrics-urls", f"http://127.0.0.1:{metrics}",
                    real=real, name="real" if real else "etcd") as s:
            s.ready()
            got.append([[status(p, path) for path in ("/metrics", "/health", "/version", "/v3/x")]
                        for p in (metrics, client)])
    assert got[0] == got[1]
    assert got[1][0] == [200, 200, 404, 404]


def test_version_has_etcds_lines(tmp_path):
    need(ETCD, "the real etcd")
    names = []
    for program in (ETCD, os.path.join(BIN, "etcd-lite")):
        link = tmp_path / str(len(names)) / "etcd"
        link.parent.mkdir()
        link.symlink_to(shutil.which(program) or program)
        r = subprocess.run([link, "--version"], capture_output=True, text=True)
        assert r.returncode == 0
        names.append([line.split(":")[0] for line in r.stdout.splitlines()])
    assert names[0] == names[1]


def refused(*flags, name="etcd-lite", cwd=None):
    r = subprocess.run([os.path.join(BIN, "etcd-lite"), *flags], executable=None, cwd=cwd,
                       capture_output=True, text=True, timeout=30)
    return r.returncode, r.stderr


@pytest.mark.parametrize("flags, words", [
    (["--enable-v2=true"], "--enable-v2=true is not supported"),
    (["--proxy=on"], "there is no proxy"),
    (["--discovery=https://d/1"], "--initial-cluster"),
    (["--socket-reuse-port"], "two servers on one port"),
    (["--experimental-enable-distributed-tracing"], "there are no traces"),
    (["--log-outputs=stderr,x.log"], "one output is supported"),
    (["--logger=log4j"], 'unknown logger option "log4j"'),
    (["--log-package-levels=etcdserver=DEBUG"], "--log-level is that of all"),
    (["--v2-deprecation=never"], "none of write-only|not-yet"),
    (["--feature-gates=Nonsense=true"], "unrecognized feature gate: Nonsense"),
    (["--feature-gates=LeaseCheckpoint"], "missing bool value for LeaseCheckpoint"),
    (["--feature-gates=LeaseCheckpoint=perhaps"], "invalid value of LeaseCheckpoint=perhaps"),
    (["--listen-metrics-urls=http://nosuch:1"], "expected IP in URL for binding"),
    (["--listen-metrics-urls=https://127.0.0.1:0"], "must be provided"),
], ids=lambda v: v[0] if isinstance(v, list) else "")
def test_what_it_cannot_do_is_refused(flags, words, tmp_path):
    code, said = refused("--data-dir", str(tmp_path / "d"), *flags)
    assert code == 3 and words in said, (code, said)


OPEN = ["--listen-client-urls", "--listen-metrics-urls", "--listen-client-http-urls",
        "--listen-peer-urls"]


@pytest.mark.parametrize("flag", OPEN)
@pytest.mark.parametrize("url", ["http://0.0.0.0:0", "http://127.0.0.1:0,http://[::]:0"])
def test_an_address_of_others_without_tls_is_refused(flag, url, tmp_path):
    if flag == "--listen-peer-urls":
        url = url.rsplit(",", 1)[-1]
    mine = ["--data-dir", str(tmp_path / "d"), flag, url]
    if flag != "--listen-client-urls":
        mine += ["--listen-client-urls", "http://127.0.0.1:0"]
    code, said = refused(*mine)
    assert code == 3 and "without TLS" in said and "--insecure" in said, (code, said)
    assert not (tmp_path / "d").exists()


def test_logs_go_where_they_are_sent(tmp_path):
    client, peer = free_ports(2)
    with Server(tmp_path, "--data-dir", str(tmp_path / "d"), *urls(client, peer),
                "--logger=capnslog", "--log-outputs", str(tmp_path / "to.log")) as s:
        wait_for("the file", lambda: (tmp_path / "to.log").exists()
                 and READY in (tmp_path / "to.log").read_text(), 30)
        assert s.said().startswith("READY ") and s.said().count("\n") == 1
        assert "level=info" in (tmp_path / "to.log").read_text()


def test_a_configuration_file_with_lists_and_empty_keys(tmp_path):
    """Shaped as etcd's sample file."""
    client, peer = free_ports(2)
    (tmp_path / "c.yaml").write_text(f"""# This is the configuration file for the etcd server.
name: 'default'
data-dir: {tmp_path}/d
snapshot-count: 10000
quota-backend-bytes: 0
listen-peer-urls: http://127.0.0.1:{peer}
listen-client-urls: http://127.0.0.1:{client}
max-snapshots: 5
max-wals: 5
cors:
initial-advertise-peer-urls: http://127.0.0.1:{peer}
advertise-client-urls: http://127.0.0.1:{client}
discovery:
discovery-fallback: 'proxy'
discovery-proxy:
discovery-srv:
initial-cluster:
initial-cluster-token: 'etcd-cluster'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
proxy-failure-wait: 5000
client-transport-security:
  cert-file:
  key-file:
  client-cert-auth: false
  trusted-ca-file:
  auto-tls: false
peer-transport-security:
  cert-file:
  client-cert-auth: false
  auto-tls: false
self-signed-cert-validity: 1
log-level: debug
logger: zap
log-outputs: [stderr]
auto-compaction-mode: periodic
auto-compaction-retention: "1"
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
]
tls-min-version: 'TLS1.2'
tls-max-version: 'TLS1.3'
""")
    with Server(tmp_path, "--config-file", str(tmp_path / "c.yaml")) as s:
        s.ready()
        assert etcdctl(client, "put", "a", "1") == "OK\n"


def test_the_log_has_a_directory_of_its_own(tmp_path):
    client, peer = free_ports(2)
    data, wal, moved = tmp_path / "data", tmp_path / "fast" / "wal", tmp_path / "moved"
    flags = ["--data-dir", str(data), *urls(client, peer)]

    def refused(*more):
        with Server(tmp_path, *flags, *more) as s:
            assert s.p.wait(timeout=30) != 0
            return s.said()

    with Server(tmp_path, *flags, "--wal-dir", str(wal)) as s:
        s.ready()
        assert etcdctl(client, "put", "a", "1") == "OK\n"
        assert list(wal.glob("wal-*")) and not (data / "wal").exists()
        s.p.kill()  # what was acknowledged is in the log alone
    assert f"the log of this member is in {wal}: start it with --wal-dir" in refused()
    assert f"the log of this member is in {wal}" in refused("--wal-dir", str(moved))
    with Server(tmp_path, *flags, "--wal-dir", str(wal)) as s:
        s.ready()
        assert etcdctl(client, "get", "a") == "a\n1\n"
        other = ["--name", "n2", "--data-dir", str(tmp_path / "other"),
                 *urls(*free_ports(2), name="n2")]
        with Server(tmp_path, *other, "--wal-dir", str(wal), name="second") as t:
            assert t.p.wait(timeout=30) != 0
            assert "--wal-dir in use" in t.said()
    with Server(tmp_path, *other, "--wal-dir", str(wal), name="second") as t:
        assert t.p.wait(timeout=30) != 0
        assert "the log of another member is there" in t.said()
    shutil.rmtree(moved, ignore_errors=True)
    shutil.move(wal, moved)
    assert "was there, and is gone" in refused("--wal-dir", str(wal))
    with Server(tmp_path, *flags, "--wal-dir", str(moved)) as s:
        s.ready()
        assert etcdctl(client, "get", "a") == "a\n1\n"
