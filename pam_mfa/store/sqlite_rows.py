# SPDX-License-Identifier: Apache-2.0
"""The embedded store's ``Rows``: SQL over a connection inside one of the state's transactions."""

import sqlite3
from collections.abc import Iterable, Sequence

from pam_mfa.lockout import LockState
from pam_mfa.mfa_age import Verified
from pam_mfa.store import inventory, mfa_sessions
from pam_mfa.store.claims import StoredToken
from pam_mfa.store.enrollment import DeviceState
from pam_mfa.store.rows import LockRow, SeedRow, StateRow

_STATES = "SELECT serial_number, step, drift, used_at FROM used_step"
_LOCKS = "SELECT user, failures, locked_until FROM lock_state"
_RAISE_STATE = """INSERT INTO used_step(serial_number, step, drift, used_at) VALUES(?, ?, ?, ?)
    ON CONFLICT(serial_number) DO UPDATE SET step = max(step, excluded.step),
    drift = excluded.drift, used_at = max(used_at, excluded.used_at)"""
_RAISE_LOCK = """INSERT INTO lock_state VALUES(?, ?, ?) ON CONFLICT(user) DO UPDATE SET
    failures = excluded.failures, locked_until = max(locked_until, excluded.locked_until)"""
_ADD_SEED = "INSERT INTO fingerprint VALUES(?, ?)"


class SqliteRows:
    """All rows of one embedded store."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take the connection, in its transaction."""
        self._connection = connection

    def states(self) -> Sequence[StateRow]:
        """Return what is known of every device."""
        rows = self._connection.execute(_STATES).fetchall()
        return [StateRow(row[0], DeviceState(*row[1:])) for row in rows]

    def locks(self) -> Sequence[LockRow]:
        """Return the wrong codes and locks of every user."""
        rows = self._connection.execute(_LOCKS).fetchall()
        return [LockRow(row[0], _lock(row[1], row[2])) for row in rows]

    def seeds(self) -> Sequence[SeedRow]:
        """Return every seed that is taken."""
        return [SeedRow(*row) for row in self._connection.execute("SELECT * FROM fingerprint")]

    def tokens(self) -> Sequence[StoredToken]:
        """Return the inventory of tokens."""
        return list(inventory.list_tokens(self._connection))

    def sessions(self) -> Sequence[Verified]:
        """Return what is remembered of verifications."""
        return mfa_sessions.read_all(self._connection)

    def raise_states(self, rows: Iterable[StateRow]) -> None:
        """Note the use of devices."""
        values = ((row.serial_number, *row.state) for row in rows)
        self._connection.executemany(_RAISE_STATE, values)

    def raise_locks(self, rows: Iterable[LockRow]) -> None:
        """Replace wrong codes and locks."""
        values = (
            (row.user_key, " ".join(map(repr, row.lock.failures)), row.lock.locked_until)
            for row in rows
        )
        self._connection.executemany(_RAISE_LOCK, values)

    def add_seeds(self, rows: Iterable[SeedRow]) -> None:
        """Note seeds that are not noted yet."""
        self._connection.executemany(_ADD_SEED, rows)

    def add_tokens(self, rows: Iterable[StoredToken]) -> None:
        """Put tokens in that are not there yet."""
        for token in rows:
            inventory.add_token(self._connection, token)

    def add_sessions(self, rows: Iterable[Verified]) -> None:
        """Remember verifications that are not remembered yet."""
        for one in rows:
            mfa_sessions.add_row(self._connection, one)

    def drop_inventory(self) -> None:
        """Forget tokens, seeds and verifications."""
        for table in ("token", "fingerprint", "mfa_session"):
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constants


def _lock(failures: str, locked_until: float) -> LockState:
    return LockState(tuple(map(float, failures.split())), locked_until)
