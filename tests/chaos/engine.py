"""A Docker engine for tests: the one that runs, or one that is started here and ended again.

    with Engine() as engine:
        engine.docker("ps")
        engine.compose("up", "-d")
        with engine.inside():     # where published ports are on loopback
            ...

An engine of ours lives in a network namespace of its own, with its data in a temporary directory:
it touches neither this machine's firewall nor its ports, and needs no network.
"""
import contextlib
import os
import shutil
import subprocess
import tempfile
import time

import netns
from cluster import BIN, ROOT, wait_for

DOCKERD = shutil.which("dockerd", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
COMPOSE = shutil.which("docker-compose")
CLIENT = shutil.which("docker", path="/usr/bin:/usr/local/bin")


def run(*command, env=None, ok=True, timeout=300, **more):
    r = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, **more)
    if ok:
        assert r.returncode == 0, f"{command}: {r.returncode}\n{r.stdout}\n{r.stderr}"
    return r


def runs():
    """Whether an engine answers already."""
    return CLIENT is not None and run(CLIENT, "version", ok=False, timeout=20).returncode == 0


def available():
    """None when there is or can be an engine; the reason when not."""
    if CLIENT is None or COMPOSE is None:
        return "docker or docker-compose is not installed"
    if runs():
        return None
    if DOCKERD is None:
        return "no Docker engine runs, and dockerd is not installed"
    return netns.available()


class Engine:
    def __init__(self):
        self.own = not runs()
        self.dir = None
        self.process = None
        self.name = f"bns{os.getpid() % 100000}dk"
        self.env = dict(os.environ)

    def __enter__(self):
        if self.own and self.process is None:
            try:
                self.start()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *_):
        self.close()

    def start(self):
        self.dir = tempfile.mkdtemp(prefix="bonsai-docker-")
        netns.ip("netns", "add", self.name)
        netns.ip("link", "set", "lo", "up", ns=self.name)
        sock = "unix://" + os.path.join(self.dir, "sock")
        with open(os.path.join(self.dir, "log"), "wb") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.name}", DOCKERD, "--host", sock,
                 "--data-root", os.path.join(self.dir, "data"),
                 "--exec-root", os.path.join(self.dir, "exec"),
                 "--pidfile", os.path.join(self.dir, "pid")],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.env["DOCKER_HOST"] = sock
        try:
            wait_for("the Docker engine answers", self.answers, 60)
        except AssertionError as e:
            with open(os.path.join(self.dir, "log"), errors="replace") as f:
                raise AssertionError(f"{e}\n---- dockerd\n" + "".join(f.readlines()[-20:])) from e

    def answers(self):
        assert self.process.poll() is None, "dockerd has ended"
        return run(CLIENT, "version", env=self.env, ok=False, timeout=20).returncode == 0

    def close(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        if self.own and self.dir is not None:
            subprocess.run(["ip", "netns", "del", self.name], stderr=subprocess.DEVNULL)
            for line in reversed(open("/proc/mounts").read().splitlines()):
                at = line.split()[1]
                if at.startswith(self.dir + "/"):
                    subprocess.run(["umount", at], stderr=subprocess.DEVNULL)
            shutil.rmtree(self.dir, ignore_errors=True)
            self.dir = None

    def docker(self, *words, **more):
        return run(CLIENT, *words, env=self.env, **more).stdout

    def inside(self):
        """For a thread: the network where published ports are on loopback."""
        return netns.inside(self.name) if self.own else contextlib.nullcontext()

    def build(self, tag):
        """The image, from the programs that are built already; BNS_IMAGE_COMPILE=1: from source.
        Returns the seconds it took, without the base."""
        base = tag + "-base"
        compiles = os.environ.get("BNS_IMAGE_COMPILE") == "1"
        packages = []
        if not compiles:  # enough to collect libraries in
            named = run(os.path.join(ROOT, "tools", "deps"), "--list").stdout.split()
            packages = ["binutils", *(p for p in named if p.endswith("-dev"))]
        run(os.path.join(ROOT, "docker", "base"), base, *packages, env=self.env)
        with tempfile.TemporaryDirectory(prefix="bonsai-image-") as context:
            if compiles:
                context = ROOT
            else:
                shutil.copytree(os.path.join(ROOT, "docker"), os.path.join(context, "docker"))
                for directory, source in (("tools", os.path.join(ROOT, "tools", "deps")),
                                          ("prebuilt", os.path.join(BIN, "etcd-lite")),
                                          ("prebuilt", os.path.join(BIN, "bonsai"))):
                    os.makedirs(os.path.join(context, directory), exist_ok=True)
                    shutil.copy(source, os.path.join(context, directory))
            began = time.monotonic()
            self.docker("build", "--network", "none", "--build-arg", f"BASE={base}", "-t", tag,
                        "-f", os.path.join(ROOT, "docker", "Dockerfile"), context, timeout=1200)
            return time.monotonic() - began


class Project:
    """One compose project: `up` brings it up, close() takes all of it away, volumes too."""

    def __init__(self, engine, files, **variables):
        self.engine = engine
        self.name = f"bns{os.getpid()}"
        self.files = [word for f in files for word in ("-f", f)]
        self.env = {**engine.env, **{k: str(v) for k, v in variables.items()}}
        self.ids = {}

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.compose("logs", "--no-color", "--tail", "40", ok=False).stdout)
        self.compose("down", "-v", "--remove-orphans", "-t", "2", ok=False)

    def compose(self, *words, **more):
        return run(COMPOSE, "-p", self.name, *self.files, *words, env=self.env, **more)

    def id(self, service):
        if not self.ids.get(service):
            self.ids[service] = self.compose("ps", "-q", service).stdout.strip()
        return self.ids[service]

    def inspect(self, service, template):
        return self.engine.docker("inspect", "-f", template, self.id(service)).strip()

    def health(self, service):
        return self.inspect(service, "{{.State.Health.Status}}")
