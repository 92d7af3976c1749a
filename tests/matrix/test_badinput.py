"""What people and strangers get wrong: flags, files, ports, directories, and bytes on both ports.

A mistake at the start is named, with the nearest right word, and has its exit code. Bytes that are
no request, or too many of them, end their own connection only: meanwhile another client puts
without an error, and the daemon's memory stays bounded.
"""
import os
import random
import socket
import struct
import subprocess

import pytest

import h2raw as h2
import load
from cluster import BIN, Cluster, free_ports, wait_for
from conftest import need

RSS_MORE_MAX = 64 * 1024  # KiB
CALM = 11  # ENHANCE_YOUR_CALM


# ---- at the start --------------------------------------------------------------------------------


def refused(*flags, env=None):
    """A daemon that must not start: exit code and what it said."""
    r = subprocess.run([os.path.join(BIN, "etcd-lite"), *flags], capture_output=True, text=True,
                       timeout=30, env={**os.environ, **(env or {})})
    assert "assertion" not in r.stderr, r.stderr
    return r.returncode, r.stderr


@pytest.mark.parametrize("flags, code, words", [
    (["--data-dri", "x"], 2, ["--data-dri", "did you mean --data-dir?"]),
    (["--snapshot-count", "many"], 2, ["--snapshot-count", "many"]),
    (["serve"], 2, ["serve"]),
    (["--listen-client-urls", "http://127.0.0.1:1x"], 3, ["--listen-client-urls", "bad port"]),
    (["--initial-cluster", "other=http://localhost:2380"], 3, ["--initial-cluster", "default"]),
    (["--election-timeout", "100"], 3, ["--election-timeout"]),
    (["--log-level", "loud"], 3, ["--log-level", "loud"]),
], ids=lambda v: v[0] if isinstance(v, list) else None)
def test_wrong_flags_are_named(flags, code, words, tmp_path):
    got, said = refused(*flags, *([] if "--data-dri" in flags else ["--data-dir", str(tmp_path)]))
    assert got == code and all(w in said for w in words), (got, said)


@pytest.mark.parametrize("yaml, words", [
    ("name: a\nlisten-client-url: x\n", [":2:", "listen-client-url", "'listen-client-urls'?"]),
    ("name: a\n\nsnapshot-count: many\n", [":3:", "snapshot-count", "whole number", "many"]),
    ("name: [a, b]\n", [":1:", "name", "expected text"]),
    ("name: a\nname: b\n", [":2:", "name"]),
    ("name: a\n\ttab: 1\n", [":2:"]),
    ("\0\1\2", [":1:"]),
], ids=["unknown", "type", "list", "twice", "tab", "bytes"])
def test_wrong_files_are_named_with_the_line(yaml, words, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml)
    got, said = refused("--config-file", str(path), "--data-dir", str(tmp_path / "d"))
    assert got == 3 and str(path) in said and all(w in said for w in words), (got, said)


def test_a_file_that_is_not_there(tmp_path):
    got, said = refused("--config-file", str(tmp_path / "none"))
    assert got == 3 and str(tmp_path / "none") in said, (got, said)


def urls(client, peer=None):
    flags = ["--listen-client-urls", f"http://127.0.0.1:{client}"]
    if peer:
        own, other = f"http://127.0.0.1:{peer}", f"http://127.0.0.1:{client + 1}"
        flags += ["--name", "a", "--listen-peer-urls", own, "--initial-advertise-peer-urls", own,
                  "--initial-cluster", f"a={own},b={other}"]
    return flags


@pytest.mark.parametrize("which", ["client", "peer"])
def test_a_taken_port_is_named(which, tmp_path):
    free = free_ports(1)[0]
    with socket.create_server(("127.0.0.1", 0)) as s:
        taken = s.getsockname()[1]
        flags = urls(taken) if which == "client" else urls(free, taken)
        got, said = refused("--data-dir", str(tmp_path / "d"), *flags)
    assert got == 5 and "address in use" in said and str(taken) in said, (got, said)


def test_a_directory_in_use_or_of_others_is_refused():
    with Cluster(1) as c:
        n = c.nodes[0]
        free = free_ports(1)[0]
        got, said = refused("--data-dir", n.dir, *urls(free))
        assert got == 5 and f"pid {n.process.pid}" in said and n.dir in said, (got, said)
        n.kill()
        with open(os.path.join(n.dir, "identity")) as f:
            identity = f.read()
        ours = identity.split("cluster ")[1].split()[0].lstrip("0")
        got, said = refused("--data-dir", n.dir, *urls(free))  # the default cluster: another one
        assert got == 3 and ours in said and "the flags say cluster" in said, (got, said)
        for text, code, words in (
                (identity.replace("format 1", "format 2"), None, ["format 2", "newer"]),
                ("something else\n", 4, ["not an identity file"]),
                (identity[:40], 4, ["damaged"]), ("", 4, ["identity"])):
            with open(os.path.join(n.dir, "identity"), "w") as f:
                f.write(text)
            got, said = refused("--data-dir", n.dir, *urls(free))
            assert got == (code or got) and got != 0, (text, got, said)
            assert all(w in said for w in words), (text, said)
        with open(os.path.join(n.dir, "identity"), "w") as f:
            f.write(identity)
        n.start()  # nothing of all that harmed it
        wait_for("healthy", n.healthy)


# ---- the client port -----------------------------------------------------------------------------


def closed(node, data, hello=False, more=b""):
    """Sends; the frames that came back before the daemon closed. Fails when it does not close."""
    with h2.Conn(node, hello=hello) as k:
        k.send(data)
        for _ in range(2000 if more else 0):
            if not k.send(more):
                break
        return k.rest()


def garbage(n):
    rnd = random.Random(7)
    for size in (1, 9, 24, 1000, 100_000):
        with h2.Conn(n, hello=False) as k:
            k.send(b"\xff" + rnd.randbytes(size))
            k.s.shutdown(socket.SHUT_WR)
            assert k.s.recv(1 << 20) is not None


def preface_and_garbage(n):
    rnd = random.Random(8)
    for _ in range(20):
        closed(n, h2.PREFACE + h2.settings() + b"\xff\xff\xff" + rnd.randbytes(2000))


def oversize_frame(n):
    seen = closed(n, h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"", length=0xffffff), hello=True)
    assert h2.goaway_code(seen) == 6  # FRAME_SIZE_ERROR


def rst_flood(n):
    """Quicker than any client that changes its mind: 20,000 at once and 5,000/s are allowed."""
    head = h2.grpc_headers("/etcdserverpb.KV/Range")
    flood = b"".join(
        h2.frame(h2.HEADERS, h2.END_HEADERS, i, head) + h2.frame(h2.RST, 0, i, b"\0\0\0\x08")
        for i in range(1, 160001, 2))
    assert h2.goaway_code(closed(n, flood, hello=True)) in (CALM, None)
    assert n.metric("bns_h2_floods_total") >= 1


def ping_flood(n):
    before = n.metric("bns_h2_floods_total")
    seen = closed(n, h2.frame(h2.PING, 0, 0, bytes(8)) * 1000, hello=True)
    assert h2.goaway_code(seen) in (CALM, None)  # None: the rest of the flood met a closed socket
    assert n.metric("bns_h2_floods_total") == before + 1


def continuation_flood(n):
    begin = h2.frame(h2.HEADERS, 0, 1, h2.block([("a", "b")]))
    piece = h2.frame(h2.CONTINUATION, 0, 1, h2.block([("x" * 100, "y" * 16000)]))
    closed(n, begin, hello=True, more=piece)


def hpack_bomb(n):
    """One header of 4,000 bytes goes into the table, then 16,000 references to it follow."""
    entry = b"\x40" + h2.text("a") + h2.text("b" * 3900)
    with h2.Conn(n) as k:
        for stream in range(1, 41, 2):
            k.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream,
                            (entry if stream == 1 else b"") + b"\xbe" * 12000))
        k.send(h2.frame(h2.PING, 0, 0, b"answered"))
        k.until(lambda f: f[0] == h2.GOAWAY or f[3] == b"answered")


def cut_requests(n):
    """Connections that end in the middle: of a frame, of a message, of a request."""
    whole = h2.request(1, "/etcdserverpb.KV/Put", h2.field(1, b"cut") + h2.field(2, b"x" * 100))
    for at in range(0, len(whole), 7):
        with h2.Conn(n) as k:
            k.send(whole[:at])


def wrong_messages(n):
    """Bodies that are no message: each call ends alone, the connection stays good."""
    with h2.Conn(n) as k:
        stream = 1
        for body in (b"", b"\0", h2.message(b"\xff" * 50), h2.message(b"\x0a\xff\xff\xff\xff\x0f"),
                     h2.message(b"x", compressed=1), h2.message(b"x", length=1 << 31)):
            k.send(h2.frame(h2.HEADERS, h2.END_HEADERS, stream,
                            h2.grpc_headers("/etcdserverpb.KV/Put")) +
                   h2.frame(h2.DATA, h2.END_STREAM, stream, body))
            seen = k.until(lambda f: f[2] == stream and (f[0] == h2.RST or f[1] & h2.END_STREAM))
            assert seen and seen[-1][2] == stream, (body, seen)
            stream += 2


def half_open(n):
    held = [h2.Conn(n, hello=False) for _ in range(300)]
    wait_for("still serves", n.healthy)
    for k in held:
        k.s.close()


def slow_loris(n):
    held = [h2.Conn(n, hello=False) for _ in range(100)]
    for i, k in enumerate(held):
        k.send(h2.PREFACE[:1 + i % 20] if i % 2 else b"GET /health HTTP/1.1\r\nx-slow: ")
    for _ in range(20):
        for k in held[::2]:
            k.send(b"a")
        assert n.healthy()
    for k in held:
        k.s.close()


@pytest.fixture(scope="module")
def served(one):
    """The node, once warm, and its memory."""
    n = one.nodes[0]
    load.run(n.endpoint, clients=4, seconds=0.5)
    return n, n.rss_kib()


@pytest.mark.parametrize("attack", [
    garbage, preface_and_garbage, oversize_frame, rst_flood, ping_flood, continuation_flood,
    hpack_bomb, cut_requests, wrong_messages, half_open, slow_loris], ids=lambda f: f.__name__)
def test_bad_bytes_harm_their_own_connection_only(served, attack):
    n, idle = served
    bystander = load.start(n.endpoint, clients=2, seconds=1.5)
    attack(n)
    result = load.finish(bystander)
    assert result["errors"] == 0 and result["ops"] > 20
    assert n.process.poll() is None and n.healthy()
    assert n.rss_kib() - idle < RSS_MORE_MAX, (n.rss_kib(), idle)
    assert load.run(n.endpoint, clients=1, seconds=0.2)["ops"] > 0


def test_oversize_messages_get_their_status():
    need("etcdctl", "the real client")
    with Cluster(1, flags=["--max-request-bytes", "1024"]) as c:
        for size, words in ((1 << 20, ["ResourceExhausted", "larger than max"]),
                            (2000, ["InvalidArgument", "request is too large"])):
            code, _, err = c.ctl("put", "k", stdin="v" * size, ok=None)
            assert code != 0 and all(w in err for w in words), (size, err)
        c.ctl("put", "k", stdin="v" * 500)


# ---- the peer port -------------------------------------------------------------------------------


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


ONE_WAY, HELLO = 2, 10  # kinds of frames
RAFT = 1  # the method of Raft messages


def peer_frame(kind, payload=b"", method=0, length=None):
    body = struct.pack("<BBHIQ", 1, kind, method, 0, 0) + payload
    size = 4 + len(body) if length is None else length
    return struct.pack("<II", size, crc32c(body)) + body


def hello(cluster_id, node_id):
    return peer_frame(HELLO, b"BNSR\x01\x01\0\0" + cluster_id + struct.pack("<QQQ", node_id, 1, 0))


def cluster_id(c):
    with open(os.path.join(c.nodes[0].dir, "identity")) as f:
        return bytes.fromhex(f.read().split("cluster ")[1].split()[0]) + bytes(8)


def metric(n, name):
    try:
        return n.metric(name)
    except KeyError:
        return 0.0  # nothing was counted yet


def test_strangers_on_the_peer_port_are_closed_and_counted(three):
    c = three
    n = wait_for("a leader", c.leader)
    good = cluster_id(c)
    rnd = random.Random(9)
    idle = n.rss_kib()
    rejected = metric(n, "rpc_rejected_total")
    term = n.metric("raft_term")
    attacks = [
        rnd.randbytes(1000), b"PUT / HTTP/1.1\r\n\r\n", h2.PREFACE + h2.settings(),
        peer_frame(ONE_WAY, b"no hello", 1), peer_frame(HELLO, b"BNSR"),
        hello(b"\xee" * 16, 7),  # another cluster
        peer_frame(HELLO, rnd.randbytes(48)), peer_frame(HELLO, length=1 << 26),
        peer_frame(HELLO, length=0xffffffff), peer_frame(HELLO, length=0),
        hello(good, 7)[:-1] + b"\xff",  # damaged on the way
        hello(good, 7) + hello(good, 7), hello(good, 7) + rnd.randbytes(5000)]
    bystander = load.start(n.endpoint, clients=2, seconds=2)
    for data in attacks:
        with socket.create_connection((n.host, n.peer), timeout=20) as s:
            s.sendall(data)
            try:
                while s.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    assert metric(n, "rpc_rejected_total") - rejected == len(attacks)
    for path, status in ((b"/members", b"200"), (b"/metrics", b"404"), (b"/health", b"404")):
        with socket.create_connection((n.host, n.peer), timeout=20) as s:
            s.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert s.recv(65536).split(b" ")[1] == status
    result = load.finish(bystander)
    assert result["errors"] == 0 and result["ops"] > 20
    assert n.rss_kib() - idle < RSS_MORE_MAX
    assert n.metric("raft_term") == term and n.is_leader()


def test_lies_about_the_node_id_change_nothing(three):
    c = three
    n = wait_for("a leader", c.leader)
    good = cluster_id(c)
    term = n.metric("raft_term")
    bad = n.metric("raft_bad_messages_total")
    rnd = random.Random(10)
    for i in range(20):
        with socket.create_connection((n.host, n.peer), timeout=20) as s:
            s.sendall(hello(good, rnd.getrandbits(63)) + peer_frame(
                ONE_WAY, rnd.randbytes(rnd.randrange(200)), method=RAFT))
            wait_for("counted", lambda i=i: n.metric("raft_bad_messages_total") >= bad + i + 1)
    assert n.metric("raft_term") == term and n.is_leader()
    c.ctl("put", "after", "v")
