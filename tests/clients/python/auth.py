"""auth: a user with a password through python-etcd3: what it may, what it may not.

argv: endpoint, user, password, seconds to stay idle, CA file; then the token must be gone, and a
new one works. The package gives tokens away over TLS only.
"""
import sys
import time

import etcd3
import grpc


def refused(what, call, text):
    try:
        call()
    except Exception as e:
        said = e.details() if isinstance(e, grpc.RpcError) else f"{type(e).__name__} {e}"
        if text not in said:
            raise SystemExit(f"FAIL: {what}: {said}")
        return
    raise SystemExit(f"FAIL: {what} was done")


def main():
    endpoint, user, password, idle, ca = sys.argv[1:6]
    host, port = endpoint.rsplit(":", 1)
    dial = dict(host=host, port=int(port), timeout=20, ca_cert=ca)
    c = etcd3.client(**dial, user=user, password=password)
    c.put("/app/python", "1")
    assert c.get("/app/python")[0] == b"1"
    refused("put", lambda: c.put("/other", "1"), "permission denied")
    refused("get", lambda: c.get("/other"), "permission denied")
    events, cancel = c.watch("/app/python")
    c.put("/app/python", "2")
    assert next(events).value == b"2"
    cancel()
    time.sleep(float(idle))
    refused("an expired token", lambda: c.get("/app/python"), "invalid auth token")
    c = etcd3.client(**dial, user=user, password=password)
    c.put("/app/python", "3")
    refused("nobody", lambda: etcd3.client(**dial).get("/app/python"), "user name is empty")
    refused("a wrong password", lambda: etcd3.client(**dial, user=user, password="wrong"),
            "invalid user ID or password")
    print("OK")


main()
