"""Clusters for the matrix: etcd-lite or the real etcd on loopback, killed, paused, restarted.

Every process started here is ended here, by its own process id. Nothing sleeps to wait: wait_for
polls a condition with a deadline.
"""
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("BNS_BIN", os.path.join(ROOT, "build", "release", "bin"))
ETCD = shutil.which("etcd")
ETCDCTL = shutil.which("etcdctl")
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and children inherit that
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as of a shell's command with a '&'
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for(what, condition, seconds=15.0):
    """Polls until condition() is true; the exception it raised last is in the message."""
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        try:
            value = condition()
            if value:
                return value
        except Exception as e:  # the server may not be there yet
            last = e
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s (last error: {last})")


def free_ports(count):
    """Ports that were free a moment ago, below the ephemeral range so that no dial takes them."""
    found, sockets = [], []
    port = 20000 + (os.getpid() * 131) % 9000
    while len(found) < count:
        port = port + 1 if port < 32000 else 20000
        s = socket.socket()
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            s.close()
            continue
        sockets.append(s)
        found.append(port)
    for s in sockets:
        s.close()
    return found


class Node:
    def __init__(self, cluster, number):
        self.cluster = cluster
        self.name = f"n{number}"
        self.host = cluster.hosts[number - 1]
        self.prefix = cluster.prefix  # of the command, of this node alone when it is set later
        self.client, self.peer = cluster.ports[2 * number - 2 : 2 * number]
        self.dir = os.path.join(cluster.dir, self.name)
        self.log = os.path.join(cluster.dir, self.name + ".log")
        self.process = None

    @property
    def url(self):
        return f"{self.cluster.scheme}://{self.host}:{self.client}"

    @property
    def peer_url(self):
        return f"{self.cluster.peer_scheme}://{self.host}:{self.peer}"

    @property
    def endpoint(self):
        return f"{self.host}:{self.client}"

    def start(self, *more):
        program = self.cluster.program or (
            ETCD if self.cluster.real else os.path.join(BIN, "etcd-lite"))
        flags = [
            "--name", self.name, "--data-dir", self.dir,
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url,
            "--initial-cluster", self.cluster.initial, "--initial-cluster-state", "new",
        ]
        if not self.cluster.real and not self.host.startswith("127."):
            flags.append("--insecure")  # a network of the test's own
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.prefix + [program, *flags, *self.cluster.flags, *more],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def get(self, path, timeout=5):
        with urllib.request.urlopen(self.url + path, timeout=timeout,
                                    context=self.cluster.ssl_context()) as r:
            return r.read().decode()

    def healthy(self):
        return json.loads(self.get("/health"))["health"] == "true"

    def metric(self, name):
        for line in self.get("/metrics").splitlines():
            if line.split("{")[0].split(" ")[0] == name:
                return float(line.rsplit(" ", 1)[1])
        raise KeyError(name)

    def is_leader(self):
        return self.metric("etcd_server_is_leader") == 1

    def rss_kib(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        return 0

    def signal(self, signo):
        self.process.send_signal(signo)

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self):
        """SIGTERM; the exit code."""
        self.process.terminate()
        code = self.process.wait(timeout=20)
        self.process = None
        return code


class Cluster:
    """tls: ca, cert and key of a client, when clients (and with peer_tls, members) use TLS.
    program: another etcd-lite, or with real another etcd."""

    def __init__(self, size, real=False, flags=(), prefix=(), hosts=None, tls=None,
                 peer_tls=False, program=None):
        self.real = real
        self.program = program
        self.tls = tls
        self.scheme = "https" if tls else "http"
        self.peer_scheme = "https" if peer_tls else "http"
        self.flags = list(flags)
        self.prefix = list(prefix)
        self.dir = tempfile.mkdtemp(prefix="bonsai-matrix-")
        # given hosts have their network for themselves
        self.hosts = hosts or ["127.0.0.1"] * size
        self.ports = [2379, 2380] * size if hosts else free_ports(2 * size)
        self.initial = ",".join(
            f"n{i + 1}={self.peer_scheme}://{self.hosts[i]}:{self.ports[2 * i + 1]}"
            for i in range(size))
        self.nodes = [Node(self, i + 1) for i in range(size)]

    def __enter__(self):
        for n in self.nodes:
            n.start()
        try:
            for n in self.nodes:
                wait_for(f"{n.name} healthy", n.healthy)
        except AssertionError:
            self.print_logs()
            self.close()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.print_logs()
        self.close()

    def print_logs(self):
        for n in self.nodes:
            if os.path.exists(n.log):
                with open(n.log, errors="replace") as f:
                    print(f"---- {n.name}\n" + "".join(f.readlines()[-40:]))

    def close(self):
        for n in self.nodes:
            n.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def endpoints(self):
        return ",".join(n.endpoint for n in self.nodes)

    def ssl_context(self):
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.tls["ca"])
        context.load_cert_chain(self.tls["cert"], self.tls["key"])
        return context

    def ctl_flags(self):
        if not self.tls:
            return []
        return ["--cacert", self.tls["ca"], "--cert", self.tls["cert"], "--key", self.tls["key"]]

    def leader(self):
        for n in self.nodes:
            try:
                if n.process is not None and n.is_leader():
                    return n
            except OSError:
                pass
        return None

    def ctl(self, *args, endpoint=None, ok=True, stdin=None, timeout=30):
        """etcdctl; returns its stdout, or (code, stdout, stderr) with ok=None."""
        r = subprocess.run(
            [ETCDCTL, "--endpoints", endpoint or self.endpoints, *self.ctl_flags(), *args],
            env={**os.environ, "ETCDCTL_API": "3"}, input=stdin, capture_output=True, text=True,
            timeout=timeout)
        if ok is None:
            return r.returncode, r.stdout, r.stderr
        assert r.returncode == 0, f"etcdctl {args}: {r.returncode}\n{r.stdout}\n{r.stderr}"
        return r.stdout
