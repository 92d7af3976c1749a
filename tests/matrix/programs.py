"""The client programs of tests/clients, built once a run."""
import os
import shutil
import subprocess
import tempfile

from cluster import BIN, ROOT
from needs import need

CLIENTS = os.path.join(ROOT, "tests", "clients")
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")  # each builds its own
_built = {}


def go(name):
    """Path of the Go program tests/clients/go/<name>."""
    need("go", "etcd's own Go client")
    if name not in _built:
        out = os.path.join(tempfile.gettempdir(), f"bonsai-{os.getuid()}-{WORKER}-{name}")
        subprocess.run(["go", "build", "-o", out, "./" + name], cwd=os.path.join(CLIENTS, "go"),
                       check=True, timeout=600)
        _built[name] = out
    return _built[name]


def node(name):
    """Command of the Node program tests/clients/node/<name>."""
    need("node", "the npm client etcd3")
    need("npm", "the npm client etcd3")
    if "node" not in _built:
        work = os.path.join(ROOT, "build", f"clients-node-{WORKER}")
        os.makedirs(work, exist_ok=True)
        for f in ("package.json", "package-lock.json"):
            shutil.copy(os.path.join(CLIENTS, "node", f), work)
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=work, check=True, timeout=600,
                       stdout=subprocess.DEVNULL)
        _built["node"] = work
    for f in (name, "dial.js"):
        shutil.copy(os.path.join(CLIENTS, "node", f), _built["node"])
    return ["node", os.path.join(_built["node"], name)]


def python(name):
    """Command of the Python program tests/clients/python/<name>, on Debian's packages."""
    command = ["/usr/bin/python3", os.path.join(CLIENTS, "python", name)]
    if subprocess.run([command[0], "-c", "import etcd3"], capture_output=True).returncode != 0:
        need("python3-etcd3", "the Python client")
    return command


def java(name, *jars):
    """Command of the Java program tests/clients/java/<name>, with these Maven artifacts
    (group:name:version) on its class path. Maven's own cache keeps them."""
    for program in ("java", "javac", "mvn"):
        need(program, "Java programs on the real clients")
    work = os.path.join(ROOT, "build", f"clients-java-{WORKER}", name)
    if ("java", name) not in _built:
        os.makedirs(work, exist_ok=True)
        for jar in jars:
            subprocess.run(["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={jar}",
                            f"-DoutputDirectory={work}"], check=True, timeout=600,
                           stdout=subprocess.DEVNULL)
        subprocess.run(["javac", "-cp", os.path.join(work, "*"), "-d", work,
                        os.path.join(CLIENTS, "java", name + ".java")], check=True, timeout=600)
        _built["java", name] = work
    return ["java", "-cp", work + os.pathsep + os.path.join(work, "*"), name]


def watch(language, endpoints, *more):
    """The command of that language's watch program; skips when its toolchain is missing."""
    if language == "go":
        return [go("watch"), "-endpoints", endpoints, *more]
    return (node("watch.js") if language == "node" else python("watch.py")) + [endpoints, *more]


def run(command, timeout=120, env=None):
    r = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)
    assert r.returncode == 0, f"{command}\n{r.stdout}\n{r.stderr}"
    return r.stdout


def check(kind, history):
    """Our own checker's opinion on a history; where it is not built, there is none."""
    checker = os.path.join(BIN, "check_history")
    if os.path.exists(checker):
        print(run([checker, kind, history], timeout=240).strip())


def verdict(kind, history):
    """Exit code and words of the checker: 0 nothing is wrong, 1 something is."""
    r = subprocess.run([os.path.join(BIN, "check_history"), kind, history], capture_output=True,
                       text=True, timeout=240)
    print(r.stdout.strip(), r.stderr.strip())
    return r.returncode, r.stdout + r.stderr
