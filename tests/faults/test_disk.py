# SPDX-License-Identifier: Apache-2.0
"""Disks that fail, fill up, go read-only or take long, at every call that meets them.

A disk with files open for writing cannot be made read-only by hand, only by its own failure, so
that is injected; tests/pam/test_bad_files.py has one that is read-only before a login.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_program import Status
from serving import each_way, serving, wait_until_gone
from strained import Strained
from sweep import try_each
from system_calls import places_of, strace

pytest_plugins = ["strained_fixtures"]

REQUEST = "recvmsg"  # the first is the one that takes the request


@pytest.mark.parametrize(("error", "names"), [
    ("EIO", ("fdatasync", "pread64", "write", "flock")),
    ("ENOSPC", ("pwrite64", "write", "ftruncate")),
    ("EROFS", ("openat", "unlink")),
    ("ENOLCK", ("fcntl",)),
])  # fmt: skip
def test_call_that_fails(prefix: Path, calls: Path, error: str, names: tuple[str, ...]) -> None:
    """Whichever call of the disk fails, it costs that login at most, and no code counts twice."""
    places = places_of(calls, REQUEST, *names)
    assert {place.name for place in places} == set(names)
    told = try_each(prefix, [place.failing(error) for place in places])
    assert told[Status.AUTHINFO_UNAVAIL] > 0


def test_slow_disk(strained: Strained) -> None:
    """Where a sync takes longer than the module waits, the host is refused at its time."""
    before = strained.accepted()
    strained.strain(*strace("fdatasync:delay_enter=3000000:when=1", "fdatasync"))
    outcome = strained.log_in(arguments="timeout=2")
    assert outcome.status == Status.AUTHINFO_UNAVAIL
    assert outcome.seconds < 4
    strained.require_whole(before, was_let_in=False)


def test_slow_disk_within_the_time(strained: Strained) -> None:
    """Where syncs take half a second each, the login takes as long and is let in."""
    before = strained.accepted()
    strained.strain(*strace("fdatasync:delay_enter=500000", "fdatasync"))
    outcome = strained.log_in()
    assert outcome.status == Status.SUCCESS
    assert outcome.seconds > 1
    strained.require_whole(before, was_let_in=True)


@contextlib.contextmanager
def disk(strained: Strained, options: str) -> Iterator[Path]:
    """Move the user's data to a small disk in memory."""
    place = strained.root.path / "var"
    saved = strained.root.path / "saved"
    place.rename(saved)
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"{options},mode=755", "tmpfs", place], check=True
    )
    try:
        subprocess.run(["cp", "--archive", f"{saved}/.", place], check=True)
        yield place
    finally:
        wait_until_gone(strained.root)
        subprocess.run(["umount", place], check=True)


@each_way
@pytest.mark.parametrize("room", [0, 8, 24])  # KiB; one login needs more
def test_full_disk(strained: Strained, way: str, room: int) -> None:
    """A disk that is full at any point of a login costs that login, and no record."""
    with disk(strained, "size=1m") as place, serving(strained.root, way):
        filler = place / "filler"
        fill(filler, room)
        before = strained.accepted()
        status = strained.log_in().status
        wait_until_gone(strained.root)
        filler.unlink()
        strained.require_whole(before, was_let_in=status == Status.SUCCESS)


def fill(filler: Path, room: int) -> None:
    """Take all of a disk but this many KiB."""
    with filler.open("ab", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        os.truncate(filler, max(0, file.tell() - room * 1024))


@pytest.mark.parametrize("left", range(4))
def test_no_inodes(strained: Strained, left: int) -> None:
    """Where no more files can be made, a login costs itself at most."""
    with disk(strained, "size=4m,nr_inodes=64") as place:
        fillers = []
        with contextlib.suppress(OSError):
            for number in range(64):
                fillers.append(place / str(number))
                fillers[-1].touch()
        for filler in fillers[: left + 1]:
            filler.unlink(missing_ok=True)
        before = strained.accepted()
        status = strained.log_in().status
        wait_until_gone(strained.root)
        for filler in fillers:
            filler.unlink(missing_ok=True)
        strained.require_whole(before, was_let_in=status == Status.SUCCESS)
