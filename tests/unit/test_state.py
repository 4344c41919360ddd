# SPDX-License-Identifier: Apache-2.0
"""State: what is judged and what changes are one transaction, durable or not at all."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles import make_event

from pam_mfa.audit import Event, Head, follow
from pam_mfa.errors import StateError
from pam_mfa.lockout import LockState
from pam_mfa.mfa_age import Place, Verified
from pam_mfa.store import Change, Claim, Inventory, Known, Memory, mfa_sessions
from pam_mfa.store.enrollment import DeviceState
from pam_mfa.store.log_state import LogState
from pam_mfa.store.state import (
    SCHEMA_VERSION,
    Outbox,
    Settled,
    State,
)

PHONE = "virtual/alice/phone"
NOTHING = Change(accepted=False, events=())


def format_line(event: Event, _head: Head) -> bytes:
    """Return a line that names the user only."""
    return f"{event.user}\n".encode()


def keep(_outbox: Outbox, log: LogState) -> Settled:
    """Let every row stand."""
    return Settled(0, log)


def drop(_outbox: Outbox, log: LogState) -> Settled:
    """Say that the rows up to the third are safe."""
    return Settled(3, log)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is to be."""
    return tmp_path / "state.db"


@pytest.fixture
def state(path: Path) -> Iterator[State]:
    """A state that nobody has used."""
    state = State(path, format_line)
    yield state
    state.close()


def claim(change: Change, user: str = "alice", seen: list[Known] | None = None) -> Claim:
    """Return a claim that is judged so, and whose judge notes what was known."""

    def judge(known: Known) -> Change:
        if seen is not None:
            seen.append(known)
        return change

    return Claim(user, (PHONE, "virtual/alice/tablet"), judge)


def look(state: State, user: str = "alice") -> Known:
    """Return what is known of a user."""
    seen: list[Known] = []
    state.commit([claim(NOTHING, user, seen)], keep)
    return seen[0]


def rows(path: Path) -> list[tuple[int, bytes]]:
    """Return the rows of the outbox."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT id, line FROM outbox ORDER BY id").fetchall()
    finally:
        connection.close()


def test_first_use(state: State) -> None:
    """Of a user who was never here nothing is known."""
    assert Known(LockState(), {}) == look(state)


@pytest.mark.parametrize(
    "lock",
    [
        LockState(),
        LockState((1.5, 2.25)),
        LockState((), 1_700_000_000.123456),
        LockState(tuple(1_700_000_000.1 + n / 3 for n in range(1000)), 0.1 + 0.2),
    ],
)
def test_lock_is_kept(state: State, path: Path, lock: LockState) -> None:
    """Failures and locks are read back exactly, by another process too."""
    state.commit([claim(Change(accepted=False, events=(), lock=lock))], keep)
    other = State(path, format_line)
    assert [lock, lock] == [look(state).lock, look(other).lock]
    other.close()


def test_lock_by_user(state: State) -> None:
    """What is kept of one user says nothing of another."""
    state.commit([claim(Change(accepted=False, events=(), lock=LockState((), 9.0)))], keep)
    assert LockState() == look(state, "bob").lock


def test_locks_are_read_together(state: State) -> None:
    """The locks of more users than one query takes are read, without those that have none."""
    locks = {f"user{n}": LockState((float(n),), n + 0.5) for n in range(1201)}
    changes = {user: Change(accepted=False, events=(), lock=lock) for user, lock in locks.items()}
    state.commit([claim(change, user) for user, change in changes.items()], keep)
    assert locks == state.read_locks([*locks, "nobody", "?"])
    assert {} == state.read_locks([])


def test_devices_are_read_together(state: State) -> None:
    """What is known of more devices than one query takes is read, without those never used."""
    steps = {f"device{n}": n for n in range(1201)}
    change = Change(accepted=True, events=(), used_steps=steps, used_at=3.5)
    state.commit([claim(change)], keep)
    found = state.read_devices([*steps, "never used"])
    assert {key: DeviceState(step, 0, 3.5) for key, step in steps.items()} == found


def test_lock_that_stands(state: State) -> None:
    """A change without a lock leaves the lock as it was."""
    state.commit([claim(Change(accepted=False, events=(), lock=LockState((), 9.0)))], keep)
    state.commit([claim(NOTHING)], keep)
    assert LockState((), 9.0) == look(state).lock


def use(step: int) -> Change:
    """Return a change that uses a time step of the phone up."""
    return Change(accepted=True, events=(), used_steps={PHONE: step})


@pytest.mark.parametrize(
    ("steps", "kept"), [([5], 5), ([5, 6], 6), ([6, 5], 6), ([6, 0], 6), ([0], 0), ([2**40], 2**40)]
)
def test_used_step(state: State, steps: list[int], kept: int) -> None:
    """The last used time step of a device never goes back."""
    for step in steps:
        state.commit([claim(use(step))], keep)
    assert {PHONE: kept} == look(state).used_steps


def test_claims_see_each_other(state: State) -> None:
    """Of claims that are committed together, each sees what those before it changed."""
    seen: list[Known] = []
    state.commit([claim(use(step), seen=seen) for step in (5, 6, 7)], keep)
    assert [{}, {PHONE: 5}, {PHONE: 6}] == [known.used_steps for known in seen]


def test_claims_of_two_connections(state: State, path: Path) -> None:
    """What one process has committed, another sees."""
    other = State(path, format_line)
    look(other)
    state.commit([claim(use(5))], keep)
    assert {PHONE: 5} == look(other).used_steps
    other.close()


def test_judge_that_fails(state: State, path: Path) -> None:
    """Where one judge fails, nothing of the whole commit is kept."""

    def fail(_known: Known) -> Change:
        raise RuntimeError("a fault")

    good = Change(
        accepted=True, events=(make_event(),), lock=LockState((), 9.0), used_steps={PHONE: 5}
    )
    with pytest.raises(RuntimeError, match="a fault"):
        state.commit([claim(good), Claim("alice", (), fail)], keep)
    assert (Known(LockState(), {}), []) == (look(state), rows(path))


def test_settle_that_fails(state: State) -> None:
    """Where the outbox cannot be settled, no claim is judged."""
    seen: list[Known] = []

    def fail(_outbox: Outbox, _log: LogState) -> Settled:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        state.commit([claim(use(5), seen=seen)], fail)
    assert ([], {}) == (seen, look(state).used_steps)


def test_records(state: State, path: Path) -> None:
    """Records are put into the outbox in the claims' order, and returned as lines."""
    change = Change(accepted=False, events=(make_event("a"), make_event("b")))
    committed = state.commit([claim(change), claim(NOTHING), claim(change)], keep)
    lines = [b"a\n", b"b\n", b"a\n", b"b\n"]
    assert (lines, 4, list(enumerate(lines, 1))) == (
        committed.lines, committed.last_id, rows(path),
    )  # fmt: skip


def test_changes(state: State) -> None:
    """Changes are returned in the claims' order."""
    changes = [use(5), NOTHING, use(6)]
    assert changes == state.commit([claim(change) for change in changes], keep).changes


def test_no_records(state: State) -> None:
    """A commit without records has no last id."""
    committed = state.commit([claim(NOTHING)], keep)
    assert ([], 0) == (committed.lines, committed.last_id)


def test_outbox(state: State) -> None:
    """Settling sees the rows of earlier commits, in their order."""
    seen: list[tuple[tuple[int, int], list[bytes]]] = []

    def settle(outbox: Outbox, log: LogState) -> Settled:
        seen.append((outbox.ids(), outbox.lines()))
        return Settled(0, log)

    for user in ("a", "b"):
        state.commit([claim(Change(accepted=False, events=(make_event(user),)))], settle)
    state.commit([], settle)
    assert [((0, 0), []), ((1, 1), [b"a\n"]), ((1, 2), [b"a\n", b"b\n"])] == seen


def test_head(state: State, path: Path) -> None:
    """The chain's head goes on with every record, and is there for whoever opens the state next."""
    change = Change(accepted=False, events=(make_event("a"), make_event("b")))
    committed = state.commit([claim(change)], keep)
    expected = follow(follow(Head(), b"a\n"), b"b\n")
    other = State(path, format_line)
    again = other.commit([claim(NOTHING)], keep)
    other.close()
    assert (expected, expected) == (committed.log.head, again.log.head)


def test_records_of_settling(state: State) -> None:
    """What settling records stands before the claims' records, and begins where it says."""

    def settle(_outbox: Outbox, log: LogState) -> Settled:
        return Settled(0, log._replace(head=Head(6, "f" * 64)), (make_event("first"),))

    change = Change(accepted=False, events=(make_event("second"),))
    committed = state.commit([claim(change)], settle)
    assert ([b"first\n", b"second\n"], 8) == (committed.lines, committed.log.head.sequence)


def test_dropped_rows(state: State, path: Path) -> None:
    """Rows before the one that is safe are dropped; it stays, so that ids only grow."""
    change = Change(accepted=False, events=(make_event("a"), make_event("b"), make_event("c")))
    state.commit([claim(change)], keep)
    state.commit([claim(NOTHING)], drop)
    left = rows(path)
    state.commit([claim(change)], drop)
    assert ([3], [3, 4, 5, 6]) == ([row[0] for row in left], [row[0] for row in rows(path)])


def test_mode(state: State, path: Path) -> None:
    """The database is its owner's alone, whatever the umask."""
    before = os.umask(0)
    try:
        look(state)
    finally:
        os.umask(before)
    modes = {each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert {0o600} == modes


def garbage(path: Path) -> None:
    """Make the database a file of something else."""
    path.write_bytes(b"this is no database" * 100)
    path.chmod(0o600)


def link(path: Path) -> None:
    """Make the database a link."""
    path.symlink_to("elsewhere.db")


def directory(path: Path) -> None:
    """Make the database a directory."""
    path.mkdir()


def fifo(path: Path) -> None:
    """Make the database a fifo."""
    os.mkfifo(path)


def without_tables(path: Path) -> None:
    """Make a database of the right version without a table."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.close()
    path.chmod(0o600)


def open_to_others(path: Path) -> None:
    """Make the database a file that others can read and write."""
    path.touch()
    path.chmod(0o666)


@pytest.mark.parametrize("spoil", [garbage, open_to_others, link, directory, fifo, without_tables])
def test_no_database(state: State, path: Path, spoil: Callable[[Path], None]) -> None:
    """A database that cannot be used is an error that says what follows, and nothing is judged."""
    spoil(path)
    seen: list[Known] = []
    with pytest.raises(StateError, match=f"the state {path} (cannot be used|is damaged)") as caught:
        state.commit([claim(use(5), seen=seen)], keep)
    assert ([], True) == (seen, caught.value.hint.endswith("every login is refused."))
    assert not path.with_name("elsewhere.db").exists()


def test_mended_database(state: State, path: Path) -> None:
    """Once an unusable database was moved away, the same process goes on with a new one."""
    garbage(path)
    with pytest.raises(StateError):
        look(state)
    path.unlink()
    assert Known(LockState(), {}) == look(state)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, -1, 99])
def test_other_version(state: State, path: Path, version: int) -> None:
    """A database of another version is not touched."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(StateError, match=f"is of version {version}, this program's is 2"):
        look(state)
    assert before == path.read_bytes()


def test_version(state: State, path: Path) -> None:
    """A new database bears this program's version."""
    look(state)
    connection = sqlite3.connect(path)
    assert (SCHEMA_VERSION,) == connection.execute("PRAGMA user_version").fetchone()
    connection.close()


def test_full_sync(state: State) -> None:
    """A commit is on disk when it returns: SQLite is told to sync fully."""
    look(state)
    connection = state._connection  # noqa: SLF001 - a setting of the connection itself
    assert connection is not None
    assert (2,) == connection.execute("PRAGMA synchronous").fetchone()


def test_busy_database(state: State, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that another process keeps locked is an error, not a success."""
    monkeypatch.setattr("pam_mfa.store.state._BUSY_SECONDS", 0.05)
    look(State(path, format_line))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateError, match="database is locked"):
        state.commit([claim(use(5))], keep)
    connection.execute("ROLLBACK")
    connection.close()
    assert {} == look(state).used_steps


# As the first version of this program made it.
VERSION_1 = """
CREATE TABLE IF NOT EXISTS lock_state(
    user TEXT PRIMARY KEY, failures TEXT NOT NULL, locked_until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS used_step(
    serial_number TEXT PRIMARY KEY, step INTEGER NOT NULL, drift INTEGER NOT NULL DEFAULT 0,
    used_at REAL NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox(id INTEGER PRIMARY KEY, line BLOB NOT NULL);
INSERT INTO lock_state VALUES('alice', '1.5 2.5', 99.0);
INSERT INTO used_step VALUES('virtual/alice/phone', 7, 1, 3.0);
INSERT INTO outbox VALUES(41, 'alice');
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(path: Path) -> Path:
    """A database of the first version, in use."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(VERSION_1)
    connection.close()
    path.chmod(0o600)
    return path


def version_of(path: Path) -> int:
    """Return the version that a database bears."""
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(version)


def test_upgrade(old: Path, state: State) -> None:
    """A database of the first version is brought up in place, and nothing in it is lost."""
    assert Known(LockState((1.5, 2.5), 99.0), {PHONE: 7}) == look(state)
    assert [(41, b"alice")] == [(number, bytes(str(line), "ascii")) for number, line in rows(old)]
    assert SCHEMA_VERSION == version_of(old)
    state.commit([claim(remembering(1.0))], keep)
    assert (verified(1.0),) == recall(state)


def test_upgrade_by_two(old: Path, state: State) -> None:
    """Two processes that upgrade, and one of them again, find the same."""
    other = State(old, format_line)
    assert look(state) == look(other) == look(State(old, format_line))
    other.close()


def test_upgrade_that_fails(old: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade that fails leaves the first version whole, and the next one succeeds."""
    with monkeypatch.context() as broken:
        broken.setattr("pam_mfa.store.state._SCHEMA", "CREATE TABLE half(x); CREATE TABLE half(x)")
        with pytest.raises(StateError):
            look(state)
    assert 1 == version_of(old)
    connection = sqlite3.connect(old)
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert "half" not in tables
    assert {PHONE: 7} == look(state).used_steps


def verified(at: float, user: str = "alice", serial_number: str = PHONE) -> Verified:
    """Return a verification."""
    place = Place("1:2", "3:4", "audit:5", "boot", "4:7f000001")
    return Verified(user, "virtual", serial_number, "hash", "sudo", "pts/0", place, at)


def remembering(at: float, user: str = "alice", now: float | None = None) -> Change:
    """Return a change that has a verification remembered for 100 s."""
    memory = Memory(verified(at, user), 100.0, at if now is None else now)
    return Change(accepted=True, events=(), memory=memory)


def recall(state: State, user: str = "alice") -> tuple[Verified, ...]:
    """Return what is remembered of a user."""
    return state.read_inventory(lambda inventory: inventory.remembered(user))


def test_memory(state: State) -> None:
    """What is remembered is known to the user's judges who ask for it, and to no other's."""
    state.commit([claim(remembering(1.0)), claim(remembering(2.0, "bob"), "bob")], keep)
    seen: list[Known] = []
    state.commit([claim(NOTHING, seen=seen)._replace(asks_memory=True)], keep)
    state.commit([claim(NOTHING, seen=seen)], keep)
    assert [(verified(1.0),), ()] == [one.remembered for one in seen]


@pytest.mark.parametrize(
    ("before", "at", "expected"),
    [
        (50.0, 100.0, [50.0, 100.0]),
        (50.0, 200.0, [200.0]),
        (150.0, 100.0, [150.0, 100.0]),
        (161.0, 100.0, [100.0]),
    ],
)
def test_memory_is_tidied_up(state: State, before: float, at: float, expected: list[float]) -> None:
    """What is older than any rule asks for is forgotten, and what is from the future."""
    state.commit([claim(remembering(before)), claim(remembering(at))], keep)
    assert expected == [one.at for one in recall(state)]


def test_memory_is_bounded(state: State) -> None:
    """Of one user so many are kept, the latest, and others' are left alone."""
    state.commit([claim(remembering(0.0, "bob"), "bob")], keep)
    count = mfa_sessions.EACH_MAX + 10
    state.commit([claim(remembering(number / 10)) for number in range(count)], keep)
    assert [number / 10 for number in range(10, count)] == [one.at for one in recall(state)]
    assert 1 == len(recall(state, "bob"))


@pytest.mark.parametrize(
    ("lock", "is_kept"),
    [(LockState((1.0,), 0.0), True), (LockState(), True), (LockState((), 900.0), False)],
)
def test_lock_ends_what_is_remembered(state: State, lock: LockState, is_kept: bool) -> None:  # noqa: FBT001
    """A wrong code that locks ends the user's sessions with it, and nobody else's."""
    state.commit([claim(remembering(1.0)), claim(remembering(1.0, "bob"), "bob")], keep)
    state.commit([claim(Change(accepted=False, events=(), lock=lock))], keep)
    assert (is_kept, True) == (bool(recall(state)), bool(recall(state, "bob")))


def test_device_ends_what_it_verified(state: State) -> None:
    """What a device has verified is forgotten with the device, in the same transaction."""
    state.commit([claim(remembering(1.0))], keep)

    def leave(inventory: Inventory) -> None:
        inventory.forget_use(PHONE, keep_step=True)

    state.commit([claim(NOTHING)._replace(inventory=leave)], keep)
    assert () == recall(state)


def test_long_texts_are_cut(state: State) -> None:
    """What a caller names does not make a row long."""
    one = verified(1.0)._replace(tty="x" * 10_000)
    change = Change(accepted=True, events=(), memory=Memory(one, 100.0, 1.0))
    state.commit([claim(change)], keep)
    assert 256 == len(recall(state)[0].tty)
