"""Records of __consumer_offsets that kafka-lite writes, read by Kafka's own classes and written
again: the same bytes; and every version that Kafka writes, read by kafka-lite."""
import os
import subprocess

from cluster import BIN
from programs import java

JARS = ("org.apache.kafka:kafka-clients:4.3.1", "org.apache.kafka:kafka-group-coordinator:4.3.1",
        "org.slf4j:slf4j-api:1.7.36")
VECTORS = os.path.join(BIN, "kafka_group_vectors")


def ran(command, given):
    r = subprocess.run(command, input=given, capture_output=True, timeout=120)
    assert r.returncode == 0, r.stdout.decode()[-2000:] + r.stderr.decode()[-2000:]
    return r.stdout


def test_kafka_and_kafka_lite_read_each_others_group_records():
    groups = java("Groups", *JARS)
    ours = ran([VECTORS, "write", "20261123", "600"], b"")
    assert b" 0 differ" in ran(groups, ours)
    theirs = ran([*groups, "old"], ours)
    assert len(theirs.splitlines()) > 2000
    assert b" 0 differ" in ran([VECTORS, "read"], theirs)


def test_a_wrong_byte_is_seen():
    groups = java("Groups", *JARS)
    line = ran([VECTORS, "write", "1", "1"], b"").strip()
    r = subprocess.run(groups, input=line + b"00\n", capture_output=True, timeout=120)
    assert r.returncode == 1, r.stdout
