"""A network of members, each in a namespace of its own, joined by a bridge in one more.

    with Net(3) as net:           # root; everything is gone afterwards
        with net.inside():        # this thread and what it starts: in the bridge's namespace
            ...
            net.cut(0, 1)         # what member 0 sends to member 1 is lost, silently
            net.heal()

A direction is cut by a wrong, permanent hardware address of the target: the frames leave and nobody
takes them, so the sender sees silence, as with a pulled cable, and no error. It needs no firewall.
"""
import contextlib
import ctypes
import os
import subprocess
import threading

CLONE_NEWNET = 0x40000000
NOBODY = "02:00:00:00:00:ff"


def ip(*words, ns=None):
    command = ["ip", "-n", ns, *words] if ns else ["ip", *words]
    r = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert r.returncode == 0, f"{command}: {r.stderr}"
    return r.stdout


def available():
    """Whether namespaces can be made here; the reason when not."""
    if os.geteuid() != 0:
        return "not root"
    name = f"bns{os.getpid()}t"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return made.stderr.strip()
    bridge = subprocess.run(["ip", "-n", name, "link", "add", "br0", "type", "bridge"],
                            capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], check=True)
    return bridge.stderr.strip() if bridge.returncode != 0 else None


def enter(path):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path) as f:
        if libc.setns(f.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")


@contextlib.contextmanager
def inside(name):
    """Only this thread and the processes it starts; the way back is always taken."""
    home = f"/proc/self/task/{threading.get_native_id()}/ns/net"
    with open(home) as back:
        enter(f"/run/netns/{name}")
        try:
            yield
        finally:
            enter(f"/proc/self/fd/{back.fileno()}")


class Net:
    def __init__(self, size):
        tag = f"bns{os.getpid() % 100000}"
        self.hub = tag + "hub"
        self.names = [f"{tag}n{i + 1}" for i in range(size)]
        self.hosts = [f"10.94.0.{i + 1}" for i in range(size)]
        self.broken = []

    def __enter__(self):
        try:
            self.make()
        except AssertionError:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def make(self):
        ip("netns", "add", self.hub)
        ip("link", "add", "br0", "type", "bridge", ns=self.hub)
        ip("addr", "add", "10.94.0.254/24", "dev", "br0", ns=self.hub)
        for link in ("lo", "br0"):
            ip("link", "set", link, "up", ns=self.hub)
        for i, name in enumerate(self.names):
            ip("netns", "add", name)
            ip("link", "add", f"v{i}", "type", "veth", "peer", "name", "eth0", "netns", name,
               ns=self.hub)
            ip("link", "set", f"v{i}", "master", "br0", "up", ns=self.hub)
            ip("addr", "add", self.hosts[i] + "/24", "dev", "eth0", ns=name)
            for link in ("lo", "eth0"):
                ip("link", "set", link, "up", ns=name)

    def close(self):
        for name in [*self.names, self.hub]:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)

    def inside(self):
        return inside(self.hub)

    def cut(self, source, target):
        ip("neigh", "replace", self.hosts[target], "lladdr", NOBODY, "dev", "eth0", "nud",
           "permanent", ns=self.names[source])
        self.broken.append((source, target))

    def heal(self):
        for source, target in self.broken:
            ip("neigh", "del", self.hosts[target], "dev", "eth0", ns=self.names[source])
        self.broken.clear()

    def prefix(self, i):
        """Before a command, to run it as member i."""
        return ["ip", "netns", "exec", self.names[i]]
