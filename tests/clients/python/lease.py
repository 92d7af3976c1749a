"""lease: leases on the Python client etcd3. Exits 0 when all answers are right.

One lease is refreshed for the given seconds while faults may happen around it: its key must never
be missing. Another one is let go: its key must not vanish before its TTL, and must then.
"""
import sys
import time

import etcd3
import grpc

import dial

seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3
c = dial.client(sys.argv[1])


def again(f):
    """Repeats f while the cluster has no leader or the server is away."""
    end = time.monotonic() + 40
    while True:
        try:
            return f()
        except (etcd3.exceptions.ConnectionFailedError, etcd3.exceptions.ConnectionTimeoutError,
                etcd3.exceptions.InternalServerError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def present(key):
    return again(lambda: c.get(key))[0] is not None


end = time.monotonic() + seconds
kept = again(lambda: c.lease(10))
again(lambda: c.put("py-lease/kept", "x", lease=kept))
print("READY", flush=True)

other = again(lambda: c.lease(600))
again(lambda: c.put("py-lease/b", "x", lease=other))
again(lambda: c.put("py-lease/a", "x", lease=other))
info = again(lambda: c.get_lease_info(other.id))
assert info.grantedTTL == 600 and 500 < info.TTL <= 602, info
assert sorted(info.keys) == [b"py-lease/a", b"py-lease/b"], info
assert [r.TTL for r in again(other.refresh)] == [600]
again(other.revoke)
assert not present("py-lease/a") and not present("py-lease/b")
assert again(lambda: c.get_lease_info(other.id)).TTL == -1
assert [r.TTL for r in again(other.refresh)] == [0]

while True:
    asked = time.monotonic()
    short = again(lambda: c.lease(2))
    try:
        again(lambda: c.put("py-lease/short", "x", lease=short))
    except grpc.RpcError:  # no such lease any more: this program was too slow
        assert time.monotonic() - asked >= 2
    beat = 0.0
    while present("py-lease/short"):
        assert time.monotonic() < asked + 60, "the lease does not end"
        if time.monotonic() > beat + 1:
            assert [r.TTL for r in again(kept.refresh)] == [10], "the kept lease was lost"
            beat = time.monotonic()
        assert present("py-lease/kept"), "the key of the kept lease is gone"
        time.sleep(0.02)
    assert time.monotonic() - asked >= 2, f"gone after {time.monotonic() - asked} s"
    if time.monotonic() > end:
        break
assert present("py-lease/kept"), "the key of the kept lease is gone"
again(kept.revoke)
print("PASS")
