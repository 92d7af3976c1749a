"""Watch streams by hand: requests as they are, every response as text.

A response reads "#id rev=R created canceled compact=C "reason" more +key=value@create/mod/version
-key@mod (was value@mod)", without what is not there.
"""
import os
import time

import h2raw
from h2raw import number

PATH = "/etcdserverpb.Watch/Watch"


def varint(no, v):
    return b"" if v == 0 else bytes([no << 3]) + number(v & (1 << 64) - 1)


def raw(no, data):
    b = data if isinstance(data, bytes) else data.encode()
    return b"" if not b else bytes([no << 3 | 2]) + number(len(b)) + b


def create(key, end="", start=0, progress=False, filters=(), prev_kv=False, id=0, fragment=False):
    body = raw(1, key) + raw(2, end) + varint(3, start) + varint(4, progress)
    body += b"".join(b"\x28" + number(f) for f in filters)
    body += varint(6, prev_kv) + varint(7, id) + varint(8, fragment)
    return h2raw.field(1, body)


def cancel(id):
    return h2raw.field(2, varint(1, id))


def progress():
    return h2raw.field(3, b"")


def fields(b):
    """(number, value) of each field; integers are signed 64 bits."""
    at = 0

    def take():
        nonlocal at
        v = shift = 0
        while True:
            c = b[at]
            at += 1
            v |= (c & 127) << shift
            shift += 7
            if c < 128:
                return v - (1 << 64) if v >> 63 else v

    while at < len(b):
        tag = take()
        if tag & 7 == 0:
            yield tag >> 3, take()
        else:
            size = take()
            yield tag >> 3, b[at:at + size]
            at += size


def kv(b):
    d = dict(fields(b))
    return {"key": d.get(1, b"").decode(), "value": d.get(5, b"").decode(),
            "create": d.get(2, 0), "mod": d.get(3, 0), "version": d.get(4, 0)}


class Response:
    def __init__(self, b):
        self.id = self.revision = self.compact = 0
        self.created = self.canceled = self.fragment = False
        self.reason, self.events = "", []
        for no, v in fields(b):
            if no == 1:
                self.revision = dict(fields(v)).get(3, 0)
            elif no == 2:
                self.id = v
            elif no == 3:
                self.created = bool(v)
            elif no == 4:
                self.canceled = bool(v)
            elif no == 5:
                self.compact = v
            elif no == 6:
                self.reason = v.decode()
            elif no == 7:
                self.fragment = bool(v)
            elif no == 11:
                e = dict(fields(v))
                self.events.append((e.get(1, 0), kv(e[2]), kv(e[3]) if 3 in e else None))

    def __str__(self):
        words = [f"#{self.id}", f"rev={self.revision}"]
        words += ["created"] * self.created + ["canceled"] * self.canceled
        words += [f"compact={self.compact}"] * (self.compact != 0)
        words += [f'"{self.reason}"'] * (self.reason != "") + ["more"] * self.fragment
        for kind, v, prev in self.events:
            if kind == 1:
                words.append(f"-{v['key']}@{v['mod']}")
            else:
                words.append("+{key}={value}@{create}/{mod}/{version}".format(**v))
            if prev:
                words.append(f"(was {prev['value']}@{prev['mod']})")
        return " ".join(words)


class Writer:
    """Puts on one connection, one after the other."""

    def __init__(self, node):
        self.conn = h2raw.Conn(node, (4, h2raw.WINDOW_MAX))
        self.stream = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.conn.__exit__()

    def put(self, key, value):
        """At most half a megabyte: what the server's window takes at once."""
        self.stream += 2
        self.conn.send(h2raw.request(self.stream, "/etcdserverpb.KV/Put",
                                     raw(1, key) + raw(2, value)))
        seen = self.conn.until(lambda f: f[2] == self.stream and f[1] & h2raw.END_STREAM)
        assert any(f[0] == h2raw.DATA for f in seen), "the put was refused"


class Stream:
    """One Watch call on a connection of its own. What is not read here, nobody reads."""

    def __init__(self, node, *metadata, window=h2raw.WINDOW_MAX, receive_buffer=None):
        self.conn = h2raw.Conn(node, (4, window), receive_buffer=receive_buffer)
        self.body = b""
        self.trailers = b""
        self.skipped = 0  # bytes of other calls on this connection
        if window == h2raw.WINDOW_MAX:
            self.conn.send(h2raw.frame(h2raw.WINDOW, 0, 0, (window - 65535).to_bytes(4, "big")))
        self.conn.send(h2raw.frame(h2raw.HEADERS, h2raw.END_HEADERS, 1,
                                   h2raw.grpc_headers(PATH, *metadata)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.conn.__exit__()

    def send(self, *requests):
        for r in requests:
            self.conn.send(h2raw.frame(h2raw.DATA, 0, 1, h2raw.message(r)))

    def widen(self, size=1 << 30):
        """Lets the other side send so much more."""
        for stream in (0, 1):
            self.conn.send(h2raw.frame(h2raw.WINDOW, 0, stream, size.to_bytes(4, "big")))

    def unavailable(self):
        """Did the call end with status 14? (Its text is compressed, the two digits are not.)"""
        return b"\x0214" in self.trailers

    def next(self):
        """The next response; None when the call has ended (the trailers are kept)."""
        while len(self.body) < 5 or len(self.body) < 5 + int.from_bytes(self.body[1:5], "big"):
            seen = self.conn.until(lambda f: f[2] == 1)
            self.skipped += sum(len(f[3]) for f in seen if f[0] == h2raw.DATA and f[2] != 1)
            if not seen or seen[-1][2] != 1:
                return None
            kind, flags, _, payload = seen[-1]
            if kind == h2raw.DATA:
                self.body += payload
            elif flags & h2raw.END_STREAM or kind == h2raw.RST:
                self.trailers = payload
                return None
        size = int.from_bytes(self.body[1:5], "big")
        got, self.body = self.body[5:5 + size], self.body[5 + size:]
        return Response(got)


def events_beside_large_ranges(node):
    """100 watches x 10 keys beside ten ranges of 10 MiB on one connection: events within 1 s
    (on an idle machine: BNS_TIMINGS=1)."""
    with Writer(node) as w:
        for i in range(20):
            w.put(f"large/{i:02d}", b"v" * (512 * 1024))
        with Stream(node) as s:
            for k in range(10):
                s.send(*[create(f"fair/{k}")] * 100)
            for _ in range(1000):
                assert s.next().created
            for i in range(10):
                s.conn.send(h2raw.request(3 + 2 * i, "/etcdserverpb.KV/Range",
                                          raw(1, "large/") + raw(2, "large0")))
            begun = time.monotonic()
            for k in range(10):
                w.put(f"fair/{k}", b"x")
            told = []
            while len(told) < 1000:
                told += s.next().events
            spent = time.monotonic() - begun
            print(f"1000 events in {spent:.3f} s beside {s.skipped >> 20} MiB of ranges")
            assert spent < (1 if os.environ.get("BNS_TIMINGS") else 10)
            while s.skipped < 10 * 10 * 1024 * 1024:  # the ranges come to their end too
                s.skipped += len(s.conn.until(lambda f: f[0] == h2raw.DATA)[-1][3])
