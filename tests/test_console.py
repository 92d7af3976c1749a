"""Goal:   the page of `bonsai up` shows what happens to three real nodes, in a real browser.
Method: headless Chromium (browser.py). A wrapper in the place of etcd-lite refuses to start while a
        file says so, so that a killed node stays down for as long as the test looks. Screenshots go
        to the test's own directory and are checked not to be blank.

    test_console.py BONSAI [-v]      etcd-lite stands beside it"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import browser
from test_bonsai import free_shift

BONSAI = None
WRAPPER = '#!/bin/sh\n[ ! -e "%s/$2.down" ] || exit 4\nexec "%s" "$@"\n'


def need_browser():
    if browser.find() is None:
        if os.environ.get("BNS_REQUIRE_ALL") == "1":
            raise AssertionError("chromium is missing, and nothing may be skipped")
        raise unittest.SkipTest("chromium is missing")


class Console(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        need_browser()
        cls.dir = tempfile.mkdtemp(prefix="bonsai-console-")
        cls.data = os.path.join(cls.dir, "data")
        cls.bin = os.path.join(cls.dir, "bin")
        os.mkdir(cls.bin)
        real = os.path.join(os.path.dirname(BONSAI), "etcd-lite")
        with open(os.path.join(cls.bin, "etcd-lite"), "w") as f:
            f.write(WRAPPER % (cls.dir, real))
        os.chmod(f.name, 0o755)
        cls.browser = browser.Browser()

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        shutil.rmtree(cls.dir)

    def setUp(self):
        self.run_bonsai("up", "-d", "--bin-dir", self.bin, "--port-shift", str(free_shift()),
                        "--console-port", "0")
        self.url = "http://127.0.0.1:%d/" % self.state()["console"]
        self.b = self.browser
        self.b.events.clear()
        self.b.open(self.url)
        self.b.until("document.querySelector('[data-role=leader]') !== null")

    def tearDown(self):
        self.run_bonsai("down")
        for name in os.listdir(self.dir):
            if name.endswith(".down"):
                os.unlink(os.path.join(self.dir, name))
        shutil.rmtree(self.data)

    def run_bonsai(self, *args):
        return subprocess.run([BONSAI, *args, "--data-dir", self.data], capture_output=True,
                              text=True, timeout=120, check=args[0] == "up")

    def state(self):
        return json.loads(self.run_bonsai("status", "-w", "json").stdout)

    def text(self, selector):
        return self.b.js("document.querySelector(%r).innerText" % selector)

    def looks_drawn(self, name):
        png = self.b.screenshot(os.path.join(self.dir, name + ".png"), 0.25)
        width, height, _, _ = browser.pixels(png)
        self.assertEqual((width, height), (350, 250))
        self.assertGreater(browser.colours(png), 100, "a blank page")

    def test_the_page_shows_three_nodes_and_what_they_do(self):
        b = self.b
        self.assertEqual(b.js("document.querySelectorAll('[data-node]').length"), 3)
        self.assertEqual(b.js("document.querySelectorAll('[data-role=leader]').length"), 1)
        self.assertEqual(b.js("document.querySelectorAll('[data-role=follower]').length"), 2)
        self.assertEqual(self.text("#pill"), "all 3 nodes ready")
        b.until("document.querySelectorAll('#log div').length > 6")
        endpoint = "127.0.0.1:%d" % self.state()["nodes"][0]["port"]
        subprocess.run(["etcdctl", "--endpoints", endpoint, "put", "a", "<b>bold</b>"], check=True,
                       env=dict(os.environ, ETCDCTL_API="3"), stdout=subprocess.DEVNULL)
        b.until("document.querySelector('#tile-puts .value').innerText !== '0/s'")
        b.until("[...document.querySelectorAll('[data-node] dd')]"
                ".filter((d) => d.innerText === '1').length >= 3")
        b.js("document.querySelector('[data-log=\"etcd-lite-n2\"]').click()")
        b.js("document.querySelector('#filter').value = 'READY etcd';"
             "document.querySelector('#filter').oninput()")
        b.until("document.querySelectorAll('#log div').length === 1")
        self.assertIn("READY etcd-lite", self.text("#log"))
        self.assertEqual(self.text("#log mark"), "READY etcd")
        b.key("Escape")
        b.until("document.querySelectorAll('#log div').length > 1")
        b.key("/", "Slash", "/")
        self.assertEqual(b.js("document.activeElement.id"), "filter")
        for dark in (False, True):
            b.dark(dark)
            b.until("document.documentElement.classList.contains('dark') === %s"
                    % ("true" if dark else "false"))
            self.looks_drawn("dark" if dark else "light")
        self.assertEqual(b.errors(), [])

    def test_a_node_that_dies_is_shown_and_so_is_its_return(self):
        b, n = self.b, self.state()["nodes"][1]
        os.kill(n["pid"], signal.SIGKILL)
        b.until("document.querySelector('#events [data-kind=ended]') !== null")
        self.assertIn("killed by signal 9 (KILL); starts again", self.text("[data-kind=ended]"))
        b.until("document.querySelector('#node-etcd-lite-n2').dataset.state === 'ready' &&"
                "document.querySelector('#pill').innerText === 'all 3 nodes ready'")
        open(os.path.join(self.dir, "n2.down"), "w").close()
        os.kill(self.state()["nodes"][1]["pid"], signal.SIGKILL)
        took = b.until("document.querySelector('#node-etcd-lite-n2').dataset.state === 'failed'")
        print("shown after %.1f s" % took, file=sys.stderr)
        self.assertEqual(self.text("#pill"), "n2 failed")
        self.assertIn("off", b.js("document.querySelector('#node-etcd-lite-n2').className"))
        self.looks_drawn("killed")
        self.assertEqual(b.errors(), [])

    def test_a_node_that_is_stopped_but_not_dead_is_shown_as_silent(self):
        b, n = self.b, self.state()["nodes"][2]
        os.kill(n["pid"], signal.SIGSTOP)
        try:
            b.until("document.querySelector('#node-etcd-lite-n3').dataset.answers === 'false'")
            b.until("document.querySelector('#pill').innerText === 'n3 no answer'")
            b.until("document.querySelector('#node-etcd-lite-n1').dataset.answers === 'true'")
        finally:
            os.kill(n["pid"], signal.SIGCONT)
        b.until("document.querySelector('#pill').innerText === 'all 3 nodes ready'")

    def test_the_end_of_bonsai_is_shown(self):
        self.run_bonsai("down")
        self.b.until("document.querySelector('#pill').innerText === 'bonsai does not answer'")
        self.assertIn("stale", self.b.js("document.querySelector('#page').className"))


if __name__ == "__main__":
    BONSAI = os.path.abspath(sys.argv.pop(1))
    unittest.main()
