"""Three members, the leader killed with -9 twice: lists, sets, banks, watches, locks and leases.

The program tests/clients/go/workload drives etcd's own Go client and writes a history; our checker
says whether a right store can have it. The same histories come out of the simulator.
"""
import os
import subprocess

import pytest

import programs
from cluster import Cluster, wait_for


@pytest.fixture(scope="module")
def members():
    programs.go("workload")
    with Cluster(3) as c:
        yield c


KINDS = {"append": ["append"], "set": ["set"], "bank": ["bank"], "watch": ["watch"],
         "lock": ["lock", "lease"]}


def revision(cluster):
    return cluster.leader().metric("etcd_debugging_mvcc_current_revision")


@pytest.mark.parametrize("kind", KINDS)
def test_history_of_a_lost_leader(members, kind, tmp_path):
    before = revision(members)
    history = str(tmp_path / "history.jsonl")
    run = subprocess.Popen(
        [programs.go("workload"), "-kind", kind, "-endpoints", members.endpoints, "-seconds", "4",
         "-prefix", f"{kind}/", "-history", history],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "ETCD_CLIENT_DEBUG": "fatal"})
    wait_for("work", lambda: revision(members) > before + 2)  # a lock may wait for a lease
    for _ in range(2):
        node = wait_for("a leader", members.leader)
        node.kill()
        wait_for("a leader without it", lambda: members.leader() not in (None, node))
        node.start()
        wait_for("healthy again", node.healthy)
    out, _ = run.communicate(timeout=120)
    print(out.strip())
    assert run.returncode == 0, out
    for checker in KINDS[kind]:
        programs.check(checker, history)
