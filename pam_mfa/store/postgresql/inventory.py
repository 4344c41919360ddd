# SPDX-License-Identifier: Apache-2.0
"""The fleet's ``Inventory``: tokens, seeds that are taken, and what is remembered of everybody."""

from collections.abc import Callable, Iterator

from pam_mfa.mfa_age import Place, Verified
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.store.claims import StoredToken
from pam_mfa.store.postgresql.links import Question, Row
from pam_mfa.store.postgresql.rows import FleetRows
from pam_mfa.store.postgresql.session_marks import SessionMarks, without_mark

Ask = Callable[[Question], list[Row]]
_LISTED = """SELECT serial_number, manufacturer, algorithm, digits, period, counter, sealed_seed,
    user_name FROM pam_mfa.token"""
_ADD = """INSERT INTO pam_mfa.token(serial_number, manufacturer, algorithm, digits, period,
    counter, sealed_seed, user_name) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"""
SESSION = """SELECT user_key, type, serial_number, device_hash, service, tty, login, parent,
    session, boot, source, at FROM pam_mfa.mfa_session"""


class FleetInventory:
    """What one transaction asks of tokens, fingerprints, steps and sessions."""

    def __init__(self, ask: Ask, marks: SessionMarks) -> None:
        """Take what asks one question within the transaction, and what knows this host's rows."""
        self._ask = ask
        self._marks = marks

    @property
    def rows(self) -> FleetRows:
        """All that is kept, for another store to take over."""
        return FleetRows(self._ask, self._marks)

    def find_token(self, serial_number: str) -> StoredToken | None:
        """Return a token, or None; nobody else gives it away until the transaction ends."""
        query = f"{_LISTED} WHERE serial_number = %s"
        rows = self._ask(Question(query, (serial_number,)))
        return _token(rows[0]) if rows else None

    def list_tokens(self) -> Iterator[StoredToken]:
        """Go through the tokens, by serial number."""
        yield from map(_token, self._ask(Question(f'{_LISTED} ORDER BY serial_number COLLATE "C"')))

    def add_token(self, token: StoredToken) -> None:
        """Put a token in that is not there yet."""
        parameters = token.parameters
        values = (
            token.serial_number,
            token.manufacturer,
            parameters.algorithm.value,
            parameters.digits,
            parameters.period,
            token.counter,
            token.sealed_seed,
            token.user,
        )
        self._ask(Question(_ADD, values))

    def replace_seed(self, serial_number: str, sealed_seed: str) -> None:
        """Keep a token's seed as it was sealed anew."""
        query = "UPDATE pam_mfa.token SET sealed_seed = %s WHERE serial_number = %s"
        self._ask(Question(query, (sealed_seed, serial_number)))

    def assign_token(self, serial_number: str, user: str | None) -> None:
        """Give a token to a user, or back."""
        query = "UPDATE pam_mfa.token SET user_name = %s WHERE serial_number = %s"
        self._ask(Question(query, (user, serial_number)))

    def find_owner(self, fingerprint: str) -> str | None:
        """Return the serial number of the device whose seed has this fingerprint, or None."""
        query = "SELECT owner FROM pam_mfa.fingerprint WHERE seed = %s"
        rows = self._ask(Question(query, (fingerprint,)))
        return str(rows[0][0]) if rows else None

    def add_fingerprint(self, fingerprint: str, owner: str) -> None:
        """Note whose seed this is, which nobody's was."""
        query = "INSERT INTO pam_mfa.fingerprint(seed, owner) VALUES (%s, %s)"
        self._ask(Question(query, (fingerprint, owner)))

    def drop_fingerprints(self, owner: str) -> None:
        """Forget a device's seed."""
        self._ask(Question("DELETE FROM pam_mfa.fingerprint WHERE owner = %s", (owner,)))

    def find_step(self, serial_number: str) -> int | None:
        """Return the last step of a device, or of what else is noted as one; None: never used."""
        query = "SELECT step FROM pam_mfa.used_step WHERE serial_number = %s"
        rows = self._ask(Question(query, (serial_number,)))
        return int(rows[0][0]) if rows else None

    def forget_use(self, serial_number: str, *, keep_step: bool) -> None:
        """Forget how a device was used when it leaves its user."""
        query = (
            "UPDATE pam_mfa.used_step SET drift = 0, used_at = 0 WHERE serial_number = %s"
            if keep_step
            else "DELETE FROM pam_mfa.used_step WHERE serial_number = %s"
        )
        self._ask(Question(query, (serial_number,)))
        query = "DELETE FROM pam_mfa.mfa_session WHERE serial_number = %s"
        self._ask(Question(query, (serial_number,)))

    def remembered(self, user_key: str | None = None) -> tuple[Verified, ...]:
        """Return what is remembered of a user, or of everybody, at all hosts."""
        if user_key is None:
            question = Question(f"{SESSION} ORDER BY user_key, id")
        else:
            question = Question(f"{SESSION} WHERE user_key = %s ORDER BY id", (user_key,))
        return tuple(without_mark(verified_of(row)) for row in self._ask(question))

    def end_sessions(self, user_key: str | None = None) -> int:
        """Forget what is remembered of a user, or of everybody, at all hosts."""
        query, values = "DELETE FROM pam_mfa.mfa_session", ()
        if user_key is None:
            return len(self._ask(Question(f"{query} RETURNING 1", values)))
        return len(self._ask(Question(f"{query} WHERE user_key = %s RETURNING 1", (user_key,))))


def verified_of(row: Row) -> Verified:
    """Return a verification from its row."""
    user_key, kind, serial_number, device_hash, service, tty = row[:6]
    place = Place(*row[6:11])
    return Verified(user_key, kind, serial_number, device_hash, service, tty, place, row[11])


def _token(row: Row) -> StoredToken:
    serial_number, manufacturer, algorithm, digits, period, counter, sealed_seed, user = row
    parameters = Parameters(Algorithm(algorithm), digits, period)
    return StoredToken(serial_number, manufacturer, parameters, counter, sealed_seed, user)
