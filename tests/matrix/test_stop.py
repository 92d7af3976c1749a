"""A leader that is told to stop hands over first: nobody waits for an election, and the next leader
knows what is left of the leases. A second signal ends it at once.
"""
import base64
import json
import signal
import threading
import time
import urllib.request

from cluster import Cluster, wait_for

ELECTION_MS = 4000
GAP_MAX_S = ELECTION_MS / 1000  # an election would take that at least


def post(node, path, body, timeout=10):
    req = urllib.request.Request(node.url + path, json.dumps(body).encode())
    with urllib.request.urlopen(req, timeout=timeout) as r:
        return json.loads(r.read())


def key(text):
    return base64.b64encode(text.encode()).decode()


class Writer(threading.Thread):
    """Puts one after the other through one node; keeps the longest time between two answers."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.longest, self.count, self.failed = node, 0.0, 0, []
        self.over = threading.Event()

    def run(self):
        last = time.monotonic()
        while not self.over.is_set():
            try:
                post(self.node, "/v3/kv/put", {"key": key("k"), "value": key(str(self.count))})
                self.count += 1
            except OSError as e:
                self.failed.append(e)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now


def left(node, lease):
    return int(post(node, "/v3/lease/timetolive", {"ID": lease})["TTL"])


def checkpoint(node, lease):
    """What the members know to be left of it, 0: nothing but its TTL."""
    found = [x for x in json.loads(node.get("/inspect/leases"))["leases"]
             if int(x["id"], 16) == int(lease)]
    return found[0]["checkpoint"]


def applied_checkpoint(node, lease):
    """It is in the log that a new leader has, which may not have come to it yet; one that the lease
    gets by itself comes ten seconds after this has given up."""
    return wait_for("the checkpoint", lambda: checkpoint(node, lease), seconds=5)


def lease_of_which_some_is_gone(node):
    """Too little for a checkpoint by itself."""
    lease = post(node, "/v3/lease/grant", {"TTL": 30})["ID"]
    wait_for("a second or two of the lease to pass", lambda: left(node, lease) <= 28)
    assert checkpoint(node, lease) == 0
    return lease


def successor(nodes):
    return wait_for("the next leader", lambda: next((n for n in nodes if n.is_leader()), None))


def test_a_leader_that_is_told_to_stop_hands_over():
    with Cluster(3, flags=["--election-timeout", str(ELECTION_MS), "--heartbeat-interval",
                           "100"]) as c:
        first = c.leader()
        second = next(n for n in c.nodes if n is not first)
        lease = lease_of_which_some_is_gone(first)
        ids = {m["peerURLs"][0]: int(m["ID"]) for m in post(
            first, "/v3/cluster/member/list", {})["members"]}
        post(first, "/v3/maintenance/transfer-leadership", {"targetID": str(ids[second.peer_url])})
        wait_for("the new leader", second.is_leader)
        assert 0 < applied_checkpoint(second, lease) < 30

        lease = lease_of_which_some_is_gone(second)
        others = [n for n in c.nodes if n is not second]
        writers = [Writer(n) for n in others]
        for w in writers:
            w.start()
        wait_for("puts", lambda: all(w.count > 20 for w in writers))
        assert second.stop() == 0
        at = [w.count for w in writers]
        wait_for("puts after it", lambda: all(w.count > a + 20 for w, a in zip(writers, at)))
        for w in writers:
            w.over.set()
        for w in writers:
            w.join(timeout=30)
            assert w.failed == []
            assert w.longest < GAP_MAX_S, w.longest
        assert 0 < applied_checkpoint(successor(others), lease) < 30
        with open(second.log) as log:
            assert "leadership handed over before the stop" in log.read()


def test_a_second_signal_ends_it_at_once():
    """The others stand still: the hand-over of the first signal would be given up after 2 seconds,
    which the log would say."""
    with Cluster(3, flags=["--election-timeout", str(ELECTION_MS)]) as c:
        leader = c.leader()
        for n in c.nodes:
            if n is not leader:
                n.signal(signal.SIGSTOP)
        leader.signal(signal.SIGTERM)
        wait_for("the first signal", lambda: "signal: draining" in open(leader.log).read())
        assert leader.stop() == 0
        with open(leader.log) as log:
            text = log.read()
        assert "signal: stopping" in text and "handed over" not in text


def test_a_member_on_its_own_stops_at_once():
    with Cluster(1) as c:
        begun = time.monotonic()
        assert c.nodes[0].stop() == 0
        assert time.monotonic() - begun < 5
