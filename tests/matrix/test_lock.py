"""The services Lock and Election: the same calls to etcd-lite and to the real etcd; queues,
cancels, leases that end; through leader loss.

Lease ids that a server chose, and what is made of them, are masked.
"""
import re
import signal

import pytest

from callers import Caller
from cluster import Cluster, wait_for
from conftest import need

LONG = "n" * 100000

# (call, fields); the leases 1 to 3 exist.
HISTORY = [
    ("LeaseGrant", dict(TTL=600, ID=1)), ("LeaseGrant", dict(TTL=600, ID=0x7eadbeef)),
    ("LeaseGrant", dict(TTL=600, ID=-5)),
    ("Lock", dict(name="a", lease=1)), ("Lock", dict(name="a", lease=1)),
    ("Range", dict(key="a", range_end="b")),
    ("Lock", dict(name="a", lease=77)), ("Lock", dict(name="", lease=0x7eadbeef)),
    ("Lock", dict(name="b", lease=-5)), ("Range", dict(key="b/", range_end="b0")),
    ("Lock", dict(name="ü\x00x", lease=1)), ("Lock", dict(name=LONG, lease=1)),
    ("Lock", dict(name=20 * LONG, lease=1)),
    ("Unlock", dict(key="a/1")), ("Unlock", dict(key="a/1")), ("Unlock", {}),
    ("Unlock", dict(key="none")), ("Range", dict(key="a", range_end="b")),
    ("Lock", dict(name="chosen")), ("LeaseTimeToLive", dict(ID=1)),
    ("Leader", dict(name="e")), ("Leader", {}),
    ("Campaign", dict(name="e", lease=1, value="one")),
    ("Campaign", dict(name="e", lease=1, value="one")),
    ("Campaign", dict(name="e", lease=1, value="two")), ("Leader", dict(name="e")),
    ("Campaign", dict(name="e", lease=99, value="x")), ("Campaign", dict(name="f", value="x")),
    ("Campaign", dict(name="g", lease=1)), ("Leader", dict(name="g")),
    ("Proclaim", dict(value="x")), ("Proclaim", dict(leader={}, value="x")),
    ("Proclaim", dict(leader=dict(name="e", key="e/1", rev=1, lease=1), value="x")),
    ("Proclaim", dict(leader=dict(name="e", key="e/9", rev=1, lease=1), value="x")),
    ("Proclaim", dict(leader=dict(name="g", key="e/1", rev="e", lease=1), value="three")),
    ("Proclaim", dict(leader=dict(key="e/1", rev="e", lease=0x7eadbeef), value="four")),
    ("Proclaim", dict(leader=dict(key="e/1", rev="e", lease=98), value="five")),
    ("Leader", dict(name="e")),
    ("Resign", {}), ("Resign", dict(leader={})),
    ("Resign", dict(leader=dict(name="e", key="e/1", rev=1, lease=1))),
    ("Leader", dict(name="e")),
    ("Resign", dict(leader=dict(name="e", key="e/1", rev="e", lease=1))),
    ("Leader", dict(name="e")), ("Range", dict(key="e/", range_end="e0")),
    ("Proclaim", dict(leader=dict(name="e", key="e/1", rev="e", lease=1), value="six")),
    ("Put", dict(key="oo/", value="not a session's")), ("Leader", dict(name="oo")),
    ("Lock", dict(name="oo", lease=1, seconds=0.5)), ("Range", dict(key="oo/", range_end="oo0")),
    ("Campaign", dict(name="oo", lease=1, value="v", seconds=0.5)),
    ("Range", dict(key="oo/", range_end="oo0")),
    ("LeaseRevoke", dict(ID=1)), ("Range", dict(key="\0", range_end="\0")),
]


def play(cluster):
    out, rev = [], 0
    with Caller(cluster.nodes[-1].endpoint) as c:
        for call, fields in HISTORY:
            fields = dict(fields)
            if fields.get("leader", {}).get("rev") == "e":
                fields["leader"] = {**fields["leader"], "rev": rev}
            r = c.call(call, **fields)
            if fields.get("key") == "oo/" and call == "Range":  # what was given up goes soon
                wait_for("the key goes", lambda: c.ok(call, **fields)["count"] == 1)
                r = c.call(call, **fields)
            if call == "Campaign" and fields["name"] == "e" and "ok" in r:
                rev = r["ok"]["leader"]["rev"]
            text = re.sub(r"'(cluster_id|member_id|raft_term)': \d+", r"'\1': 0", str(r))
            text = re.sub(r"(f|chosen)/[0-9a-f]+", r"\1/<id>", text)
            text = re.sub(r"'lease': \d{12,}", "'lease': <id>", text)
            text = re.sub(r"'TTL': 5\d\d", "'TTL': 600", text)
            out.append((call, str(fields)[:200], text))
    return out


@pytest.mark.parametrize("size", [1, 3])
def test_the_same_calls_give_the_same_answers(size):
    need("etcd", "the real server, to compare with")
    with Cluster(size, real=True) as real:
        want = play(real)
    with Cluster(size) as ours:
        got = play(ours)
    for w, g in zip(want, got):
        assert g == w, f"\n real {w}\n ours {g}"
