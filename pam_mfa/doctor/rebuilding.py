# SPDX-License-Identifier: Apache-2.0
"""A damaged or lost state.db rebuilt, without making a used code good again.

What can still be read of the old one is taken over, and what the audit log tells beyond it: codes
that were accepted, and wrong ones. Where the log does not join up with the last record that the
old state knew of, nobody can know what is missing. So whatever might have been used counts as used:

- a time-based device's used step becomes the current one and some more: its next codes are good in
  minutes. Where its record is lost and the log tells of a resynchronization, and not to which
  step, its codes of a day to come might have been used, so it waits for that day;
- a counter-based device of which neither a record nor the log says enough is good no more, and
  neither is a code on paper. They are to be enabled anew.

Sessions that were verified are forgotten: one that was ended since would be back.

While this is at work, and after it was killed, ``state.db`` is a text that no verifier takes, so
that every login is refused and none begins with an empty state. Run it again then.
"""

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pam_mfa.audit import AuditLog, Origin, Reason, follow
from pam_mfa.audit.record import format_event
from pam_mfa.devices import Bypass, RecoveryCodes, TokenDevice, VirtualDevice
from pam_mfa.doctor.used_codes import UsedCodes, Uses
from pam_mfa.errors import BrokenSystemError, PamMfaError, RefusedError
from pam_mfa.factors.code import RESYNC_SECONDS
from pam_mfa.factors.paper import used_key, used_keys
from pam_mfa.forecast import ask_child
from pam_mfa.oath import time_step
from pam_mfa.policy import OnFailure, Policy
from pam_mfa.store import mfa_sessions
from pam_mfa.store.device_files import DeviceFiles
from pam_mfa.store.files import replace_file, sync_directory
from pam_mfa.store.joining import find_ahead, tell_resumed
from pam_mfa.store.layout import Layout, drop_privileges
from pam_mfa.store.log_state import read_log_state, write_log_state
from pam_mfa.store.policies import read_policy
from pam_mfa.store.state import create_schema
from pam_mfa.store.user_keys import encode_user

PLACEHOLDER: Final = b"pam-mfa doctor --repair was interrupted; run it again.\n"
# What others may read, no verifier opens. Its text alone would not do: SQLite plays a log that the
# old database has left back over any bytes, and a used code would be good again.
PLACEHOLDER_MODE: Final = 0o644
_NEVER_AGAIN = 1 << 62  # a counter that no device comes to
_MARGIN = 12  # time steps: the widest window of a policy, and a clock that goes on meanwhile
_PATIENCE = 10.0  # seconds for the lock
_DAMAGE = (sqlite3.Error, UnicodeDecodeError, MemoryError)  # sqlite3's own words on a damaged file
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

    broken: str  # where the old one is kept; "": there was none
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
                rows = _salvage(broken, made) if broken else 0
                known = _Known(made, layout, is_whole=broken is not None and is_whole(broken))
                void, waiting = _use_up(made, layout, known, now)
                mfa_sessions.end_all(made)
                _go_on(made, layout, known)
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
    return Rebuilt(str(broken or ""), rows, void, waiting)


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


def _set_aside(state: Path) -> Path | None:
    """Give the old database another name, where there is one, and leave a text under its own."""
    earlier = sorted(state.parent.glob("state.db.broken-*[0-9]"))
    if earlier and is_placeholder(state):
        _remove_log(state)
        return earlier[-1]
    broken = None
    with contextlib.suppress(FileNotFoundError):
        name = state.with_name(f"state.db.broken-{time.time_ns()}")
        os.link(state, name)
        broken = name
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
        contextlib.suppress(*_DAMAGE),
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
        with contextlib.suppress(*_DAMAGE):
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
        with contextlib.suppress(*_DAMAGE):
            for row in old.execute(query):
                insert = f"INSERT OR IGNORE INTO {table}({names}) VALUES({marks})"
                rows += made.execute(insert, row).rowcount
    made.execute("COMMIT")
    return rows


def is_whole(path: Path) -> bool:
    """Whether SQLite finds nothing wrong with a database."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
            return bool(old.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",))
    except _DAMAGE:
        return False


class _Known:
    """What can be known of what was used: rows of the old state, and the log."""

    def __init__(self, made: sqlite3.Connection, layout: Layout, *, is_whole: bool) -> None:
        """Read the log beside the rows that were taken over."""
        policy, is_read = Policy(), False
        with contextlib.suppress(PamMfaError):
            policy, is_read = read_policy(layout.policy), True
        self.head = read_log_state(made).head
        self.drifts = dict(made.execute("SELECT serial_number, drift FROM used_step").fetchall())
        self.used = UsedCodes(policy.lockout)
        waiting = [row[0] for row in made.execute("SELECT line FROM outbox ORDER BY id")]
        self.used.read(layout.audit_log, waiting, self.head)
        # Where logins may go on without the log, a success may be in neither.
        self._is_all = is_read and policy.audit.on_failure is OnFailure.DENY
        self._holds = self._is_all and self.used.is_whole_since(self.head.sequence)
        self._is_whole = is_whole

    def is_settled(self, serial_number: str, uses: Uses) -> bool:
        """Whether a device's row, or the log, has the last of what it used."""
        has_row = serial_number in self.drifts and self._holds and not uses.is_doubtful
        return (uses.is_sure and self._is_all) or has_row

    def is_paper_settled(self, uses: Uses) -> bool:
        """Whether a code on paper of which nothing is known was not used."""
        has_all = self._holds and self._is_whole and not uses.is_doubtful
        return (uses.is_sure and self._is_all) or has_all


def _use_up(
    made: sqlite3.Connection, layout: Layout, known: _Known, now: float
) -> tuple[list[str], list[str]]:
    """Note as used whatever may have been; return what is void, and what waits for a day."""
    void: list[str] = []
    waiting: list[str] = []
    files = DeviceFiles(layout.devices)
    made.execute("BEGIN IMMEDIATE")
    for user in files.users():
        for device in files.read(user):
            serial_number = device.serial_number
            uses = known.used.find(serial_number)
            if isinstance(device, RecoveryCodes | Bypass):
                is_settled = known.is_paper_settled(uses)
                numbers = [used_key(device, number) for number in uses.numbers]
                keys = numbers if is_settled else used_keys(device)
                made.executemany(UPSERT, [(key, 1) for key in keys])
                void += [] if is_settled else [serial_number]
                continue
            steps = [uses.last] if uses.last >= 0 else []
            if isinstance(device, VirtualDevice | TokenDevice):
                is_settled = known.is_settled(serial_number, uses)
                is_moved = not is_settled and (uses.was_moved or not known.used.is_readable)
                drift = known.drifts.get(serial_number, 0)
                step = _last_step(device, drift, now, is_settled=is_settled, is_moved=is_moved)
                steps += [] if step is None else [step]
                void += [serial_number] if step == _NEVER_AGAIN else []
                waiting += [serial_number] if step != _NEVER_AGAIN and is_moved else []
            made.executemany(UPSERT, [(serial_number, step) for step in steps])
    for user, lock in known.used.locks.items():
        failures = " ".join(map(repr, lock.failures))
        made.execute(STRICTER_LOCK, (encode_user(user), failures, lock.locked_until))
    made.execute("COMMIT")
    return void, waiting


def _last_step(
    device: VirtualDevice | TokenDevice, drift: int, now: float, *, is_settled: bool, is_moved: bool
) -> int | None:
    """Return the step up to which every code counts as used; None: what is known is enough."""
    period = device.parameters.period
    if device.parameters.is_event_based:
        return None if is_settled else _NEVER_AGAIN
    reach = RESYNC_SECONDS // period if is_moved else 0
    return time_step(now, period) + max(drift, 0) + reach + _MARGIN


def _go_on(made: sqlite3.Connection, layout: Layout, known: _Known) -> None:
    """Have the chain go on behind the log's last record, where the old state did not know of it."""
    log = AuditLog(layout.audit_log)
    try:
        if find_ahead(log, known.head) is None:
            return
    finally:
        log.close()
    end = known.used.log_end
    origin = Origin(os.uname().nodename, os.getpid(), "pam-mfa")
    event = tell_resumed(Reason.STATE_LOST, known.head, end)
    line = format_event(event, os.urandom(8).hex(), origin, end)
    state = read_log_state(made)._replace(head=follow(end, line))
    made.execute("BEGIN IMMEDIATE")
    made.execute("DELETE FROM outbox")
    made.execute("INSERT INTO outbox(line) VALUES(?)", (line,))
    write_log_state(made, state)
    made.execute("COMMIT")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
