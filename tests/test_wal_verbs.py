"""Goal:   `bonsai wal dump|verify|repair|stat` say what is in a log, and what is wrong with it.
Method: the log is written here, byte by byte, from the format at the top of wal.c: a second
        implementation, so that a change of the format by mistake shows.

    test_wal_verbs.py BONSAI [-v]"""
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

BONSAI = None
TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)
SALT = 0x5eed


def crc32c(seed, data):
    c = seed ^ 0xffffffff
    for b in data:
        c = c >> 8 ^ TABLE[(c ^ b) & 0xff]
    return c ^ 0xffffffff


def record(lsn, durable, group, kind, payload, prev, flags=0):
    """Returns the framed record and its head_crc."""
    tail = struct.pack("<IQQIIIBBH", crc32c(SALT, payload), lsn, durable, len(payload), group, prev,
                       kind, flags, 0)
    crc = crc32c(SALT, tail)
    return struct.pack("<I", crc) + tail + payload + b"\0" * (-len(payload) % 8), crc


def segment(records, size=65536):
    head = struct.pack("<I8sQ16sIIQ", 2, b"BNSWAL\0\1", 1, b"0123456789abcdef", SALT, size, 0)
    head += b"\0" * (60 - len(head))
    prev = crc32c(0, head)
    out = struct.pack("<I", prev) + head
    for i, (group, kind, payload) in enumerate(records):
        framed, prev = record(i + 1, i, group, kind, payload, prev)
        out += framed
    return out + b"\0" * (size - len(out))


CHECKPOINT = (0, 5, b"\0" * 8)
ENTRY = (1, 1, struct.pack("<QQB", 7, 3, 0) + b"hello")
STATE = (1, 2, struct.pack("<QQQ", 3, 0xabc, 6))
TRUNCATE = (2, 3, struct.pack("<Q", 5))
NAME = "wal-0000000000000001.seg"


class WalVerbs(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="bonsai-wal-")
        self.wal = os.path.join(self.dir, "wal")
        os.mkdir(self.wal)
        self.file = os.path.join(self.wal, NAME)
        with open(self.file, "wb") as f:
            f.write(segment([CHECKPOINT, ENTRY, STATE, TRUNCATE]))

    def tearDown(self):
        shutil.rmtree(self.dir)

    def test_another_format_is_refused_and_named(self):
        with open(self.file, "r+b") as f:
            head = bytearray(f.read(64))
            head[4] = 1
            head[0:4] = struct.pack("<I", crc32c(0, bytes(head[4:])))
            f.seek(0)
            f.write(head)
        for verb in ("dump", "verify", "stat"):
            r = self.run_verb(verb, self.wal)
            self.assertNotEqual(r.returncode, 0)
            self.assertIn("has format version 1, this program has version 2", r.stderr)

    def run_verb(self, *args):
        return subprocess.run([BONSAI, "wal", *args], capture_output=True, text=True, timeout=60)

    def damage(self, offset):
        with open(self.file, "r+b") as f:
            f.seek(offset)
            b = f.read(1)
            f.seek(offset)
            f.write(bytes([b[0] ^ 1]))

    def test_dump_shows_every_record(self):
        r = self.run_verb("dump", self.wal)
        self.assertEqual(r.returncode, 0, r.stderr)
        lines = r.stdout.splitlines()
        self.assertEqual(len(lines), 4)
        self.assertIn("lsn=1 ", lines[0])
        self.assertIn("offset=64 group=0 type=checkpoint bytes=8", lines[0])
        self.assertIn("group=1 type=entry bytes=22 index=7 term=3 kind=0 data=68656c6c6f", lines[1])
        self.assertIn("type=state bytes=24 term=3 vote=abc commit=6", lines[2])
        self.assertIn("group=2 type=truncate bytes=8 from=5", lines[3])

    def test_stat_counts(self):
        r = self.run_verb("stat", self.wal)
        self.assertEqual(r.returncode, 0, r.stderr)
        for text in ("segments  1\n", "records   4\n", "bytes     62\n", "lsn       1 .. 4\n",
                     "  entry      1\n", "group 1   2 records, 46 bytes\n"):
            self.assertIn(text, r.stdout)

    def test_verify_tells_good_from_bad(self):
        r = self.run_verb("verify", self.wal)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("fine; 4 records, lsn 1 .. 4", r.stdout)
        self.damage(64 + 48 + 20)  # inside record 2, which the durable of record 3 vouches for
        r = self.run_verb("verify", self.wal)
        self.assertEqual(r.returncode, 4)
        self.assertIn(NAME, r.stderr)
        self.assertIn("bonsai wal repair " + self.wal, r.stderr)

    def test_repair_cuts_and_then_all_is_fine(self):
        r = self.run_verb("repair", self.wal)
        self.assertEqual((r.returncode, r.stdout), (0, self.wal + ": nothing to repair\n"))
        self.damage(64 + 48 + 20)
        r = self.run_verb("repair", self.wal)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertRegex(r.stdout, r": cut; \d+ bytes given up\n")
        r = self.run_verb("verify", self.wal)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("1 records", r.stdout)

    def test_repair_is_refused_while_a_daemon_runs(self):
        for where in ("wal/LOCK", "LOCK"):
            with open(os.path.join(self.dir, where), "w") as f:
                fcntl.flock(f, fcntl.LOCK_EX)
                r = self.run_verb("repair", self.wal)
                self.assertEqual(r.returncode, 5)
                self.assertIn("stop the daemon first", r.stderr)
            os.unlink(os.path.join(self.dir, where))

    def test_wrong_words_are_named(self):
        for args, code, text in ((["dmup", self.wal], 2, "did you mean 'dump'?"),
                                 (["frob", self.wal], 2, "see bonsai wal --help"),
                                 (["dump"], 2, "usage: bonsai wal"),
                                 ([], 2, "usage: bonsai wal"),
                                 (["verify", self.dir + "/none"], 1, "none")):
            r = self.run_verb(*args)
            self.assertEqual(r.returncode, code, args)
            self.assertIn(text, r.stderr)


if __name__ == "__main__":
    BONSAI = os.path.abspath(sys.argv.pop(1))
    unittest.main()
