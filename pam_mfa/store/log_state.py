# SPDX-License-Identifier: Apache-2.0
"""What the state knows of the audit log: the head of its chain, and what was signed of it.

One row, read and written in the transaction of the records themselves. Owns SQL only.
"""

import sqlite3
from typing import NamedTuple

from pam_mfa.audit import NO_HASH, Head

SCHEMA = """CREATE TABLE IF NOT EXISTS audit_head(
    id INTEGER PRIMARY KEY CHECK(id = 1), sequence INTEGER NOT NULL, hash TEXT NOT NULL,
    signed INTEGER NOT NULL, signed_at REAL NOT NULL, key_id TEXT NOT NULL, policy TEXT NOT NULL)"""
_SELECT = "SELECT sequence, hash, signed, signed_at, key_id, policy FROM audit_head"
_REPLACE = "INSERT OR REPLACE INTO audit_head VALUES(1, ?, ?, ?, ?, ?, ?)"


class LogState(NamedTuple):
    """The log, as of one transaction."""

    head: Head = Head(0, NO_HASH)
    signed: int = 0  # the sequence of the last checkpoint; 0: there is none
    signed_at: float = 0.0  # seconds since the epoch
    key_id: str = ""  # of the key that signed it; "": none has signed yet
    policy: str = ""  # the last one that a record tells of, and whether it was accepted


def read_log_state(connection: sqlite3.Connection) -> LogState:
    """Return the row, inside a transaction."""
    row = connection.execute(_SELECT).fetchone()
    return LogState(Head(row[0], row[1]), *row[2:]) if row else LogState()


def write_log_state(connection: sqlite3.Connection, log: LogState) -> None:
    """Replace the row, inside a transaction."""
    values = (log.head.sequence, log.head.hash, log.signed, log.signed_at, log.key_id, log.policy)
    connection.execute(_REPLACE, values)
