# SPDX-License-Identifier: Apache-2.0
"""The verifier beside a login: as a daemon, or started by the module where none listens.

Owns the two ways, for tests that hold for both, and what is left of a verifier afterwards.
"""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from installed import PATIENCE, DataRoot

Verifier = Callable[[DataRoot], AbstractContextManager[object]]


def on_demand(root: DataRoot) -> AbstractContextManager[object]:
    """Run no daemon: each PAM call then starts a verifier of its own."""
    assert not (root.path / "run/pam_mfa/verify.sock").exists()
    return contextlib.nullcontext()


EITHER_VERIFIER = pytest.mark.parametrize(
    "verifier",
    [pytest.param(DataRoot.daemon, id="daemon"), pytest.param(on_demand, id="on-demand")],
)


def set_policy(root: DataRoot, before: str, after: str) -> None:
    """Change one setting of the root's policy."""
    text = root.policy.read_text()
    assert text.count(before) == 1
    root.policy.write_text(text.replace(before, after))


def await_records(root: DataRoot, count: int) -> list[dict[str, Any]]:
    """Wait for so many records of verifications, written after the login's end perhaps."""
    deadline = time.monotonic() + PATIENCE
    while len(root.audit()) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return root.audit()


def await_no_process(root: DataRoot) -> list[int]:
    """Wait until no process names the root any more; return those that stay all the same."""
    deadline = time.monotonic() + PATIENCE
    while (left := _processes_of(root)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _processes_of(root: DataRoot) -> list[int]:
    """Return the processes whose command line names the root; private hosts' show here too."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(root.path).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found
