"""Callers: tests/clients/python/calls.py as a process, its answers by the id of the call."""
import json
import queue
import subprocess
import threading

import programs
from needs import need


class Caller:
    def __init__(self, to=None):
        need("/usr/bin/python3", "gRPC without messages")
        self.to = to
        self.process = subprocess.Popen(programs.python("calls.py"), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "READY\n"
        self.answers, self.streams, self.count = {}, {}, 0
        self.news = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for text in self.process.stdout:
            line = json.loads(text)
            with self.news:
                if "next" in line:
                    self.streams.setdefault(line["id"], queue.Queue()).put(line["next"])
                else:
                    self.answers[line["id"]] = line
                self.news.notify_all()

    def send(self, **line):
        self.count += 1
        self.process.stdin.write(json.dumps({"id": self.count, **line}) + "\n")
        self.process.stdin.flush()
        return self.count

    def start(self, call, to=None, **fields):
        """Begins a call; its id."""
        return self.send(call=call, to=to or self.to, **fields)

    def answered(self, n):
        return n in self.answers

    def result(self, n, seconds=30):
        """{"ok": ...} or {"code": ..., "text": ...}"""
        with self.news:
            assert self.news.wait_for(lambda: n in self.answers, seconds), f"call {n}: no answer"
            return {k: v for k, v in self.answers[n].items() if k != "id"}

    def call(self, call, to=None, **fields):
        return self.result(self.start(call, to, **fields))

    def ok(self, call, to=None, **fields):
        r = self.call(call, to, **fields)
        assert "ok" in r, f"{call} {fields}: {r}"
        return r["ok"]

    def next(self, n, seconds=20):
        """The next message of a stream."""
        with self.news:
            q = self.streams.setdefault(n, queue.Queue())
        return q.get(timeout=seconds)

    def cancel(self, n):
        self.send(cancel=n)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
