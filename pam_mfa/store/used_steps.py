# SPDX-License-Identifier: Apache-2.0
"""Used steps in SQLite, as they are read in a transaction, and how a device's are forgotten.

Owns the reading of what is kept twice: bits that a disk turns are in one of the two.
"""

import sqlite3
from typing import Any

from pam_mfa.store import mfa_sessions

_STEP = """SELECT step FROM used_step INDEXED BY sqlite_autoindex_used_step_1
    WHERE serial_number = ?1 UNION ALL
    SELECT step FROM used_step INDEXED BY used_step_copy WHERE serial_number = ?1"""
_FORGET_DRIFT = "UPDATE used_step SET drift = 0, used_at = 0 WHERE serial_number = ?"


def find_step(connection: sqlite3.Connection, serial_number: str) -> int | None:
    """Return the last step of a device, or of what else is noted as one; None: never used."""
    row = find_twice(connection, _STEP, serial_number)
    return int(row[0]) if row else None


def forget_use(connection: sqlite3.Connection, serial_number: str, *, keep_step: bool) -> None:
    """Forget how a device was used when it leaves its user; inside a transaction.

    Args:
        connection: in the transaction.
        serial_number: the device's.
        keep_step: as ``Inventory`` has it.
    """
    if keep_step:
        connection.execute(_FORGET_DRIFT, (serial_number,))
    else:
        connection.execute("DELETE FROM used_step WHERE serial_number = ?", (serial_number,))
    mfa_sessions.end_of_device(connection, serial_number)


def find_twice(connection: sqlite3.Connection, query: str, key: str) -> tuple[Any, ...] | None:
    """Return a row that both copies agree on; a key that one of them lost is a used code lost.

    Args:
        connection: in a transaction.
        query: for the row of a key in the one copy, then in the other.
        key: of the row.

    Raises:
        sqlite3.DatabaseError: they do not agree.
    """
    rows = connection.execute(query, (key,)).fetchall()
    if rows and (len(rows) != 2 or rows[0] != rows[1]):  # noqa: PLR2004 - it is kept twice
        error = sqlite3.DatabaseError("what it keeps twice is not the same")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
    return rows[0] if rows else None
