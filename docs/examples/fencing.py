"""fencing: a resource that refuses an old token, over HTTP on loopback (docs/concepts/locks.md).

    python3 docs/examples/fencing.py [PORT]           prints the port it listens on
    curl -d 'what is written' localhost:PORT/?token=7

A write carries the fencing token of its writer: the create revision of the lock's key. The resource
keeps the largest token that it has seen; a write with a smaller one comes from somebody who held
the lock once, and gets 412. GET answers what was written last, with its token.
"""
import http.server
import json
import sys
import threading
import urllib.parse


class Resource:
    """What the lock protects. The check and the write are one step: else a write could fall between
    another one's check and its effect."""

    def __init__(self):
        self.mutex = threading.Lock()
        self.token, self.value, self.written = 0, "", []

    def write(self, token, value):
        with self.mutex:
            if token < self.token:
                return False, self.token
            self.token, self.value = token, value
            self.written.append((token, value))
            return True, token


class Handler(http.server.BaseHTTPRequestHandler):
    resource = Resource()
    protocol_version = "HTTP/1.1"

    def answer(self, code, **fields):
        body = json.dumps(fields).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, token=self.resource.token, value=self.resource.value)

    def do_POST(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        length = int(self.headers.get("Content-Length", 0))
        value = self.rfile.read(min(length, 65536)).decode(errors="replace")
        token = query.get("token", [""])[0]
        if not token.isdigit():
            self.answer(400, error="a write needs ?token=, the create revision of the lock's key")
            return
        taken, newest = self.resource.write(int(token), value)
        if taken:
            self.answer(200, token=newest)
        else:
            self.answer(412, error=f"token {token} is old: {newest} has written since")

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
