# SPDX-License-Identifier: Apache-2.0
"""A process that is killed at one of its writes, as by a power cut between two of them."""

import os
import signal
from collections.abc import Callable
from typing import Any

WRITES = ("open", "write", "fsync", "rename", "unlink", "fchmod", "mkdir", "link")
_FAILED = 70


def run_killed(act: Callable[[], object], number: int) -> bool:
    """Do something in a process that gets a SIGKILL before its write of this number.

    Return whether it came so far; else it has ended by itself.
    """
    child = os.fork()
    if child == 0:
        try:
            _light_fuse(number)
            act()
            os._exit(0)
        finally:
            os._exit(_FAILED)
    _, status = os.waitpid(child, 0)
    ending = os.waitstatus_to_exitcode(status)
    assert ending in (0, -signal.SIGKILL), ending
    return ending != 0


def _light_fuse(number: int) -> None:
    """Count every call of this process that changes a file system."""
    left = number

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - any call's
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return counted

    for name in WRITES:
        setattr(os, name, wrap(getattr(os, name)))
