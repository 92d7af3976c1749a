#!/usr/bin/python3
"""A bad cable: delays and loses what goes over one port of a bridge, in both directions.

    nsenter --net=... wire.py PORT BRIDGE DELAY_MS JITTER_MS LOSS     until SIGTERM

The port leaves the bridge, a pair of virtual interfaces takes its place, and this program carries
the frames from one to the other, each DELAY_MS plus up to JITTER_MS later, in order, or not at all
(LOSS: 0..1). At the end the port is back in the bridge. It needs no queueing discipline of the
kernel, of which small kernels have few. Frames come with their virtio header, so that checksums and
segments that the kernel has put off stay put off.
"""
import collections
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time

SOL_PACKET, IGNORE_OUTGOING, VNET_HDR = 263, 23, 15
ETH_P_ALL = 3
FRAME_MAX = 70000
QUEUE_MAX = 20000


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def setting(interface, name, value):
    with open(f"/proc/sys/net/ipv4/conf/{interface}/{name}", "w") as f:
        f.write(value)


def tap(interface):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.setsockopt(SOL_PACKET, VNET_HDR, 1)
    s.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.bind((interface, ETH_P_ALL))
    s.setblocking(False)
    return s


class Direction:
    def __init__(self, source, target, delay, jitter, loss):
        self.source, self.target = source, target
        self.delay, self.jitter, self.loss = delay, jitter, loss
        self.flying = collections.deque()
        self.last = 0.0

    def take(self):
        for _ in range(64):
            try:
                frame = self.source.recv(FRAME_MAX)
            except BlockingIOError:
                return
            if random.random() < self.loss or len(self.flying) >= QUEUE_MAX:
                continue
            due = time.monotonic() + self.delay + random.random() * self.jitter
            self.last = max(self.last, due)
            self.flying.append((self.last, frame))

    def give(self):
        now = time.monotonic()
        while self.flying and self.flying[0][0] <= now:
            try:
                self.target.send(self.flying.popleft()[1])
            except OSError:
                pass  # as a cable: what does not get through is lost

    def due(self):
        return self.flying[0][0] if self.flying else None


def carry(directions, stopped):
    for d in directions:  # "ready": the port is ours
        d.source.setblocking(False)
    print("ready", flush=True)
    while not stopped:
        due = [d.due() for d in directions if d.due() is not None]
        wait = max(0.0, min(due) - time.monotonic()) if due else 0.2
        select.select([d.source for d in directions], [], [], min(wait, 0.2))
        for d in directions:
            d.take()
            d.give()


def main():
    port, bridge = sys.argv[1:3]
    delay, jitter = (float(ms) / 1000 for ms in sys.argv[3:5])
    loss = float(sys.argv[5])
    ours, bridged = f"w{os.getpid() % 100000}a", f"w{os.getpid() % 100000}b"
    stopped = []
    for signo in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signo, lambda *_: stopped.append(True))
    ip("link", "add", ours, "type", "veth", "peer", "name", bridged)
    try:
        ip("link", "set", port, "nomaster")
        for interface in (port, ours):  # the machine itself has nothing to say on them
            setting(interface, "arp_ignore", "8")
        ip("link", "set", bridged, "master", bridge, "up")
        ip("link", "set", ours, "up")
        a, b = tap(port), tap(ours)
        carry([Direction(a, b, delay, jitter, loss), Direction(b, a, delay, jitter, loss)], stopped)
    finally:
        subprocess.run(["ip", "link", "del", ours], check=False)
        if os.path.exists(f"/proc/sys/net/ipv4/conf/{port}"):  # gone with its container otherwise
            setting(port, "arp_ignore", "0")
            ip("link", "set", port, "master", bridge)


if __name__ == "__main__":
    main()
