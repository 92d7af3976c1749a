"""The image and the compose files do what they say: small, quickly healthy, and a node that comes
back with another address is found by its name."""
import json
import os
import tarfile
import tempfile
import time

import pytest

from cluster import ETCDCTL, ROOT, wait_for
from engine import Project, run

NODES = ["etcd1", "etcd2", "etcd3"]
PORTS = dict(zip(NODES, (2379, 2479, 2579)))
IMAGE_MIB_MAX = 60
HEALTHY_S_MAX = 10


def ctl(engine, *words, nodes=NODES, ok=True):
    endpoints = ",".join(f"127.0.0.1:{PORTS[n]}" for n in nodes)
    with engine.inside():
        return run(ETCDCTL, "--endpoints", endpoints, *words,
                   env={**os.environ, "ETCDCTL_API": "3"}, ok=ok, timeout=30)


@pytest.fixture(scope="module")
def cluster(engine):
    """compose.yaml; test_chaos.py runs compose.etcd-lite.yaml."""
    with Project(engine, [os.path.join(ROOT, "docker", "compose.yaml")],
                 IMAGE=engine.image) as p:
        began = time.monotonic()
        p.compose("up", "-d")
        wait_for("all healthy", lambda: all(p.health(n) == "healthy" for n in NODES), 60)
        p.seconds = time.monotonic() - began
        yield p


def test_the_image_is_small_and_has_no_root_in_it(engine):
    about = json.loads(engine.docker("image", "inspect", engine.image))[0]
    mib = about["Size"] / (1 << 20)
    print(f"image: {mib:.1f} MiB, built in {engine.seconds_to_build:.1f} s")
    assert mib <= IMAGE_MIB_MAX
    assert about["Config"]["User"] == "65532:65532"
    assert about["Config"]["Healthcheck"]["Test"][0] == "CMD"
    shell = run("docker", "run", "--rm", "--network", "none", engine.image, "sh", env=engine.env,
                ok=False)
    assert shell.returncode == 127, shell.stderr


def test_the_image_holds_programs_libraries_and_their_licences(engine):
    made = engine.docker("create", engine.image).strip()
    try:
        with tempfile.NamedTemporaryFile(suffix=".tar") as f:
            engine.docker("export", "-o", f.name, made)
            with tarfile.open(f.name) as tar:
                files = {m.name: m for m in tar if m.isfile() and m.size > 0}
    finally:
        engine.docker("rm", "-v", made)
    programs = [name for name, m in files.items() if m.mode & 0o111 and "/lib" not in "/" + name]
    assert sorted(programs) == ["usr/bin/bonsai", "usr/bin/etcd-lite"]
    libraries = {name.split("/")[-1].split(".so")[0] for name in files if ".so." in name}
    assert {"libc", "libuv", "libsqlite3", "libcrypto"} <= libraries
    for package in ("libc6", "libuv1", "libsqlite3-0", "libssl3"):
        assert f"usr/share/doc/{package}/copyright" in files
    assert not any(m.mode & 0o6000 for m in files.values())


def test_one_container_with_nothing_said_serves_and_ends_at_once(engine):
    name = "bns-alone"
    try:
        engine.docker("run", "-d", "--name", name, "-p", "127.0.0.1:22379:2379", engine.image)
        state = "{{.State.Health.Status}}"
        wait_for("healthy", lambda: engine.docker(
            "inspect", "-f", state, name).strip() == "healthy", 60)
        began = time.monotonic()
        engine.docker("stop", "-t", "30", name)
        assert time.monotonic() - began < 20
        assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", name).strip() == "0"
    finally:
        engine.docker("rm", "-f", "-v", name)


def test_all_are_healthy_in_time_and_serve(engine, cluster):
    print(f"compose up to all healthy: {cluster.seconds:.1f} s")
    busy = max(1, os.getloadavg()[0] / os.cpu_count())  # other work takes its share of the time
    assert cluster.seconds <= HEALTHY_S_MAX * busy
    for n in NODES:
        assert ctl(engine, "put", "from", n, nodes=[n]).stdout == "OK\n"
        assert ctl(engine, "get", "from", "--print-value-only").stdout == n + "\n"


def test_a_killed_node_is_restarted_with_what_it_had(engine, cluster):
    ctl(engine, "put", "kept", "yes")
    pid = int(cluster.inspect("etcd2", "{{.State.Pid}}"))
    os.kill(pid, 9)
    wait_for("another process", lambda: cluster.inspect(
        "etcd2", "{{.State.Pid}}") not in ("0", str(pid)), 60)
    wait_for("healthy", lambda: cluster.health("etcd2") == "healthy", 60)
    got = ctl(engine, "get", "kept", "--consistency=s", "--print-value-only", nodes=["etcd2"])
    assert got.stdout == "yes\n"


def test_a_node_that_comes_back_elsewhere_is_found_by_its_name(engine, cluster):
    """One other stops, and the third gets a new address: a quorum needs its name asked anew."""
    address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    network = f"{cluster.name}_default"
    before = cluster.inspect("etcd3", address)
    strangers = []
    engine.docker("network", "disconnect", network, cluster.id("etcd3"))
    try:
        while before not in (engine.docker("inspect", "-f", address, s).strip() for s in strangers):
            assert len(strangers) < 8, "nobody was given the address that was free"
            strangers.append(engine.docker("run", "-d", "--network", network, engine.image).strip())
        cluster.compose("stop", "-t", "10", "etcd2")
        engine.docker("network", "connect", "--alias", "etcd3", network, cluster.id("etcd3"))
        after = cluster.inspect("etcd3", address)
        assert after not in ("", before)
        wait_for("a quorum of the two", lambda: ctl(
            engine, "put", "moved", "yes", nodes=["etcd1"], ok=False).returncode == 0, 60)
    finally:
        engine.docker("rm", "-f", "-v", *strangers)
        cluster.compose("start", "etcd2")
    wait_for("healthy", lambda: all(cluster.health(n) == "healthy" for n in NODES), 60)
