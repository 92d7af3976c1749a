"""Fixtures: one cluster a module, and the list of what was skipped, by name, at the end."""
import os
import shutil
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from cluster import Cluster  # noqa: E402

SKIPPED = {}


def need(program, why):
    """Skips (or fails, with BNS_REQUIRE_ALL=1) when a program is missing."""
    if shutil.which(program):
        return
    SKIPPED[program] = why
    if os.environ.get("BNS_REQUIRE_ALL") == "1":
        pytest.fail(f"{program} is missing: {why}")
    pytest.skip(f"{program} is missing: {why}")


@pytest.fixture(scope="module")
def one():
    with Cluster(1) as c:
        yield c


@pytest.fixture(scope="module")
def three():
    with Cluster(3) as c:
        yield c


def pytest_terminal_summary(terminalreporter):
    for program, why in SKIPPED.items():
        terminalreporter.write_line(f"skipped for want of {program}: {why}")
