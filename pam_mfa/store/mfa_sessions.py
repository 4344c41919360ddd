# SPDX-License-Identifier: Apache-2.0
"""Verifications that are remembered: the table, what is read of it, what is added and what ends.

Owns its SQL, and that the table does not grow with the number of logins. Every function works
inside a transaction of ``state``; which verification counts for what, ``mfa_age`` says.
"""

import sqlite3
from typing import Any

from pam_mfa.mfa_age import Place, Verified
from pam_mfa.store.claims import Memory

SCHEMA = """
CREATE TABLE IF NOT EXISTS mfa_session(
    id INTEGER PRIMARY KEY, user TEXT NOT NULL, type TEXT NOT NULL, serial_number TEXT NOT NULL,
    device_hash TEXT NOT NULL, service TEXT NOT NULL, tty TEXT NOT NULL, login TEXT NOT NULL,
    parent TEXT NOT NULL, session TEXT NOT NULL, boot TEXT NOT NULL, source TEXT NOT NULL,
    at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS mfa_session_of_user ON mfa_session(user);
CREATE INDEX IF NOT EXISTS mfa_session_at ON mfa_session(at);
CREATE INDEX IF NOT EXISTS mfa_session_of_device ON mfa_session(serial_number);
"""
EACH_MAX = 64  # rows of one user: sessions that are open at a time
_CLOCKS_APART = 60.0  # seconds between the judging of claims that wait for each other
_TEXT_MAX = 256  # characters of what the caller named
_COLUMNS = (
    "user, type, serial_number, device_hash, service, tty, login, parent, session, boot, source, at"
)
_INSERT = f"INSERT INTO mfa_session({_COLUMNS}) VALUES({','.join('?' * 12)})"
_SELECT = f"SELECT {_COLUMNS} FROM mfa_session"  # noqa: S608 - constants of this file
_DROP_MORE = """DELETE FROM mfa_session WHERE user = ?1 AND id <= (SELECT id FROM mfa_session
    WHERE user = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)"""


def read(connection: sqlite3.Connection, user_key: str) -> tuple[Verified, ...]:
    """Return what is remembered of a user, the oldest first."""
    rows = connection.execute(f"{_SELECT} WHERE user = ? ORDER BY id", (user_key,)).fetchall()
    return tuple(map(_verified, rows))


def read_all(connection: sqlite3.Connection) -> tuple[Verified, ...]:
    """Return what is remembered of everybody."""
    return tuple(map(_verified, connection.execute(f"{_SELECT} ORDER BY user, id").fetchall()))


def add(connection: sqlite3.Connection, memory: Memory) -> None:
    """Remember a verification, and forget what no rule can want any more."""
    one = memory.verified
    add_row(connection, one)
    # What is from the future is no verification: the clock went back since it was written.
    limits = (memory.now - memory.seconds, memory.now + _CLOCKS_APART)
    connection.execute("DELETE FROM mfa_session WHERE at < ?", limits[:1])
    connection.execute("DELETE FROM mfa_session WHERE at > ?", limits[1:])
    connection.execute(_DROP_MORE, (one.user_key, EACH_MAX))


def add_row(connection: sqlite3.Connection, one: Verified) -> None:
    """Remember a verification, and forget nothing."""
    texts = (*one[:6], *one.place)
    connection.execute(_INSERT, (*(text[:_TEXT_MAX] for text in texts), one.at))


def end_of_user(connection: sqlite3.Connection, user_key: str) -> int:
    """Forget everything of a user; return how many verifications that were."""
    return connection.execute("DELETE FROM mfa_session WHERE user = ?", (user_key,)).rowcount


def end_all(connection: sqlite3.Connection) -> int:
    """Forget everything of everybody; return how many verifications that were."""
    return connection.execute("DELETE FROM mfa_session").rowcount


def end_of_device(connection: sqlite3.Connection, serial_number: str) -> None:
    """Forget what a device has verified."""
    connection.execute("DELETE FROM mfa_session WHERE serial_number = ?", (serial_number,))


def _verified(row: tuple[Any, ...]) -> Verified:
    user_key, kind, serial_number, device_hash, service, tty = row[:6]
    place = Place(*row[6:11])
    return Verified(user_key, kind, serial_number, device_hash, service, tty, place, row[11])
