"""locks: the class Lock of the Python client etcd3. Exits 0 when all answers are right.

The package has no elections, neither a class nor stubs. With the `tenacity` of Debian 12 its Lock
fails when it has to wait (its wait function has the arguments of old), so waiting is done here.
"""
import sys
import threading
import time

import etcd3

import dial


def one(c):
    """Taken, refused to another, refreshed, let go; a release by who does not hold it is none."""
    with c.lock("py", ttl=60) as mine:
        assert mine.is_acquired()
        token = c.get(mine.key)[1].create_revision
        other = c.lock("py", ttl=60)
        assert not other.acquire(timeout=0)
        assert not other.is_acquired() and not other.release() and mine.is_acquired()
        assert [r.TTL for r in mine.refresh()] == [60]
        assert written(c, mine.key, token)
    assert not mine.is_acquired()
    with other:
        assert other.is_acquired()
        assert not written(c, mine.key, token), "an old token was taken"


def written(c, key, token):
    return c.transaction(compare=[c.transactions.create(key) == token],
                         success=[c.transactions.put("py-data", str(token))], failure=[])[0]


def wait_for(lock, seconds=60):
    """Tries, and again whenever something happened to the key."""
    end = time.monotonic() + seconds
    while not lock.acquire(timeout=0):
        assert time.monotonic() < end, "the lock does not come free"
        try:
            lock.etcd_client.watch_once(lock.key, 0.5)
        except etcd3.exceptions.WatchTimedOut:
            pass


def who_waits_gets_it(c, other):
    mine = c.lock("py-turns", ttl=60)
    assert mine.acquire()
    theirs, got = other.lock("py-turns", ttl=60), []
    waiter = threading.Thread(target=lambda: got.append(wait_for(theirs)))
    waiter.start()
    assert mine.is_acquired() and not got
    assert mine.release()
    waiter.join(40)
    assert got == [None] and theirs.is_acquired() and not mine.is_acquired()
    assert theirs.release()


def a_lease_that_ends_ends_the_lock(c):
    mine = c.lock("py-short", ttl=2)
    assert mine.acquire()
    theirs = c.lock("py-short", ttl=60)
    wait_for(theirs)  # mine is not refreshed
    assert not mine.is_acquired() and not mine.release() and theirs.is_acquired()
    assert theirs.release()


c = dial.client(sys.argv[1])
one(c)
who_waits_gets_it(c, dial.client(sys.argv[1]))
a_lease_that_ends_ends_the_lock(c)
print("PASS")
