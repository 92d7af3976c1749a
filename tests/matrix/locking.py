"""What tests of locks share: resources with and without fencing, histories, workers, holders."""
import http.server
import importlib.util
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import programs
from callers import Caller
from cluster import ROOT, wait_for

EXAMPLE = os.path.join(ROOT, "docs", "examples", "fencing.py")


class Fenced:
    """The resource of docs/examples/fencing.py as a process."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, EXAMPLE], stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}/"
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def write(self, token, value):
        """The status: 200, or 412 for an old token."""
        try:
            urllib.request.urlopen(f"{self.url}?token={token}", value.encode(), timeout=10).close()
            return 200
        except urllib.error.HTTPError as e:
            return e.code

    def read(self):
        with urllib.request.urlopen(self.url, timeout=10) as r:
            return json.load(r)


class History:
    """JSON lines for our checkers; common/sim/README.md has the shapes."""

    def __init__(self, path):
        self.file, self.mutex, self.count = open(path, "w"), threading.Lock(), 0
        self.start = time.monotonic_ns()
        self.processes = 0

    def process(self):
        with self.mutex:
            self.processes += 1
            return self.processes - 1

    def line(self, process, kind, f, key, value):
        with self.mutex:
            self.file.write(json.dumps({
                "index": self.count, "time": time.monotonic_ns() - self.start, "process": process,
                "type": kind, "f": f, "key": key, "value": value}) + "\n")
            self.count += 1


class Worker(threading.Thread):
    """Locks or campaigns, writes with its token, lets go, again and again; sometimes it forgets its
    lease. The lock and what it protects have one name."""

    def __init__(self, number, history, cluster, disk, stop, kind="lock", patience=15):
        super().__init__(daemon=True)
        self.h, self.cluster, self.disk, self.stop = history, cluster, disk, stop
        self.rnd, self.held, self.error = random.Random(number), 0, None
        self.kind, self.patience = kind, patience
        self.process = history.process()

    def call(self, f, key, value, op):
        """op() is (kind, value); an unknown outcome is the end of this process."""
        self.h.line(self.process, "invoke", f, key, value)
        kind, out = op()
        self.h.line(self.process, kind, f, key, out)
        if kind == "info":
            self.process = self.h.process()
        return out if kind == "ok" else None

    def campaign(self, c, to, lease):
        """The token, or None when it is not sure that there is one."""
        if self.kind == "election":
            r = c.call("Campaign", to, name=self.kind, lease=lease, value="w",
                       seconds=self.patience)
            return r["ok"]["leader"]["rev"] if "ok" in r else None
        if "ok" not in c.call("Lock", to, name=self.kind, lease=lease, seconds=self.patience):
            return None
        kv = c.call("Range", to, key=f"{self.kind}/{lease:x}", seconds=5).get("ok", {}).get("kv")
        return kv and kv["create_revision"]  # none: its lease has ended meanwhile

    def let_go(self, c, to, lease, token):
        key = f"{self.kind}/{lease:x}"
        if self.kind == "election":
            leader = dict(name=self.kind, key=key, rev=token, lease=lease)
            return c.call("Resign", to, leader=leader, seconds=5)
        return c.call("Unlock", to, key=key, seconds=5)

    def one(self, c):
        to = self.rnd.choice(self.cluster.nodes).endpoint
        lease = self.rnd.randrange(1, 1 << 40)

        def acquire():
            token = self.campaign(c, to, lease)
            return ("ok", {"token": token, "lease": str(lease)}) if token else ("info", None)

        def granted():
            r = c.call("LeaseGrant", to, TTL=2, ID=lease, seconds=5)
            return ("ok", {"ttl_ms": r["ok"]["TTL"] * 1000}) if "ok" in r else ("info", None)

        if not self.call("grant", str(lease), {"ttl_ms": 2000}, granted):
            return
        life = self.process
        got = self.call("acquire", self.kind, {"lease": str(lease)}, acquire)
        if not got:
            return
        self.held += 1
        for _ in range(3):
            time.sleep(self.rnd.random() * (0.9 if self.rnd.randrange(4) == 0 else 0.02))
            token = got["token"]
            self.call("use", self.kind, {"token": token}, lambda: (
                ("ok" if self.disk.write(token, str(token)) == 200 else "fail"), None))
        if self.process == life and self.rnd.randrange(4) > 0:
            self.call("release", self.kind, None, lambda: (
                ("ok" if "ok" in self.let_go(c, to, lease, token) else "info"), None))

    def run(self):
        try:
            with Caller() as c:
                while not self.stop.is_set():
                    self.one(c)
        except Exception as e:  # said by the test
            self.error = e


class Guarded:
    """The same resource in this process, on any address; without fencing it takes every write."""

    def __init__(self, fencing=True, host="127.0.0.1"):
        spec = importlib.util.spec_from_file_location("fencing", EXAMPLE)
        example = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(example)

        class Unfenced(example.Resource):
            def write(self, token, value):
                self.token = 0
                return super().write(token, value)

        class Handler(example.Handler):
            resource = example.Resource() if fencing else Unfenced()

        self.resource = Handler.resource
        self.server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self.server.server_address[1]}/"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Holder:
    """tests/clients/python/holder.py as a process, in any network namespace."""

    def __init__(self, node, disk, kind, name, number, ttl=2, prefix=()):
        self.process = subprocess.Popen(
            [*prefix, sys.executable, os.path.join(programs.CLIENTS, "python", "holder.py"),
             node.url, disk.url, kind, name, str(ttl), str(number * 1000)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines, self.marks, self.uses = [], queue.Queue(), queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for text in self.process.stdout:
            line = json.loads(text)
            if "mark" in line:
                self.marks.put(line)
                continue
            self.lines.append(line)
            if line["f"] == "use" and line["type"] != "invoke":
                self.uses.put(line["type"])

    def mark(self, name, seconds=60):
        line = self.marks.get(timeout=seconds)
        assert line["mark"] == name, line
        return line

    def tell_to_write(self):
        self.process.stdin.write("write\n")
        self.process.stdin.flush()

    def written(self):
        """ok: the resource took it; fail: it did not."""
        return self.uses.get(timeout=60)

    def write(self):
        self.tell_to_write()
        return self.written()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def wake(self):
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.reader.join(20)
        for f in (self.process.stdin, self.process.stdout):
            f.close()
        self.process.wait()


def history_of(holders, path):
    """Their lines as one history, in the order of time."""
    lines = sorted((line for h in holders for line in h.lines), key=lambda line: line["time"])
    start = lines[0]["time"]
    with open(path, "w") as f:
        for n, line in enumerate(lines):
            f.write(json.dumps({"index": n, **line, "time": line["time"] - start}) + "\n")
    return path


def work(workers, faults, stop):
    """Runs the workers through the faults: each is a pair, what breaks something (and waits until
    that is felt) and what repairs it. The lock must go round before each, and after the last."""
    for w in workers:
        w.start()
    try:
        for break_it, repair in faults:
            goes_round(workers, "before")
            repair(break_it())
        goes_round(workers, "afterwards")
    finally:
        stop.set()
    for w in workers:
        w.join(60)
        assert w.error is None and not w.is_alive(), w.error


def goes_round(workers, when, times=3):
    before = sum(w.held for w in workers)
    wait_for(f"the lock goes round {when}",
             lambda: sum(w.held for w in workers) >= before + times, 60)
