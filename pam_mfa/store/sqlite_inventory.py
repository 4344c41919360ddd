# SPDX-License-Identifier: Apache-2.0
"""The embedded store's ``Inventory``: one connection inside one of the state's transactions."""

import sqlite3
from collections.abc import Iterator

from pam_mfa.mfa_age import Verified
from pam_mfa.store import inventory, mfa_sessions, used_steps
from pam_mfa.store.claims import StoredToken
from pam_mfa.store.sqlite_rows import SqliteRows


class SqliteInventory:
    """Tokens, fingerprints, steps and sessions, in SQLite."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take the connection, in its transaction."""
        self._connection = connection

    @property
    def rows(self) -> SqliteRows:
        """All that is kept, for another store to take over."""
        return SqliteRows(self._connection)

    def find_token(self, serial_number: str) -> StoredToken | None:
        """Return a token, or None."""
        return inventory.find_token(self._connection, serial_number)

    def list_tokens(self) -> Iterator[StoredToken]:
        """Go through the tokens, by serial number."""
        return inventory.list_tokens(self._connection)

    def add_token(self, token: StoredToken) -> None:
        """Put a token in that is not there yet."""
        inventory.add_token(self._connection, token)

    def assign_token(self, serial_number: str, user: str | None) -> None:
        """Give a token to a user, or back."""
        inventory.assign_token(self._connection, serial_number, user)

    def replace_seed(self, serial_number: str, sealed_seed: str) -> None:
        """Put a token's seed that was sealed anew in the old text's place."""
        inventory.replace_seed(self._connection, serial_number, sealed_seed)

    def find_owner(self, fingerprint: str) -> str | None:
        """Return the serial number of the device whose seed has this fingerprint, or None."""
        return inventory.find_owner(self._connection, fingerprint)

    def add_fingerprint(self, fingerprint: str, owner: str) -> None:
        """Note whose seed this is."""
        inventory.add_fingerprint(self._connection, fingerprint, owner)

    def drop_fingerprints(self, owner: str) -> None:
        """Forget a device's seed."""
        inventory.drop_fingerprints(self._connection, owner)

    def find_step(self, serial_number: str) -> int | None:
        """Return the last step of a device; None: never used."""
        return used_steps.find_step(self._connection, serial_number)

    def forget_use(self, serial_number: str, *, keep_step: bool) -> None:
        """Forget how a device was used when it leaves its user."""
        used_steps.forget_use(self._connection, serial_number, keep_step=keep_step)

    def remembered(self, user_key: str | None = None) -> tuple[Verified, ...]:
        """Return what is remembered of a user, or of everybody."""
        if user_key is None:
            return mfa_sessions.read_all(self._connection)
        return mfa_sessions.read(self._connection, user_key)

    def end_sessions(self, user_key: str | None = None) -> int:
        """Forget what is remembered of a user, or of everybody."""
        if user_key is None:
            return mfa_sessions.end_all(self._connection)
        return mfa_sessions.end_of_user(self._connection, user_key)
