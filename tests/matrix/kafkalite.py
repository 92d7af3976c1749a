"""One kafka-lite broker for a test: port 0, a data directory of its own."""
import os
import signal
import subprocess

from cluster import BIN, wait_for


class Broker:
    def __init__(self, home, *flags):
        self.home = str(home)
        self.data = os.path.join(self.home, "data")
        self.flags = flags
        self.process = None
        self.ports = {}

    def start(self, *more, env=None):
        path = os.path.join(self.home, "ports")
        if os.path.exists(path):
            os.remove(path)
        command = [os.path.join(BIN, "kafka-lite"), "--data-dir", self.data, "--ports-file", path,
                   "--admin", "0"]
        if not any("listeners" in x for x in more):
            command += ["--override", "listeners=PLAINTEXT://127.0.0.1:0"]
        self.err = open(os.path.join(self.home, "err"), "ab")
        self.process = subprocess.Popen([*command, *self.flags, *more], stdout=subprocess.DEVNULL,
                                        stderr=self.err, env={**os.environ, **(env or {})})
        wait_for("a broker", lambda: os.path.exists(path) or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.said()
        with open(path, encoding="ascii") as f:
            self.ports = {k: int(v) for k, v in (line.split() for line in f)}
        return self

    def said(self):
        with open(os.path.join(self.home, "err"), encoding="utf-8") as f:
            return f.read()

    @property
    def address(self):
        return f"127.0.0.1:{self.ports['client']}"

    def stop(self, signo=signal.SIGTERM):
        if self.process is None or self.process.poll() is not None:
            return None
        self.process.send_signal(signo)
        code = self.process.wait(60)
        self.err.close()
        return code

    def kill(self):
        return self.stop(signal.SIGKILL)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()
