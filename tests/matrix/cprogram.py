"""etcd_try, the C client of common/client/etcd as a program, line by line (tests/clients/c)."""
import os
import subprocess
import threading
import time

from cluster import BIN

PROGRAM = os.path.join(BIN, "etcd_try")


class Try:
    """One running etcd_try. Lines that it has said are kept, in order."""

    def __init__(self, cluster, *flags, endpoints=None):
        self.process = subprocess.Popen(
            [PROGRAM, "--endpoints", endpoints or ",".join(n.url for n in cluster.nodes),
             *cluster.ctl_flags(), *flags],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines, self.told = [], threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.told:
                self.lines.append(line.rstrip("\n"))
                self.told.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print("---- etcd_try\n" + "\n".join(self.lines))
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.reader.join()
        self.process.stdout.close()

    def tell(self, line):
        """Returns how many lines had been said before."""
        before = len(self.lines)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return before

    def until(self, start, since=0, seconds=30):
        """The first line that begins with `start`, from line `since` on."""
        end = time.monotonic() + seconds
        with self.told:
            while True:
                for line in self.lines[since:]:
                    if line.startswith(start):
                        return line
                left = end - time.monotonic()
                assert left > 0, f"nobody said {start!r}:\n" + "\n".join(self.lines[since:])
                self.told.wait(left)

    def ask(self, line, seconds=30):
        """The answer of a call, or the first word on what is opened."""
        words = line.split()
        return self.until(f"{'watch' if words[0] == 'watchall' else words[0]} {words[1]} ",
                          self.tell(line), seconds)

    def ok(self, line):
        r = self.ask(line)
        assert " error " not in r and " refused " not in r and " lost " not in r, r
        return r

    def end(self):
        """The end of its input: it closes everything. The exit code."""
        self.process.stdin.close()
        return self.process.wait(timeout=30)
