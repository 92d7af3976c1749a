"""kafka-lite's table of configurations, and what it allows, beside Kafka's LogConfig and
KafkaConfig."""
import os
import subprocess

from cluster import BIN, ROOT
from needs import need
from programs import CLIENTS, WORKER, run

ANSWERS = os.path.join(BIN, "kafka_meta_answers")
_built = []

# Keys that Kafka changes while it runs and this broker does not.
STATIC = {"background.threads", "listeners", "log.cleaner.threads", "num.io.threads",
          "num.network.threads", "num.recovery.threads.per.data.dir"}


def classes():
    """Class path of Meta.java on Kafka's own broker."""
    for program in ("java", "javac", "mvn"):
        need(program, "Kafka's own broker")
    work = os.path.join(ROOT, "build", f"clients-java-{WORKER}", "KafkaBroker")
    path = work + os.pathsep + os.path.join(work, "*")
    if not _built:
        os.makedirs(work, exist_ok=True)
        source = os.path.join(CLIENTS, "java")
        subprocess.run(["mvn", "-q", "-B", "-f", os.path.join(source, "kafka-broker.xml"),
                        "dependency:copy-dependencies", "-DincludeScope=runtime",
                        f"-DoutputDirectory={work}"], check=True, timeout=600,
                       stdout=subprocess.DEVNULL)
        subprocess.run(["javac", "-cp", path, "-d", work, os.path.join(source, "Meta.java")],
                       check=True, timeout=600)
        _built.append(work)
    return ["java", "-cp", path]


def feed(command, lines):
    r = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True,
                       timeout=300)
    assert r.returncode == 0, r.stderr[-2000:]
    return r.stdout.splitlines()


def test_the_table_is_kafkas():
    theirs = {tuple(x.split("\t")[:2]): x for x in run([*classes(), "Meta", "table"]).splitlines()}
    ours = run([ANSWERS, "table"]).splitlines()
    for line in ours:
        kind, name = line.split("\t")[:2]
        other = theirs.pop((kind, name))
        if name in STATIC:
            other = other.replace("\tdynamic\t", "\t-\t")
        assert line == other
    assert len(ours) > 100
    assert not [name for kind, name in theirs if kind == "topic"]


VALUES = ["", " ", "0", "1", "-1", "-2", "-3", " 7 ", "+5", "5.0", "0.5", "1.5", "-0.5", "x", "1e3",
          "2147483647", "2147483648", "9223372036854775807", "9223372036854775808", "1048575",
          "true", "TRUE", " false ", "yes", "delete", "compact", "compact,delete",
          "compact, delete", "delete,delete", "delete,foo", "delete,", "zstd", "ZSTD", "none",
          "uncompressed", "CreateTime", "LogAppendTime", "*", "1:2", "1:2,3:4", "1:2,x", "1:", ":1",
          "-131072", "22", "23", "10", "17", "18"]


def test_values_are_refused_in_kafkas_words():
    keys = [x.split("\t")[1] for x in run([ANSWERS, "table"]).splitlines()
            if x.startswith("topic\t")]
    lines = [f"{k}={v}" for k in keys for v in VALUES]
    ours, theirs = feed([ANSWERS, "check"], lines), feed([*classes(), "Meta", "check"], lines)
    assert len(ours) == len(theirs) == len(lines)
    # our texts end after 251 bytes
    wrong = [x for x in zip(lines, ours, theirs) if x[1] != x[2][:251]]
    assert not wrong, "\n".join(map(str, wrong[:40]))
