# SPDX-License-Identifier: Apache-2.0
"""A damaged state.db rebuilt, without making a used code good again.

What can still be read of the old one is taken over; nobody can know what is missing. So whatever
might have been used counts as used:

- a time-based device's used step becomes the current one and some more: its next codes are good in
  minutes. Where its record is lost and the log tells of a resynchronization, its codes of a day to
  come might have been used, so it waits for that day;
- a counter-based device without a record is good no more, and neither is a code on paper: the
  counter and the codes that are left are not to be known. They are to be enabled anew.

While this is at work, and after it was killed, ``state.db`` is a text that no verifier takes, so
that every login is refused and none begins with an empty state. Run it again then.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pam_mfa.audit import Reason
from pam_mfa.audit_reading import open_logs
from pam_mfa.devices import Bypass, RecoveryCodes, TokenDevice, VirtualDevice
from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.factors.code import RESYNC_SECONDS
from pam_mfa.factors.paper import used_keys
from pam_mfa.forecast import ask_child
from pam_mfa.oath import time_step
from pam_mfa.store.device_files import DeviceFiles
from pam_mfa.store.files import replace_file, sync_directory
from pam_mfa.store.layout import Layout, drop_privileges
from pam_mfa.store.state import create_schema

PLACEHOLDER: Final = b"pam-mfa doctor --repair was interrupted; run it again.\n"
# What others may read, no verifier opens. Its text alone would not do: SQLite plays a log that the
# old database has left back over any bytes, and a used code would be good again.
PLACEHOLDER_MODE: Final = 0o644
_NEVER_AGAIN = 1 << 62  # a counter that no device comes to
_MARGIN = 12  # time steps: the widest window of a policy, and a clock that goes on meanwhile
_PATIENCE = 10.0  # seconds for the lock
UPSERT = """INSERT INTO used_step(serial_number, step) VALUES(?, ?) ON CONFLICT(serial_number)
    DO UPDATE SET step = max(step, excluded.step)"""


# What is kept twice: bits that a disk turned are in one of the two, so the stricter word counts.
STEP_COPY = "SELECT serial_number, step FROM used_step INDEXED BY used_step_copy"
LOCK_COPY = "SELECT user, failures, locked_until FROM lock_state INDEXED BY lock_state_copy"
_WORDS = "length({0}) - length(replace({0}, ' ', '')) + ({0} <> '')"
STRICTER_LOCK = f"""INSERT INTO lock_state VALUES(?, ?, ?) ON CONFLICT(user) DO UPDATE SET
    locked_until = max(locked_until, excluded.locked_until),
    failures = CASE WHEN {_WORDS.format("excluded.failures")} > {_WORDS.format("failures")}
        THEN excluded.failures ELSE failures END"""


class Rebuilt(NamedTuple):
    """What came of it."""

    broken: str  # where the old one is kept
    rows: int  # taken over from it
    void: list[str]  # serial numbers that are to be enabled anew
    waiting: list[str]  # that are good again in a day


def rebuild_state(layout: Layout) -> Rebuilt:
    """Put a rebuilt state in the place of a damaged one, which is kept.

    Raises:
        PamMfaError: it could not be done; logins are refused until it is.
    """
    return Rebuilt(*ask_child(lambda: _rebuild_as_owner(layout)))


def _rebuild_as_owner(layout: Layout) -> Rebuilt:
    """Give root up first: SQLite makes files beside a database, which must be the verifier's."""
    drop_privileges()
    return rebuild(layout, time.time())


def rebuild(layout: Layout, now: float) -> Rebuilt:
    """Rebuild, as the owner of the files."""
    try:
        with _commit_lock(layout):
            broken = _set_aside(layout.state)
            draft = layout.state.with_name("state.db.rebuilt")
            draft.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as made:
                create_schema(made)
                rows = _salvage(broken, made)
                void, waiting = _use_up(made, layout, now)
                made.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            draft.chmod(0o600)
            _sync(draft)
            _remove_log(layout.state)
            draft.rename(layout.state)
            sync_directory(layout.state.parent)
    except (OSError, sqlite3.Error) as error:
        raise BrokenSystemError(
            f"{layout.state} could not be rebuilt: {error}",
            hint="Until it is, every login is refused. Make room, and run it again.",
        ) from error
    return Rebuilt(str(broken), rows, void, waiting)


@contextlib.contextmanager
def _commit_lock(layout: Layout) -> Iterator[None]:
    """Keep verifiers from committing."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(layout.library / "commit.lock", flags, 0o600)
    deadline = time.monotonic() + _PATIENCE
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise RefusedError("a verifier keeps the state locked", hint="Stop it: "
                                       "systemctl stop pam-mfad") from error  # fmt: skip
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _set_aside(state: Path) -> Path:
    """Give the damaged database another name, and leave a text under the old one."""
    earlier = sorted(state.parent.glob("state.db.broken-*[0-9]"))
    if earlier and is_placeholder(state):
        _remove_log(state)
        return earlier[-1]
    broken = state.with_name(f"state.db.broken-{time.time_ns()}")
    os.link(state, broken)
    with contextlib.suppress(FileNotFoundError):
        os.link(f"{state}-wal", f"{broken}-wal")
    replace_file(state, PLACEHOLDER, PLACEHOLDER_MODE)
    _remove_log(state)
    return broken


def is_placeholder(state: Path) -> bool:
    """Whether a rebuild was interrupted here."""
    try:
        descriptor = os.open(state, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.pread(descriptor, len(PLACEHOLDER), 0) == PLACEHOLDER
    finally:
        os.close(descriptor)


def _remove_log(state: Path) -> None:
    """Let the new database not find the old one's log: SQLite would play it back."""
    for suffix in ("-wal", "-shm"):
        state.with_name(f"{state.name}{suffix}").unlink(missing_ok=True)
    sync_directory(state.parent)


def _salvage(broken: Path, made: sqlite3.Connection) -> int:
    """Copy every row that can be read into the tables of this version."""
    tables = made.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    with (
        contextlib.suppress(sqlite3.DatabaseError),
        contextlib.closing(sqlite3.connect(broken, isolation_level=None)) as old,
    ):
        rows = sum(_salvage_table(old, made, name) for (name,) in tables)
        salvage_copy(old, made, STEP_COPY, UPSERT)
        salvage_copy(old, made, LOCK_COPY, STRICTER_LOCK)
        return rows
    return 0


def salvage_copy(old: sqlite3.Connection, made: sqlite3.Connection, query: str, put: str) -> None:
    """Have the second copy of a table say what the first one may have lost."""
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.DatabaseError):
            for row in old.execute(f"{query} ORDER BY 1 {order}"):
                made.execute(put, row)


def _salvage_table(old: sqlite3.Connection, made: sqlite3.Connection, table: str) -> int:
    """Copy a table's rows from either end of it, as far as there is no damage."""
    about = made.execute(f"PRAGMA table_info({table})").fetchall()
    names = ", ".join(column[1] for column in about)
    key = next((column[1] for column in about if column[5]), "rowid")
    marks = ", ".join("?" * len(about))
    rows = 0
    made.execute("BEGIN IMMEDIATE")
    for order in ("ASC", "DESC"):
        # Names of our own schema; a column that the old one has not yet ends it, and is no row.
        query = f"SELECT {names} FROM {table} ORDER BY {key} {order}"  # noqa: S608
        with contextlib.suppress(sqlite3.DatabaseError):
            for row in old.execute(query):
                insert = f"INSERT OR IGNORE INTO {table}({names}) VALUES({marks})"
                rows += made.execute(insert, row).rowcount
    made.execute("COMMIT")
    return rows


def _use_up(made: sqlite3.Connection, layout: Layout, now: float) -> tuple[list[str], list[str]]:
    """Note as used whatever may have been; return what is void, and what waits for a day."""
    void: list[str] = []
    waiting: list[str] = []
    moved = read_resynchronized(layout.audit_log, made)
    known = dict(made.execute("SELECT serial_number, drift FROM used_step").fetchall())
    files = DeviceFiles(layout.devices)
    made.execute("BEGIN IMMEDIATE")
    for user in files.users():
        for device in files.read(user):
            serial_number = device.serial_number
            if isinstance(device, RecoveryCodes | Bypass):
                keys = used_keys(device)
                made.executemany(UPSERT, [(key, 1) for key in keys])
                void.append(serial_number)
            elif isinstance(device, VirtualDevice | TokenDevice):
                is_moved = moved is None or serial_number in moved
                is_moved = is_moved and serial_number not in known
                step = _last_step(device, known.get(serial_number), now, is_moved=is_moved)
                if step is not None:
                    made.execute(UPSERT, (serial_number, step))
                    (void if step == _NEVER_AGAIN else waiting if is_moved else []).append(
                        serial_number
                    )
    made.execute("COMMIT")
    return void, waiting


def _last_step(
    device: VirtualDevice | TokenDevice, drift: int | None, now: float, *, is_moved: bool
) -> int | None:
    """Return the step up to which every code counts as used; None: what is known is enough."""
    period = device.parameters.period
    if device.parameters.is_event_based:
        return _NEVER_AGAIN if drift is None else None
    reach = RESYNC_SECONDS // period if is_moved else 0
    return time_step(now, period) + max(drift or 0, 0) + reach + _MARGIN


def read_resynchronized(log: Path, made: sqlite3.Connection) -> set[str] | None:
    """Return the devices that were ever resynchronized, by the log and what was on its way there.

    None: a log cannot be read to its end, so each of them may have been.
    """
    lines = [row[0] for row in made.execute("SELECT line FROM outbox")]
    found = set().union(*map(_resynchronized, lines))
    try:
        with open_logs(log) as files:
            for file in files:
                for line in file.lines():
                    if isinstance(line, bytes) and b"esync" in line:
                        found |= _resynchronized(line)
    except RefusedError:
        return None if log.exists() else found
    except BrokenSystemError:
        return None
    return found


def _resynchronized(line: bytes) -> set[str]:
    try:
        record = json.loads(line)
        is_resync = (
            record["reason"] == Reason.RESYNCHRONIZED.value or "Resync" in record["event_name"]
        )
        return {str(record["device"]["serial_number"])} if is_resync else set()
    except (ValueError, KeyError, TypeError):
        return set()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
