"""watch: watches on the Python client etcd3 (gRPC's C core). Exits 0 when every event was right.

watch.py a,b,c               put, delete, history, previous values, cancel, compaction
watch.py a,b,c -through 60   through/000 .. 059, written by someone else, each once, in order
"""
import sys

import etcd3
import grpc

from dial import client


def living(endpoints):
    for e in endpoints:
        try:
            c = client(e)
            c.get("any")
            return c
        except (etcd3.exceptions.Etcd3Exception, grpc.RpcError):
            pass
    raise SystemExit("FAIL: no member answers")


def through(endpoints, count):
    """This client does not connect again by itself: who uses it starts a new watch from the
    revision behind the last event."""
    seen, revision, told = [], 1, False
    while len(seen) < count:
        try:
            c = living(endpoints)
            events, cancel = c.watch_prefix("through/", start_revision=revision)
            if not told:
                print("WATCHING", flush=True)
                told = True
            for e in events:
                seen.append(e.key.decode())
                revision = e.mod_revision + 1
                if len(seen) == count:
                    cancel()
                    break
        except (etcd3.exceptions.Etcd3Exception, grpc.RpcError):
            continue
    assert seen == [f"through/{i:03d}" for i in range(count)], seen


def plain(c):
    c.delete_prefix("pywatch/")
    first = c.put("pywatch/a", "0").header.revision
    events, cancel = c.watch("pywatch/a", prev_kv=True)
    c.put("pywatch/a", "1")
    c.delete("pywatch/a")
    put, delete = next(events), next(events)
    assert isinstance(put, etcd3.events.PutEvent) and put.prev_value == b"0", put
    assert isinstance(delete, etcd3.events.DeleteEvent) and delete.prev_value == b"1", delete
    cancel()
    events, cancel = c.watch_prefix("pywatch/", start_revision=first)
    assert [next(events).value for _ in range(3)] == [b"0", b"1", b""]
    cancel()
    last = c.put("pywatch/b", "x").header.revision
    c.compact(last)
    events, cancel = c.watch("pywatch/a", start_revision=first)
    try:
        next(events)
        raise AssertionError("a compacted revision was told")
    except etcd3.exceptions.RevisionCompactedError as e:
        assert e.compacted_revision == last
    c.delete_prefix("pywatch/")


if sys.argv[2:3] == ["-through"]:
    through(sys.argv[1].split(","), int(sys.argv[3]))
else:
    plain(living(sys.argv[1].split(",")))
print("PASS")
