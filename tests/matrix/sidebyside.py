"""Two servers, etcd-lite and the real etcd, told the same steps; every answer must be equal.

A step is a text, one etcdctl command (with a blank line in it: a txn for its stdin); a pair, a path
of the JSON gateway with its body; a triple of "ctl", a command and its stdin; or a function that is
called with both sides. What differs by nature (ids, addresses, terms, sizes) is hidden by its exact
value or by the name of its field; what differs on purpose is in DIFFERENT, by name.
"""
import json
import os
import queue
import re
import signal
import subprocess
import threading

from jsonclient import Stream, b64, of
from test_etcdctl import STAMP, split

# Fields whose numbers are each server's own.
OWN = {"raft_term", "RaftTerm", "raftTerm", "raftIndex", "raftAppliedIndex", "dbSize",
"dbSizeInUse",
       "totalSize"}
# Differences on purpose; etcd-lite/README.md, "Different from etcd on purpose", has each of them.
DIFFERENT = {
    "code 9 is HTTP 400": lambda a: a.update(status=400) if a.get("status") == 412 else None,
    "Alarm, Defragment and MoveLeader have a header": lambda a: [
        x.pop("header", None) for x in objects(a) if a["service"] in (
            "alarm", "maintenance/alarm", "maintenance/defragment", "move-leader",
            "maintenance/transfer-leadership")],
    "headers of Cluster have revision and term": lambda a: [
        x["header"].pop(f, None) for x in objects(a) for f in ("revision", "raft_term")
        if a["service"].startswith(("cluster/", "member")) and "header" in x],
    "a learner refuses with code 9": lambda a: [
        (x.update(code=9), a.update(status=400)) for x in objects(a)
        if x.get("message") == "etcdserver: rpc not supported for learner"],
    "Status has more fields": lambda a: [
        x.pop(f, None) for x in objects(a) for f in
        ("version", "storageVersion", "dbSizeQuota", "downgradeInfo") if "raftIndex" in x],
}
TIME = re.compile(r"remaining\(\d+s\)|took = [\d.µm]+s")
REFUSALS = set()  # texts that the real one has refused something with; JSON: and codes


def objects(v):
    """Every object inside."""
    if isinstance(v, dict):
        yield v
    for x in v.values() if isinstance(v, dict) else v if isinstance(v, list) else ():
        yield from objects(x)


class Side:
    def __init__(self, cluster):
        self.cluster, self.names = cluster, {}
        self.client = of(cluster.nodes[0])
        self.leases = 0
        self.learn()

    def call(self, text, name):
        self.names[str(text)] = f"<{name}>"

    def learn(self):
        """The ids and addresses that members have now."""
        for n in self.cluster.nodes:
            for text, what in ((n.url, "url"), (n.peer_url, "peer"), (n.endpoint, "endpoint")):
                self.call(text, f"{n.name} {what}")
        r = self.client.call("cluster/member/list")
        self.call(r["header"]["cluster_id"], "cluster")
        self.call(f'{int(r["header"]["cluster_id"]):x}', "cluster")
        for m in r["members"]:
            n = next((n.name for n in self.cluster.nodes if n.peer_url in m["peerURLs"]), "other")
            self.call(m["ID"], n + " id")
            self.call(f'{int(m["ID"]):x}', n + " id")

    def hide(self, text):
        some = "|".join(re.escape(t) for t in sorted(self.names, key=len, reverse=True))
        text = re.sub(rf"(?<![\w.])({some})(?!\w)", lambda m: self.names[m[1]], text)
        return re.sub(r'("RaftTerm" : |"raft_term":)\d+', r'\1"*"', text)  # in what is no JSON

    def read(self, text):
        """As JSON without what is each server's own; a text that is no JSON stays one."""
        try:
            lines = [json.loads(line) for line in self.numbers(self.hide(text)).splitlines()]
        except ValueError:
            return self.hide(text)
        for x in objects(lines):
            for field in OWN & set(x):
                x[field] = "*"
            if isinstance(x.get("members"), list):  # they come in the order of their ids
                x["members"].sort(key=lambda m: (m.get("name", ""), str(m.get("peerURLs"))))
            if "grantedTTL" in x or "granted-ttl" in x:  # time goes on; keys are in a map
                x.update({f: "*" for f in ("TTL", "ttl") if f in x})
                if x.get("keys"):
                    x["keys"].sort()
        return lines

    @staticmethod
    def numbers(text):
        return re.sub(r":(<[^>]*>)", r':"\1"', text)  # an id that was a number

    def said(self, err):
        """etcdctl's stderr, without its log."""
        return self.hide(TIME.sub("<time>", STAMP.sub("", err)))

    def ctl(self, line, stdin=None, node=0):
        words = split(line)
        if not {"-w", "--", "endpoint", "lock"} & set(words) and "lease timetolive" not in line:
            words += ["-w", "json"]
        code, out, err = self.cluster.ctl(*words, ok=None, stdin=stdin,
                                          endpoint=self.cluster.nodes[node].endpoint)
        for lease in re.findall(r'"ID":(\d{12,19}),"TTL"', out):  # of a lease that it chose
            self.leases += 1
            self.call(lease, f"lease {self.leases}")
        return {"service": words[0], "code": code, "out": self.read(TIME.sub("<time>", out)),
                "err": self.said(err)}

    def json(self, path, body):
        text = body if isinstance(body, str) else json.dumps(body)
        status, headers, got = self.client.raw("/v3/" + path, text.encode())
        return {"service": path, "status": status,
                "kind": headers.get("Content-Type"), "out": self.read(got.decode())}

    def stream(self, path, *requests):
        return Stream(of(self.cluster.nodes[0]), path, *requests)

    def result(self, message):
        return self.read(json.dumps(message))[0]


def equal(what, answers):
    """Both answers, without what differs on purpose; the refusals of the real one are noted."""
    for a in answers:
        if isinstance(a, dict) and "service" in a:
            for forget in DIFFERENT.values():
                forget(a)
    got, want = answers
    for x in objects(want):
        if "message" in x and "code" in x:
            REFUSALS.add((x["code"], x["message"]))
        if isinstance(x.get("err"), str) and x["err"]:
            REFUSALS.update(re.findall(r"etcdserver: .*|election: .*", x["err"]))
        if x.get("cancel_reason"):
            REFUSALS.add(x["cancel_reason"])
    assert got == want, f"after {what[:300]}\n real {want}\n ours {got}"


def tell(step, both):
    if callable(step):
        step(both)
    elif isinstance(step, str):
        line, stdin = ("txn", step) if "\n" in step else (step, None)
        equal(step, [s.ctl(line, stdin) for s in both])
    elif step[0] == "ctl":
        equal(step[1], [s.ctl(*step[1:]) for s in both])
    else:
        equal(json.dumps(step), [s.json(*step) for s in both])


def tell_all(steps, both):
    """All of them, then what went wrong, so that one difference does not hide the next."""
    wrong = []
    for n, step in enumerate(steps):
        try:
            tell(step, both)
        except AssertionError as e:
            wrong.append(f"step {n}: {e}")
    assert not wrong, f"{len(wrong)} differ\n" + "\n".join(wrong[:30])


# ---- calls of the gateway -----------------------------------------------------------------------
def put(key, value, **more):
    return "kv/put", {"key": b64(key), "value": b64(value), **more}


def get(key, end="", **more):
    return "kv/range", {"key": b64(key), "range_end": b64(end), **more}


def delete(key, end="", **more):
    return "kv/deleterange", {"key": b64(key), "range_end": b64(end), **more}


def op(call):
    return {{"kv/put": "request_put", "kv/range": "request_range", "kv/txn": "request_txn",
             "kv/deleterange": "request_delete_range"}[call[0]]: call[1]}


def txn(compare, then, other=()):
    return "kv/txn", {"compare": compare, "success": [op(c) for c in then],
                      "failure": [op(c) for c in other]}


def cmp(key, target, result, **value):
    return {"key": b64(key), "target": target, "result": result, **value}


# ---- watches ------------------------------------------------------------------------------------
def events(side, stream, until):
    """All events up to a revision, and whatever else was said."""
    seen, last = [], 0
    while last < until:
        r = side.result(stream.next())
        if "events" not in r:
            seen.append((r["header"].get("revision") if "created" in r or "canceled" in r else "",
                         r))
        for e in r.get("events", []):
            last = int(e["kv"]["mod_revision"])
            seen.append(("", e))
    return seen


def watch(create, *steps):
    """Opens the watch on both, tells the steps, and compares events up to the last revision."""
    def run(both):
        streams = [s.stream("watch", {"create_request": create}) for s in both]
        for s in streams:
            s.half_close()  # the real one reads no further while it answers
            assert s.next()["created"]
        for step in steps:
            tell(step, both)
        ends = [put("w/end", ".")] + [delete("w/end")] * ("NOPUT" in create.get("filters", []))
        last = [[int(s.json(*end)["out"][0]["header"]["revision"]) for end in ends][-1]
                for s in both]
        assert last[0] == last[1]
        equal(f"watch {create}", [events(s, t, n) for s, t, n in zip(both, streams, last)])
        for s in streams:
            s.close()
    return run


def canceled(create):
    """A watch that is refused or ended at once: its first two answers."""
    def run(both):
        said = []
        for side in both:
            with side.stream("watch", {"create_request": create}) as s:
                s.half_close()
                first = s.next()
                last = first if first.get("canceled") else s.next()
                last["header"].pop("revision", None)  # the real one leaves it out here
                said.append([side.result(first), side.result(last)])
        equal(f"watch {create}", said)
    return run


def first_lines(process, count, seconds=20):
    """Its first lines, fewer when it says no more for so long."""
    out = queue.Queue()

    def read():
        for _ in range(count):
            out.put(process.stdout.readline())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(seconds)
    return [out.get() for _ in range(out.qsize())]


def follow(line, lines, *steps, stop=signal.SIGINT):
    """An etcdctl that goes on: its first lines, and what it says when it is told to stop."""
    def run(both):
        for s in both:
            s.client.close()  # nobody keeps an idle connection for ever
        running = [subprocess.Popen(
            ["etcdctl", "--endpoints", s.cluster.nodes[0].endpoint, *split(line)], text=True,
            env={**os.environ, "ETCDCTL_API": "3"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE) for s in both]
        said = []
        try:
            for step in steps:
                tell(step, both)
            for s, p in zip(both, running):
                out = [s.read(line) for line in first_lines(p, lines)]
                p.send_signal(stop)
                rest, err = p.communicate(timeout=30)
                said.append({"service": line.split()[0], "lines": out, "rest": s.hide(rest),
                             "code": p.returncode, "err": s.hide(STAMP.sub("", err))})
        finally:
            for p in running:
                p.kill()
                p.communicate()
        equal(line, said)
    return run
