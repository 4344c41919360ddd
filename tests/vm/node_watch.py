# SPDX-License-Identifier: Apache-2.0
"""Which of the guest's hidraw nodes are opened, and nodes of devices that are no security keys."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from vm.guest import Guest

_INSIDE = Path(__file__).resolve().parent / "inside"
_STOP_SECONDS = 30.0


class NodeWatch:
    """Every hidraw node that there was at the beginning."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Take a process of `inside/node_watcher.py`."""
        self._process = process

    def opened(self) -> set[str]:
        """Stop, and return the names of the nodes that were opened meanwhile."""
        output, _ = self._process.communicate(timeout=_STOP_SECONDS)
        return set(output.decode().split())


@contextlib.contextmanager
def watched_nodes(guest: Guest) -> Iterator[NodeWatch]:
    """Watch the nodes that there are now."""
    with _started(guest, "node_watcher.py", b"watching\n") as process:
        yield NodeWatch(process)


@contextlib.contextmanager
def other_devices(guest: Guest) -> Iterator[set[str]]:
    """Make a mouse and a keyboard; return the names of their nodes."""
    before = _nodes(guest)
    with _started(guest, "uhid_input.py", b"made\n"):
        guest.run(["udevadm", "settle"])
        yield _nodes(guest) - before


def _nodes(guest: Guest) -> set[str]:
    return set(guest.output("ls /sys/class/hidraw").split())


@contextlib.contextmanager
def _started(guest: Guest, program: str, word: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program inside, which says a word when it is ready and ends with its input."""
    process = guest.start(_INSIDE / program)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == word
        yield process
    finally:
        if process.returncode is None:
            process.communicate(timeout=_STOP_SECONDS)
