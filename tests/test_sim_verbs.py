"""Goal:   `bonsai sim run|replay|shrink` drive a simulation program as its command line says, find
        the smallest run that fails in the same way, and refuse damaged seeds and traces.
Method: a copy of bonsai in a directory with a program of our own in the place of the simulation,
        which fails when it is told to; then the real one, with a planted bug.

    test_sim_verbs.py BONSAI [SIM_DAEMON]"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BONSAI = SIM = None

# Fails with the word "torn" when there is a crash and at least two nodes, with another one when
# there is an eio and no crash; writes down how it was called.
FAKE = r'''#!/usr/bin/python3
import os, sys
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "calls"), "a") as f:
    f.write(os.environ.get("BNS_SEED", "-") + " " + " ".join(sys.argv[1:]) + "\n")
seed = os.environ.get("BNS_SEED")
if "--describe" in args:
    print("--nodes 5 --clients 3 --seconds 40 --faults loss,crash,eio")
    sys.exit(0)
if seed is None:
    sys.exit(1 if int(args["--start"]) <= 13 < int(args["--start"]) + int(args["--hunt"]) else 0)
if seed == "0x5":
    print("a line of another kind\nseed 0x5: ok")
    sys.exit(0)
if seed == "0x6":
    os.kill(os.getpid(), 9)
if args.get("--nodes") == "x":
    print("bad option", file=sys.stderr)
    sys.exit(2)
faults = args.get("--faults", "loss,crash,eio").split(",")
if "crash" in faults and int(args.get("--nodes", 5)) >= 2 and int(args.get("--seconds", 40)) >= 7:
    print("noise\nseed 0xd: entry %s is torn" % args.get("--seconds", 40), file=sys.stderr)
    sys.exit(1)
if "eio" in faults:
    print("seed 0xd: another failure", file=sys.stderr)
    sys.exit(1)
'''


class Verbs(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="bonsai-sim-")
        self.addCleanup(shutil.rmtree, self.dir)
        shutil.copy(BONSAI, self.path("bonsai"))
        with open(self.path("sim_daemon"), "w") as f:
            f.write(FAKE)
        os.chmod(self.path("sim_daemon"), 0o755)

    def path(self, name):
        return os.path.join(self.dir, name)

    def sim(self, *args, code=0, **env):
        full = {k: v for k, v in os.environ.items() if not k.startswith("BNS_")}
        full.update(env)
        r = subprocess.run([self.path("bonsai"), "sim", *args], capture_output=True, text=True,
                           timeout=120, cwd=self.dir, env=full)
        self.assertEqual(r.returncode, code, r.stdout + r.stderr)
        return r

    def calls(self):
        with open(self.path("calls")) as f:
            return sorted(f.read().splitlines())

    def test_run_shares_out_the_seeds(self):
        self.sim("run", "etcd-lite", "--seeds", "10", "--start", "0x14", "--jobs", "3")
        self.assertEqual(self.calls(), ["- --hunt 3 --start 20", "- --hunt 3 --start 23",
                                        "- --hunt 4 --start 26"])

    def test_run_fails_when_a_seed_does(self):
        self.sim("run", "etcd-lite", "-n", "20", "-j", "4", code=1)
        self.assertEqual(len(self.calls()), 4)

    def test_replay_passes_its_flags_on(self):
        r = self.sim("replay", "etcd-lite", "13", "--nodes", "3", "--trace", "t", code=1)
        self.assertIn("torn", r.stderr)
        self.assertEqual(self.calls(), ["0xd --trace t --nodes 3"])
        self.sim("replay", "etcd-lite", "0x5")
        self.sim("replay", "etcd-lite", "5", "--nodes", "x")
        self.assertEqual(self.sim("replay", "etcd-lite", "4", "--nodes", "x", code=2).stdout,
                         "")
        self.assertIn("signal 9", self.sim("replay", "etcd-lite", "6", code=1).stderr)

    def test_a_trace_has_its_seed(self):
        head = {"format": "bonsai-trace", "version": 1, "seed": "0x5", "title": "", "events": 0,
                "skipped": 0, "nodes": [{"name": "n0", "kind": "server", "state": "up",
                                         "role": ""}]}
        good = json.dumps(head, separators=(",", ":")) + "\n"
        with open(self.path("good"), "w") as f:
            f.write(good)
        self.sim("replay", "etcd-lite", "good")
        self.assertEqual(self.calls(), ["0x5 "])
        for cut in range(len(good) - 1):
            if cut % 9 == 0:
                with open(self.path("bad"), "w") as f:
                    f.write(good[:cut])
                r = self.sim("replay", "etcd-lite", "bad", code=1)
                self.assertIn("bonsai sim replay: bad: ", r.stderr)
        self.assertEqual(self.calls(), ["0x5 "])

    def test_bad_words_are_refused(self):
        for args, code, word in [
                (["replay", "etcd-lite", "7x"], 2, "'7x' is no seed"),
                (["replay", "etcd-lite", "0x"], 2, "is no seed"),
                (["replay", "etcd-lite", "-1"], 2, ""),
                (["replay", "etcd-lite", "1" * 30], 2, "more than 64 bits"),
                (["shrink", "etcd-lite", "nope"], 2, "is no seed"),
                (["replay", "etcd-lite", self.dir], 1, "no trace"),
                (["replay", "etcd-lite"], 2, "a system and a seed"),
                (["replay", "etcd-light", "1"], 2, "did you mean 'etcd-lite'"),
                (["run"], 2, "name one system"),
                (["run", "etcd-lite", "--seeds", "0"], 2, "--seeds"),
                (["run", "etcd-lite", "--jobs", "65"], 2, "--jobs"),
                (["run", "etcd-lite", "--start", "x"], 2, "is no seed"),
                (["rerun", "etcd-lite"], 2, "unknown verb"),
                (["shrink", "etcd-lite", "5"], 1, "does not fail")]:
            self.assertIn(word, self.sim(*args, code=code).stderr)
        os.remove(self.path("sim_daemon"))
        self.assertIn("build it", self.sim("run", "etcd-lite", code=1).stderr)

    def test_shrink_keeps_the_failure(self):
        r = self.sim("shrink", "etcd-lite", "13", BNS_MUTANT="4")
        self.assertEqual(r.stdout, "entry 7 is torn\nBNS_MUTANT=4 bonsai sim replay etcd-lite 0xd "
                         "--nodes 2 --clients 1 --seconds 7 --faults crash\n")
        self.assertIn("still fails", r.stderr)
        few = self.sim("shrink", "etcd-lite", "13", "--tries", "3", "-q")
        self.assertEqual(few.stderr, "")
        self.assertIn("--faults loss,crash", few.stdout)

    def test_shrink_tells_a_death_without_words(self):
        r = self.sim("shrink", "etcd-lite", "6", "--tries", "2", "-q")
        self.assertEqual(r.stdout.splitlines()[0], "it says nothing")
        self.assertEqual(len(r.stdout.splitlines()), 2)

    def test_the_real_simulation_shrinks(self):
        if SIM is None:
            self.skipTest("no simulation program was built")
        os.remove(self.path("sim_daemon"))
        os.symlink(SIM, self.path("sim_daemon"))
        found = self.sim("run", "etcd-lite", "--seeds", "300", code=1, BNS_MUTANT="2")
        seed = re.search(r"^seed (0x[0-9a-f]+): ", found.stderr, re.M)
        self.assertTrue(seed, found.stderr)
        seed = seed.group(1)
        r = self.sim("shrink", "etcd-lite", seed, "--tries", "12", BNS_MUTANT="2")
        command = r.stdout.splitlines()[-1].split()
        self.assertEqual(command[:6], ["BNS_MUTANT=2", "bonsai", "sim", "replay", "etcd-lite",
                                       seed])
        again = self.sim("replay", *command[4:], code=1, BNS_MUTANT="2")
        self.assertIn(r.stdout.splitlines()[0], again.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: test_sim_verbs.py BONSAI [SIM_DAEMON]")
    BONSAI = os.path.abspath(sys.argv[1])
    SIM = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else None
    unittest.main(argv=sys.argv[:1])
