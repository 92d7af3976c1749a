"""Goal:   what a person meets who starts etcd-lite wrongly, or ends it twice: one line that says
        what is wrong, the exit code of its kind, no crash.
Method: the daemon itself, on loopback, in a directory that goes away. A start that should not
        succeed has a deadline; every process started here is ended here.

    test_etcd_lite.py ETCD_LITE [-v]"""
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

DAEMON = None
DEADLINE_S = 60

REFUSED = [  # exit code, what the line says, flags
    (2, "did you mean --name?", ["--nam", "x"]),
    (2, '"put" is not a flag', ["put", "a", "b"]),
    (2, "expected a whole number", ["--snapshot-count", "-1"]),
    (3, "--listen-client-urls: the list of URLs is empty", ["--listen-client-urls", ""]),
    (3, "has no scheme", ["--listen-client-urls", ","]),
    (3, "bad port", ["--listen-client-urls", "http://127.0.0.1:65536"]),
    (3, "neither http nor https", ["--listen-client-urls", "unix:///tmp/x.sock"]),
    (3, "expected IP in URL for binding (http://nosuch:0)",
     ["--listen-client-urls", "http://nosuch:0"]),
    (3, "--listen-peer-urls: expected IP", ["--listen-peer-urls", "http://nosuch:0"]),
    (3, "[::1", ["--listen-client-urls", "http://[::1:0"]),
    (3, "twice", ["--listen-client-urls", "http://127.0.0.1:1,http://127.0.0.1:1"]),
    (3, "one is supported", ["--listen-peer-urls", "http://127.0.0.1:0,http://127.0.0.1:1"]),
    (3, "neither logfmt nor json", ["--log-format", "xml"]),
    (3, "none of debug, info", ["--log-level", "loud"]),
    (3, "neither an address nor a name",
     ["--name", "a", "--initial-advertise-peer-urls", "http://127.0.0.1:1", "--listen-peer-urls",
      "http://127.0.0.1:0", "--initial-cluster", "a=http://127.0.0.1:1,b=http://no%20such:2"]),
]


class EtcdLite(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="etcd-lite-test-")
        self.data = os.path.join(self.dir, "data")

    def tearDown(self):
        shutil.rmtree(self.dir)

    def args(self, *flags):
        urls = [] if "--listen-client-urls" in flags else ["--listen-client-urls",
                                                           "http://127.0.0.1:0"]
        return [DAEMON, "--data-dir", self.data, *urls, *flags]

    def refused(self, code, text, *flags):
        r = subprocess.run(self.args(*flags), capture_output=True, text=True, timeout=DEADLINE_S)
        self.assertEqual(r.returncode, code, r.stderr)
        self.assertIn(text, r.stderr)
        told = [line for line in r.stderr.splitlines()
                if not line.startswith("ts=") and " warning: " not in line]
        self.assertEqual(len(told), 1, r.stderr)

    def start(self, *flags):
        p = subprocess.Popen(self.args(*flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        ready = p.stdout.readline()
        self.assertTrue(ready.startswith("READY etcd-lite pid=%d " % p.pid), ready)
        return p, ready

    def ends(self, p):
        p.wait(timeout=DEADLINE_S)
        err = p.stderr.read()
        self.assertEqual(p.returncode, 0, err)
        self.assertNotIn("assertion", err)

    def verb(self, client, *words, stdin="", signo=None):
        """Runs a verb to its end; with signo, from its first line on. A leak is an error of it."""
        env = dict(os.environ, ETCDCTL_ENDPOINTS=client, ETCDCTL_USER="", ETCDCTL_PASSWORD="",
                   ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=1:exitcode=99")
        p = subprocess.Popen([DAEMON, *words], env=env, text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out = ""
        if signo is not None:
            late = threading.Timer(DEADLINE_S, p.kill)
            late.start()
            out = p.stdout.readline()
            late.cancel()
            p.send_signal(signo)
        more, err = p.communicate(stdin, timeout=DEADLINE_S)
        self.assertNotIn("Sanitizer", err, words)
        self.assertNotEqual(p.returncode, 99, words)
        return p.returncode, out + more, err

    def test_verbs_let_go_of_all_their_memory(self):
        """For a build with LeakSanitizer; in any other one, that they end as they should."""
        p, ready = self.start()
        client = dict(w.split("=") for w in ready.split()[2:])["client"]
        snapshot = os.path.join(self.dir, "s.db")
        other = "127.0.0.1:1"
        for code, words, stdin in [
                (0, "put a 1", ""), (0, "get a -w json", ""), (0, "del none", ""),
                (0, "txn", 'create("x") = "0"\n\nput x 1\n\nget x\n\n'),
                (0, "compaction 2", ""), (1, "get a --rev 1", ""), (128, "get", ""),
                (1, "get --nonsense", ""), (0, "get --help", ""), (0, "completion bash", ""),
                (0, "lease grant 100", ""), (0, "lease list", ""), (1, "lease revoke 77", ""),
                (0, "lease timetolive 77", ""), (0, "lease keep-alive 77", ""),
                (2, "lease keep-alive --once 77", ""), (0, "member list -w table", ""),
                (1, "member promote 1", ""), (0, "endpoint status -w table", ""),
                (0, "endpoint health", ""), (0, "endpoint hashkv", ""),
                (0, "alarm list", ""), (0, "alarm disarm", ""), (0, "defrag", ""),
                (1, "move-leader 1", ""), (0, f"snapshot save {snapshot}", ""),
                (0, f"snapshot status {snapshot}", ""), (0, "inspect raft", ""),
                (0, "inspect index", ""), (0, "inspect members", ""), (0, "inspect leases", ""),
                (0, "inspect watchers", ""), (0, "lock l true", ""), (3, "watch -i", "watch a\n"),
                (0, "role add r", ""), (0, "role grant-permission r read k", ""),
                (0, "role get r", ""), (0, "user add root:x", ""),
                (0, "user grant-role root r", ""),
                (0, "user get root --detail", ""), (0, "user list", ""), (0, "auth enable", ""),
                (2, "get a --user root:y", ""), (0, "auth disable --user root:x", ""),
                (1, f"get a --endpoints {other} --command-timeout 100ms", ""),
                (1, f"make-mirror {other} --command-timeout 100ms", "")]:
            with self.subTest(words):
                r = self.verb(client, *words.split(), stdin=stdin)
                self.assertEqual(r[0], code, r)
        self.assertEqual(self.verb(client, "put", "led/1", "x")[0], 0)
        for words in ("lock held", "elect e me", "elect -l led"):
            with self.subTest(words):
                r = self.verb(client, *words.split(), signo=signal.SIGINT)
                self.assertNotEqual(r[1], "", r)
        p.terminate()
        self.ends(p)

    def test_a_wrong_flag_is_refused_with_one_line(self):
        for code, text, flags in REFUSED:
            with self.subTest(flags=flags):
                self.refused(code, text, *flags)
                shutil.rmtree(self.data, ignore_errors=True)

    def test_a_port_that_is_taken_is_named(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            url = "http://127.0.0.1:%d" % s.getsockname()[1]
            self.refused(5, "address in use: 127.0.0.1 port", "--listen-client-urls", url)
            self.refused(3, "the data belong to", "--name", "a", "--initial-advertise-peer-urls",
                         url)
            shutil.rmtree(self.data)
            self.refused(5, "address in use: 127.0.0.1 port", "--name", "a",
                         "--initial-advertise-peer-urls", url, "--listen-peer-urls", url,
                         "--initial-cluster", "a=%s,b=http://127.0.0.1:1" % url)

    def test_a_directory_in_use_is_named(self):
        p, _ = self.start()
        self.refused(5, "data directory in use", "--name", "default")
        p.terminate()
        self.ends(p)

    def test_other_urls_at_the_next_start(self):
        for port in (1, 2, 3):
            p, _ = self.start("--advertise-client-urls", "http://127.0.0.1:%d" % port)
            p.terminate()
            self.ends(p)

    def test_ipv6_is_written_in_brackets(self):
        try:
            with socket.socket(socket.AF_INET6) as s:
                s.bind(("::1", 0))
        except OSError:
            self.skipTest("no IPv6 here")
        p, ready = self.start("--listen-client-urls", "http://[::1]:0")
        self.assertRegex(ready, r" client=\[::1\]:\d+")
        p.terminate()
        self.ends(p)

    def test_an_address_that_others_reach_needs_a_word(self):
        urls = ("--listen-client-urls", "http://0.0.0.0:0,http://127.0.0.1:0")
        self.refused(3, "http://0.0.0.0:0 is reachable from other machines without TLS", *urls)
        p, _ = self.start(*urls, "--insecure")
        p.terminate()
        p.wait(timeout=DEADLINE_S)
        self.assertNotIn("is reachable", p.stderr.read())

    def test_hangup_drains_as_sigterm_does(self):
        p, _ = self.start()
        p.send_signal(signal.SIGHUP)
        self.ends(p)

    def test_a_second_signal_in_the_middle_of_work_is_no_crash(self):
        p, ready = self.start()
        port = int(ready.rsplit(":", 1)[1])
        on = threading.Event()

        def ask():
            try:
                c = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
                while True:
                    c.request("GET", "/health")
                    c.getresponse().read()
                    on.set()
            except (OSError, http.client.HTTPException):
                on.set()

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for t in threads:
            t.start()
        on.wait(DEADLINE_S)
        for _ in range(3):
            p.terminate()
        self.ends(p)
        for t in threads:
            t.join()


if __name__ == "__main__":
    DAEMON = os.path.abspath(sys.argv.pop(1))
    unittest.main()
