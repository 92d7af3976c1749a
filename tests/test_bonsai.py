"""Goal:   `bonsai up|down|status|logs` keep their promises, whatever the systems do.
Method: a small program of ours named etcd-lite (below) stands in for the daemon: it takes the same
        flags and answers /health, and files in its data directory make it misbehave. Every wait is
        for a condition, with a deadline. Ports are free ones, shifted away from the default.

    test_bonsai.py BONSAI [-v]      BONSAI is the executable under test"""
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

BONSAI = None
DEADLINE_S = 30

FAKE = r'''#!/usr/bin/env python3
import http.server, os, signal, sys, urllib.parse
flags = {sys.argv[i]: sys.argv[i + 1] for i in range(1, len(sys.argv) - 1, 2)}
data = flags["--data-dir"]
os.makedirs(data, exist_ok=True)
print("started with", flags["--name"], flags["--initial-cluster"], flush=True)
control = os.path.join(os.environ["FAKE_CONTROL"], flags["--name"])
how = open(control).read() if os.path.exists(control) else ""
if how.startswith("exit "):
    print("refusing to run", flush=True)
    os._exit(int(how[5:]))
if how == "deaf":
    signal.pause()
if how == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = self.path == "/health" or (self.path == "/metrics" and how == "metrics")
        self.send_response(200 if good else 404)
        self.end_headers()
        if self.path == "/metrics" and good:
            self.wfile.write(b"raft_term 7\nraft_role 3\nbroken{\netcd_mvcc_put_total 5\n")
    def log_message(self, *a):
        pass
at = urllib.parse.urlparse(flags["--listen-client-urls"])
try:
    server = http.server.HTTPServer((at.hostname, at.port), H)
except OSError as e:
    print("cannot listen:", e, flush=True)
    os._exit(5)
server.serve_forever()
'''


def free_shift():
    """A shift under which the ports of three nodes and of the console are free."""
    for shift in range(3000 + os.getpid() % 1000 * 11, 30000, 11):
        try:
            for k in range(3):
                for port in (2379 + shift + 100 * k, 2380 + shift + 100 * k, 8800 + shift):
                    with socket.socket() as s:
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        s.bind(("127.0.0.1", port))
            return shift
        except OSError:
            continue
    raise RuntimeError("no free ports")


def until(what, condition):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("not within %d s: %s" % (DEADLINE_S, what))
        time.sleep(0.01)  # between polls of a condition


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:  # Z: nobody has asked how it ended; X: just now
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Bonsai(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="bonsai-test-")
        self.bin = os.path.join(self.dir, "bin")
        self.data = os.path.join(self.dir, "data")
        self.control = os.path.join(self.dir, "control")
        os.mkdir(self.bin)
        os.mkdir(self.control)
        fake = os.path.join(self.bin, "etcd-lite")
        with open(fake, "w") as f:
            f.write(FAKE)
        os.chmod(fake, 0o755)
        self.shift = free_shift()
        self.env = dict(os.environ, FAKE_CONTROL=self.control)

    def tearDown(self):
        self.bonsai("down", "--data-dir", self.data)
        shutil.rmtree(self.dir)

    def bonsai(self, *args):
        return subprocess.run([BONSAI, *args], capture_output=True, text=True, env=self.env,
                              timeout=120)

    def up_args(self, *more):
        return ["up", "--data-dir", self.data, "--bin-dir", self.bin, "--port-shift",
                str(self.shift), *more]

    def up(self, *more):
        return self.bonsai(*self.up_args("-d", *more))

    def status(self):
        r = self.bonsai("status", "--data-dir", self.data, "-w", "json")
        return json.loads(r.stdout) if r.stdout else None

    def get(self, path, **headers):
        """(status, body) of the console's answer."""
        q = urllib.request.Request("http://127.0.0.1:%d%s" % (self.status()["console"], path),
                                   headers=headers)
        try:
            with urllib.request.urlopen(q, timeout=DEADLINE_S) as r:
                return r.status, r.read()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read()

    def console(self, path):
        status, body = self.get(path)
        self.assertEqual(status, 200, body)
        return json.loads(body)

    def behave(self, node, how):
        with open(os.path.join(self.control, node), "w") as f:
            f.write(how)

    def test_up_prints_a_table_and_down_stops_everything(self):
        r = self.up("--nodes", "3")
        self.assertEqual(r.returncode, 0, r.stderr)
        port = 2379 + self.shift
        for k in range(3):
            self.assertRegex(r.stdout,
                             r"etcd-lite +n%d +127\.0\.0\.1:%d +ready +\d+ ms +\d+\.\d MiB"
                             % (k + 1, port + 100 * k))
        self.assertIn("try:  ETCDCTL_API=3 etcdctl --endpoints=127.0.0.1:%d put greeting hello"
                      % port, r.stdout)
        self.assertNotIn("\0", r.stdout)
        s = self.status()
        self.assertEqual([n["state"] for n in s["nodes"]], ["ready"] * 3)
        self.assertTrue(all(n["rss_bytes"] > 0 for n in s["nodes"]))
        t = self.bonsai("status", "--data-dir", self.data)
        self.assertEqual(t.returncode, 0)
        self.assertIn("READY IN", t.stdout)
        r = self.bonsai("down", "--data-dir", self.data)
        self.assertEqual((r.returncode, r.stdout), (0, "stopped\n"))
        for pid in [s["pid"]] + [n["pid"] for n in s["nodes"]]:
            self.assertFalse(alive(pid))
        r = self.bonsai("status", "--data-dir", self.data)
        self.assertEqual(r.returncode, 1)
        self.assertIn("nothing runs under", r.stderr)
        r = self.bonsai("down", "--data-dir", self.data)
        self.assertEqual((r.returncode, r.stdout), (0, "nothing runs under %s\n" % self.data))

    def test_nodes_get_the_flags_of_etcd(self):
        self.assertEqual(self.up("--nodes", "2").returncode, 0)
        p = 2379 + self.shift
        pid = self.status()["nodes"][1]["pid"]
        with open("/proc/%d/cmdline" % pid) as f:
            args = f.read().split("\0")
        at = args.index("--name")
        self.assertEqual(args[at:-1], [
            "--name", "n2", "--data-dir", self.data + "/etcd-lite/n2",
            "--listen-client-urls", "http://127.0.0.1:%d" % (p + 100),
            "--advertise-client-urls", "http://127.0.0.1:%d" % (p + 100),
            "--listen-peer-urls", "http://127.0.0.1:%d" % (p + 101),
            "--initial-advertise-peer-urls", "http://127.0.0.1:%d" % (p + 101),
            "--initial-cluster", "n1=http://127.0.0.1:%d,n2=http://127.0.0.1:%d" % (p + 1, p + 101),
            "--initial-cluster-state", "new"])

    def test_what_dies_is_restarted(self):
        self.assertEqual(self.up("--nodes", "2").returncode, 0)
        for times in range(1, 4):
            os.kill(self.status()["nodes"][0]["pid"], signal.SIGKILL)
            until("restart %d" % times, lambda: self.status()["nodes"][0]["restarts"] == times and
                  self.status()["nodes"][0]["state"] == "ready")
        self.assertEqual(self.status()["nodes"][1]["restarts"], 0)

    def test_what_a_person_must_mend_is_not_restarted(self):
        self.assertEqual(self.up().returncode, 0)
        self.behave("n1", "exit 4")
        os.kill(self.status()["nodes"][0]["pid"], signal.SIGKILL)
        until("failed", lambda: self.status()["nodes"][0]["state"] == "failed")
        r = self.bonsai("status", "--data-dir", self.data)
        self.assertEqual(r.returncode, 1)
        self.assertRegex(r.stdout, r"n1 .* failed ")

    def test_a_node_that_cannot_start_ends_up_and_shows_its_log(self):
        for how, code in (("exit 2", 2), ("exit 3", 3), ("exit 4", 4), ("exit 5", 5)):
            with self.subTest(how):
                self.behave("n2", how)
                r = self.up("--nodes", "2")
                self.assertEqual(r.returncode, code)
                self.assertIn("etcd-lite n2 ended with exit code %d" % code, r.stderr)
                self.assertIn("    refusing to run", r.stderr)
                self.assertEqual(r.stdout, "")
                self.assertIsNone(self.status())

    def test_a_taken_port_is_named(self):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", 2379 + self.shift))
            s.listen()
            r = self.up()
            self.assertEqual(r.returncode, 5, r.stderr)
            self.assertIn("cannot listen", r.stderr)

    def test_a_missing_executable_is_named(self):
        os.unlink(os.path.join(self.bin, "etcd-lite"))
        r = self.up()
        self.assertEqual(r.returncode, 1)
        self.assertIn("/bin/etcd-lite: no such file or directory", r.stderr)

    def test_a_second_up_says_who_is_there(self):
        self.assertEqual(self.up().returncode, 0)
        pid = self.status()["pid"]
        r = self.up()
        self.assertEqual(r.returncode, 5)
        self.assertIn("data directory in use", r.stderr)
        self.assertIn("(pid %d)" % pid, r.stderr)
        self.assertTrue(alive(pid))

    def test_a_killed_supervisor_is_no_obstacle(self):
        for verb in ("down", "up"):
            with self.subTest(verb):
                self.assertEqual(self.up("--nodes", "2").returncode, 0)
                s = self.status()
                os.kill(s["pid"], signal.SIGKILL)
                until("its end", lambda: not alive(s["pid"]))
                self.assertTrue(alive(s["nodes"][0]["pid"]))
                if verb == "down":
                    r = self.bonsai("down", "--data-dir", self.data)
                    self.assertIn("stopped 2 nodes that an earlier bonsai left", r.stdout)
                else:
                    r = self.up()
                    self.assertIn("ended 2 nodes that an earlier bonsai left", r.stderr)
                    self.assertEqual([n["state"] for n in self.status()["nodes"]], ["ready"] * 2)
                self.assertEqual(r.returncode, 0)
                self.assertFalse(any(alive(n["pid"]) for n in s["nodes"]))

    def test_a_reused_pid_is_left_alone(self):
        """A state file that names a process which is not ours: another start time."""
        os.makedirs(self.data)
        with subprocess.Popen(["sleep", "100"]) as other:
            with open(os.path.join(self.data, "state.json"), "w") as f:
                json.dump({"pid": 1, "nodes": [
                    {"system": "etcd-lite", "node": 1, "port": 1, "pid": other.pid, "started": 7,
                     "state": "ready", "ready_ms": 1, "restarts": 0}]}, f)
            r = self.bonsai("down", "--data-dir", self.data)
            self.assertIn("nothing runs", r.stdout)
            self.assertTrue(alive(other.pid))
            other.kill()

    def test_a_broken_state_file_is_refused(self):
        self.assertEqual(self.up().returncode, 0)
        path = os.path.join(self.data, "state.json")
        with open(path) as f:
            good = f.read()
        for bad in ("", "{", "[]", '{"pid":"x"}', good.replace('"node": 1', '"node": 99'),
                    good.replace('"ready"', '"sunny"')):
            with open(path, "w") as f:
                f.write(bad)
            r = self.bonsai("status", "--data-dir", self.data)
            self.assertEqual(r.returncode, 1)
            self.assertIn("not a state file of this bonsai", r.stderr)
        with open(path, "w") as f:
            f.write(good)

    def test_foreground_up_ends_with_a_signal(self):
        p = subprocess.Popen([BONSAI, *self.up_args()], stdout=subprocess.PIPE, text=True,
                             env=self.env)
        lines = [p.stdout.readline()]
        while "Ctrl-C" not in lines[-1] and lines[-1]:
            lines.append(p.stdout.readline())
        pid = self.status()["nodes"][0]["pid"]
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(DEADLINE_S), 0)
        p.stdout.close()
        self.assertFalse(alive(pid))

    def test_logs_prints_the_ends_of_the_logs(self):
        self.assertEqual(self.up("--nodes", "2").returncode, 0)
        r = self.bonsai("logs", "--data-dir", self.data)
        self.assertRegex(r.stdout, r"etcd-lite n1 \| started with n1 n1=http")
        self.assertRegex(r.stdout, r"etcd-lite n2 \| started with n2 ")
        r = self.bonsai("logs", "etcd-lite", "--node", "2", "-l", "1", "--data-dir", self.data)
        self.assertEqual(len(r.stdout.splitlines()), 1)
        self.assertTrue(r.stdout.startswith("etcd-lite n2 | "))
        r = self.bonsai("logs", "--node", "7", "--data-dir", self.data)
        self.assertEqual(r.returncode, 1)

    def test_the_number_of_nodes_is_the_one_on_disk(self):
        self.assertEqual(self.up("--nodes", "2").returncode, 0)
        self.bonsai("down", "--data-dir", self.data)
        r = self.up("--nodes", "3")
        self.assertEqual(r.returncode, 2)
        self.assertIn("holds a cluster of 2; use --nodes 2", r.stderr)
        self.assertEqual(self.up().returncode, 0)
        self.assertEqual(len(self.status()["nodes"]), 2)

    def test_flags_come_from_the_environment_too(self):
        self.env.update(BONSAI_DATA_DIR=self.data, BONSAI_BIN_DIR=self.bin, BONSAI_NODES="2",
                        BONSAI_PORT_SHIFT=str(self.shift))
        self.assertEqual(self.bonsai("up", "-d").returncode, 0)
        self.assertEqual(len(json.loads(self.bonsai("status", "-w", "json").stdout)["nodes"]), 2)
        self.assertEqual(self.bonsai("down").stdout, "stopped\n")

    def test_probe_tells_whether_a_node_serves(self):
        answers = {"/health": 200}

        class Node(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(answers.get(self.path, 404))
                self.end_headers()
                self.wfile.write(b"no quorum")

            def log_message(self, *a):
                pass

        def probe(*words):
            r = subprocess.run([BONSAI, "probe", *words], capture_output=True, text=True,
                               timeout=DEADLINE_S)
            return r.returncode, r.stdout + r.stderr

        with http.server.HTTPServer(("127.0.0.1", 0), Node) as server, socket.socket() as deaf:
            port = str(server.server_port)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.assertEqual(probe("etcd-lite", "--port", port), (0, "ready\n"))
            self.assertEqual(probe("etcd-lite", "-p", port, "--host", "localhost")[0], 0)
            answers["/health"] = 503
            code, said = probe("etcd-lite", "--port", port)
            self.assertEqual(code, 1)
            self.assertIn("answers 503: no quorum", said)
            server.shutdown()
            deaf.bind(("127.0.0.1", 0))
            port = str(deaf.getsockname()[1])
            self.assertIn("nobody answers", probe("etcd-lite", "--port", port)[1])
            deaf.listen()
            code, said = probe("etcd-lite", "--port", port, "--timeout", "100ms")
            self.assertEqual(code, 1)
            self.assertIn("timed out", said)
        for words, text in (
            ([], "name one system"),
            (["etcd-light"], "did you mean 'etcd-lite'?"),
            (["etcd-lite", "kafka-lite"], "name one system"),
            (["etcd-lite", "--port", "65536"], "--port"),
            (["etcd-lite", "--timeout", "0s"], "--timeout"),
            (["etcd-lite", "--host", "no such"], "--host"),
        ):
            code, said = probe(*words)
            self.assertEqual(code, 2, words)
            self.assertIn(text, said)

    def test_the_console_tells_what_runs(self):
        self.behave("n1", "metrics")
        r = self.up("--nodes", "2")
        self.assertIn("see:  http://127.0.0.1:%d/\n" % (8800 + self.shift), r.stdout)
        a = self.console("/api/nodes")
        n1, n2 = a["nodes"]
        self.assertEqual((a["data_dir"], a["pid"]), (self.data, self.status()["pid"]))
        self.assertEqual((n1["id"], n1["state"], n1["port"]),
                         ("etcd-lite-n1", "ready", 2379 + self.shift))
        self.assertEqual((n1["answers"], n1["role"], n1["term"], n1["puts"], n1["bad_lines"]),
                         (True, "leader", 7, 5, 1))
        self.assertTrue(n1["rss_bytes"] > 0 and n1["pid"] > 0 and n1["ready_ms"] >= 0)
        self.assertEqual((n2["answers"], "term" in n2), (False, False))
        text = self.get("/metrics")[1].decode()
        self.assertIn('up{system="etcd-lite",node="n1"} 1\n'
                      'up{system="etcd-lite",node="n2"} 0\n', text)
        self.assertIn('scrape_bad_lines{system="etcd-lite",node="n1"} 1\n', text)
        self.assertIn('raft_term{system="etcd-lite",node="n1"} 7\n', text)
        self.assertIn('{system="bonsai",node="supervisor"}', text)
        self.assertEqual(self.get("/healthz"), (200, b"ok\n"))

    def test_the_console_tells_what_died_and_why(self):
        self.assertEqual(self.up("--nodes", "2").returncode, 0)
        os.kill(self.console("/api/nodes")["nodes"][0]["pid"], signal.SIGKILL)
        until("restart", lambda: self.console("/api/nodes")["nodes"][0]["restarts"] == 1)
        self.behave("n2", "exit 4")
        os.kill(self.console("/api/nodes")["nodes"][1]["pid"], signal.SIGKILL)
        until("failed", lambda: self.console("/api/nodes")["nodes"][1]["state"] == "failed")
        a = self.console("/api/nodes")
        self.assertEqual((a["nodes"][1]["pid"], a["nodes"][1]["answers"]), (0, False))
        events = [(e["node"], e["kind"], e["text"]) for e in a["events"]]
        self.assertIn(("etcd-lite-n1", "ended",
                       "killed by signal 9 (KILL); starts again in 100 ms"), events)
        self.assertIn(("etcd-lite-n2", "failed", "ended with exit code 4; needs a person"), events)
        self.assertEqual([e["id"] for e in a["events"]], list(range(1, len(events) + 1)))

    def test_the_console_reads_logs_in_pieces(self):
        self.assertEqual(self.up("--nodes", "2").returncode, 0)
        path = os.path.join(self.data, "logs", "etcd-lite-n2.log")
        a = self.console("/api/logs?node=etcd-lite-n2")
        self.assertRegex(a["lines"][0], "^started with n2 ")
        with open(path, "ab") as f:
            f.write(b"bad \xff\x00 bytes\nhalf a li")
        b = self.console("/api/logs?node=etcd-lite-n2&after=%d" % a["next"])
        self.assertEqual(b["lines"], ["bad \ufffd\ufffd bytes"])
        with open(path, "ab") as f:
            f.write(b"ne\n" + b"x" * 100000 + b"\n" + b"y" * 9000 + b"\nend\n")
        lines, at = [], b["next"]
        while at < os.path.getsize(path):
            c = self.console("/api/logs?node=etcd-lite-n2&after=%d" % at)
            self.assertGreater(c["next"], at)
            lines += c["lines"]
            at = c["next"]
        self.assertEqual("".join(lines), "half a line" + "x" * 100000 + "y" * 9000 + "end")
        tail = self.console("/api/logs?node=etcd-lite-n2")
        self.assertEqual(tail["lines"], ["y" * 9000, "end"])
        os.truncate(path, 0)
        self.assertTrue(self.console("/api/logs?node=etcd-lite-n2&after=%d" % at)["reset"])
        self.assertEqual(self.console("/api/logs?node=bonsai")["node"], "bonsai")
        for query in ("", "?node=", "?node=etcd-lite-n3", "?node=../state", "?node=etcd-lite-n2%00",
                      "?node=" + "x" * 500, "?node=%2e%2e/LOCK"):
            self.assertEqual(self.get("/api/logs" + query)[0], 404, query)
        for after in ("x", "-1", "1" * 30, "18446744073709551615", ""):
            self.assertEqual(self.get("/api/logs?node=bonsai&after=" + after)[0], 400, after)

    def test_the_console_answers_loopback_names_only_and_changes_nothing(self):
        self.assertEqual(self.up().returncode, 0)
        port = self.status()["console"]
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:%d" % port):
            for path in ("/", "/trace", "/api/nodes", "/api/logs?node=bonsai", "/metrics"):
                self.assertEqual(self.get(path, Host=host)[0], 403)
        self.assertEqual(self.get("/api/nodes", Host="localhost:%d" % port)[0], 200)
        for path in ("/", "/api/nodes", "/api/logs", "/metrics"):
            q = urllib.request.Request("http://127.0.0.1:%d%s" % (port, path), data=b"x")
            with self.assertRaises(urllib.error.HTTPError) as e:
                urllib.request.urlopen(q, timeout=DEADLINE_S)
            self.assertEqual(e.exception.code, 405)
            e.exception.close()
        with urllib.request.urlopen("http://127.0.0.1:%d/" % port, timeout=DEADLINE_S) as r:
            page, policy = r.read().decode(), r.headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertIn(b'id="trace"></script>', self.get("/trace")[1])
        self.assertNotRegex(page.replace("http://www.w3.org/2000/svg", ""), r"https?://")

    def test_the_consoles_port_is_chosen_and_a_taken_one_named(self):
        self.assertEqual(self.up("--console-port", "0").returncode, 0)
        self.assertNotEqual(self.status()["console"], 8800 + self.shift)
        self.assertEqual(len(self.console("/api/nodes")["nodes"]), 3)
        self.bonsai("down", "--data-dir", self.data)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            port = s.getsockname()[1]
            r = self.up("--console-port", str(port))
        self.assertEqual(r.returncode, 5)
        self.assertIn("console: port %d is taken; choose another with --console-port" % port,
                      r.stderr)
        self.assertIsNone(self.status())

    def test_wrong_words_name_the_right_one(self):
        for args, text in ((["stauts"], "unknown verb 'stauts'; did you mean 'status'?"),
                           (["xyzzy"], "unknown verb 'xyzzy'; see bonsai --help"),
                           (["up", "etcd"], "unknown system 'etcd'; there is: etcd-lite"),
                           (["up", "etcd-light"], "did you mean 'etcd-lite'?"),
                           (["up", "--node", "3"], "unknown flag --node; did you mean --nodes?"),
                           (["up", "--nodes", "10"], "--nodes: at most 9"),
                           (["up", "--port-shift", "70000"], "--port-shift: at most"),
                           (["up", "--console-port", "70000"], "--console-port: at most 65535"),
                           (["down", "--hurry"], "unknown flag --hurry"),
                           (["status", "-w", "xml"], "expected table or json, found 'xml'"),
                           (["--verson"], "unknown flag --verson; did you mean --version?"),
                           ([], "usage: bonsai VERB")):
            r = self.bonsai(*args)
            self.assertEqual(r.returncode, 2, args)
            self.assertIn(text, r.stderr)
        self.assertRegex(self.bonsai("--version").stdout, r"^bonsai \d+\.\d+\.\d+\n$")
        self.assertIn("status", self.bonsai("--help").stdout)
        self.assertIn("--nodes", self.bonsai("up", "--help").stdout)


if __name__ == "__main__":
    BONSAI = os.path.abspath(sys.argv.pop(1))
    unittest.main()
