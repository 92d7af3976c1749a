"""kafka-lite's log directories through Kafka's own log and its DumpLogSegments, and Kafka's through
ours."""
import filecmp
import os
import shutil
import subprocess

import pytest

from cluster import BIN, ROOT
from needs import need
from programs import CLIENTS, WORKER, run

VECTORS = os.path.join(BIN, "kafka_vectors")
_built = []
COMPLAINTS = ("mismatch", "isvalid: false", "out of order", "invalid bytes", "Exception")


def classes():
    """Class path of Log.java on Kafka's own log and tools: one call of Maven brings them all."""
    for program in ("java", "javac", "mvn"):
        need(program, "Kafka's own log")
    work = os.path.join(ROOT, "build", f"clients-java-{WORKER}", "KafkaLog")
    path = work + os.pathsep + os.path.join(work, "*")
    if not _built:
        os.makedirs(work, exist_ok=True)
        source = os.path.join(CLIENTS, "java")
        subprocess.run(["mvn", "-q", "-B", "-f", os.path.join(source, "kafka-log.xml"),
                        "dependency:copy-dependencies", "-DincludeScope=runtime",
                        f"-DoutputDirectory={work}"], check=True, timeout=600,
                       stdout=subprocess.DEVNULL)
        subprocess.run(["javac", "-cp", path, "-d", work, os.path.join(source, "Log.java")],
                       check=True, timeout=600)
        _built.append(work)
    return ["java", "-cp", path]


def kafka(*args):
    return run([*classes(), "Log", *args])


def ours(*args):
    return run([VECTORS, *args])


def dump(directory, *flags):
    files = sorted(os.path.join(directory, f) for f in os.listdir(directory)
                   if f.endswith((".log", ".index", ".timeindex")))
    command = classes() + ["org.apache.kafka.tools.DumpLogSegments", *flags,
                                         "--files", ",".join(files)]
    r = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = r.stdout + "\n".join(x for x in r.stderr.splitlines() if "SLF4J" not in x)
    return r.returncode, said


def complaints(said):
    return [x for x in said.splitlines() if any(c.lower() in x.lower() for c in COMPLAINTS)]


@pytest.fixture
def log(tmp_path):
    path = str(tmp_path / "t-0")
    ours("write", path, "7", "400")
    return path


def test_kafkas_dump_accepts_our_files(log):
    code, said = dump(log, "--deep-iteration", "--print-data-log")
    assert code == 0 and not complaints(said), said[-2000:]
    assert said.count("baseOffset: ") == 400
    code, said = dump(log, "--verify-index-only")
    assert code == 0 and not complaints(said), said[-2000:]


def test_kafkas_dump_sees_a_wrong_byte(log):
    """That the comparison can fail: an index entry that points into a batch."""
    index = sorted(f for f in os.listdir(log) if f.endswith(".index"))[1]
    with open(os.path.join(log, index), "r+b") as f:
        f.seek(7)
        byte = f.read(1)[0]
        f.seek(7)
        f.write(bytes([byte ^ 1]))
    code, said = dump(log, "--verify-index-only")
    assert code != 0 or complaints(said)


def test_kafka_recovers_our_crashed_log_and_makes_the_same_indexes(tmp_path, log):
    copy = str(tmp_path / "u-0")
    shutil.copytree(log, copy)
    assert kafka("read", copy, "crashed") == ours("read", log, "clean")
    for name in os.listdir(log):
        assert filecmp.cmp(os.path.join(log, name), os.path.join(copy, name), shallow=False), name


def test_our_log_goes_on_where_kafkas_recovery_cut_a_torn_tail(tmp_path):
    path, copy = str(tmp_path / "t-0"), str(tmp_path / "u-0")
    ours("cut", path, "8", "100")
    last = os.path.join(path, sorted(f for f in os.listdir(path) if f.endswith(".log"))[-1])
    os.truncate(last, os.path.getsize(last) - 10)
    shutil.copytree(path, copy)
    read = kafka("read", copy, "crashed")
    assert read.count("\n") == 99
    assert read == ours("read", path, "crashed")
    ours("write", copy, "9", "50")
    assert kafka("read", copy, "clean").count("\n") == 149


def test_ours_reads_what_kafka_wrote(tmp_path):
    path = str(tmp_path / "t-0")
    kafka("write", path, "300")
    assert ours("read", path, "clean") == kafka("read", path, "clean")


def test_ours_recovers_what_kafka_left_and_makes_the_same_indexes(tmp_path):
    path, copy = str(tmp_path / "t-0"), str(tmp_path / "u-0")
    kafka("write", path, "300", "crash")
    shutil.copytree(path, copy)
    read = ours("read", path, "crashed")
    assert read.count("\n") == 300
    assert read == kafka("read", copy, "crashed")
    for name in os.listdir(path):
        if not name.endswith(".snapshot"):  # of producers, which are Kafka's alone
            assert filecmp.cmp(os.path.join(path, name), os.path.join(copy, name),
                               shallow=False), name
