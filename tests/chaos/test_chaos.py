"""One nemesis against three members, as processes and as containers.

While each fault is in force and after it, clients read, write and compare-and-set registers: each
history is linearizable by Porcupine and by our own checker. Over the whole run another program
writes sets and lists, watches, and keeps leases; at the end nothing acknowledged is lost, watches
were gapless and ordered at every member, and no lease ended early.

    BNS_CHAOS_ROUNDS=20 python3 -m pytest -q tests/chaos      more of the same, victims in turn
"""
import datetime
import os
import re
import signal
import socket
import subprocess
import time

import pytest

import nemesis
import programs
from cluster import wait_for
from engine import run
from members import FAKETIME, Containers, Processes
from needs import missing, need

ROUNDS = int(os.environ.get("BNS_CHAOS_ROUNDS", "1"))
HOLD_S = 2.0  # two election timeouts
LOAD_S = 3.5
KINDS = {"set": "-set-history", "append": "-list-history"}  # of our checker; the program's flags


class Keeper:
    """The program that watches over the whole run."""

    def __init__(self, members, directory):
        self.histories = {kind: os.path.join(directory, kind + ".jsonl") for kind in KINDS}
        more = [word for kind, path in self.histories.items() for word in (KINDS[kind], path)]
        self.process = subprocess.Popen(
            [programs.go("keeper"), "-endpoints", members.endpoints, "-watch", "-lease", *more],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout.readline() == "running\n"

    def finish(self):
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, out
        for kind, path in self.histories.items():
            programs.check(kind, path)
        return out.strip()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def acked_everywhere(m):
    for member in m.members:
        for key in m.acked:
            got = m.ctl(member, "get", key, "--print-value-only")
            assert got.stdout == "yes\n", (member.url, key, got.stdout, got.stderr)


@pytest.fixture(scope="module", params=["processes", "containers"])
def members(request, namespaces, tmp_path_factory):
    for name in ("register", "keeper"):
        programs.go(name)  # built while the thread still has the usual network
    need("etcdctl", "the real client")
    if not os.path.exists(FAKETIME):
        missing("libfaketime", "the wall clock cannot be stepped")
    group = (Processes() if request.param == "processes" else
             Containers(request.getfixturevalue("engine")))
    with group as m:
        m.acked = []
        m.ctl = lambda member, *words, ok=True: run(
            "etcdctl", "--endpoints", member.url, "--command-timeout=4s", *words,
            env={**os.environ, "ETCDCTL_API": "3"}, ok=ok, timeout=30)
        m.keeper = Keeper(m, str(tmp_path_factory.mktemp("keeper")))
        try:
            yield m
        finally:
            m.keeper.close()


def start_load(m, seed, history):
    return subprocess.Popen(
        [programs.go("register"), "-endpoints", m.endpoints, "-seconds", str(LOAD_S),
         "-seed", str(seed), "-prefix", f"reg{seed}/", "-pause", "5ms", "-history", history],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def check(load, history):
    out, _ = load.communicate(timeout=240)
    assert load.returncode == 0, out
    programs.check("register", history)
    return out.strip()


def the_leader(m):
    found = []

    def look():
        found[:] = [m.leader()]
        return found[0] is not None
    wait_for("a leader", look, 30)
    return found[0]


def victim(m, number):
    """The leader and a follower in turn, of a kind with the leader first, of the other second.

    A leader whose disk is full hands over to a member that has room."""
    leader = the_leader(m)
    wants_leader = (number + (m.kind == "containers")) % 2 == 0
    return (leader, "leader") if wants_leader else ((leader + 1) % 3, "follower")


def strike(m, name, number, history):
    seed = number + (1000 if m.kind == "containers" else 1)
    wait_for("all healthy", m.all_healthy, 60)
    i, role = victim(m, number)
    load = start_load(m, seed, history)
    began = time.monotonic()
    try:
        with nemesis.FAULTS[name](m, i):
            key = f"acked/{name}/{number}"
            other = m.members[(i + 1) % 3]
            wait_for("the others write", lambda: m.ctl(
                other, "put", key, "yes", ok=False).returncode == 0, 60)
            m.acked.append(key)
            time.sleep(max(0.0, began + HOLD_S - time.monotonic()))  # the fault lasts so long
    finally:
        line = check(load, history)
    wait_for("all healthy again", m.all_healthy, 60)
    print(f"{m.kind} {name} on {role} {i + 1}: {line}")


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("name", nemesis.FAULTS)
def test_the_history_stays_linearizable(members, name, number, tmp_path):
    count = number * len(nemesis.FAULTS) + list(nemesis.FAULTS).index(name)
    try:
        strike(members, name, count, str(tmp_path / "history.jsonl"))
    except AssertionError:
        members.print_logs()
        raise


def told_at(m, i):
    """The wall clock as the member itself sees it: it logs a stranger at its peers' port."""
    with socket.create_connection((m.address(i), 2380), timeout=5) as s:
        s.sendall(b"PUT / HTTP/1.0\r\n\r\n")
        s.recv(1)
    with open(m.members[i].log, errors="replace") as f:
        stamps = re.findall(r"ts=(\S+)Z .*connection closed", f.read())
    return datetime.datetime.fromisoformat(stamps[-1]) if stamps else None


def test_a_stepped_wall_clock_moves_no_election(members):
    """The leader's clock goes an hour ahead, then an hour back; nobody's term changes."""
    wait_for("all healthy", members.all_healthy, 60)
    leader = the_leader(members)
    terms = members.terms()
    for step in (3600, -3600):
        members.clocks[leader].step(step)
        if members.kind == "processes" and step > 0:  # the step is seen
            now = datetime.datetime.utcnow()
            said = wait_for("a line of the log", lambda: told_at(members, leader))
            assert abs((said - now).total_seconds() - step) < 600, (said, now)
        time.sleep(HOLD_S)  # an election would have been by then
        for member in members.members:
            members.ctl(member, "put", "step", "done")
        assert members.leader() == leader
    members.clocks[leader].step(0)
    assert members.terms() == terms


def test_the_program_that_keeps_watch_would_tell():
    """Its checks, each with a history that breaks it."""
    need("go", "etcd's own Go client")
    run("go", "test", "./keeper", cwd=os.path.join(programs.CLIENTS, "go"))


def test_nothing_acknowledged_was_lost(members):
    """Last: ends the program that ran beside all others."""
    wait_for("all healthy", members.all_healthy, 60)
    acked_everywhere(members)
    print(f"{members.kind} {members.keeper.finish()}")
