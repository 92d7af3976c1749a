"""Three members to strike at, as processes in network namespaces or as containers.

Both offer the same: members with `url`, `healthy()`, `is_leader()`; kill, pause and revive; the
network namespace of each, and the port of the bridge that its cable goes into; a small disk each;
and a wall clock each that can be stepped. The nemesis knows nothing else of them.
"""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request

import netns
from cluster import ROOT, Cluster, wait_for
from disk import Disk
from engine import Project

DISK_MIB = 192
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


class Clock:
    """A wall clock that libfaketime reads anew each time; the monotonic clock is left alone."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "clock")
        self.step(0)

    def step(self, seconds):
        with open(self.path + ".new", "w") as f:
            f.write(f"{seconds:+d}\n")
        os.rename(self.path + ".new", self.path)

    def variables(self, library, path):
        return {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": path,
                "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


class Group:
    """What both kinds have in common."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.disks = []
        self.clocks = []

    def make_disks(self):
        for _ in range(3):
            d = self.stack.enter_context(Disk(DISK_MIB))
            d.data = os.path.join(d.path, "data")
            os.mkdir(d.data)
            self.disks.append(d)

    def __exit__(self, *_):
        self.stack.close()

    @property
    def endpoints(self):
        return ",".join(m.url.split("//")[1] for m in self.members)

    def leader(self):
        for i, m in enumerate(self.members):
            try:
                if m.is_leader():
                    return i
            except (OSError, KeyError):
                pass
        return None

    def all_healthy(self):
        return all(m.healthy() for m in self.members)

    def in_network(self, i, *command, ok=True):
        """Runs a command in member i's network namespace."""
        r = subprocess.run(["nsenter", f"--net={self.network(i)}", *command],
                           capture_output=True, text=True, timeout=20)
        assert not ok or r.returncode == 0, f"{command}: {r.stderr}"
        return r.stdout

    def terms(self):
        return [m.metric("raft_term") for m in self.members]


class Processes(Group):
    """Processes of the matrix, each in a network namespace of its own."""

    kind = "processes"

    def __enter__(self):
        self.net = self.stack.enter_context(netns.Net(3))
        self.stack.enter_context(self.net.inside())
        self.hub = f"/run/netns/{self.net.hub}"
        self.make_disks()
        self.cluster = Cluster(3, hosts=self.net.hosts)
        self.members = self.cluster.nodes
        for i, m in enumerate(self.members):
            m.dir = self.disks[i].data
            clock = Clock(self.disks[i].base)
            faked = clock.variables(FAKETIME, clock.path)
            m.prefix = [*self.net.prefix(i), "env", *(f"{k}={v}" for k, v in faked.items())]
            self.clocks.append(clock)
        self.stack.enter_context(self.cluster)
        return self

    def print_logs(self):
        self.cluster.print_logs()

    def network(self, i):
        return f"/run/netns/{self.net.names[i]}"

    def address(self, i):
        return self.net.hosts[i]

    def interface(self, i):
        return "eth0"

    def port(self, i):
        return f"v{i}", "br0"

    def kill(self, i):
        self.members[i].kill()

    def revive(self, i):
        process = self.members[i].process
        if process is None or process.poll() is not None:
            self.members[i].start()

    def process_id(self, i):
        process = self.members[i].process
        return process.pid if process.poll() is None else None

    def pause(self, i):
        self.members[i].signal(signal.SIGSTOP)

    def resume(self, i):
        self.members[i].signal(signal.SIGCONT)

    def unplug(self, i):
        netns.ip("link", "set", f"v{i}", "down", ns=self.net.hub)

    def plug(self, i):
        netns.ip("link", "set", f"v{i}", "up", ns=self.net.hub)

    def inside(self):
        return contextlib.nullcontext()  # __enter__ went there


class Container:
    def __init__(self, group, i):
        self.group, self.i = group, i
        self.name = f"etcd{i + 1}"
        self.url = f"http://127.0.0.1:{2379 + 100 * i}"

    def get(self, path, timeout=5):
        with urllib.request.urlopen(self.url + path, timeout=timeout) as r:
            return r.read().decode()

    def healthy(self):
        return json.loads(self.get("/health"))["health"] == "true"

    def metric(self, name):
        for line in self.get("/metrics").splitlines():
            if line.split("{")[0].split(" ")[0] == name:
                return float(line.rsplit(" ", 1)[1])
        raise KeyError(name)

    def is_leader(self):
        return self.metric("etcd_server_is_leader") == 1


class Containers(Group):
    """The compose file's services, with disks and clocks of the test's."""

    kind = "containers"

    def __init__(self, engine):
        super().__init__()
        self.engine = engine

    def __enter__(self):
        self.stack.enter_context(self.engine.inside())
        self.hub = "/proc/self/ns/net"
        self.make_disks()
        work = tempfile.mkdtemp(prefix="bonsai-chaos-")
        self.stack.callback(shutil.rmtree, work, ignore_errors=True)
        self.members = [Container(self, i) for i in range(3)]
        for d in self.disks:
            os.chown(d.data, 65532, 65532)
            os.chmod(d.base, 0o755)  # the clock lies there
            self.clocks.append(Clock(d.base))
        override = os.path.join(work, "override.yaml")
        with open(override, "w") as f:
            json.dump(self.override(), f)  # JSON is YAML
        self.project = Project(
            self.engine, [os.path.join(ROOT, "docker", "compose.etcd-lite.yaml"), override],
            IMAGE=self.engine.image)
        self.stack.enter_context(self.project)
        self.project.compose("up", "-d")
        wait_for("all healthy", self.all_healthy, 60)
        return self

    def override(self):
        def service(i):
            return {
                "environment": self.clocks[i].variables("/lib/libfaketime.so.1", "/clock/clock"),
                "volumes": [f"{FAKETIME}:/lib/libfaketime.so.1:ro",
                            f"{self.disks[i].base}:/clock:ro"]}

        def volume(i):
            return {"driver": "local", "driver_opts": {
                "type": "none", "o": "bind", "device": self.disks[i].data}}

        return {"services": {m.name: service(m.i) for m in self.members},
                "volumes": {m.name: volume(m.i) for m in self.members}}

    def print_logs(self):
        print(self.project.compose("logs", "--no-color", "--tail", "40", ok=False).stdout)

    def process_id(self, i):
        return int(self.project.inspect(self.members[i].name, "{{.State.Pid}}"))

    def network(self, i):
        return f"/proc/{self.process_id(i)}/ns/net"

    def address(self, i):
        return self.project.inspect(
            self.members[i].name,
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")

    def link(self, i):
        """Name of the container's interface, another one after each plug; its peer's number."""
        for line in self.in_network(i, "ip", "-o", "link").splitlines():
            name = line.split(": ")[1]
            if "@if" in name:
                return name.split("@if")
        raise AssertionError(f"member {i + 1} has no network")

    def interface(self, i):
        return self.link(i)[0]

    def port(self, i):
        """The interface of the bridge whose number the container's own one names as its peer."""
        number = self.link(i)[1]
        for line in netns.ip("-o", "link").splitlines():
            if line.split(":")[0] == number:
                name = line.split(": ")[1].split("@")[0]
                return name, line.split(" master ")[1].split()[0]
        raise AssertionError(f"no interface {number}")

    def kill(self, i):
        os.kill(self.process_id(i), signal.SIGKILL)

    def revive(self, i):
        """The restart policy does it."""

    def pause(self, i):
        self.engine.docker("pause", self.project.id(self.members[i].name))

    def resume(self, i):
        self.engine.docker("unpause", self.project.id(self.members[i].name))

    def unplug(self, i):
        self.engine.docker("network", "disconnect", f"{self.project.name}_default",
                           self.project.id(self.members[i].name))

    def plug(self, i):
        self.engine.docker("network", "connect", "--alias", self.members[i].name,
                           f"{self.project.name}_default",
                           self.project.id(self.members[i].name))
