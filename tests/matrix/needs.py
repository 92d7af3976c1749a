"""What a test needs of the machine: without it the test is skipped by name, or fails where nothing
may be skipped (BNS_REQUIRE_ALL=1)."""
import os
import shutil

import pytest

def missing(what, why):
    if os.environ.get("BNS_REQUIRE_ALL") == "1":
        pytest.fail(f"{what} is missing: {why}")
    pytest.skip(f"{what} is missing: {why}")


def need(program, why):
    if not shutil.which(program):
        missing(program, why)


def summary(terminalreporter):
    said = {r.longrepr[2] for r in terminalreporter.stats.get("skipped", [])}
    for line in sorted(said):
        terminalreporter.write_line(line)
