"""The table of README.md (client x topic): every cell names tests, and every named test exists."""
import os
import re
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
TOPICS = ["KV", "txn", "watch", "lease", "lock", "election", "auth", "TLS"]
ABSENT = "not in this client"
NAME = re.compile(r"`(\w+): (\w+)(?:\[([^]]*)\])?`")


def table():
    """{(topic, client): cell}"""
    with open(os.path.join(HERE, "README.md")) as f:
        rows = [[c.strip() for c in line.strip().strip("|").split("|")]
                for line in f if line.startswith("|")]
    at = next(i for i, r in enumerate(rows) if "etcdctl" in "".join(r[1:2]))
    clients = rows[at][1:]
    found = {}
    for topic, *cells in rows[at + 2:]:
        assert len(cells) == len(clients), topic
        found.update({(topic, client): cell for client, cell in zip(clients, cells)})
    return found


def collected():
    """{"test_file.py::test_name": parameters}"""
    r = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", "-p",
                        "no:cacheprovider", HERE], capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stdout + r.stderr
    tests = {}
    for line in r.stdout.splitlines():
        m = re.match(r"(?:.*/)?(test_\w+\.py::\w+)(?:\[(.*)\])?$", line)
        if m:
            tests.setdefault(m[1], set()).add(m[2])
    return tests


def wrong(cells, tests):
    """What is wrong with the table, as sentences."""
    said = []
    for (topic, client), cell in cells.items():
        names = NAME.findall(cell)
        if NAME.sub("", cell).strip(" ,") != ("" if names else ABSENT):
            said.append(f"{topic}, {client}: '{cell}' names no test")
        for file, test, parameter in names:
            full = f"test_{file}.py::test_{test}"
            if full not in tests:
                said.append(f"{topic}, {client}: there is no {full}")
            elif parameter and parameter not in tests[full]:
                said.append(f"{topic}, {client}: {full} has no [{parameter}]")
    return said


@pytest.fixture(scope="module")
def tests():
    return collected()


def test_every_cell_names_tests_that_exist(tests):
    cells = table()
    clients = {client for _, client in cells}
    assert len(clients) == 6 and {topic for topic, _ in cells} == set(TOPICS)
    assert len(cells) == len(TOPICS) * len(clients)
    assert not wrong(cells, tests)
    assert sum(cell == ABSENT for cell in cells.values()) == 1


@pytest.mark.parametrize("cell, complaint", [
    ("", "names no test"), ("works", "names no test"), ("`clients: gone`", "there is no"),
    ("`nothing: programs`", "there is no"), ("`clients: programs[c-3]`", "has no [c-3]"),
    ("`clients: programs[go-3]`, works", "names no test"), ("`clients: programs[go-3]`", None),
    ("`clients: programs`", None), (ABSENT, None)])
def test_a_cell_without_a_test_is_told(cell, complaint, tests):
    said = wrong({("KV", "x"): cell}, tests)
    assert (complaint is None and not said) or complaint in said[0]
