# SPDX-License-Identifier: Apache-2.0
"""System calls of one verification, and strace's command lines that spoil one of them.

Owns what is injected and where. strace counts the calls of each name by itself, from the start
of the program; so a place is a name and a number.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_CALL = re.compile(r"^(?:\d+ +)?([a-z0-9_]+)\(")
# What leaves nothing behind: a program killed before or after one of them is the same.
_IDLE = frozenset((
    "brk", "fstat", "futex", "getegid", "geteuid", "getgid", "getpid",
    "getrandom", "getsockopt", "getuid", "ioctl", "lseek", "madvise", "mprotect", "mremap",
    "munmap", "newfstatat", "poll", "pread64", "read", "rt_sigaction", "rt_sigprocmask",
))  # fmt: skip


class Place(NamedTuple):
    """One system call of a program: its name, and which of that name it is."""

    name: str
    number: int

    def killed(self) -> list[str]:
        """Return the command that kills the program as it enters this call."""
        return strace(f"{self.name}:signal=KILL:when={self.number}", self.name)

    def failing(self, error: str) -> list[str]:
        """Return the command that has this one call fail."""
        return strace(f"{self.name}:error={error}:when={self.number}", self.name)


def strace(injection: str, names: str) -> list[str]:
    """Return strace's command that injects into calls of these names.

    strace runs beside the program (-D), which keeps its alarm and its parent.
    """
    return [
        "strace", "-D", "-f", "-qqq", "-o", "/dev/null", "-e", f"trace={names}",
        "-e", "signal=none", "-e", f"inject={injection}",
    ]  # fmt: skip


def tracing(path: Path) -> list[str]:
    """Return the command that writes down every call of the first process."""
    return ["strace", "-D", "-qqq", "-e", "signal=none", "-o", str(path)]


def read_places(trace: Path, after: str, until: str = "exit_group") -> list[Place]:
    """Return the places from the first call whose line has a word to the next that has another.

    Those that follow a call that leaves nothing behind are left out: a program killed there
    leaves what it leaves when it is killed one call earlier.
    """
    places, is_new = [], True
    for place in _read_span(trace, after, until):
        if is_new:
            places.append(place)
        is_new = place.name not in _IDLE
    return places


def places_of(trace: Path, after: str, *names: str, until: str = "exit_group") -> list[Place]:
    """Return every place of these names from the first call whose line has a word to the end.

    Or to the next call whose line has another word.
    """
    return [place for place in _read_span(trace, after, until) if place.name in names]


def _read_span(trace: Path, after: str, until: str) -> Iterator[Place]:
    counts: dict[str, int] = {}
    has_begun = False
    for line in trace.read_text("utf-8", "replace").splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        name = found[1]
        counts[name] = counts.get(name, 0) + 1
        has_begun = has_begun or after in line
        if has_begun and until in line:
            return
        if has_begun:
            yield Place(name, counts[name])
