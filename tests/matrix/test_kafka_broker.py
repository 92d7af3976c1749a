"""kafka-lite through clients that were written for the real one: what they produce they consume,
with every codec, before and after stops of both kinds."""
import os
import shutil
import subprocess
import urllib.request

import pytest

from kafkalite import Broker
from needs import need


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path) as b:
        yield b


def kcat(broker, *args, stdin=None, ok=True):
    need("kcat", "librdkafka's command line")
    r = subprocess.run(["kcat", "-b", broker.address, *args], input=stdin, capture_output=True,
                       text=True, timeout=60)
    if ok:
        assert r.returncode == 0, r.stderr
    return r.stdout


def lines(*numbers):
    return "".join(f"{x}\n" for x in numbers)


def stored_codecs(broker):
    """Of each batch of t-0: the low bits of its attributes."""
    with open(os.path.join(broker.data, "t-0", "0" * 20 + ".log"), "rb") as f:
        log = f.read()
    at, codecs = 0, set()
    while at < len(log):
        codecs.add(log[at + 22] & 7)
        at += 12 + int.from_bytes(log[at + 8:at + 12], "big")
    return codecs


def test_codecs_there_and_back(broker):
    """librdkafka sends no lz4 to a broker without FindCoordinator."""
    told = []
    for codec in ("none", "gzip", "snappy", "zstd", "none"):
        some = lines(*range(len(told), len(told) + 200))
        kcat(broker, "-P", "-t", "t", "-z", codec, stdin=some)
        told += some.splitlines()
    assert stored_codecs(broker) == {0, 1, 2, 4}
    assert kcat(broker, "-C", "-t", "t", "-o", "beginning", "-e", "-q").splitlines() == told
    assert kcat(broker, "-C", "-t", "t", "-o", "990", "-e", "-q").splitlines() == told[990:]
    assert "offset 1000" in kcat(broker, "-Q", "-t", "t:0:-1")
    assert "offset 0" in kcat(broker, "-Q", "-t", "t:0:-2")


def test_a_topic_has_a_leader_when_it_is_first_told(broker):
    said = kcat(broker, "-L", "-t", "new-one")
    assert "LEADER_NOT_AVAILABLE" not in said and "leader 1" in said, said


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks(broker, acks):
    kcat(broker, "-P", "-t", "t", "-X", f"acks={acks}", stdin=lines(*range(50)))
    # Behind the one that is acknowledged are all of this connection's.
    kcat(broker, "-P", "-t", "t", stdin="last\n")
    said = kcat(broker, "-C", "-t", "t", "-o", "beginning", "-c", "51", "-q").splitlines()
    assert said == [*map(str, range(50)), "last"]


def test_keys_headers_and_nothing(broker):
    kcat(broker, "-P", "-t", "t", "-K:", "-H", "a=1", "-H", "b=", "-Z", stdin="k1:v1\nk2:\n")
    said = kcat(broker, "-C", "-t", "t", "-o", "beginning", "-e", "-q", "-Z", "-f",
                "%k %s %S %h %o\n")
    assert said == "k1 v1 2 a=1,b= 0\nk2 NULL -1 a=1,b= 1\n"


def test_an_idempotent_producer(broker):
    kcat(broker, "-P", "-t", "t", "-X", "enable.idempotence=true", stdin=lines(*range(300)))
    assert kcat(broker, "-C", "-t", "t", "-o", "beginning", "-e", "-q") == lines(*range(300))


@pytest.mark.parametrize("clean", [True, False])
def test_what_was_acknowledged_is_there_after_a_stop(broker, clean):
    kcat(broker, "-P", "-t", "t", "-X", "acks=all", stdin=lines(*range(500)))
    if clean:
        assert broker.stop() == 0, broker.said()
    else:
        broker.kill()
    broker.start()
    assert kcat(broker, "-C", "-t", "t", "-o", "beginning", "-e", "-q") == lines(*range(500))
    kcat(broker, "-P", "-t", "t", stdin="more\n")
    assert kcat(broker, "-C", "-t", "t", "-o", "500", "-e", "-q") == "more\n"


def test_a_consumer_that_waits_gets_what_comes(broker):
    need("kcat", "librdkafka's command line")
    kcat(broker, "-P", "-t", "t", stdin="first\n")
    with subprocess.Popen(["kcat", "-b", broker.address, "-C", "-t", "t", "-o", "beginning", "-c",
                           "2", "-u", "-q"], stdout=subprocess.PIPE, text=True) as waits:
        assert waits.stdout.readline() == "first\n"
        kcat(broker, "-P", "-t", "t", stdin="second\n")
        assert waits.stdout.readline() == "second\n"
        assert waits.wait(60) == 0


def test_ready_and_metrics(broker):
    base = f"http://127.0.0.1:{broker.ports['admin']}"
    for path, word in (("/readyz", "ready"), ("/healthz", "ok"), ("/metrics", "conn_open")):
        with urllib.request.urlopen(base + path, timeout=20) as r:
            assert word in r.read().decode()
    assert "Transitioning from RECOVERY to RUNNING" in broker.said()


def test_properties_and_variables(tmp_path):
    path = tmp_path / "server.properties"
    path.write_text("# a comment\nnode.id = 7\nnum.partitions: 3\n"
                    "listeners=PLAINTEXT://127.0.0.1:0\n")
    b = Broker(tmp_path)
    b.start(str(path), "--override", "listeners=PLAINTEXT://127.0.0.1:0",
            env={"KAFKA_AUTO_CREATE_TOPICS_ENABLE": "true", "KAFKA_NUM_PARTITIONS": "5"})
    try:
        said = kcat(b, "-L", "-t", "t")
        assert "broker 7 at" in said and "with 5 partitions" in said, said
    finally:
        b.kill()


@pytest.mark.parametrize("flags, word", [
    (("--override", "num.partitions=many"), "num.partitions"),
    (("--override", "listeners=SSL://127.0.0.1:0"), "SSL"),
    (("--override", "cluster.id=nonsense"), "cluster.id"),
])
def test_bad_configuration_ends_it_with_the_reason(tmp_path, flags, word):
    b = Broker(tmp_path)
    with pytest.raises(AssertionError):
        b.start(*flags)
    assert b.process.poll() == 3 and word in b.said().splitlines()[-1], b.said()


def test_partitions_are_not_deleted_because_the_metadata_are_lost(tmp_path):
    b = Broker(tmp_path)
    b.start()
    kcat(b, "-P", "-t", "t", stdin=lines(*range(100)))
    b.stop()
    metadata, away = tmp_path / "data" / "metadata", tmp_path / "away"
    metadata.rename(away)
    with pytest.raises(AssertionError):
        b.start()
    assert b.process.wait(30) == 3 and "its metadata are new" in b.said(), b.said()
    shutil.rmtree(metadata)
    away.rename(metadata)
    b.start()
    try:
        assert len(kcat(b, "-C", "-t", "t", "-o", "beginning", "-e", "-q").splitlines()) == 100
    finally:
        b.kill()


def test_a_cluster_id_may_have_bits_left_over(tmp_path):
    b = Broker(tmp_path)
    with pytest.raises(AssertionError):
        b.start("--override", "cluster.id=nonsense")
    b.start(env={"CLUSTER_ID": "MkU3OEVBNTcwNTJENDM2Qk"})
    b.kill()
    b.start(env={"CLUSTER_ID": "MkU3OEVBNTcwNTJENDM2Qk"})
    b.kill()
