# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a machine for each test.

The layer runs in a mount namespace of its own, under umockdev: tests/run hardware.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from usb_machine import Machine


@pytest.fixture(scope="session", autouse=True)
def _private_run() -> None:
    """Have a /run of our own, for udevd's files; never the machine's."""
    mounts = Path("/proc/self/mountinfo").read_text("utf-8")
    assert " shared:" not in mounts, "start this layer by: tests/run hardware"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True, timeout=30)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Give a test a machine with nothing plugged in."""
    with Machine() as machine:
        yield machine
