"""What the programs that compare with the real etcd share: the peers, a run of a load, CPU, memory.

The peers are etcd-lite, Debian's etcd and, where there is a Go toolchain, the newest etcd, built
from its Go module into a cache directory outside of the tree.
"""
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "matrix"))
import cluster as matrix  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
MODULE, MODULE_VERSION = "go.etcd.io/etcd/server/v3", "v3.7.3"


class Peer:
    def __init__(self, name, real, program=None):
        self.name, self.real, self.program = name, real, program

    def cluster(self, size, *flags):
        quiet = ["--logger", "zap"] if self.real else []
        return matrix.Cluster(size, real=self.real, program=self.program,
                              flags=[*quiet, "--log-level", "error", *flags])


def debian_etcd():
    """The peer, or None and why not."""
    if matrix.ETCD is None:
        return None, "etcd-server is not installed (tools/deps --tests)"
    out = subprocess.run([matrix.ETCD, "--version"], capture_output=True, text=True)
    return Peer("etcd " + out.stdout.split("\n")[0].split()[-1], True), ""


def module_etcd():
    """etcd of its Go module, built once a version: the peer, or None and why not."""
    if not shutil.which("go"):
        return None, "there is no Go toolchain"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    work = os.path.join(cache, "bonsai", "etcd-" + MODULE_VERSION)
    program = os.path.join(work, "etcd")
    env = {**os.environ, "GOFLAGS": "-mod=mod -buildvcs=false"}
    if not os.path.exists(program):
        os.makedirs(work, exist_ok=True)
        with open(os.path.join(work, "go.mod"), "w") as f:
            f.write(f"module bonsai/etcd\n\nrequire {MODULE} {MODULE_VERSION}\n")
        try:
            r = subprocess.run(["go", "build", "-o", program + ".new", MODULE], cwd=work, env=env,
                               capture_output=True, text=True, timeout=900)
        except subprocess.TimeoutExpired:
            return None, f"{MODULE} {MODULE_VERSION}: not built in 15 minutes"
        if r.returncode != 0:
            why = " ".join(r.stderr.split())[-300:]
            return None, f"{MODULE} {MODULE_VERSION}: {why or 'go build failed'}"
        os.replace(program + ".new", program)
    return Peer("etcd " + MODULE_VERSION[1:], True, program), ""


def cpu_seconds(node):
    with open(f"/proc/{node.process.pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_mib(node):
    """Resident, and what of it no file stands behind."""
    found = {}
    with open(f"/proc/{node.process.pid}/status") as f:
        for line in f:
            if line.startswith(("VmRSS:", "RssAnon:")):
                found[line.split(":")[0]] = int(line.split()[1]) / 1024
    return found["VmRSS"], found["RssAnon"]


def load_command(endpoints, op, clients, **more):
    words = [os.path.join(matrix.BIN, "etcd_load"), "--endpoints", endpoints, "--op", op,
             "--clients", str(clients)]
    for name, value in more.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    return words


def load_result(text):
    pairs = (p.split("=") for p in text.split())
    return {k: v if k == "op" else float(v) for k, v in pairs}


def load(c, op, clients, **more):
    """One run of etcd_load: ops/s, latencies, CPU of servers and client, memory of the servers."""
    before = sum(cpu_seconds(n) for n in c.nodes)
    out = subprocess.run(load_command(c.endpoints, op, clients, **more), capture_output=True,
                         text=True, timeout=600)
    if out.returncode != 0:
        raise RuntimeError(f"etcd_load: {out.stdout}{out.stderr}")
    r = load_result(out.stdout)
    if r["errors"] > 0:
        print("    errors:", out.stderr.strip(), file=sys.stderr)
    server = sum(cpu_seconds(n) for n in c.nodes) - before
    return {"ops_s": r["ops_per_s"], "p50_us": r["p50_us"], "p99_us": r["p99_us"],
            "server_cpu_ms_per_1000": server * 1e6 / max(1, r["ops"] + r["late"]),
            "client_cpu_s": r["cpu_s"], "rss_mib": max(n.rss_kib() for n in c.nodes) / 1024}
