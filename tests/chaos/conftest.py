"""What the chaos tests share: the matrix's helpers, and one Docker engine with one image."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "matrix")]
import engine as docker_engine  # noqa: E402
import netns  # noqa: E402
from needs import missing, summary  # noqa: E402

IMAGE = "bonsai-under-test"


@pytest.fixture(scope="session")
def engine():
    reason = docker_engine.available()
    if reason:
        missing("Docker engine", reason)
    e = docker_engine.Engine()
    try:
        e.__enter__()
    except (AssertionError, OSError) as error:
        missing("Docker engine", str(error))
    with e:
        e.seconds_to_build = e.build(IMAGE)
        e.image = IMAGE
        yield e


@pytest.fixture(scope="session")
def namespaces():
    reason = netns.available()
    if reason:
        missing("network namespaces", reason)


def pytest_terminal_summary(terminalreporter):
    summary(terminalreporter)
