# SPDX-License-Identifier: Apache-2.0
"""The tokens of this host and the fingerprints that keep every seed unique, in SQLite.

Functions over a connection inside one of the state's transactions. A fingerprint is a keyed hash
of a seed: it tells that a seed is here already, and nothing about the seed.
"""

import sqlite3
from collections.abc import Iterator

from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.store.claims import StoredToken

SCHEMA = """
CREATE TABLE IF NOT EXISTS token(
    serial_number TEXT PRIMARY KEY, manufacturer TEXT NOT NULL, algorithm TEXT NOT NULL,
    digits INTEGER NOT NULL, period INTEGER NOT NULL, counter INTEGER NOT NULL,
    sealed_seed TEXT NOT NULL, user TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fingerprint(
    seed TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = "serial_number, manufacturer, algorithm, digits, period, counter, sealed_seed, user"


def find_token(connection: sqlite3.Connection, serial_number: str) -> StoredToken | None:
    """Return a token of the inventory, or None."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM token WHERE serial_number = ?",  # noqa: S608 - a constant
        (serial_number,),
    ).fetchone()
    return _token(row) if row else None


def list_tokens(connection: sqlite3.Connection) -> Iterator[StoredToken]:
    """Go through the inventory, by serial number."""
    query = f"SELECT {_COLUMNS} FROM token ORDER BY serial_number"  # noqa: S608 - a constant
    for row in connection.execute(query):
        yield _token(row)


def replace_seed(connection: sqlite3.Connection, serial_number: str, sealed_seed: str) -> None:
    """Put a token's seed that was sealed anew in the old text's place."""
    connection.execute(
        "UPDATE token SET sealed_seed = ? WHERE serial_number = ?", (sealed_seed, serial_number)
    )


def add_token(connection: sqlite3.Connection, token: StoredToken) -> None:
    """Put a token into the inventory that is not there yet."""
    parameters = token.parameters
    connection.execute(
        "INSERT INTO token VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (
            token.serial_number,
            token.manufacturer,
            parameters.algorithm.value,
            parameters.digits,
            parameters.period,
            token.counter,
            token.sealed_seed,
            token.user,
        ),
    )


def assign_token(connection: sqlite3.Connection, serial_number: str, user: str | None) -> None:
    """Give a token to a user, or back to the inventory."""
    connection.execute("UPDATE token SET user = ? WHERE serial_number = ?", (user, serial_number))


def find_owner(connection: sqlite3.Connection, fingerprint: str) -> str | None:
    """Return the serial number of the device whose seed has this fingerprint, or None."""
    row = connection.execute(
        "SELECT owner FROM fingerprint WHERE seed = ?", (fingerprint,)
    ).fetchone()
    return str(row[0]) if row else None


def add_fingerprint(connection: sqlite3.Connection, fingerprint: str, owner: str) -> None:
    """Note whose seed this is."""
    connection.execute("INSERT INTO fingerprint VALUES(?, ?)", (fingerprint, owner))


def drop_fingerprints(connection: sqlite3.Connection, owner: str) -> None:
    """Forget a device's seed."""
    connection.execute("DELETE FROM fingerprint WHERE owner = ?", (owner,))


def _token(row: tuple[str, str, str, int, int, int, str, str | None]) -> StoredToken:
    serial_number, manufacturer, algorithm, digits, period, counter, sealed_seed, user = row
    parameters = Parameters(Algorithm(algorithm), digits, period)
    return StoredToken(serial_number, manufacturer, parameters, counter, sealed_seed, user)
