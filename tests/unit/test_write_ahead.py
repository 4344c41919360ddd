# SPDX-License-Identifier: Apache-2.0
"""The write-ahead log of a process that stays: long from the start, emptied while nobody waits."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from pam_mfa.audit import Event, Head
from pam_mfa.store import Change, Claim
from pam_mfa.store.log_state import LogState
from pam_mfa.store.state import Outbox, Settled, State

ROOM = 1000 * (4096 + 24)  # bytes that SQLite writes before it begins anew


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A state that nobody has used."""
    state = open_state(tmp_path)
    yield state
    state.close()


def open_state(place: Path) -> State:
    """Open a state as one more process does."""

    def format_line(event: Event, _head: Head) -> bytes:
        return f"{event.user}\n".encode()

    return State(place / "state.db", format_line)


def use(state: State, *steps: int) -> None:
    """Use a phone at time steps, in one commit."""

    def settle(_outbox: Outbox, log: LogState) -> Settled:
        return Settled(0, log)

    def claim(step: int) -> Claim:
        return Claim(
            "alice", (), lambda _: Change(accepted=True, events=(), used_steps={"phone": step})
        )

    state.commit([claim(step) for step in steps], settle)


def size_of_log(place: Path) -> int:
    """Return how long the write-ahead log is."""
    return (place / "state.db-wal").stat().st_size


def test_room(state: State, tmp_path: Path) -> None:
    """The log is as long as it gets, and no commit makes it longer."""
    use(state, 1)
    state.tend()
    size = size_of_log(tmp_path)
    for step in range(2, 9):
        use(state, step)
    assert (True, size) == (size >= ROOM, size_of_log(tmp_path))


def test_power_cut(state: State, tmp_path: Path) -> None:
    """What was committed before and after is there, as another machine would find the files."""
    use(state, 1)
    state.tend()
    found = []
    for name, step in (("before", 1), ("after", 2)):
        use(state, step)
        place = tmp_path / name
        place.mkdir()
        for path in (tmp_path / "state.db", tmp_path / "state.db-wal"):
            shutil.copyfile(path, place / path.name)
            (place / path.name).chmod(0o600)
        other = open_state(place)
        found.append(other.read_devices(["phone"])["phone"].step)
        other.close()
    assert [1, 2] == found


def test_two_processes(state: State, tmp_path: Path) -> None:
    """Two that both make room lose nothing of each other's."""
    other = open_state(tmp_path)
    use(state, 1)
    state.tend()
    use(other, 2)
    other.tend()
    use(state, 3)
    assert 3 == other.read_devices(["phone"])["phone"].step
    other.close()


def test_full_disk(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room the log stays as it was, and commits go on."""
    use(state, 1)
    size, real = size_of_log(tmp_path), os.write

    def write(descriptor: int, data: bytes) -> int:
        if size_of_log(tmp_path) > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:10_000])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        state.tend()
    assert size == size_of_log(tmp_path)
    use(state, 2)
    assert 2 == state.read_devices(["phone"])["phone"].step


def test_emptied(state: State, tmp_path: Path) -> None:
    """After some commits what the log holds is in the database itself."""
    use(state, 1)
    state.tend()
    use(state, *range(2, 200))
    state.tend()
    copy = tmp_path / "copy.db"
    shutil.copyfile(tmp_path / "state.db", copy)
    with sqlite3.connect(copy) as connection:
        assert [(199,)] == connection.execute("SELECT step FROM used_step").fetchall()


def test_nothing_was_opened(state: State, tmp_path: Path) -> None:
    """A state that was not used has its room, too, when it is opened for that."""
    state.tend()
    assert size_of_log(tmp_path) >= ROOM
