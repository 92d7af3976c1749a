"""Fixtures: one cluster a module, and the list of what was skipped, by name, at the end."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from cluster import Cluster  # noqa: E402
from needs import need, summary  # noqa: E402, F401

@pytest.fixture(scope="module")
def one():
    with Cluster(1) as c:
        yield c


@pytest.fixture(scope="module")
def three():
    with Cluster(3) as c:
        yield c


def pytest_terminal_summary(terminalreporter):
    summary(terminalreporter)
