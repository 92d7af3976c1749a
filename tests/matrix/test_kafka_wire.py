"""kafka-lite's messages, each version of each, and record batches, with random contents, against
Kafka's own classes."""
import os
import subprocess

from cluster import BIN
from programs import java

JARS = "org.apache.kafka:kafka-clients:4.3.1", "org.slf4j:slf4j-api:1.7.36"


def given_to_kafka(*args):
    wire = java("Wire", *JARS)
    ours = subprocess.run([os.path.join(BIN, "kafka_vectors"), *args], check=True,
                          capture_output=True, timeout=60)
    theirs = subprocess.run(wire, input=ours.stdout, capture_output=True, timeout=120)
    assert theirs.returncode == 0, theirs.stdout.decode()[-2000:] + theirs.stderr.decode()[-2000:]
    assert b" 0 differ" in theirs.stdout


def test_kafka_reads_our_messages_and_writes_the_same_bytes():
    given_to_kafka("messages", "20261123", "4")


def test_kafka_reads_our_batches_and_writes_the_same_bytes():
    given_to_kafka("batches", "20261123", "1000")


def test_a_wrong_byte_is_seen():
    """That the comparison can fail: a tag that is not in its place."""
    wire = java("Wire", *JARS)
    # ApiVersions 3, request: two names, then one unknown tagged field, which Kafka keeps, then junk
    theirs = subprocess.run(wire, input=b"18 request 3 036162036162000000\n", capture_output=True,
                            timeout=120)
    assert theirs.returncode == 1, theirs.stdout
