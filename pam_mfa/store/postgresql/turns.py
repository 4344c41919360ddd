# SPDX-License-Identifier: Apache-2.0
"""One transaction: what is known is read under the users' locks, judged, and written with its end.

Two messages where nothing else is asked: the locks and all that judges need; what they decide,
and the commit. Owns the order in which rows are locked, by user, so that no two wait for each
other; a change that an inventory's function makes is in the same transaction.
"""

import time
from collections.abc import Iterable, Sequence

import psycopg

from pam_mfa.errors import StateError
from pam_mfa.lockout import LockState
from pam_mfa.mfa_age import Verified
from pam_mfa.store.claims import Change, Claim, Known
from pam_mfa.store.postgresql.inventory import FleetInventory, verified_of
from pam_mfa.store.postgresql.links import Link, Links, Question, Row
from pam_mfa.store.postgresql.session_marks import HOST, SessionMarks

EACH_MAX = 64  # verifications of one user: sessions that are open at a time
_CLOCKS_APART = 120.0  # seconds between the clocks of hosts
_STOPPED_SECONDS = 5.0  # for which a verifier that was stopped in its turn keeps others waiting
_LOST = ("57P", "08")  # SQLSTATE classes: the operator ended it; connection exceptions
_LOOK = "SELECT * FROM pam_mfa.look(%s::text[], %s::text[], %s::text[], %s)"
_UPDATE_LOCK = """UPDATE pam_mfa.lock_state SET failures = %s, locked_until = %s
    WHERE user_key = %s"""
_TAKE = "SELECT pam_mfa.take_step(%s, %s::bigint, %s::bigint, %s::double precision)"
_RAISE = """INSERT INTO pam_mfa.used_step AS old(serial_number, step, used_at)
    VALUES (%s, %s, %s) ON CONFLICT (fleet, serial_number)
    DO UPDATE SET step = greatest(old.step, excluded.step),
        used_at = greatest(old.used_at, excluded.used_at)"""
_DRIFT = "UPDATE pam_mfa.used_step SET drift = %s WHERE serial_number = %s"
_END_SESSIONS = "DELETE FROM pam_mfa.mfa_session WHERE user_key = %s"
_ADD_SESSION = """INSERT INTO pam_mfa.mfa_session(user_key, type, serial_number, device_hash,
    service, tty, login, parent, session, boot, source, at, host)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""
# Of this user only, whose lock is held: two who tidy up everybody's would wait for each other.
_DROP_SESSIONS = """DELETE FROM pam_mfa.mfa_session WHERE user_key = %s AND (at < %s OR at > %s
    OR id <= (SELECT id FROM pam_mfa.mfa_session WHERE user_key = %s
        ORDER BY id DESC LIMIT 1 OFFSET %s))"""


class StaleLinkError(StateError):
    """A connection that was kept is dead; nothing was asked yet."""


class Turn:
    """One transaction on a connection."""

    def __init__(self, link: Link, links: Links, marks: SessionMarks) -> None:
        """Take the connection, and what knows this host's rows; nothing is asked yet."""
        self.link = link
        self.inventory = FleetInventory(lambda question: self.ask(question)[0], marks)
        self.versions: dict[str, int] = {}
        """Of users' documents, as of this turn; a user without one is left out."""
        self.looked_up: set[str] = set()
        self._links = links
        self._marks = marks
        self._has_begun = False
        self._broken: Exception | None = None

    def ask(self, *questions: Question) -> list[list[Row]]:
        """Ask within the transaction, which begins with the first question.

        Raises:
            StateError: it failed, and so has all of the transaction.
        """
        if self._broken is not None:
            raise self._broken
        begun = self.begin()
        try:
            return self.link.ask(*begun, *questions)[len(begun) :]
        except psycopg.Error as error:
            self._broken = self._name(error, is_first=bool(begun))
            raise self._broken from error

    def ask_alone(self, *questions: Question) -> list[list[Row]]:
        """Ask in a transaction of nothing else, by one message.

        Raises:
            StateError: it failed.
        """
        begun = self.begin()
        try:
            return self.link.ask(*begun, *questions, Question("COMMIT"))[len(begun) : -1]
        except psycopg.Error as error:
            raise self._name(error, is_first=True) from error

    def _name(self, error: psycopg.Error, *, is_first: bool) -> StateError:
        """Return what a failure means, and whether another connection would do better."""
        named = self._links.translate(error)
        is_in_time = time.monotonic() < self.link.deadline
        if is_first and is_in_time and self.link.used_at and is_lost(error):
            return StaleLinkError(str(named), hint=named.hint)
        return named

    def begin(self) -> tuple[Question, ...]:
        """Return what begins the transaction, the first time.

        Its limits are its own: nothing of a session is set, which a pooler would hand on.
        """
        if self._has_begun:
            return ()
        self._has_begun = True
        left = max(1, round((self.link.deadline - time.monotonic()) * 1000))
        stopped = round(_STOPPED_SECONDS * 1000)
        return (
            Question("BEGIN"),
            Question(f"SET LOCAL statement_timeout = {left}"),
            Question(f"SET LOCAL idle_in_transaction_session_timeout = {max(left, stopped)}"),
        )

    def judge(self, claims: Sequence[Claim]) -> tuple[list[Change], list[Question]]:
        """Return what is decided on claims, and what makes that durable.

        Where a claim has an inventory's function, what is decided before it is written at once.
        """
        changes: list[Change] = []
        waiting: list[Question] = []
        batch: list[Claim] = []
        for claim in claims:
            if claim.inventory is not None:
                waiting += self._judge_batch(batch, changes)
                batch = []
                if waiting:
                    self.ask(*waiting)
                    waiting = []
                claim.inventory(self.inventory)
            batch.append(claim)
        waiting += self._judge_batch(batch, changes)
        return changes, waiting

    def _judge_batch(self, claims: Sequence[Claim], changes: list[Change]) -> list[Question]:
        if not claims:
            return []
        sight = self._look(claims)
        questions: list[Question] = []
        for claim in claims:
            change = claim.judge(sight.known(claim))
            questions += self._write(claim, change, sight)
            changes.append(change)
        return questions

    def _look(self, claims: Sequence[Claim]) -> "_Sight":
        users = sorted({claim.user_key for claim in claims if claim.user_key})
        serial_numbers = sorted({one for claim in claims for one in claim.serial_numbers})
        asking = sorted({claim.user_key for claim in claims if claim.asks_memory})
        (rows,) = self.ask(Question(_LOOK, (users, serial_numbers, asking, HOST)))
        self.looked_up |= {*users}
        sight = _Sight()
        for kind, key, number, moment, words in rows:
            if kind == "lock":
                sight.locks[key] = lock_of((words[0], moment))
            elif kind == "version":
                self.versions[key] = number
            elif kind == "step":
                sight.steps[key] = number
            else:
                one = self._marks.find_own(verified_of((key, *words, moment)))
                if one is not None:
                    sight.remembered.setdefault(key, []).append(one)
        return sight

    def _write(self, claim: Claim, change: Change, sight: "_Sight") -> Iterable[Question]:
        """Return what makes a change durable, and have those judged later see it."""
        user = claim.user_key
        lock = sight.locks.get(user, LockState())
        if change.lock is not None:
            if change.lock.locked_until > lock.locked_until:  # who guesses is nobody's session
                sight.remembered.pop(user, None)
                yield Question(_END_SESSIONS, (user,))
            # A refusal writes it whether it changes or not, so that none is faster than another.
            if change.lock != lock or not change.accepted:
                failures = " ".join(map(repr, change.lock.failures))
                yield Question(_UPDATE_LOCK, (failures, change.lock.locked_until, user))
            sight.locks[user] = change.lock
        for serial_number, step in change.used_steps.items():
            if serial_number in claim.serial_numbers:
                seen = sight.steps.get(serial_number)
                yield Question(_TAKE, (serial_number, seen, step, change.used_at))
            else:
                yield Question(_RAISE, (serial_number, step, change.used_at))
            sight.steps[serial_number] = max(step, sight.steps.get(serial_number, step))
        for serial_number, drift in change.drifts.items():
            yield Question(_DRIFT, (drift, serial_number))
        if change.memory is not None:
            yield from self._remember(change, sight)

    def _remember(self, change: Change, sight: "_Sight") -> Iterable[Question]:
        memory = change.memory
        if memory is None:
            return
        one = memory.verified
        row = self._marks.add(one)
        yield Question(_ADD_SESSION, (*row[:6], *row.place, row.at, HOST))
        limits = (memory.now - memory.seconds, memory.now + _CLOCKS_APART)
        user = one.user_key
        yield Question(_DROP_SESSIONS, (user, *limits, user, EACH_MAX))
        sight.remembered.setdefault(user, []).append(one)

    def end(self, questions: Sequence[Question]) -> None:
        """Write the last changes and commit.

        Raises:
            StateError: nothing was changed, or nobody knows: then it counts as not proven.
        """
        if self._broken is not None:
            raise self._broken
        if not self._has_begun and not questions:
            return
        try:
            self.link.ask(*self.begin(), *questions, Question("COMMIT"))
        except psycopg.Error as error:
            self._broken = self._links.translate(error)
            if is_lost(error):
                self._broken = StateError(
                    f"{self._broken}; whether the database has kept the change, nobody knows",
                    hint="A code that was typed may be used up: wait for the next one.",
                )
            raise self._broken from error


class _Sight:
    """What one look has found, and what was decided since."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}
        self.locks: dict[str, LockState] = {}
        self.remembered: dict[str, list[Verified]] = {}

    def known(self, claim: Claim) -> Known:
        """Return what the judge of a claim is told."""
        steps = {one: self.steps[one] for one in claim.serial_numbers if one in self.steps}
        remembered = self.remembered.get(claim.user_key, ()) if claim.asks_memory else ()
        return Known(self.locks.get(claim.user_key, LockState()), steps, tuple(remembered))


def is_lost(error: psycopg.Error) -> bool:
    """Whether a connection ended before its answer, so that nobody knows what became of it."""
    return error.sqlstate is None or error.sqlstate.startswith(_LOST)


def lock_of(values: Sequence[object]) -> LockState:
    """Return a lock from its row's failures and end."""
    failures, locked_until = values
    return LockState(tuple(map(float, str(failures).split())), float(str(locked_until)))
