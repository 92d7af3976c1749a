"""browser.py - a headless Chromium for the tests of our pages, spoken to over its debugging pipe.

No driver, no websocket: `--remote-debugging-pipe` reads JSON messages on descriptor 3 and writes
them on 4, each ended by a NUL byte. A Browser has one page. Every wait has a deadline. Screenshots
are PNG bytes; colours() reads their pixels, so that a test can tell a page from a blank."""
import base64
import fcntl
import json
import os
import select
import shutil
import struct
import subprocess
import tempfile
import time
import zlib

DEADLINE_S = 60
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find():
    """The executable, or None."""
    return next((p for p in map(shutil.which, NAMES) if p), None)


class Browser:
    def __init__(self, width=1400, height=1000):
        self.dir = tempfile.mkdtemp(prefix="bonsai-browser-")
        self.next_id = 0
        self.buf = b""
        self.events = []
        to_read, self.to = self._pipe()
        self.back, to_write = self._pipe()

        def place():
            os.dup2(to_read, 3)
            os.dup2(to_write, 4)

        self.process = subprocess.Popen(
            [find(), "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
             "--disable-background-networking", "--disable-component-update",
             "--hide-scrollbars", "--window-size=%d,%d" % (width, height),
             "--user-data-dir=" + self.dir, "about:blank"],
            preexec_fn=place, pass_fds=(3, 4), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target,
                                     flatten=True)["sessionId"]
            self.page("Page.enable")
            self.page("Runtime.enable")
            self.page("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=1, mobile=False)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _pipe():
        """Both ends well above 3 and 4, which place() overwrites."""
        ends = []
        for fd in os.pipe():
            ends.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20))
            os.close(fd)
        return ends

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.back)
        shutil.rmtree(self.dir, ignore_errors=True)  # helpers of it may still be writing there

    # ---- the protocol
    def _message(self, end):
        while b"\0" not in self.buf:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.back], [], [], left)[0]:
                raise AssertionError("the browser does not answer")
            more = os.read(self.back, 1 << 20)
            if not more:
                raise AssertionError("the browser has ended")
            self.buf += more
        one, self.buf = self.buf.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, session=None, **params):
        self.next_id += 1
        m = {"id": self.next_id, "method": method, "params": params}
        if session:
            m["sessionId"] = session
        data = json.dumps(m).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        end = time.monotonic() + DEADLINE_S
        while True:
            got = self._message(end)
            if got.get("id") == self.next_id:
                if "error" in got:
                    raise AssertionError("%s: %s" % (method, got["error"]))
                return got["result"]
            self.events.append(got)

    def page(self, method, **params):
        return self.call(method, self.session, **params)

    # ---- what tests do
    def open(self, url):
        got = self.page("Page.navigate", url=url)
        if got.get("errorText"):
            raise AssertionError("%s: %s" % (url, got["errorText"]))
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def js(self, text):
        got = self.page("Runtime.evaluate", expression=text, returnByValue=True,
                        awaitPromise=True)
        if "exceptionDetails" in got:
            raise AssertionError("%s: %s" % (text, got["exceptionDetails"]))
        return got["result"].get("value")

    def until(self, text, seconds=DEADLINE_S):
        """Polls an expression until it is true; returns how long that took."""
        start = time.monotonic()
        while True:
            got = self.js(text)
            if got:
                return time.monotonic() - start
            if time.monotonic() > start + seconds:
                raise AssertionError("not within %d s: %s; errors: %s" % (seconds, text,
                                                                         self.errors()))
            time.sleep(0.02)  # between polls of a condition

    def key(self, key, code=None, text=None):
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.page("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, **more)

    def dark(self, on):
        self.page("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if on else "light"}])

    def size(self, width, height):
        self.page("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def screenshot(self, path=None, scale=1):
        """PNG bytes of what is in view; a small scale makes pixels() quick."""
        w, h = self.js("[innerWidth, innerHeight]")
        png = base64.b64decode(self.page("Page.captureScreenshot", format="png", clip={
            "x": 0, "y": 0, "width": w, "height": h, "scale": scale})["data"])
        if path:
            with open(path, "wb") as f:
                f.write(png)
        return png

    def errors(self):
        """Exceptions that nobody caught, and console.error, on the page so far."""
        out = []
        for e in self.events:
            p = e.get("params", {})
            if e.get("method") == "Runtime.exceptionThrown":
                d = p["exceptionDetails"]
                out.append(d.get("exception", {}).get("description") or d["text"])
            elif e.get("method") == "Runtime.consoleAPICalled" and p["type"] == "error":
                out.append(" ".join(str(a.get("value")) for a in p["args"]))
        return out


def pixels(png):
    """(width, height, rows of bytes, bytes a pixel) of an 8-bit RGB or RGBA PNG."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, head = 8, b"", None
    while at < len(png):
        n, kind = struct.unpack(">I4s", png[at:at + 8])
        body = png[at + 8:at + 8 + n]
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            data += body
        at += 12 + n
    width, height, depth, color, _, _, interlace = head
    assert (depth, interlace) == (8, 0) and color in (2, 6)
    bpp = 3 if color == 2 else 4
    raw, stride = zlib.decompress(data), width * bpp
    rows, above = [], bytes(stride)
    for y in range(height):
        kind = raw[y * (stride + 1)]
        row = bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        unfilter(kind, row, above, bpp)
        rows.append(bytes(row))
        above = rows[-1]
    return width, height, rows, bpp


def unfilter(kind, row, above, bpp):
    if kind == 0:
        return
    for i in range(len(row)):
        a = row[i - bpp] if i >= bpp else 0
        b = above[i]
        c = above[i - bpp] if i >= bpp else 0
        if kind == 1:
            add = a
        elif kind == 2:
            add = b
        elif kind == 3:
            add = (a + b) // 2
        else:
            p = a + b - c
            pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
            add = a if pa <= pb and pa <= pc else b if pb <= pc else c
        row[i] = (row[i] + add) & 255


def colours(png):
    """How many distinct colours the picture has."""
    _, _, rows, bpp = pixels(png)
    return len({row[i:i + 3] for row in rows for i in range(0, len(row), bpp)})
