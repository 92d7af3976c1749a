"""Leases while processes stand still: a paused leader's clock ends nothing that others keep."""
import json
import os
import signal
import subprocess
import time

import programs
from cluster import Cluster, wait_for
from conftest import need


def keeper(node, lease):
    return subprocess.Popen(
        ["etcdctl", "--endpoints", node.endpoint, "lease", "keep-alive", f"{lease:x}"],
        env={**os.environ, "ETCDCTL_API": "3"}, stdout=subprocess.PIPE, text=True)


def test_a_paused_leader_wakes_up_and_ends_nothing_that_was_kept():
    need("etcdctl", "the real client")
    with Cluster(3) as c:
        old = wait_for("a leader", c.leader)
        other = next(n for n in c.nodes if n is not old)
        kept = json.loads(c.ctl("lease", "grant", "5", "-w", "json"))["ID"]
        left = json.loads(c.ctl("lease", "grant", "2", "-w", "json"))["ID"]
        c.ctl("put", "kept", "x", f"--lease={kept:x}")
        p = keeper(other, kept)
        try:
            assert "keepalived" in p.stdout.readline()
            old.signal(signal.SIGSTOP)
            asleep = time.monotonic()
            living = [n for n in c.nodes if n is not old]
            wait_for("another leader", lambda: any(n.is_leader() for n in living))
            wait_for("more than the TTL passes", lambda: time.monotonic() > asleep + 7)
            wait_for("the other lease ends", lambda: f"{left:016x}" not in c.ctl(
                "lease", "list", endpoint=other.endpoint))
            old.signal(signal.SIGCONT)
            # at once, from the one that still thinks that it leads
            out = c.ctl("lease", "keep-alive", "--once", f"{kept:x}", endpoint=old.endpoint)
            assert "keepalived with TTL(5)" in out
            for n in c.nodes:
                assert c.ctl("get", "kept", "--print-value-only", endpoint=n.endpoint) == "x\n"
                out = c.ctl("lease", "timetolive", f"{kept:x}", "--keys", endpoint=n.endpoint)
                assert "attached keys([kept])" in out
            assert "keepalived" in p.stdout.readline()
        finally:
            old.signal(signal.SIGCONT)
            p.kill()
            p.communicate()
        wait_for("the kept one ends, now that nobody keeps it",
                 lambda: c.ctl("get", "kept") == "")


def test_streams_end_when_there_is_no_leader():
    with Cluster(3) as c:
        p = subprocess.Popen(
            [programs.go("lease"), "-endpoints", c.nodes[0].endpoint, "-until-no-leader"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert p.stdout.readline() == "READY\n"
        c.nodes[1].kill()
        c.nodes[2].kill()
        out, _ = p.communicate(timeout=90)
        assert p.returncode == 0 and out.endswith("PASS\n"), out
