"""A network of its own with a name server that we are: for programs that ask the system's resolver.

    with Box(zone) as box:              # root; all of it is gone afterwards
        box.run("etcdctl", ...)         # inside: 127.0.0.0/8, /etc/resolv.conf names 127.0.0.1
        process = box.start("etcd", ...)

zone: {"n1.example": "127.0.0.2", "_x._tcp.example": [(priority, weight, port, "n1.example"), ...]}
The server knows what the queries of getaddrinfo and of SRV lookups need, and nothing else; for a
name in "mute" it never answers.
"""
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile

A, SRV = 1, 33


def available():
    """Whether such a network can be made here; the reason when not."""
    if os.geteuid() != 0:
        return "not root"
    r = subprocess.run(["unshare", "--net", "--mount", "ip", "link", "set", "lo", "up"],
                       capture_output=True, text=True)
    return None if r.returncode == 0 else r.stderr.strip()


class Box:
    def __init__(self, zone, mute=()):
        self.zone, self.mute, self.children = zone, list(mute), []

    def __enter__(self):
        self.resolv = tempfile.NamedTemporaryFile("w", suffix=".conf")
        self.resolv.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        self.resolv.flush()
        script = 'ip link set lo up && mount --bind "$1" /etc/resolv.conf && exec "$2" "$3" "$4"'
        self.server = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", script, "sh",
             self.resolv.name, sys.executable, os.path.abspath(__file__),
             json.dumps([self.zone, self.mute])], stdout=subprocess.PIPE, text=True)
        assert self.server.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        for p in self.children + [self.server]:
            p.kill()
            p.wait()
        self.server.stdout.close()
        self.resolv.close()

    def inside(self, words):
        """A mount namespace of its own again: to enter another's would lead out of a chroot."""
        return ["nsenter", "-t", str(self.server.pid), "--net", "--", "unshare", "--mount",
                "--propagation", "private", "sh", "-ec",
                'mount --bind "$0" /etc/resolv.conf && exec "$@"', self.resolv.name, *words]

    def run(self, *words, timeout=30):
        r = subprocess.run(self.inside(words), capture_output=True, text=True, timeout=timeout,
                           env={**os.environ, "ETCDCTL_API": "3"})
        return r.returncode, r.stdout, r.stderr

    def start(self, *words, log):
        with open(log, "ab") as f:
            p = subprocess.Popen(self.inside(words), stdout=f, stderr=f, stdin=subprocess.DEVNULL)
        self.children.append(p)
        return p

    def end(self, process):
        process.terminate()
        self.children.remove(process)
        return process.wait(timeout=20)


def name_at(message, at):
    labels = []
    while message[at] != 0:
        labels.append(message[at + 1:at + 1 + message[at]].decode())
        at += 1 + message[at]
    return ".".join(labels), at + 1


def packed(name):
    return b"".join(bytes([len(x)]) + x.encode() for x in name.split(".")) + b"\0"


def answer(query, zone, mute):
    name, end = name_at(query, 12)
    kind, = struct.unpack(">H", query[end:end + 2])
    known = zone.get(name.lower())
    if name in mute:
        return None
    data = []
    if kind == A and isinstance(known, str):
        data = [socket.inet_aton(known)]
    elif kind == SRV and isinstance(known, list):
        data = [struct.pack(">HHH", *r[:3]) + packed(r[3]) for r in known]
    flags = 0x8180 if known is not None else 0x8183  # no such name
    head = query[:2] + struct.pack(">HHHHH", flags, 1, len(data), 0, 0)
    records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(d)) + d for d in data)
    return head + query[12:end + 4] + records


def main():
    zone, mute = json.loads(sys.argv[1])
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 53))
    print("ready", flush=True)
    while True:
        query, peer = s.recvfrom(4096)
        reply = answer(query, zone, mute)
        if reply is not None:
            s.sendto(reply, peer)


if __name__ == "__main__":
    main()
