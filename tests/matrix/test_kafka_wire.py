"""kafka-lite's messages against Kafka's own classes: each version of each, with random contents."""
import os
import subprocess

from cluster import BIN
from programs import java

CLIENTS = "org.apache.kafka:kafka-clients:4.3.1"


def test_kafka_reads_our_messages_and_writes_the_same_bytes():
    wire = java("Wire", CLIENTS)
    ours = subprocess.run([os.path.join(BIN, "kafka_vectors"), "20261123", "4"], check=True,
                          capture_output=True, timeout=60)
    theirs = subprocess.run(wire, input=ours.stdout, capture_output=True, timeout=120)
    assert theirs.returncode == 0, theirs.stdout.decode()[-2000:] + theirs.stderr.decode()[-2000:]
    assert b" 0 differ" in theirs.stdout


def test_a_wrong_byte_is_seen():
    """That the comparison can fail: a tag that is not in its place."""
    wire = java("Wire", CLIENTS)
    # ApiVersions 3, request: two names, then one unknown tagged field, which Kafka keeps, then junk
    theirs = subprocess.run(wire, input=b"18 request 3 036162036162000000\n", capture_output=True,
                            timeout=120)
    assert theirs.returncode == 1, theirs.stdout
