"""Goal:   every command of the README's sh blocks works as it stands there, in that order.
Method: run in the tree that built them, with the ports and the data directory moved away by the
        environment (BONSAI_*, ETCDCTL_ENDPOINTS), so that a cluster that runs here is left alone.

    test_readme.py [-v]"""
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from test_bonsai import free_shift

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

# What the output of a command has to hold, by the command's beginning.
EXPECTED = {
    "make up": "ready",
    "ETCDCTL_API=3 etcdctl put greeting hello": "OK\n",
    "ETCDCTL_API=3 etcdctl get greeting": "greeting\nhello\n",
    "ETCDCTL_API=3 etcdctl get \"\"": '"kvs":[{"key":"Z3JlZXRpbmc="',
    "ETCDCTL_API=3 etcdctl del greeting": "1\n",
    "make demo": "That is the story so far.",
    "build/release/bin/bonsai status": "ready",
    "build/release/bin/bonsai logs": "etcd-lite n1 | ",
    "build/release/bin/bonsai --help": "up ",
    "build/release/bin/bonsai wal --help": "dump",
    "build/release/bin/bonsai sim --help": "replay",
    "make down": "stopped",
}


class Readme(unittest.TestCase):
    def test_every_command_works(self):
        with open(os.path.join(ROOT, "README.md")) as f:
            blocks = re.findall(r"^```sh\n(.*?)^```$", f.read(), re.M | re.S)
        commands = [c for b in blocks for c in b.splitlines() if c]
        self.assertGreaterEqual(len(commands), len(EXPECTED) - 1)
        data = tempfile.mkdtemp(prefix="bonsai-readme-")
        shift = free_shift()
        env = dict(os.environ, BONSAI_DATA_DIR=data, BONSAI_PORT_SHIFT=str(shift),
                   ETCDCTL_ENDPOINTS="127.0.0.1:%d" % (2379 + shift))
        try:
            for c in commands:
                with self.subTest(c):
                    r = subprocess.run(c, shell=True, cwd=ROOT, env=env, capture_output=True,
                                       text=True, timeout=600)
                    self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
                    wanted = [v for k, v in EXPECTED.items() if c.startswith(k)]
                    self.assertEqual(len(wanted), 1, "a command that this test does not know")
                    self.assertIn(wanted[0], r.stdout)
                    if c == "make demo":
                        self.check_demo(r.stdout, data)
        finally:
            subprocess.run(["build/release/bin/bonsai", "down"], cwd=ROOT, env=env,
                           capture_output=True, check=True)
            shutil.rmtree(data)

    def check_demo(self, told, data):
        """The watch saw every put, over the death of the leader; the run was drawn."""
        seen = re.findall(r"watch \| PUT demo/counter (\d)", told)
        self.assertEqual(sorted(set(seen)), list("012345678"))
        before, after = told.split("$ kill -9 ")
        self.assertIn("watch | PUT demo/counter 3\n", before)
        self.assertIn("watch | PUT demo/counter 8\n", after)
        page = os.path.join(data, "demo.html")
        self.assertIn("file://" + page, told)
        with open(page) as f:
            self.assertIn('"format":"bonsai-trace"', f.read())

    def test_the_makefile_has_every_target_that_is_named(self):
        with open(os.path.join(ROOT, "Makefile")) as f:
            targets = " ".join(re.findall(r"^\.PHONY: (.*)$", f.read(), re.M)).split()
        named = set()
        for doc in ("README.md", "docs/testing.md", "docs/architecture.md"):
            with open(os.path.join(ROOT, doc)) as f:
                named |= set(re.findall(r"`make (\w+)`", f.read()))
        self.assertTrue(named)
        self.assertEqual(named - set(targets), set())


if __name__ == "__main__":
    unittest.main()
