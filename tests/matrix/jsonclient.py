"""A client of etcd's v3 API that knows JSON over HTTP/1.1 and nothing else.

Written from the API's description: no etcd library is used. `call` is one POST; `Stream` is a POST
whose body and answer stay open.
"""
import base64
import http.client
import json
import ssl


def b64(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return base64.b64encode(raw).decode()


def unb64(text):
    return base64.b64decode(text).decode()


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body

    @property
    def code(self):
        return self.body.get("code")

    @property
    def text(self):
        return self.body.get("message")


class Client:
    def __init__(self, host, port, tls=None, timeout=20):
        """tls: an ssl.SSLContext."""
        self.host, self.port, self.tls, self.timeout = host, port, tls, timeout
        self.token = None
        self.kept = None

    def connect(self):
        if self.tls:
            return http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout,
                                               context=self.tls)
        return http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)

    def headers(self):
        h = {"Content-Type": "application/json"}
        if self.token:
            h["Authorization"] = self.token
        return h

    def raw(self, path, body=b"", method="POST", headers=None):
        """Status, headers, bytes."""
        if self.kept is None:
            self.kept = self.connect()
        try:
            self.kept.request(method, path, body, {**self.headers(), **(headers or {})})
            r = self.kept.getresponse()
            answer = r.status, r.headers, r.read()
        except (http.client.HTTPException, OSError):
            self.kept.close()
            self.kept = None
            raise
        if r.will_close:
            self.kept.close()
            self.kept = None
        return answer

    def call(self, path, **request):
        status, _, body = self.raw("/v3/" + path, json.dumps(request).encode())
        answer = json.loads(body)
        if status != 200:
            raise Refused(status, answer)
        return answer

    def lines(self, path, *requests):
        """Of a stream whose requests are all known: its results."""
        body = "".join(json.dumps(r) for r in requests).encode()
        status, _, text = self.raw("/v3/" + path, body)
        if status != 200:
            raise Refused(status, json.loads(text))
        return [json.loads(line) for line in text.splitlines()]

    def close(self):
        if self.kept is not None:
            self.kept.close()
            self.kept = None

    # ---- what programs use -------------------------------------------------------------------
    def put(self, key, value, **more):
        return self.call("kv/put", key=b64(key), value=b64(value), **more)

    def get(self, key):
        kvs = self.call("kv/range", key=b64(key)).get("kvs", [])
        return unb64(kvs[0]["value"]) if kvs else None

    def login(self, name, password):
        self.token = self.call("auth/authenticate", name=name, password=password)["token"]


class Stream:
    """One POST with a chunked body that stays open for further requests."""

    def __init__(self, client, path, *requests):
        self.c = client.connect()
        self.c.putrequest("POST", "/v3/" + path)
        for name, value in client.headers().items():
            self.c.putheader(name, value)
        self.c.putheader("Transfer-Encoding", "chunked")
        self.c.endheaders()
        self.sock = self.c.sock  # "Connection: close" in the answer takes it from the connection
        for r in requests:
            self.send(r)
        self.r = None

    def send(self, request):
        text = json.dumps(request).encode()
        self.sock.sendall(b"%x\r\n%s\r\n" % (len(text), text))

    def half_close(self):
        self.sock.sendall(b"0\r\n\r\n")

    def next(self):
        """The next result; None at the end."""
        if self.r is None:
            self.r = self.c.getresponse()
            if self.r.status != 200:
                raise Refused(self.r.status, json.loads(self.r.read()))
        line = self.r.readline()
        if not line:
            return None
        line = json.loads(line)
        if "error" in line:
            raise Refused(line["error"].get("http_code"), line["error"])
        return line["result"]

    def close(self):
        if self.r is not None:
            self.r.close()
        self.c.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def of(node):
    """A client of a node of cluster.py."""
    context = node.cluster.ssl_context()
    if context is not None:
        assert isinstance(context, ssl.SSLContext)
    return Client(node.host, node.client, context)
