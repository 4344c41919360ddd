# SPDX-License-Identifier: Apache-2.0
"""The fleet's ``Rows``: what is carried into the database and out of it, within one transaction.

Many rows a statement, as arrays. Of what is remembered only this host's: a verification counts
where it was made.
"""

from collections.abc import Callable, Iterable, Sequence

from pam_mfa.errors import StateError
from pam_mfa.lockout import LockState
from pam_mfa.mfa_age import Place, Verified
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.store.claims import StoredToken
from pam_mfa.store.enrollment import DeviceState
from pam_mfa.store.postgresql.links import Question, Row
from pam_mfa.store.postgresql.session_marks import HOST, SessionMarks
from pam_mfa.store.rows import LockRow, SeedRow, StateRow

Ask = Callable[[Question], list[Row]]
_STATES = "SELECT serial_number, step, drift, used_at FROM pam_mfa.used_step"
_LOCKS = "SELECT user_key, failures, locked_until FROM pam_mfa.lock_state"
_RAISE_STATES = """INSERT INTO pam_mfa.used_step AS old(serial_number, step, drift, used_at)
    SELECT * FROM unnest(%s::text[], %s::bigint[], %s::integer[], %s::double precision[])
    ON CONFLICT (fleet, serial_number) DO UPDATE SET step = greatest(old.step, excluded.step),
        drift = excluded.drift, used_at = greatest(old.used_at, excluded.used_at)"""
_RAISE_LOCKS = """INSERT INTO pam_mfa.lock_state AS old(user_key, failures, locked_until)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::double precision[])
    ON CONFLICT (fleet, user_key) DO UPDATE SET failures = excluded.failures,
        locked_until = greatest(old.locked_until, excluded.locked_until)"""
_ADD_SEEDS = """INSERT INTO pam_mfa.fingerprint(seed, owner)
    SELECT * FROM unnest(%s::text[], %s::text[])"""
_ADD_TOKENS = """INSERT INTO pam_mfa.token(serial_number, manufacturer, algorithm, digits, period,
    counter, sealed_seed, user_name) SELECT * FROM unnest(%s::text[], %s::text[], %s::text[],
    %s::integer[], %s::integer[], %s::bigint[], %s::text[], %s::text[])"""
_TOKENS = """SELECT serial_number, manufacturer, algorithm, digits, period, counter, sealed_seed,
    user_name FROM pam_mfa.token"""
_SESSIONS = """SELECT user_key, type, serial_number, device_hash, service, tty, login, parent,
    session, boot, source, at FROM pam_mfa.mfa_session WHERE host = %s ORDER BY id"""
_ADD_SESSIONS = """INSERT INTO pam_mfa.mfa_session(user_key, type, serial_number, device_hash,
    service, tty, login, parent, session, boot, source, at, host)
    SELECT *, %s FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
        %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
        %s::double precision[])"""


class FleetRows:
    """All rows of one fleet."""

    def __init__(self, ask: Ask, marks: SessionMarks) -> None:
        """Take what asks one question within the transaction, and what knows this host's rows."""
        self._ask = ask
        self._marks = marks

    def states(self) -> Sequence[StateRow]:
        """Return what is known of every device."""
        return [StateRow(row[0], DeviceState(*row[1:])) for row in self._ask(Question(_STATES))]

    def locks(self) -> Sequence[LockRow]:
        """Return the wrong codes and locks of every user."""
        return [
            LockRow(user_key, LockState(tuple(map(float, failures.split())), locked_until))
            for user_key, failures, locked_until in self._ask(Question(_LOCKS))
        ]

    def seeds(self) -> Sequence[SeedRow]:
        """Return every seed that is taken."""
        rows = self._ask(Question("SELECT seed, owner FROM pam_mfa.fingerprint"))
        return [SeedRow(*row) for row in rows]

    def tokens(self) -> Sequence[StoredToken]:
        """Return the inventory of tokens."""
        return [token_of(row) for row in self._ask(Question(_TOKENS))]

    def sessions(self) -> Sequence[Verified]:
        """Return what is remembered of verifications at this host, the oldest first."""
        rows = self._ask(Question(_SESSIONS, (HOST,)))
        found = [self._marks.find_own(verified_of(row)) for row in rows]
        return [one for one in found if one is not None]

    def raise_states(self, rows: Iterable[StateRow]) -> None:
        """Note the use of devices."""
        self._add(_RAISE_STATES, ((row.serial_number, *row.state) for row in rows))

    def raise_locks(self, rows: Iterable[LockRow]) -> None:
        """Replace wrong codes and locks."""
        values = (
            (row.user_key, " ".join(map(repr, row.lock.failures)), row.lock.locked_until)
            for row in rows
        )
        self._add(_RAISE_LOCKS, values)

    def add_seeds(self, rows: Iterable[SeedRow]) -> None:
        """Note seeds that are not noted yet."""
        self._add(_ADD_SEEDS, rows)

    def add_tokens(self, rows: Iterable[StoredToken]) -> None:
        """Put tokens in that are not there yet."""
        self._add(_ADD_TOKENS, (
            (one.serial_number, one.manufacturer, one.parameters.algorithm.value,
             one.parameters.digits, one.parameters.period, one.counter, one.sealed_seed, one.user)
            for one in rows
        ))  # fmt: skip

    def add_sessions(self, rows: Iterable[Verified]) -> None:
        """Remember verifications of this host that are not remembered yet."""
        marked = map(self._marks.add, rows)
        self._add(_ADD_SESSIONS, ((*one[:6], *one.place, one.at) for one in marked), HOST)

    def drop_inventory(self) -> None:
        """Refuse: a fleet's is not one host's to forget.

        Raises:
            StateError: always.
        """
        raise StateError("the inventory of a fleet is not forgotten for one host")

    def _add(self, query: str, rows: Iterable[Sequence[object]], *values: object) -> None:
        columns = zip(*rows, strict=True)
        self._ask(Question(query, (*values, *(list(column) for column in columns))))


def verified_of(row: Row) -> Verified:
    """Return a verification from its row."""
    user_key, kind, serial_number, device_hash, service, tty = row[:6]
    place = Place(*row[6:11])
    return Verified(user_key, kind, serial_number, device_hash, service, tty, place, row[11])


def token_of(row: Row) -> StoredToken:
    """Return a token from its row."""
    serial_number, manufacturer, algorithm, digits, period, counter, sealed_seed, user = row
    parameters = Parameters(Algorithm(algorithm), digits, period)
    return StoredToken(serial_number, manufacturer, parameters, counter, sealed_seed, user)
