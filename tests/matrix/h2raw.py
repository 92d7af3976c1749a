"""HTTP/2 by hand, for clients that no library would be: frames, headers, misbehaving sockets.

Header blocks are literals without indexing, so nothing here needs a table.
"""
import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
WINDOW_MAX = (1 << 31) - 1


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(*pairs):
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", k, v) for k, v in pairs))


def text(s):
    b = s if isinstance(s, bytes) else s.encode()
    head = bytes([len(b)]) if len(b) < 127 else b"\x7f" + number(len(b) - 127)
    return head + b


def number(n):
    """The continuation of an HPACK integer."""
    out = b""
    while n >= 128:
        out += bytes([n % 128 | 128])
        n //= 128
    return out + bytes([n])


def block(headers):
    return b"".join(b"\x00" + text(k) + text(v) for k, v in headers)


def grpc_headers(path, *more):
    return block([(":method", "POST"), (":scheme", "http"), (":path", path),
                  (":authority", "localhost"), ("content-type", "application/grpc"),
                  ("te", "trailers"), *more])


def message(payload, compressed=0, length=None):
    size = len(payload) if length is None else length
    return struct.pack(">BI", compressed, size) + payload


def field(no, data):
    """A protobuf field of bytes."""
    return bytes([no << 3 | 2]) + number(len(data)) + data


def request(stream, path, payload):
    """One unary call. `payload` is the message; DATA frames of at most 16,384 bytes."""
    out = frame(HEADERS, END_HEADERS, stream, grpc_headers(path))
    body = message(payload)
    for at in range(0, len(body), 16384):
        last = at + 16384 >= len(body)
        out += frame(DATA, END_STREAM if last else 0, stream, body[at:at + 16384])
    return out


class Conn:
    """A connection that has said hello. What is not read here, nobody reads."""

    def __init__(self, node, *pairs, hello=True, receive_buffer=None):
        self.s = socket.socket()
        if receive_buffer:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.s.settimeout(20)
        self.s.connect((node.host, node.client))
        tls = node.cluster.ssl_context()
        if tls:
            tls.set_alpn_protocols(["h2"])
            self.s = tls.wrap_socket(self.s, server_hostname=node.host)
        self.buf = b""
        if hello:
            self.s.sendall(PREFACE + settings(*pairs))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def send(self, data):
        """False once the other side has closed."""
        try:
            self.s.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def next(self):
        """(kind, flags, stream, payload); None at the end of the connection."""
        while len(self.buf) < 9 or len(self.buf) < 9 + int.from_bytes(self.buf[:3], "big"):
            try:
                got = self.s.recv(65536)
            except ConnectionResetError:
                return None
            if not got:
                return None
            self.buf += got
        size = int.from_bytes(self.buf[:3], "big")
        head, payload = self.buf[:9], self.buf[9:9 + size]
        self.buf = self.buf[9 + size:]
        return head[3], head[4], int.from_bytes(head[5:9], "big") & WINDOW_MAX, payload

    def until(self, what):
        """Frames up to the first for which what(frame) holds; all of them when the other side
        closes before. Answers SETTINGS and PING meanwhile."""
        seen = []
        while (f := self.next()) is not None:
            seen.append(f)
            if what(f):
                break
            if f[0] == SETTINGS and not f[1] & ACK:
                self.send(frame(SETTINGS, ACK))
        return seen

    def rest(self):
        """Everything until the other side closes."""
        return self.until(lambda f: False)


def goaway_code(frames):
    """The error code of the last GOAWAY; None without one."""
    codes = [int.from_bytes(f[3][4:8], "big") for f in frames if f[0] == GOAWAY]
    return codes[-1] if codes else None
