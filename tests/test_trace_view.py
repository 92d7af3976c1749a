"""Goal:   the page that `bonsai sim view` makes draws a trace, steps through it by keys, is quick
        with 100,000 events, and refuses a damaged trace with its line and the reason, as the verb.
Method: traces made here, line by line, opened in a headless Chromium (browser.py).

    test_trace_view.py BONSAI [-v]"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import browser
from test_console import need_browser

BONSAI = None
MS = 1000000
NODES = [{"name": "n%d" % i, "kind": "server", "state": "up", "role": "follower"}
         for i in (1, 2, 3)] + [{"name": "c1", "kind": "client", "state": "up", "role": ""}]


def trace(story, title="a <b>run</b>", **more):
    head = {"format": "bonsai-trace", "version": 1, "seed": "0x1f2e", "title": title,
            "events": len(story), "skipped": 0, "nodes": NODES}
    head.update(more)
    return "".join(json.dumps(e) + "\n" for e in [head] + story)


STORY = [
    {"t": 0, "node": 0, "kind": "role", "text": "candidate", "id": 2},
    {"t": 1 * MS, "node": 0, "kind": "send", "peer": 1, "id": 1, "bytes": 40, "text": "vote"},
    {"t": 1 * MS, "node": 0, "kind": "send", "peer": 2, "id": 2, "bytes": 40, "text": "vote"},
    {"t": 6 * MS, "node": 1, "kind": "recv", "peer": 0, "id": 1, "bytes": 40},
    {"t": 7 * MS, "node": 2, "kind": "drop", "peer": 0, "id": 2, "text": "loss"},
    {"t": 9 * MS, "node": 0, "kind": "role", "text": "leader", "id": 2},
    {"t": 10 * MS, "node": 3, "kind": "invoke", "id": 1, "text": "put x </script><i>1"},
    {"t": 15 * MS, "node": 3, "kind": "reply", "id": 1, "text": "ok"},
    {"t": 20 * MS, "kind": "fault", "text": "partition", "id": 1},
    {"t": 30 * MS, "node": 1, "kind": "crash", "text": "power"},
    {"t": 40 * MS, "node": 2, "kind": "pause"},
    {"t": 45 * MS, "node": 2, "kind": "resume"},
    {"t": 50 * MS, "kind": "fault", "text": "heal"},
    {"t": 55 * MS, "node": 1, "kind": "start"},
    {"t": 60 * MS, "node": 1, "kind": "fsync", "bytes": 512, "text": "wal"},
    {"t": 70 * MS, "node": 0, "kind": "note", "text": "the end"},
]


def long_trace(count):
    out, t = [], 0
    for i in range(count // 3):
        t += 200000
        leader = i * 7 // count % 3
        to = (leader + 1 + i % 2) % 3
        out.append((t, {"node": leader, "kind": "send", "peer": to, "id": i, "bytes": 64,
                        "text": "append"}))
        out.append((t + 8 * MS, {"node": to, "kind": "recv", "peer": leader, "id": i}))
        out.append((t + 9 * MS, {"node": to, "kind": "fsync", "bytes": 64, "text": "wal"}))
    out.sort(key=lambda e: e[0])
    return trace([dict(t=t, **e) for t, e in out])


DAMAGED = (
    ("", 1, None),
    ("{}\n", 1, "no bonsai-trace header"),
    (trace(STORY, version=2), 1, "version"),
    (trace(STORY, seed="12"), 1, "seed"),
    (trace(STORY, nodes=[]), 1, "nodes"),
    (trace(STORY[:3], events=2), 4, "more events than the header says"),
    (trace(STORY).replace('"kind": "crash"', '"kind": "crush"'), 11, "unknown kind"),
    (trace(STORY).replace('"t": %d' % (30 * MS), '"t": 3'), 11, "time goes back"),
    (trace(STORY).replace('"node": 2, "kind": "pause"', '"node": 4, "kind": "pause"'), 12,
     "not in the list"),
    (trace(STORY).replace('"t": %d' % (70 * MS), '"t": -1'), 17, None),
    (trace(STORY).replace('"bytes": 512', '"bytes": "512"'), 16, None),
    (trace(STORY).replace('"peer": 1, "id": 1, ', '"id": 1, '), 3, "without both ends"),
    (trace(STORY)[:-20], 17, None),
    (trace(STORY)[:trace(STORY).rindex("{")], None, None),
)


class TraceView(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        need_browser()
        cls.dir = tempfile.mkdtemp(prefix="bonsai-view-")
        cls.b = browser.Browser(1400, 860)

    @classmethod
    def tearDownClass(cls):
        cls.b.close()
        shutil.rmtree(cls.dir)

    def make(self, text):
        """Through the verb: (exit code, what it said, the page's path)."""
        path = os.path.join(self.dir, "trace.jsonl")
        page = os.path.join(self.dir, "page.html")
        with open(path, "w") as f:
            f.write(text)
        r = subprocess.run([BONSAI, "sim", "view", path, "-o", page], capture_output=True,
                           text=True, timeout=120)
        return r.returncode, r.stderr, page

    def open(self, text):
        code, said, page = self.make(text)
        self.assertEqual(code, 0, said)
        self.b.events.clear()
        self.b.open("file://" + page)
        self.b.until("document.body.dataset.view !== undefined")

    def data(self):
        return self.b.js("Object.assign({}, document.body.dataset)")

    def text(self, selector):
        return self.b.js("document.querySelector(%r).innerText" % selector)

    def press(self, key, chosen):
        self.b.key(*key if isinstance(key, tuple) else (key,))
        self.assertEqual(self.data()["chosen"], str(chosen), key)

    def test_keys_step_through_the_events(self):
        self.open(trace(STORY))
        self.assertEqual(self.text("#title"), "a <b>run</b>")
        self.assertEqual(self.text("#seed"), "seed 0x1f2e")
        self.assertEqual(self.data()["events"], "16")
        self.press("Home", 0)
        self.assertEqual(self.text("#what"), "n1 candidate, term 2")
        self.press("ArrowRight", 1)
        self.assertEqual(self.text("#what"), "n1 → n2: vote")
        self.assertIn("took\n5.00 ms", self.text("#facts").replace("\t", "\n"))
        self.press(("f", "KeyF"), 3)
        self.assertEqual(self.text("#what"), "n2 ← n1: vote")
        self.press(("f", "KeyF"), 1)
        self.press("ArrowRight", 2)
        self.press("ArrowRight", 3)
        self.press("ArrowRight", 4)
        self.assertEqual(self.text("#what"), "n3 ✕ lost, from n1: loss")
        self.press("ArrowRight", 5)
        self.assertEqual(self.text("#cluster").split()[:4], ["n1", "leader", "term", "2"])
        self.press("ArrowRight", 6)
        self.assertEqual(self.text("#what"), "c1 invoke: put x </script><i>1")
        self.press("PageDown", 8)
        self.assertEqual(self.text("#what"), "world partition: n1 | others")
        self.assertIn("leader, cut off", self.text("#cluster"))
        self.press("PageDown", 9)
        self.press("PageDown", 10)
        self.assertIn("down", self.text("#cluster"))
        self.assertIn("paused", self.text("#cluster"))
        self.press("PageUp", 9)
        self.press("End", 15)
        self.assertNotIn("cut off", self.text("#cluster"))
        self.press("ArrowRight", 15)
        self.press("ArrowLeft", 14)
        self.b.key("Home")
        self.b.page("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", code="ArrowRight",
                    modifiers=8)
        self.assertEqual(self.data()["chosen"], "1")
        self.b.js("document.querySelector('[data-group=messages]').click()")
        self.b.js("document.querySelector('#view').focus()")
        self.press("ArrowRight", 4)
        self.b.js("document.querySelector('#search').value = 'power';"
                  "document.querySelector('#search').oninput()")
        self.press("ArrowRight", 9)
        self.press("ArrowRight", 9)
        self.assertEqual(self.b.errors(), [])

    def test_it_zooms_plays_and_is_chosen_by_the_mouse(self):
        self.open(trace(STORY))
        self.b.key("End")
        a, b = map(int, self.data()["view"].split(","))
        self.b.key("+", "Equal")
        self.b.until("(() => { const [a, b] = document.body.dataset.view.split(',');"
                     "return b - a < %d; })()" % (0.6 * (b - a)))
        self.b.key("0", "Digit0")
        self.b.until("document.body.dataset.view === '%d,%d'" % (a, b))
        self.b.key("Home")
        self.b.key(" ", "Space")
        self.b.until("document.body.dataset.playing === 'true' || "
                     "document.body.dataset.chosen === '15'")
        self.b.until("document.body.dataset.chosen === '15' && "
                     "document.body.dataset.playing === 'false'")
        x, y = self.b.js("(() => { const r = document.querySelector('#view')"
                         ".getBoundingClientRect(); return [r.left + X(%d), r.top + laneY(1)]; })()"
                         % (30 * MS))
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.b.page("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left",
                        clickCount=1)
        self.b.until("document.body.dataset.chosen === '9'")
        self.assertEqual(self.text("#what"), "n2 crash: power")
        self.assertEqual(self.b.errors(), [])

    def test_it_is_drawn_light_and_dark(self):
        self.open(trace(STORY))
        for dark in (False, True):
            self.b.dark(dark)
            self.b.until("document.documentElement.classList.contains('dark') === %s"
                         % ("true" if dark else "false"))
            self.b.js("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")
            png = self.b.screenshot(os.path.join(self.dir, "view.png"), 0.25)
            self.assertEqual(browser.pixels(png)[:2], (350, 215))
            self.assertGreater(browser.colours(png), 100, "a blank page")
        wanted = "['gold', 'moss', 'red', 'violet', 'blue']"
        found = self.b.js(
            "(() => { const c = document.querySelector('#view'), have = new Set();"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "for (let i = 0; i < d.length; i += 4)"
            "  have.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);"
            "return %s.filter((n) => !have.has(parseInt(css[n].slice(1), 16))); })()" % wanted)
        self.assertEqual(found, [], "these colours are not on the canvas")

    def test_a_run_of_whole_daemons_is_drawn(self):
        """What the simulator writes is what the page reads."""
        sim = os.path.join(os.path.dirname(BONSAI), "sim_daemon")
        if not os.path.exists(sim):
            if os.environ.get("BNS_REQUIRE_ALL") == "1":
                self.fail(sim + " is missing, and nothing may be skipped")
            self.skipTest(sim + " is missing")
        path = os.path.join(self.dir, "run.jsonl")
        subprocess.run([sim, "--trace", path], env=dict(os.environ, BNS_SEED="0x2b"), check=True,
                       stdout=subprocess.DEVNULL, timeout=300)
        with open(path) as f:
            text = f.read()
        self.open(text)
        self.assertEqual(int(self.data()["events"]), text.count("\n") - 1)
        self.assertEqual(self.text("#seed"), "seed 0x2b")
        leaders = self.b.js("[...T.text].filter((t, i) => T.kind[i] === K.role && t === 'leader')"
                            ".length")
        self.assertEqual(leaders, text.count('"text":"leader"'))
        self.assertGreater(leaders, 0)
        self.b.key("PageDown")
        self.b.key("PageDown")
        self.assertIn(self.data()["kind"], ("start", "role", "crash", "fault", "pause", "resume"))
        self.assertEqual(self.b.errors(), [])

    def test_a_hundred_thousand_events_stay_quick(self):
        self.open(long_trace(100000))
        self.assertEqual(self.data()["events"], "99999")
        self.b.js("look(3e9, 3.2e9)")
        self.b.until("document.body.dataset.view.startsWith('3000000000,')")
        near = self.data()
        self.assertLess(int(near["lines"]), 2500)
        self.assertLess(float(near["drawMs"]), 1000)
        steps = self.b.js("(() => { const t = performance.now();"
                          "for (let i = 0; i < 20; i++) step(1);"
                          "return (performance.now() - t) / 20; })()")
        print("drawn in %s ms, a step %.1f ms" % (near["drawMs"], steps), file=sys.stderr)
        self.assertLess(steps, 1000)
        self.assertEqual(self.b.errors(), [])

    def test_a_damaged_trace_is_refused_with_line_and_reason(self):
        self.open(trace(STORY))
        for text, line, why in DAMAGED:
            code, said, _ = self.make(text)
            self.assertEqual(code, 1, text)
            self.assertIn("trace.jsonl: trace: line ", said)
            shown = self.b.js("openTrace(%s), document.body.dataset.error" % json.dumps(text))
            self.assertIn("trace: line ", shown)
            self.assertEqual(self.text("#error"), shown)
            for told in (said, shown):
                if line:
                    self.assertIn("line %d:" % line, told)
                if why:
                    self.assertIn(why, told)
        self.assertEqual(self.data()["events"], "16", "the one that was open stays")
        self.b.js("openTrace(%s)" % json.dumps(trace(STORY)))
        self.assertNotIn("error", self.data())

    def test_the_verb_says_what_it_wants(self):
        for words, code, text in ((["nowhere.jsonl", "-o", "/dev/null"], 1, "no such file"),
                                  (["a", "b", "-o", "/dev/null"], 2, "one trace at a time"),
                                  (["--output"], 2, "--output")):
            r = subprocess.run([BONSAI, "sim", "view", *words], capture_output=True, text=True,
                               timeout=60)
            self.assertEqual((r.returncode, text in r.stderr.lower()), (code, True), r.stderr)
        r = subprocess.run([BONSAI, "sim", "veiw"], capture_output=True, text=True, timeout=60)
        self.assertEqual(r.returncode, 2)
        self.assertIn("did you mean 'view'", r.stderr)
        r = subprocess.run([BONSAI, "sim", "view"], input=trace(STORY), capture_output=True,
                           text=True, timeout=60)
        self.assertEqual(r.returncode, 0)
        self.assertIn("put x \\u003c/script>", r.stdout)
        self.assertNotRegex(r.stdout.replace("http://www.w3.org/2000/svg", ""), r"https?://")


if __name__ == "__main__":
    BONSAI = os.path.abspath(sys.argv.pop(1))
    unittest.main()
