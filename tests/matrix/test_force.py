"""--force-new-cluster: a quorum is gone for good, one member goes on alone with its data."""
import pytest

from cluster import Cluster, Node, wait_for
from test_tls import read


@pytest.mark.parametrize("count", [0, 300], ids=["log", "checkpoint"])
def test_one_goes_on_alone(count):
    flags = ["--snapshot-count=100", "--snapshot-catchup-entries=10"] if count else []
    with Cluster(3, flags=flags) as c:
        first, second, third = c.nodes
        for i in range(count // 10):
            for k in range(10):
                c.ctl("put", f"k{i}", str(k), endpoint=third.endpoint)
        c.ctl("put", "a", "1", endpoint=third.endpoint)
        before = c.ctl("get", "", "--prefix", endpoint=third.endpoint)
        for n in c.nodes:
            n.kill()
        third.start("--force-new-cluster")
        wait_for("healthy alone", third.healthy)
        assert c.ctl("get", "", "--prefix", endpoint=third.endpoint) == before
        assert c.ctl("put", "a", "2", endpoint=third.endpoint) == "OK\n"
        members = c.ctl("member", "list", endpoint=third.endpoint).splitlines()
        assert len(members) == 1 and third.peer_url in members[0] and "started" in members[0]
        for more in ((), ("--force-new-cluster",), ()):  # it stays so, and the flag may stay
            third.kill()
            third.start(*more)
            wait_for("healthy again", third.healthy)
            assert c.ctl("get", "a", endpoint=third.endpoint) == "a\n2\n"
            assert len(c.ctl("member", "list", endpoint=third.endpoint).splitlines()) == 1
        # who comes back after all is told, and stops
        first.start()
        assert first.process.wait(timeout=30) == 0
        first.process = None
        assert "permanently removed" in read(first.log)
        # and it grows again
        n = Node(c, 2)
        n.dir += "-new"
        c.ctl("member", "add", "n2", "--peer-urls=" + n.peer_url, endpoint=third.endpoint)
        c.initial = f"n3={third.peer_url},n2={n.peer_url}"
        c.nodes.append(n)
        n.start("--initial-cluster-state", "existing")
        wait_for("two of them", n.healthy)
        assert c.ctl("get", "a", endpoint=n.endpoint) == "a\n2\n"


def test_without_data_it_is_a_first_start():
    with Cluster(1, flags=["--force-new-cluster"]) as c:
        assert c.ctl("put", "a", "1") == "OK\n"
