"""bin/etcd_load, run to its end; its line as a dictionary of numbers."""
import os
import subprocess

from cluster import BIN


def start(endpoints, clients=1, conns=0, seconds=2.0, **more):
    words = [os.path.join(BIN, "etcd_load"), "--endpoints", endpoints, "--clients", str(clients),
             "--conns", str(conns), "--duration", f"{int(seconds * 1000)}ms"]
    for name, value in more.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, timeout=120, errors=0):
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0 and out, (process.returncode, out, err)
    print(out.strip())
    pairs = (w.split("=", 1) for w in out.split())
    result = {k: v if k == "op" else float(v) for k, v in pairs}
    assert errors is None or result["errors"] <= errors, (out, err)
    return result


def run(endpoints, **options):
    return finish(start(endpoints, **options))
