# SPDX-License-Identifier: Apache-2.0
"""The embedded store of state: used time steps, failures, locks, and records on their way.

Everything an attempt reads to be judged, and everything the judgement changes, is inside one
write transaction: two sessions cannot both take a code, nor share one guess. Owns SQL and
durability; the judge, who owns the rules, is handed in.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pam_mfa.audit import Event, Head, follow
from pam_mfa.errors import StateError, UnsafeFileError
from pam_mfa.lockout import LockState
from pam_mfa.store import inventory, mfa_sessions, write_ahead
from pam_mfa.store.claims import Change, Claim, Inventory, Known
from pam_mfa.store.enrollment import DeviceState
from pam_mfa.store.files import identity_of, make_private_file
from pam_mfa.store.log_state import SCHEMA as LOG_SCHEMA
from pam_mfa.store.log_state import LogState, read_log_state, write_log_state
from pam_mfa.store.sqlite_inventory import SqliteInventory
from pam_mfa.store.used_steps import find_step, find_twice

_Result = TypeVar("_Result")

SCHEMA_VERSION = 2
_UPGRADED = (0, 1)  # versions that are brought up to this one in place: tables were only added
_BUSY_SECONDS = 10.0
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS lock_state(
    user TEXT PRIMARY KEY, failures TEXT NOT NULL, locked_until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS used_step(
    serial_number TEXT PRIMARY KEY, step INTEGER NOT NULL, drift INTEGER NOT NULL DEFAULT 0,
    used_at REAL NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lock_state_copy ON lock_state(user, failures, locked_until);
CREATE INDEX IF NOT EXISTS used_step_copy ON used_step(serial_number, step);
CREATE TABLE IF NOT EXISTS outbox(id INTEGER PRIMARY KEY, line BLOB NOT NULL);
{LOG_SCHEMA};
{inventory.SCHEMA}
{mfa_sessions.SCHEMA}"""
_UPSERT_LOCK = """INSERT INTO lock_state VALUES(?, ?, ?) ON CONFLICT(user)
    DO UPDATE SET failures = excluded.failures, locked_until = excluded.locked_until"""
# Never backward: not by a clock, a restored device, or two ways to the same device.
_UPSERT_STEP = """INSERT INTO used_step(serial_number, step, used_at) VALUES(?, ?, ?)
    ON CONFLICT(serial_number)
    DO UPDATE SET step = max(step, excluded.step), used_at = max(used_at, excluded.used_at)"""
_UPDATE_DRIFT = "UPDATE used_step SET drift = ? WHERE serial_number = ?"


# Two subqueries: min() and max() together would read the whole table.
_OUTBOX_IDS = "SELECT (SELECT min(id) FROM outbox), (SELECT max(id) FROM outbox)"
_DEVICES = "SELECT serial_number, step, drift, used_at FROM used_step WHERE serial_number IN "
_LOCKS = "SELECT user, failures, locked_until FROM lock_state WHERE user IN "
_KEYS_MAX = 500  # of one query
# Each of these is kept twice, in pages of its own: bits that a disk turns are in one of the two.
_LOCK = """SELECT failures, locked_until FROM lock_state INDEXED BY sqlite_autoindex_lock_state_1
    WHERE user = ?1 UNION ALL
    SELECT failures, locked_until FROM lock_state INDEXED BY lock_state_copy WHERE user = ?1"""
# Of sqlite3.h: not an error of the disk or of another process, but of what the file says.
_DAMAGES = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_INSERT_LINE = "INSERT INTO outbox(line) VALUES(?)"
_CHECKPOINT_AFTER = 150  # claims: SQLite makes one of its own at 1,000 pages, in a login's time


class Committed(NamedTuple):
    """What one transaction made durable."""

    changes: list[Change]
    lines: list[bytes]  # of the records, for the log
    last_id: int  # of these records in the outbox; 0 where there are none
    log: LogState


class Outbox:
    """Records that may be missing in the log, in their order."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Look at them inside a transaction."""
        self._connection = connection

    def ids(self) -> tuple[int, int]:
        """Return the first and the last id; 0 where there are none."""
        row = self._connection.execute(_OUTBOX_IDS).fetchone()
        return row[0] or 0, row[1] or 0

    def lines(self) -> list[bytes]:
        """Return the records' lines."""
        rows = self._connection.execute("SELECT line FROM outbox ORDER BY id").fetchall()
        return [row[0] for row in rows if row[0]]


class Settled(NamedTuple):
    """What is to be done before claims are judged."""

    safe: int  # the id up to which rows are safe in the log
    log: LogState  # as it is from here on
    events: tuple[Event, ...] = ()  # recorded before the claims' own


Settle = Callable[[Outbox, LogState], Settled]
FormatLine = Callable[[Event, Head], bytes]


class State:
    """One connection to the database; not for several threads."""

    def __init__(self, path: Path, format_line: FormatLine) -> None:
        """Take the path, which is not touched yet, and what makes a record's line."""
        self._path = path
        self._format_line = format_line
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._claims = 0  # since the write-ahead log was last emptied by this process
        self._has_room = False  # whether the write-ahead log is as long as it gets

    def commit(self, claims: Sequence[Claim], settle: Settle) -> Committed:
        """Judge claims in one transaction and make what changes durable, records included.

        Args:
            claims: judged in this order, each seeing what those before it changed.
            settle: called first, inside the transaction, with the outbox and what is known of
                the log. Rows that it says are safe in the log are dropped, but for the last
                one's id, so that ids only ever grow.

        Raises:
            StateError: nothing was changed.
        """
        with self._transaction() as connection:
            known = read_log_state(connection)
            settled = settle(Outbox(connection), known)
            if settled.safe:
                connection.execute("DELETE FROM outbox WHERE id < ?", (settled.safe,))
                connection.execute("UPDATE outbox SET line = x'' WHERE id = ?", (settled.safe,))
            changes = [_judge(connection, claim) for claim in claims]
            self._claims += len(claims)
            events = [*settled.events, *(event for change in changes for event in change.events)]
            head, lines, last = settled.log.head, [], 0
            for event in events:
                line = self._format_line(event, head)
                head = follow(head, line)
                lines.append(line)
                last = connection.execute(_INSERT_LINE, (line,)).lastrowid or 0
            log = settled.log._replace(head=head)
            if log != known:
                write_log_state(connection, log)
            return Committed(changes, lines, last, log)

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what is known of devices; those without a record are left out.

        Raises:
            StateError: it cannot be read.
        """
        rows = self._select(_DEVICES, serial_numbers)
        return {str(row[0]): DeviceState(*row[1:]) for row in rows}

    def read_locks(self, user_keys: Sequence[str]) -> dict[str, LockState]:
        """Return the wrong codes and locks of users; those without a record are left out.

        Raises:
            StateError: they cannot be read.
        """
        return {str(row[0]): _lock(row[1:]) for row in self._select(_LOCKS, user_keys)}

    def read_inventory(self, look: Callable[[Inventory], _Result]) -> _Result:
        """Return what a look at the inventory gives.

        Raises:
            StateError: it cannot be read.
        """
        with self._translated():
            return look(SqliteInventory(self._open()))

    def read_log_end(self) -> tuple[LogState, list[bytes]]:
        """Return what is known of the log and the lines that wait for it, as of one moment.

        Raises:
            StateError: it cannot be read.
        """
        with self._translated():
            connection = self._open()
            connection.execute("BEGIN")
            try:
                return read_log_state(connection), Outbox(connection).lines()
            finally:
                connection.execute("ROLLBACK")

    def _select(self, query: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return the rows of these keys, hundreds by one query."""
        rows = []
        with self._translated():
            connection = self._open()
            for at in range(0, len(keys), _KEYS_MAX):
                part = keys[at : at + _KEYS_MAX]
                marks = ",".join("?" * len(part))
                rows += connection.execute(f"{query}({marks})", tuple(part)).fetchall()
        return rows

    def tend(self) -> None:
        """Keep the next commits quick: for a process that stays, while nobody waits for it.

        Raises:
            StateError: the state cannot be used.
        """
        if not self._has_room:
            with self._transaction():
                self._has_room = True
                write_ahead.make_room(self._path)
        elif self._claims >= _CHECKPOINT_AFTER:
            with self._translated():
                self._claims = 0
                self._open().execute("PRAGMA wal_checkpoint(PASSIVE)")

    def was_replaced(self) -> bool:
        """Whether another file stands in the place of the one that is open: a restored backup."""
        return self._connection is not None and identity_of(self._path) != self._identity

    def close(self) -> None:
        """Close the database."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._translated():
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError, UnsafeFileError, OSError) as error:
            self.close()
            # Where a name inside the file is no text any more, sqlite3's own sentence is none.
            is_damage = isinstance(error, UnicodeDecodeError)
            if is_damage or getattr(error, "sqlite_errorcode", None) in _DAMAGES:
                raise StateError(
                    f"the state {self._path} is damaged: {error}",
                    hint="Run: pam-mfa doctor --repair. Until then every login is refused.",
                ) from error
            raise StateError(
                f"the state {self._path} cannot be used: {error}",
                hint=f"See: ls -l {self._path.parent}; df {self._path.parent}. "
                "Rights are mended by: pam-mfa doctor --repair. "
                "Until it can be written, every login is refused.",
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and not self.was_replaced():
            return self._connection
        self.close()
        # SQLite follows links and takes the mode from the umask: the file is made here.
        make_private_file(self._path)
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version in _UPGRADED:
                create_schema(connection)
            elif version != SCHEMA_VERSION:
                raise StateError(
                    f"the state {self._path} is of version {version}, this program's is "
                    f"{SCHEMA_VERSION}",
                    hint="Install the version of pam-mfa that wrote it, or a newer one. "
                    "If there is none, it is damaged: pam-mfa doctor --repair.",
                )
            # FULL: a commit is on disk when it returns, in WAL mode too.
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        self._identity = identity_of(self._path)
        self._connection = connection
        self._has_room = False
        return connection


def _judge(connection: sqlite3.Connection, claim: Claim) -> Change:
    if claim.inventory is not None:
        claim.inventory(SqliteInventory(connection))
    lock = _read_lock(connection, claim.user_key)
    remembered = mfa_sessions.read(connection, claim.user_key) if claim.asks_memory else ()
    change = claim.judge(Known(lock, _read_steps(connection, claim.serial_numbers), remembered))
    if change.lock is not None:
        if change.lock.locked_until > lock.locked_until:  # who guesses is nobody's session any more
            mfa_sessions.end_of_user(connection, claim.user_key)
        failures = " ".join(map(repr, change.lock.failures))
        values = (claim.user_key, failures, change.lock.locked_until)
        connection.execute(_UPSERT_LOCK, values)
    for serial_number, step in change.used_steps.items():
        connection.execute(_UPSERT_STEP, (serial_number, step, change.used_at))
    for serial_number, drift in change.drifts.items():
        connection.execute(_UPDATE_DRIFT, (drift, serial_number))
    if change.memory is not None:
        mfa_sessions.add(connection, change.memory)
    return change


def create_schema(connection: sqlite3.Connection) -> None:
    """Make the tables that are missing, in one transaction; those that are there stay."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    # A newer program may have been here since it was looked at.
    if connection.execute("PRAGMA user_version").fetchone()[0] in _UPGRADED:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _read_lock(connection: sqlite3.Connection, user_key: str) -> LockState:
    row = find_twice(connection, _LOCK, user_key)
    return _lock(row) if row else LockState()


def _lock(row: tuple[str, float]) -> LockState:
    return LockState(tuple(map(float, row[0].split())), row[1])


def _read_steps(connection: sqlite3.Connection, serial_numbers: Sequence[str]) -> dict[str, int]:
    steps: dict[str, int] = {}
    for serial_number in serial_numbers:
        step = find_step(connection, serial_number)
        if step is not None:
            steps[serial_number] = step
    return steps
