"""What etcd has not: reads on any member that see what their client has written."""
import json
import random
import signal
import subprocess
import threading
import time
from http.client import HTTPException

import pytest

import programs
from cluster import BIN, Cluster, wait_for
from jsonclient import Client, Refused, b64, unb64

TOKEN = "Grpc-Metadata-Bonsai-Min-Revision"


def lite(node, *args, ok=True):
    r = subprocess.run([f"{BIN}/etcd-lite", "--endpoints", node.endpoint, *args],
                       capture_output=True, text=True, timeout=30)
    if ok:
        assert r.returncode == 0, r.stderr
    return r.stdout if ok else (r.returncode, r.stdout, r.stderr)


# ---- reads with a session's token --------------------------------------------------------------

class Session:
    """Writes on one member, reads on another; keeps the highest revision that it was told."""

    def __init__(self):
        self.seen = 0

    def call(self, node, path, token=True, timeout=10, **request):
        c = Client(node.host, node.client, timeout=timeout)
        headers = {TOKEN: str(self.seen)} if token else {}
        status, _, body = c.raw("/v3/" + path, json.dumps(request).encode(), headers=headers)
        answer = json.loads(body)
        if status != 200:
            raise Refused(status, answer)
        self.seen = max(self.seen, int(answer["header"]["revision"]))
        return answer

    def put(self, node, key, value):
        return int(self.call(node, "kv/put", key=b64(key), value=b64(value))["header"]["revision"])

    def read(self, node, key, **more):
        r = self.call(node, "kv/range", key=b64(key), serializable=True, **more)
        kvs = r.get("kvs", [])
        return (int(r["header"]["revision"]), unb64(kvs[0]["value"]) if kvs else None,
                int(kvs[0]["mod_revision"]) if kvs else 0)


@pytest.fixture(scope="module")
def members():
    with Cluster(3) as c:
        yield c


def test_a_token_that_is_no_revision_is_refused(members):
    s = Session()
    for bad in ("", "-1", "x", "1.5", "9223372036854775808"):
        s.seen = bad
        with pytest.raises(Refused) as e:
            s.read(members.nodes[0], "k")
        assert (e.value.status, e.value.code, e.value.text) == (
            400, 3, "etcdserver: bonsai-min-revision is not a revision")


def test_the_command_line_waits_for_a_revision(members):
    leader = wait_for("a leader", members.leader)
    other = next(n for n in members.nodes if n is not leader)
    rev = json.loads(lite(leader, "put", "cli", "v", "-w", "json"))["header"]["revision"]
    out = lite(other, "get", "cli", "--consistency=s", "--at-least-rev", str(rev),
               "--print-value-only")
    assert out == "v\n"
    code, _, err = lite(other, "get", "cli", "--at-least-rev", str(rev), ok=False)
    assert code == 128 and "--consistency=s" in err
    code, _, err = lite(other, "get", "cli", "--consistency=s", "--at-least-rev", str(rev + 1000),
                        "--command-timeout=1s", ok=False)
    assert code == 1 and "context deadline exceeded" in err
    waits = other.metric("bns_min_revision_waits_total")
    assert waits >= 1


class Work:
    """What the sessions share."""

    def __init__(self, nodes, sessions):
        self.nodes, self.reads = nodes, [0] * sessions
        self.asked = [None] * sessions  # whom each session is reading from just now
        self.paused = None  # nobody writes there
        self.over = threading.Event()


def session_work(w, number, history):
    """Writes one key on one member, reads it on another; what it asked and was told as lines."""
    s, dice, key, process, count = Session(), random.Random(number), f"own/{number}", 0, 0

    def say(kind, f, value):
        history.write(json.dumps({"time": time.monotonic_ns(), "process": process, "type": kind,
                                  "f": f, "key": key, "value": value}) + "\n")

    while not w.over.is_set():
        writer, reader = dice.sample(w.nodes, 2)
        if writer is w.paused:
            writer, reader = reader, writer
        count += 1
        say("invoke", "put", str(count))
        try:
            say("ok", "put", {"value": str(count), "rev": s.put(writer, key, str(count))})
        except (OSError, HTTPException, Refused):
            say("info", "put", None)
            process += 1
        say("invoke", "get", None)
        w.asked[number] = reader
        try:
            at, value, mod = s.read(reader, key)
            say("ok", "get", {"value": value, "rev": mod, "at": at})
            w.reads[number] += 1
        except (OSError, HTTPException, Refused):
            say("fail", "get", None)
        w.asked[number] = None


def pause_follower(c, w, leader):
    """When it wakes up it finds the reads of sessions that have all written meanwhile."""
    w.paused = next(n for n in c.nodes if n is not leader)
    w.paused.signal(signal.SIGSTOP)
    try:
        wait_for("all wait for it", lambda: all(a is w.paused for a in w.asked))
    finally:
        w.paused.signal(signal.SIGCONT)
        w.paused = None


def pause_leader(c, w, node):
    others = [n for n in c.nodes if n is not node]
    node.signal(signal.SIGSTOP)
    try:
        wait_for("another leader", lambda: any(n.is_leader() for n in others))
    finally:
        node.signal(signal.SIGCONT)


def kill(c, w, node):
    node.kill()
    wait_for("another leader", lambda: c.leader() not in (None, node))
    node.start()


def test_sessions_read_their_writes_on_any_member_under_faults(tmp_path):
    """The history of a session is one of a single register: its own reads, on other members than
    its writes, must fit into a linear order while members are paused and killed."""
    files = [open(tmp_path / f"h{i}.jsonl", "w") for i in range(4)]
    with Cluster(3) as c:
        w = Work(c.nodes, len(files))
        threads = [threading.Thread(target=session_work, args=(w, i, f))
                   for i, f in enumerate(files)]
        for t in threads:
            t.start()
        try:
            for fault in (pause_follower, pause_leader, kill, pause_follower):
                node = wait_for("a leader", c.leader)
                fault(c, w, node)
                wait_for("healthy", node.healthy)
                was = list(w.reads)
                wait_for("reads go on", lambda: all(n > b + 10 for n, b in zip(w.reads, was)))
        finally:
            w.over.set()
            for t in threads:
                t.join()
        waits = sum(n.metric("bns_min_revision_waits_total") for n in c.nodes)
    for f in files:
        f.close()
        programs.check("register", f.name)
    print(f"{sum(w.reads)} reads, {waits:.0f} of them waited")
    assert waits > 0
