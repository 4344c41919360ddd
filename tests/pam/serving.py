# SPDX-License-Identifier: Apache-2.0
"""The two ways in which a login comes to a verifier."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import PATIENCE, DataRoot

DAEMON = "daemon"
ON_DEMAND = "on-demand"
each_way = pytest.mark.parametrize("way", [DAEMON, ON_DEMAND])


@contextlib.contextmanager
def serving(root: DataRoot, way: str) -> Iterator[None]:
    """Have the daemon run, or none, so that each login starts its own verifier."""
    if way == DAEMON:
        with root.daemon():
            yield
    else:
        yield


def verifiers_on_demand(root: DataRoot) -> list[Path]:
    """Return the /proc directories of the verifiers that logins started under a root."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"--once" in words and os.fsencode(root.path) in words:
                found.append(process)
    return found


def wait_until_gone(root: DataRoot) -> None:
    """Wait until no verifier that a login started is left under a root."""
    deadline = time.monotonic() + PATIENCE
    while verifiers_on_demand(root):
        assert time.monotonic() < deadline, "a verifier that was started on demand stays"
        time.sleep(0.01)
