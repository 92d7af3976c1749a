"""holder: a process that holds a lock, or leads, and writes to what it protects. JSON, no library.

holder.py GATEWAY RESOURCE lock|election NAME TTL NUMBER

It takes a lease, renews it four times a TTL, and asks for the lock. What it did are lines of a
history on stdout (NUMBER is the first of its processes), between them {"mark": "held", "token",
"key"} once it holds and {"mark": "lost"} when a renewal says that the lease is gone. A line on
stdin is one write with its token: it does not ask whether it still holds, any answer would be old.
"""
import base64
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request

gateway, resource, kind, name, ttl, number = sys.argv[1:7]
ttl, number = int(ttl), int(number)
lease = None
mutex = threading.Lock()
count = 0


def b64(text):
    return base64.b64encode(text.encode()).decode()


def say(**line):
    with mutex:
        print(json.dumps(line), flush=True)


def process():
    global count
    with mutex:
        count += 1
        return number + count


def ask(path, seconds=60, **request):
    r = urllib.request.Request(gateway + "/v3/" + path, json.dumps(request).encode())
    with urllib.request.urlopen(r, timeout=seconds) as answer:
        return json.loads(answer.read())


def did(who, f, key, value, call):
    """Two lines of history around a call; (type, value) is what it returns. Its value, or None."""
    say(process=who, time=time.monotonic_ns(), type="invoke", f=f, key=key, value=value)
    try:
        kind, out = call()
    except (OSError, ValueError):  # who knows what became of it
        kind, out = "info", None
    say(process=who, time=time.monotonic_ns(), type=kind, f=f, key=key, value=out)
    return out if kind == "ok" else None


def grant():
    return "ok", {"ttl_ms": int(ask("lease/grant", ID=lease, TTL=ttl)["TTL"]) * 1000}


def renew():
    left = int(ask("lease/keepalive", seconds=ttl / 2, ID=lease)["result"].get("TTL", 0))
    return "ok", {"ttl_ms": left * 1000}


def acquire():
    if kind == "election":
        leader = ask("election/campaign", name=b64(name), lease=lease, value=b64(name))["leader"]
        return "ok", {"token": int(leader["rev"]), "lease": lease, "at": leader["key"]}
    key = ask("lock/lock", name=b64(name), lease=lease)["key"]
    kvs = ask("kv/range", key=key).get("kvs")
    if not kvs:
        return "info", None
    return "ok", {"token": int(kvs[0]["create_revision"]), "lease": lease, "at": key}


def write(token):
    try:
        urllib.request.urlopen(f"{resource}?token={token}", str(token).encode(), timeout=60).close()
    except urllib.error.HTTPError:
        return "fail", None
    return "ok", {"token": token}


def keep(mine):
    while True:
        time.sleep(ttl / 4)
        if mine != lease:
            return
        left = did(process(), "keepalive", mine, None, renew)
        if left and left["ttl_ms"] == 0:
            say(mark="lost")
            return


def begin(seconds=60):
    """Tries while the cluster has no leader: each time another process of the history, and a lease
    of its own, for nobody knows what became of the last one."""
    global lease
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        me = process()
        lease = str((os.getpid() << 20) + me)
        if did(me, "grant", lease, {"ttl_ms": ttl * 1000}, grant) is None:
            continue
        threading.Thread(target=keep, args=(lease,), daemon=True).start()
        held = did(me, "acquire", name, {"lease": lease}, acquire)
        if held is not None:
            return me, held
    raise SystemExit("FAIL: not acquired")


me, held = begin()
say(mark="held", token=held["token"], key=base64.b64decode(held["at"]).decode())
for _ in sys.stdin:
    did(me, "use", name, {"token": held["token"]}, lambda: write(held["token"]))
