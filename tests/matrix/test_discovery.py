"""--discovery-srv, of the server and of the command line, beside a real etcd and a real etcdctl: in
a network of its own, whose name server we are (dnsbox.py).
"""
import os
import re
import signal

import pytest

import dnsbox
from cluster import BIN, ETCD, ETCDCTL, wait_for
from needs import missing, need

LITE = os.path.join(BIN, "etcd-lite")
ZONE = {f"n{i}.example": f"127.0.0.{i + 1}" for i in (1, 2, 3)}
ZONE.update({
    "_etcd-server._tcp.example": [(0, 0, 2380, f"n{i}.example") for i in (1, 2, 3)],
    "_etcd-client._tcp.example": [(0, 0, 2379, f"n{i}.example") for i in (1, 2, 3)],
    "_etcd-client-b._tcp.example": [(10, 0, 2379, "n2.example"), (20, 0, 2379, "n1.example")],
    "_etcd-client._tcp.gone.example": [(0, 0, 1, "n1.example")],
    "_etcd-client-ssl._tcp.both.example": [(0, 0, 2379, "n1.example")],
    "_etcd-client._tcp.both.example": [(0, 0, 2379, "n2.example")],
    "_etcd-server._tcp.half.example": [(0, 0, 2380, "n1.example"), (0, 0, 2380, "no.example")],
    "_etcd-server-ssl._tcp.tls.example": [(0, 0, 2380, "n1.example")],
    "_etcd-server-x._tcp.example": [(0, 0, 2380, "n1.example")],
})
MUTE = ["_etcd-server-ssl._tcp.mute.example"]


@pytest.fixture(scope="module")
def box():
    reason = dnsbox.available()
    if reason is not None:
        missing("a network of its own", reason)
    with dnsbox.Box(ZONE, MUTE) as b:
        yield b


def flags(tmp_path, i, domain="example", peer=None):
    at = f"127.0.0.{i + 1}"
    return ["--name", f"m{i}", "--data-dir", str(tmp_path / f"m{i}"),
            "--listen-client-urls", f"http://{at}:2379",
            "--advertise-client-urls", f"http://{at}:2379", "--listen-peer-urls",
            f"http://{at}:2380", "--initial-advertise-peer-urls",
            peer or f"http://n{i}.example:2380", "--discovery-srv", domain]


def up(box, tmp_path, program, peer=lambda i: None):
    words = {i: flags(tmp_path, i, peer=peer(i)) for i in (1, 2, 3)}
    if program == ETCD:  # 3.4 finds members with https alone
        for w in words.values():
            w[-2:] = ["--initial-cluster",
                      ",".join(f"m{i}=http://n{i}.example:2380" for i in (1, 2, 3))]
    members = [box.start(program, *words[i], log=tmp_path / f"log{i}") for i in (1, 2, 3)]
    for i in (1, 2, 3):
        wait_for(f"m{i}", lambda: box.run(
            LITE, "endpoint", "health", "--endpoints", f"127.0.0.{i + 1}:2379")[0] == 0, 60)
    return members


def ids(box, program):
    """{peer URLs: member id}; names are whatever each says."""
    code, out, err = box.run(program, "--endpoints", "127.0.0.2:2379", "member", "list")
    assert code == 0, err
    return {f[3]: f[0] for f in (line.split(", ") for line in out.splitlines())}


def test_members_find_each_other_and_have_the_ids_of_a_real_cluster(box, tmp_path):
    need("etcd", "the real server")
    (tmp_path / "real").mkdir()
    members = up(box, tmp_path / "real", ETCD)
    theirs = ids(box, ETCDCTL)
    for m in members:
        box.end(m)
    (tmp_path / "ours").mkdir()
    members = up(box, tmp_path / "ours", LITE,
                 lambda i: "http://127.0.0.4:2380" if i == 3 else None)
    assert ids(box, ETCDCTL) == theirs and len(theirs) == 3
    assert box.run(ETCDCTL, "--discovery-srv", "example", "put", "a", "1")[:2] == (0, "OK\n")
    # a restart asks nobody: the records may have changed
    members[0].send_signal(signal.SIGKILL)
    members[0].wait()
    moved = flags(tmp_path / "ours", 1, domain="nosuch.example")
    box.children.remove(members[0])
    box.start(LITE, *moved, log=tmp_path / "ours" / "log1")
    wait_for("m1 is back", lambda: box.run(
        LITE, "get", "a", "--endpoints", "127.0.0.2:2379", "--print-value-only")[1] == "1\n", 60)
    same_commands(box)
    for p in list(box.children):
        box.end(p)


def same_commands(box):
    """What both command lines do with the records, word for word."""
    for words in (["get", "a"], ["-d", "example", "get", "a"],
                  ["--discovery-srv=nosuch.example", "get", "a"],
                  ["--discovery-srv=example", "--discovery-srv-name=nosuch", "get", "a"],
                  ["--discovery-srv=example", "--discovery-srv-name=b", "get", "a"],
                  ["--discovery-srv=both.example", "--insecure-discovery=false", "get", "a",
                   "--command-timeout=1s"],
                  ["--discovery-srv=example", "--insecure-discovery=false", "get", "a",
                   "--command-timeout=1s", "--dial-timeout=1s"],
                  ["--discovery-srv=nosuch.example", "version"]):
        ours, theirs = box.run(LITE, *words), box.run(ETCDCTL, *words)
        if words[-1] == "version":
            assert ours[0] == theirs[0] == 0 and not ours[2]
            continue
        assert ours[0] == theirs[0], (words, ours, theirs)
        assert masked(ours[1]) == masked(theirs[1]), words
        # a dial that fails is logged by etcdctl before the line that says what failed
        assert masked(ours[2]).splitlines()[:1] == masked(theirs[2]).splitlines()[:1] or \
            masked(ours[2]).splitlines()[-1] == masked(theirs[2]).splitlines()[-1], (ours, theirs)
        for line in theirs[2].splitlines():
            if line.startswith("ignoring"):
                assert line in ours[2]


    # etcdctl asks --endpoints there, whatever the records say; by priority
    code, _, err = box.run(LITE, "-d=example", "--discovery-srv-name=b", "endpoint", "health")
    assert code == 0 and re.findall(r"http://(n\d)\.example\.:2379 is healthy", err) == ["n2", "n1"]


def masked(text):
    return re.sub(r"took = \S+", "took", text)


@pytest.mark.parametrize("domain, words", [
    ("nosuch.example", "error setting up initial cluster: error querying DNS SRV records for "
     "_etcd-server-ssl lookup _etcd-server-ssl._tcp.nosuch.example on 127.0.0.1:53: no such host"),
    ("half.example", "lookup no.example"),
    ("mute.example", "no name server answered"),
])
def test_a_start_with_less_than_all_records_is_refused(box, tmp_path, domain, words):
    code, _, err = box.run(LITE, *flags(tmp_path, 1, domain=domain))
    assert code == 3 and words.replace("_etcd-server-ssl lookup", "_etcd-server-ssl") in \
        err.replace("_etcd-server-ssl: lookup", "_etcd-server-ssl"), err
    assert not (tmp_path / "m1").exists()


def test_records_that_do_not_fit_to_the_flags_are_refused(box, tmp_path):
    for more, words in (
            (flags(tmp_path, 1, domain="tls.example"),
             "bootstrap at https://n1.example:2380 from DNS for etcd-server-ssl has scheme "
             "mismatch with expected peer http://n1.example:2380"),
            (flags(tmp_path, 1) + ["--initial-cluster", "m1=http://n1.example:2380"],
             "multiple discovery or bootstrap flags are set"),
            (flags(tmp_path, 1, peer="http://127.0.0.9:2380"),
             'cannot find local etcd member "m1" in SRV records'),
            (flags(tmp_path, 2) + ["--discovery-srv-name", "x"],
             'cannot find local etcd member "m2" in SRV records')):
        code, _, err = box.run(LITE, *more)
        assert code == 3 and words in err, (words, err)
        assert not (tmp_path / "m1").exists()


def test_what_a_start_without_an_identity_left_is_not_believed(box, tmp_path):
    (tmp_path / "m1").mkdir(mode=0o700)
    (tmp_path / "m1" / "discovered").write_text("m1=http://n1.example:2380\n")
    code, _, err = box.run(LITE, *flags(tmp_path, 1, domain="half.example"))
    assert code == 3 and "lookup no.example" in err, err


def test_a_directory_that_is_a_members_otherwise_is_refused(box, tmp_path):
    (tmp_path / "m1").mkdir(mode=0o700)
    (tmp_path / "m1" / "identity").write_text(
        "etcd-lite format 1\ncluster cdf818194e3a8c32\nmember 8e9e05c52164694d\n")
    code, _, err = box.run(LITE, *flags(tmp_path, 1))
    assert code == 3 and "start it with --initial-cluster" in err, err
