"""The faults. Each is a context manager over (members, victim): inside it the fault is in force,
and at its end it is undone. They work alike on processes and on containers."""
import contextlib
import subprocess
import sys
import os

from netns import NOBODY

WIRE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "wire.py")


@contextlib.contextmanager
def kill(m, i):
    """SIGKILL, and a new start."""
    m.kill(i)
    try:
        yield
    finally:
        m.revive(i)


@contextlib.contextmanager
def pause(m, i):
    """SIGSTOP; containers: the freezer."""
    m.pause(i)
    try:
        yield
    finally:
        m.resume(i)


@contextlib.contextmanager
def unplugged(m, i):
    """The cable is pulled; a container may come back with another address."""
    m.unplug(i)
    try:
        yield
    finally:
        m.plug(i)


def _silence(m, source, target):
    """What source sends to target is lost: a hardware address that nobody has."""
    m.in_network(source, "ip", "neigh", "replace", m.address(target), "lladdr", NOBODY, "dev",
                 m.interface(source), "nud", "permanent")


@contextlib.contextmanager
def _cut(m, pairs):
    done = []
    try:
        for source, target in pairs:
            _silence(m, source, target)
            done.append((source, m.address(target)))
        yield
    finally:
        for source, address in done:
            m.in_network(source, "ip", "neigh", "del", address, "dev", m.interface(source))


def cannot_send(m, i):
    """One way: it hears the others, and nobody hears it."""
    return _cut(m, [(i, other) for other in range(3) if other != i])


def cannot_hear(m, i):
    """One way: it is heard, and hears nobody."""
    return _cut(m, [(other, i) for other in range(3) if other != i])


@contextlib.contextmanager
def _cable(m, i, delay_ms, jitter_ms, loss):
    port, bridge = m.port(i)
    cable = subprocess.Popen(
        ["nsenter", f"--net={m.hub}", sys.executable, WIRE, port, bridge, str(delay_ms),
         str(jitter_ms), str(loss)], stdout=subprocess.PIPE, text=True)
    try:
        assert cable.stdout.readline() == "ready\n", "the cable does not carry"
        yield
    finally:
        cable.terminate()
        cable.wait(timeout=20)
        cable.stdout.close()


def slow_cable(m, i):
    """100 to 200 ms each way."""
    return _cable(m, i, 100, 100, 0)


def lossy_cable(m, i):
    """Three of ten frames are lost, in both directions."""
    return _cable(m, i, 0, 0, 0.3)


@contextlib.contextmanager
def full_disk(m, i):
    """Less room than the member keeps in reserve: it takes no more writes, and runs on."""
    before = m.process_id(i)
    m.disks[i].fill(leave_mib=16)
    try:
        yield
    finally:
        m.disks[i].free()
    assert m.process_id(i) == before, "it has ended"


@contextlib.contextmanager
def no_block_left(m, i):
    """The reserve is gone too. It may end, rather than acknowledge what it could not store."""
    m.disks[i].fill(leave_mib=0)
    try:
        yield
    finally:
        m.disks[i].free()
        m.revive(i)


@contextlib.contextmanager
def stepped_clock(m, i):
    """The wall clock goes an hour ahead of the others', at the end two hours back, then right."""
    m.clocks[i].step(3600)
    try:
        yield
        m.clocks[i].step(-3600)
    finally:
        m.clocks[i].step(0)


FAULTS = {f.__name__: f for f in (kill, pause, unplugged, cannot_send, cannot_hear, slow_cable,
                                  lossy_cable, full_disk, no_block_left,
                                  stepped_clock)}
