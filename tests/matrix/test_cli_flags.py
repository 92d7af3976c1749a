"""Our command line has the verbs and the flags of etcdctl 3.4, with the same letters and defaults:
told by `--help` of both. What differs stands here and, word by word, in etcd-lite/README.md.
"""
import os
import re
import subprocess

import pytest

from cluster import BIN, ETCDCTL, ROOT, Cluster, wait_for
from conftest import need

OURS = os.path.join(BIN, "etcd-lite")
FLAG = re.compile(r"^ +(?:-(\w), +)?--([a-z][a-z-]*)(\S*)\t")

# By verb, "" for all: flags that only etcdctl has, and that only we have.
THEIRS = {"": set(), "completion bash": {"no-descriptions"}, "defrag": {"data-dir"}}
ADDED = {"get": {"at-least-rev", "count-only"}, "make-mirror": {"dest-user", "dest-password"}}
VERBS_THEIRS = {"migrate", "completion fish", "completion powershell", "completion zsh", "help"}
VERBS_ADDED = {"inspect index", "inspect leases", "inspect members", "inspect raft",
               "inspect watchers"}
# of the server's own code, and documented with it: snapshots as files
FILES = {"snapshot restore", "snapshot status"}


def told(program, *args):
    r = subprocess.run([program, *args, "--help"], capture_output=True, text=True, timeout=30,
                       env={**os.environ, "ETCDCTL_API": "3"})
    assert r.returncode == 0, f"{program} {args}: {r.stderr}"
    return r.stdout


def verbs(program):
    text = told(program, *(["help"] if program == OURS else []))  # alone it is the server
    text = text.split("COMMANDS:\n")[1].split("OPTIONS:\n")[0]
    return {line.strip().split("\t")[0] for line in text.splitlines() if line.strip()}


def flags(program, verb):
    """{name: (letter, default)}, of the verb and of all."""
    found = {}
    for line in told(program, *verb.split()).splitlines():
        m = FLAG.match(line)
        if m:
            found[m.group(2)] = (m.group(1), m.group(3))
    return found


@pytest.fixture(scope="module", autouse=True)
def programs():
    need("etcdctl", "its flags are what ours are compared with")


def test_the_verbs_are_etcdctls():
    theirs, mine = verbs(ETCDCTL), verbs(OURS) | FILES
    assert theirs - mine == VERBS_THEIRS
    assert mine - theirs == VERBS_ADDED


def test_the_flags_of_every_verb_are_etcdctls():
    wrong = []
    for verb in sorted(verbs(ETCDCTL) - VERBS_THEIRS - FILES):
        theirs, mine = flags(ETCDCTL, verb), flags(OURS, verb)
        for name in THEIRS[""] | THEIRS.get(verb, set()):
            assert theirs.pop(name, None) is not None, f"{verb}: etcdctl has no --{name}"
            assert name not in mine, f"{verb}: --{name} is there now"
        for name in ADDED.get(verb, set()):
            assert mine.pop(name, None) is not None, f"{verb} --{name}"
        for name in sorted(set(theirs) | set(mine)):
            if theirs.get(name) != mine.get(name):
                wrong.append((verb, name, theirs.get(name), mine.get(name)))
    assert wrong == []


def test_what_differs_stands_in_the_readme():
    with open(os.path.join(ROOT, "etcd-lite", "README.md")) as f:
        text = f.read()
    for name in set().union(*THEIRS.values(), *ADDED.values()):
        assert f"--{name}" in text, name
    for verb in VERBS_THEIRS - {"help"}:
        assert verb.split()[-1] in text, verb
    for verb in VERBS_ADDED:
        assert verb.split()[0] in text, verb


def run(program, endpoint, *args, stdin=""):
    r = subprocess.run([program, "--endpoints", endpoint, *args], capture_output=True, text=True,
                       input=stdin, timeout=60, env={**os.environ, "ETCDCTL_API": "3"})
    errors = [x for x in r.stderr.splitlines() if x.startswith("Error: ")]
    return r.returncode, r.stdout, errors


# What is there before `auth enable`.
BEFORE = {
    "nobody": [],
    "root without its role": ["user add root:x"],
    "root and a role that it has not": ["user add root:x", "role add root"],
    "all of it": ["user add root:x", "role add root", "user grant-role root root"],
    "enabled already": ["user add root:x", "auth enable"],
}


@pytest.mark.parametrize("before", BEFORE)
def test_auth_enable_does_what_etcdctl_does(before):
    need("etcd", "etcdctl at a real etcd")
    with Cluster(1, real=True) as real, Cluster(1) as lite:
        for command in BEFORE[before] + ["auth enable", "auth enable now"]:
            theirs = run(ETCDCTL, real.endpoints, *command.split())
            mine = run(OURS, lite.endpoints, *command.split())
            assert mine == theirs, command
        for command in ("user get root", "role list", "get a", "auth disable"):
            more = ["--user", "root:x", *command.split()]
            assert run(OURS, lite.endpoints, *more) == run(ETCDCTL, real.endpoints, *more), command


@pytest.mark.parametrize("way", ["two flags", "one flag", "typed"])
def test_a_mirror_logs_in_at_its_destination(way):
    with Cluster(1) as source, Cluster(1) as dest:
        for command in ("user add root:x", "auth enable"):
            assert run(OURS, dest.endpoints, *command.split())[0] == 0
        assert run(OURS, source.endpoints, "put", "m/a", "1")[0] == 0
        code, _, errors = run(OURS, source.endpoints, "make-mirror", dest.endpoints)
        assert (code, errors) == (1, ["Error: etcdserver: user name is empty"])
        login = {"two flags": ["--dest-user", "root", "--dest-password", "x"],
                 "one flag": ["--dest-user", "root:x"], "typed": ["--dest-user", "root"]}[way]
        mirror = subprocess.Popen(
            [OURS, "--endpoints", source.endpoints, "make-mirror", *login, dest.endpoints],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            mirror.stdin.write("x\n")
            mirror.stdin.flush()
            wait_for("it is mirrored", lambda: run(
                OURS, dest.endpoints, "--user", "root:x", "get", "m/a")[1] == "m/a\n1\n")
            assert run(OURS, source.endpoints, "put", "m/b", "2")[0] == 0
            wait_for("it follows", lambda: run(
                OURS, dest.endpoints, "--user", "root:x", "get", "m/b")[1] == "m/b\n2\n")
        finally:
            mirror.kill()
            mirror.stdin.close()
            mirror.wait()
