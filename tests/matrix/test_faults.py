"""Three members under kill -9, SIGSTOP and loss of all: histories are linearizable.

The register program checks with Porcupine; the same history, as JSON lines, is checked once more
by our own checker. Revisions never go back (the program fails when one does), and what was
acknowledged before a fault is there after it.
"""
import signal
import subprocess

import pytest

import programs
from cluster import Cluster, wait_for
from conftest import need


def load(cluster, seconds, seed, history):
    return subprocess.Popen(
        [programs.go("register"), "-endpoints", cluster.endpoints, "-seconds", str(seconds),
         "-seed", str(seed), "-prefix", f"reg{seed}/", "-history", history],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finish(process, history):
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, out
    programs.check("register", history)
    print(out.strip())


def kill_one(c, node):
    node.kill()
    wait_for("a leader without it", lambda: c.leader() not in (None, node))
    node.start()
    wait_for("healthy again", node.healthy)


def pause_one(c, node):
    node.signal(signal.SIGSTOP)
    others = [n for n in c.nodes if n is not node]
    try:
        wait_for("a leader without it", lambda: any(n.is_leader() for n in others))
    finally:
        node.signal(signal.SIGCONT)
    wait_for("healthy again", node.healthy)


@pytest.mark.parametrize("fault", [kill_one, pause_one], ids=["kill", "pause"])
@pytest.mark.parametrize("whom", ["leader", "follower"])
def test_history_is_linearizable(fault, whom, tmp_path):
    with Cluster(3) as c:
        acked = []
        for round_no in range(2):
            history = str(tmp_path / f"h{round_no}.jsonl")
            run = load(c, 5, round_no + 1, history)
            leader = wait_for("a leader", c.leader)
            node = leader if whom == "leader" else next(n for n in c.nodes if n is not leader)
            key = f"acked/{round_no}"
            c.ctl("put", key, "yes", endpoint=leader.endpoint)
            acked.append(key)
            fault(c, node)
            finish(run, history)
        for n in c.nodes:
            for key in acked:
                assert c.ctl("get", key, "--print-value-only", endpoint=n.endpoint) == "yes\n"


def test_kill_all_at_once(tmp_path):
    with Cluster(3) as c:
        history = str(tmp_path / "h.jsonl")
        run = load(c, 6, 7, history)
        wait_for("a leader", c.leader)
        c.ctl("put", "acked", "yes")
        for n in c.nodes:
            n.kill()
        for n in c.nodes:
            n.start()
        for n in c.nodes:
            wait_for("healthy again", n.healthy)
        assert c.ctl("get", "acked", "--print-value-only") == "yes\n"
        finish(run, history)


def test_one_member_killed_under_load(tmp_path):
    with Cluster(1) as c:
        history = str(tmp_path / "h.jsonl")
        run = load(c, 5, 3, history)
        for i in range(3):
            c.ctl("put", f"acked{i}", "yes")
            c.nodes[0].kill()
            c.nodes[0].start()
            wait_for("healthy again", c.nodes[0].healthy)
            assert c.ctl("get", f"acked{i}", "--print-value-only") == "yes\n"
        finish(run, history)


def test_a_minority_refuses_writes_and_serves_serializable_reads():
    need("etcdctl", "the real client")
    with Cluster(3) as c:
        c.ctl("put", "k", "v")
        a, b, last = c.nodes
        wait_for("replicated", lambda: c.ctl("get", "k", "--consistency=s", "--print-value-only",
                                             endpoint=last.endpoint) == "v\n")
        a.kill()
        b.kill()
        code, _, err = c.ctl("put", "k", "w", ok=None, endpoint=last.endpoint)
        assert code != 0 and ("timed out" in err or "deadline" in err or "no leader" in err), err
        out = c.ctl("get", "k", "--consistency=s", "--print-value-only", endpoint=last.endpoint)
        assert out == "v\n"
