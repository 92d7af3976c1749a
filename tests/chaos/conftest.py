"""What the chaos tests share: the matrix's helpers, and one Docker engine with one image."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "matrix")]
import engine as docker_engine  # noqa: E402
import netns  # noqa: E402

SKIPPED = {}
IMAGE = "bonsai-under-test"


def unavailable(what, reason):
    """Skips, or fails with BNS_REQUIRE_ALL=1."""
    SKIPPED[what] = reason
    if os.environ.get("BNS_REQUIRE_ALL") == "1":
        pytest.fail(f"no {what}: {reason}")
    pytest.skip(f"no {what}: {reason}")


@pytest.fixture(scope="session")
def engine():
    reason = docker_engine.available()
    if reason:
        unavailable("Docker engine", reason)
    e = docker_engine.Engine()
    try:
        e.__enter__()
    except (AssertionError, OSError) as error:
        unavailable("Docker engine", str(error))
    with e:
        e.seconds_to_build = e.build(IMAGE)
        e.image = IMAGE
        yield e


@pytest.fixture(scope="session")
def namespaces():
    reason = netns.available()
    if reason:
        unavailable("network namespaces", reason)


def pytest_terminal_summary(terminalreporter):
    for what, why in SKIPPED.items():
        terminalreporter.write_line(f"skipped for want of {what}: {why}")
