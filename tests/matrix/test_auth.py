"""Users, roles and permissions with real clients; etcdctl's answers are those of the real etcd.

What differs from etcd 3.4 is what later releases changed: the role root shows its permission, and
what needs an administrator says so with the code of the error, on more methods.
"""
import re

import pytest

from cluster import Cluster
from conftest import need

R = "--user root:pw "
A = "--user ann:a1 "
# One history of etcdctl command lines.
HISTORY = [
    "auth enable", "user add root:pw", "auth enable",
    "user add --no-password nopw", "user add ann:a1", "user add ann:a1", "user add '':x",
    "user get ann", "user get nobody", "user delete nobody",
    "role add reader", "role add reader", "role add writer", "role add ''", "role get reader",
    "role get nope", "role grant-permission reader read /a",
    "role grant-permission reader read /b /c", "role grant-permission reader read /b /c",
    "role grant-permission reader readwrite /b /c", "role grant-permission nope read /a",
    "role grant-permission reader bogus /a", "role grant-permission writer write /w --prefix",
    "role grant-permission writer readwrite /z --from-key", "role get reader", "role get writer",
    "role revoke-permission reader /zzz", "role revoke-permission nope /zzz",
    "role revoke-permission reader /a", "role get reader", "role grant-permission reader read /a",
    "user grant-role ann reader", "user grant-role ann reader", "user grant-role ann nope",
    "user grant-role nobody reader", "user get ann", "user get ann --detail",
    "user revoke-role ann writer", "user revoke-role nobody writer",
    "user revoke-role ann reader", "user grant-role ann reader", "user list", "role list",
    "auth enable", "user get root", "get /a", "auth enable", "auth disable", "put /a 1",
    "--user ann:wrong get /a", A + "get /a", "--user nobody:a1 get /a", "--user nopw:x get /a",
    R + "put /a 1", R + "put /b1 2", A + "get /a", A + "get /b /c", A + "get /b --prefix",
    A + "get /bx", A + "get /c", A + "get /a /c", A + "get /a --from-key", A + "put /a 2",
    A + "put /b5 2", A + "del /b5", A + "del /b /c", A + "del /b /c --prev-kv", A + "put /c 2",
    R + "user grant-role ann writer", A + "put /w1 x", A + "put /w1 x --prev-kv", A + "get /w1",
    A + "del /w --prefix", A + "del /w --prefix --prev-kv", A + "put /zz x",
    A + "get /z --from-key", A + "get /y --from-key",
    A + "user list", A + "user get ann", A + "user get root", A + "role get reader",
    A + "role get root", A + "role list", A + "role add x", A + "user add q:q",
    A + "auth disable", R + "role add root", R + "user delete root",
    R + "user revoke-role root root", R + "role delete root", R + "role delete nope",
    R + "role delete reader", R + "user get ann", A + "get /a", R + "user delete ann",
    A + "get /a", R + "compaction 2", R + "alarm list", R + "auth disable", "user list", "get /a",
    "auth disable",
]
STAMP = re.compile(r'^\{"level":.*?\n', re.M)  # etcdctl's own log lines carry time and endpoint


def run(cluster, line):
    import shlex
    code, out, err = cluster.ctl(*shlex.split(line), ok=None,
                                 endpoint=cluster.nodes[0].endpoint)
    return code, out, STAMP.sub("", err)


@pytest.mark.parametrize("size", [1, 3])
def test_etcdctl_gets_the_answers_of_the_real_etcd(size):
    need("etcdctl", "the real client")
    need("etcd", "the real server, to compare with")
    with Cluster(size, flags=["--bcrypt-cost", "4"]) as ours, \
            Cluster(size, real=True, flags=["--bcrypt-cost", "4"]) as real:
        for line in HISTORY:
            want, got = run(real, line), run(ours, line)
            assert got == want, f"after {line!r}\n real {want}\n ours {got}"
