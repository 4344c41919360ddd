# SPDX-License-Identifier: Apache-2.0
"""Following a log: each line once, when it is whole, over whatever becomes of the file."""

from collections.abc import Callable, Iterator
from pathlib import Path

from audit_logs import write_log

from pam_mfa.audit_reading.following import Follower
from pam_mfa.audit_reading.lines import OddLine


def follow(path: Path, acts: list[Callable[[], object]]) -> Iterator[bytes | OddLine]:
    """Follow a log; each time it is waited for, something is done to it."""
    waits = iter(acts)

    def wait() -> None:
        try:
            act = next(waits)
        except StopIteration as end:
            raise KeyboardInterrupt from end
        act()

    try:
        yield from Follower(path, wait).lines()
    except KeyboardInterrupt:
        return


def append(path: Path, data: bytes) -> Callable[[], object]:
    """Return what appends to a file."""

    def act() -> None:
        with path.open("ab") as file:
            file.write(data)

    return act


def nothing() -> None:
    """Do nothing."""


def test_follow(tmp_path: Path) -> None:
    """What is written from now on is given, each line when it is whole."""
    path = write_log(tmp_path / "log", [b"old\n"])
    acts = [append(path, b"a\nb"), append(path, b"c\n"), append(path, b"d\n"), nothing]
    assert [b"a", b"bc", b"d"] == list(follow(path, acts))


def test_follow_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    """A log that is made later is followed from its beginning."""
    path = tmp_path / "log"
    assert [b"a"] == list(follow(path, [nothing, append(path, b"a\n"), nothing]))


def test_follow_over_a_rotation(tmp_path: Path) -> None:
    """A rotation loses no line: neither the old file's last ones, nor the new one's first."""
    path, old = write_log(tmp_path / "log", [b"old\n"]), tmp_path / "log.1"
    kept = path.open("ab", buffering=0)
    acts: list[Callable[[], object]] = [
        append(path, b"a\n"),
        lambda: path.rename(old),
        lambda: kept.write(b"b\n"),  # by a writer that has not noticed
        append(path, b"c\n"),
        append(path, b"d\n"),
        nothing,
    ]
    with kept:
        assert [b"a", b"b", b"c", b"d"] == list(follow(path, acts))


def test_follow_over_two_rotations(tmp_path: Path) -> None:
    """A file that was the log between two looks is read whole."""
    path = write_log(tmp_path / "log", [b"old\n"])

    def rotate_twice() -> None:
        path.rename(tmp_path / "log.2")
        write_log(tmp_path / "log.1", [b"a\n"])
        write_log(path, [b"b\n"])

    assert [b"a", b"b"] == list(follow(path, [rotate_twice, nothing, nothing]))


def test_follow_a_log_that_is_emptied(tmp_path: Path) -> None:
    """A log that is emptied in its place is read from its beginning."""
    path = write_log(tmp_path / "log", [b"a long line that was there before\n"])
    acts: list[Callable[[], object]] = [lambda: path.write_bytes(b"b\n"), nothing]
    assert [b"b"] == list(follow(path, acts))
