# SPDX-License-Identifier: Apache-2.0
"""The store of a fleet: a database for devices and state, this host's own log for its records.

The order of a commit: the database first, where all hosts meet; then the record, durable in this
host's ledger; then the verdict. Killed in between, a code is used up and nobody is in. What the
database does not answer in time is refused, and no other store takes its place.
"""

import contextlib
import hmac
import syslog
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pam_mfa.audit import Event, Outcome
from pam_mfa.devices import Device
from pam_mfa.errors import BrokenSystemError, StateError
from pam_mfa.lockout import LockState
from pam_mfa.policy import AuditRules, StoreRules
from pam_mfa.store.claims import Change, Claim, Inventory, Known
from pam_mfa.store.enrollment import DeviceState, Enrollment
from pam_mfa.store.files import require_private_directory
from pam_mfa.store.layout import Layout
from pam_mfa.store.ledger import Ledger
from pam_mfa.store.postgresql.documents import FleetDocuments
from pam_mfa.store.postgresql.inventory import FleetInventory
from pam_mfa.store.postgresql.links import FLEET, SLOW, Fleet, Links, Question, Row
from pam_mfa.store.postgresql.session_marks import SessionMarks
from pam_mfa.store.postgresql.turns import StaleLinkError, Turn, lock_of
from pam_mfa.store.seal import Sealer, find_ring
from pam_mfa.store.unsealing import Opened, Unsealing, Volume
from pam_mfa.store.user_keys import encode_user

if TYPE_CHECKING:
    from pam_mfa.store.signing import SigningKey

_Result = TypeVar("_Result")
_PATIENCE = 30.0  # seconds, for what no login waits for
_BATCH = 1000  # keys of one query
_STATES = """SELECT serial_number, step, drift, used_at FROM pam_mfa.used_step
    WHERE serial_number = ANY(%s::text[])"""
_LOCKS = """SELECT user_key, failures, locked_until FROM pam_mfa.lock_state
    WHERE user_key = ANY(%s::text[]) AND (failures <> '' OR locked_until <> 0)"""
_TAKE_TURNS = """SELECT pg_advisory_xact_lock(hashtextextended(
    'pam-mfa devices of ' || pam_mfa.own_fleet(), 0))"""
_NAME_KEY = """UPDATE pam_mfa.fleet SET key_check = %s
    WHERE fleet = pam_mfa.own_fleet() AND key_check = ''"""


class _UnderWay(threading.local):
    """The transaction that this thread is in, if it is in one."""

    turn: Turn | None = None
    events: list[Event] | None = None  # of the change under the documents' lock


class FleetStore:
    """Devices and state of a fleet; for several threads."""

    def __init__(self, layout: Layout, rules: StoreRules, *, is_administrator: bool) -> None:
        """Take this host's root and where the database is; nothing is connected yet."""
        is_own = is_administrator and bool(rules.administrator.user)
        self._links = Links(rules, rules.administrator if is_own else rules.account)
        self._layout = layout
        self._is_administrator = is_administrator
        self.patience = _PATIENCE if is_administrator else rules.timeout
        self._ledger = Ledger(layout, self._open_signing_key)
        self._ledger_lock = threading.RLock()
        self._opening = threading.Lock()
        self._fleet = Fleet("", "")
        self._unsealing = Unsealing(layout, self, self._require_fleet)
        self._under_way = _UnderWay()
        self._marks = SessionMarks(layout, lambda: self.sealer)
        self.documents = FleetDocuments(self)

    @property
    def place(self) -> str:
        """The database, for messages."""
        return self._links.place

    @property
    def fleet(self) -> str:
        """The fleet's name, once it is open."""
        return self._fleet.name

    @property
    def sealer(self) -> Sealer:
        """What seals and opens secrets, with the fleet's keys.

        Raises:
            BrokenSystemError: as ``open``.
        """
        return self._unsealing.open_once().sealer

    def open(self) -> Opened:
        """Open the fleet's seal keys, which must be those that all its hosts have.

        Raises:
            BrokenSystemError: they are not, or the database cannot be asked.
        """
        if not self._opening.acquire(timeout=self.patience):
            raise StateError(f"{self.place} did not answer in time", hint=SLOW)
        try:
            return self._unsealing.open_once()
        finally:
            self._opening.release()

    def _require_fleet(self) -> Callable[[Sealer], None]:
        """Return what judges this host's keys, once it is known which fleet it is."""
        require_private_directory(self._layout.library)
        fleet = self._fleet = self._find_fleet()
        if not fleet.key_check:
            if not self._is_administrator:
                raise StateError(
                    f"the fleet {fleet.name} has no seal key yet, and so no devices",
                    hint="Enable a first device on an administrators' host, and copy its "
                    f"{self._layout.seal_key} to every other.",
                )
            return self._name_key
        if not find_ring(self._layout).path.exists():
            raise BrokenSystemError(
                f"there is no seal key at {self._layout.seal_key}, and a new one would not be the "
                "fleet's",
                hint="Copy it from a host that has it.",
            )
        return self._require_key

    def _find_fleet(self) -> Fleet:
        rows = self._try_twice(lambda turn: turn.ask_alone(Question(FLEET)))[0]
        return Fleet(*rows[0])

    def _require_key(self, sealer: Sealer) -> None:
        fleet = self._fleet
        if not hmac.compare_digest(_check_of(sealer, fleet.name), fleet.key_check):
            raise BrokenSystemError(
                f"the seal key of this host is not that of the fleet {fleet.name}",
                hint=f"Bring the fleet's: copy {self._layout.seal_key} from a host that has it.",
            )

    def _name_key(self, sealer: Sealer) -> None:
        """Make this host's key the fleet's, as its first administrator."""
        check = _check_of(sealer, self._fleet.name)
        self._try_twice(lambda turn: turn.ask_alone(Question(_NAME_KEY, (check,))))
        self._fleet = self._find_fleet()  # another may have come first
        self._require_key(sealer)

    def mark(self, data: bytes) -> str:
        """Return the fleet's keyed hash of a document."""
        sealer = self.open().sealer
        return sealer.document_mark(self._fleet.name.encode() + b"\0" + data)

    def read_enrollment(self, user: str) -> Enrollment:
        """Return what a user can be verified by, after the same work for every name."""
        self.open()
        return self._unsealing.read_enrollment(user)

    def read_versioned(self, user: str, others: Sequence[str] = ()) -> Volume:
        """Return a user's devices, and what became of them and of others, by one question.

        Raises:
            UnsafeFileError: somebody has written them who does not have the fleet's key.
            DocumentError: their content is wrong.
        """
        return self.documents.read_versioned(user, others)

    def has_device(self, user: str, device: Device, version: tuple[int, ...]) -> bool:
        """Whether a device is still its user's; asked inside the turn that judges by it."""
        turn, key = self._under_way.turn, encode_user(user)
        if version and turn is not None and key in turn.looked_up:
            if (turn.versions.get(key),) == version:
                return True
        elif version and self.documents.version(user) == version:
            return True
        return self._unsealing.has_device(user, device)

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what the database knows of devices.

        Raises:
            StateError: it cannot be asked.
        """
        found: dict[str, DeviceState] = {}
        for at in range(0, len(serial_numbers), _BATCH):
            part = list(serial_numbers[at : at + _BATCH])
            rows = self.ask(Question(_STATES, (part,)))[0]
            found |= {str(row[0]): DeviceState(*row[1:]) for row in rows}
        return found

    def read_locks(self, users: Sequence[str]) -> dict[str, LockState]:
        """Return the wrong codes and locks of users, by name; those without any are left out.

        Raises:
            StateError: the database cannot be asked.
        """
        names = {encode_user(user): user for user in users}
        keys, found = list(names), {}
        for at in range(0, len(keys), _BATCH):
            rows = self.ask(Question(_LOCKS, (keys[at : at + _BATCH],)))[0]
            found.update({names[row[0]]: lock_of(row[1:]) for row in rows})
        return found

    def read_inventory(self, look: Callable[[Inventory], _Result]) -> _Result:
        """Return what a look at the inventory gives.

        Raises:
            StateError: the database cannot be asked.
        """
        return look(FleetInventory(lambda question: self.ask(question)[0], self._marks))

    def ask(self, *questions: Question) -> list[list[Row]]:
        """Ask in the transaction that this thread is in, or in one of its own.

        Raises:
            StateError: the database cannot be asked.
        """
        if self._under_way.turn is not None:
            return self._under_way.turn.ask(*questions)
        return self._try_twice(lambda turn: turn.ask_alone(*questions))

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims; then their changes are in the database and their records on disk.

        Raises:
            StateError: nothing was changed, or nobody knows; tell no success.
            AuditError: the changes stand, their records are not in the log; tell no success.
        """
        events = self._under_way.events
        turn = self._under_way.turn
        if turn is not None and events is not None:
            changes, questions = turn.judge(claims)
            turn.ask(*questions)
            events += [event for change in changes for event in change.events]
            return changes
        changes = self._judge(claims)
        self._record([event for change in changes for event in change.events])
        return changes

    def _judge(self, claims: list[Claim]) -> list[Change]:
        if all(_is_record(claim) for claim in claims):
            changes = [claim.judge(Known(LockState(), {})) for claim in claims]
            if all(_is_told_only(change) for change in changes):
                return changes
        self.open()  # no row of a fleet whose key this host does not have

        def judge(turn: Turn) -> list[Change]:
            changes, questions = turn.judge(claims)
            turn.end(questions)
            return changes

        return self._try_twice(judge)

    def _try_twice(self, act: Callable[[Turn], _Result]) -> _Result:
        """Do something in a turn; once more where a kept connection turns out dead at its start."""
        try:
            return self._take_turn(act)
        except StaleLinkError:
            self._links.drop_idle()
            return self._take_turn(act)

    def _take_turn(self, act: Callable[[Turn], _Result]) -> _Result:
        with self._links.lend(self.patience) as link:
            before, turn = self._under_way.turn, Turn(link, self._links, self._marks)
            self._under_way.turn = turn
            try:
                return act(turn)
            finally:
                self._under_way.turn = before

    @contextlib.contextmanager
    def lock_documents(self) -> Iterator[None]:
        """Keep other writers out; all that is done under it is one transaction, records after it.

        Raises:
            BrokenSystemError: the lock cannot be had, or what was done could not be kept.
        """
        self.open()
        self.ask(Question("SELECT 1"))  # a dead connection shows here, and not under the lock
        under_way = self._under_way
        events: list[Event] = []
        under_way.events = events
        try:
            with self._links.lend(_PATIENCE) as link:
                turn = under_way.turn = Turn(link, self._links, self._marks)
                turn.ask(Question(_TAKE_TURNS))
                yield
                turn.end(())
        except BaseException:
            refusals = [event for event in events if event.outcome is not Outcome.SUCCESS]
            under_way.turn = under_way.events = None
            self._record(refusals)
            raise
        under_way.turn = under_way.events = None
        self._record(events)

    def _record(self, events: Sequence[Event]) -> None:
        change = Change(accepted=False, events=tuple(events))
        with self._ledger_lock:
            self._ledger.commit([Claim("", (), lambda _: change)])

    def require_log(self) -> None:
        """Make sure that a record can be written, before something is done that needs one."""
        with self._ledger_lock:
            self._ledger.require_log()

    def follow(self, rules: AuditRules, tell: Callable[[BrokenSystemError], None]) -> None:
        """Keep records from now on as policy says; tell there what a verdict did not wait for."""
        self._ledger.follow(rules, tell)

    def follow_file(self, path: Path) -> None:
        """Tell outlets of records as a policy file says, which is read with the first record."""

        def find_rules() -> AuditRules:
            from pam_mfa.store.policies import read_policy  # noqa: PLC0415 - most need it not

            try:
                return read_policy(path).audit
            except BrokenSystemError:
                return AuditRules()

        self._ledger.follow_outlets(find_rules, _tell_system_log)

    def note_policy(self, digest: str, *, is_accepted: bool) -> None:
        """Have the next commit record a policy that no record has told of."""
        with self._ledger_lock:
            self._ledger.note_policy(digest, is_accepted=is_accepted)

    def follow_up(self, *, must_sign: bool = False) -> None:
        """Sign this host's log where that is due, and tell the other logs of its records."""
        with self._ledger_lock:
            if must_sign or self._unsealing.is_open:  # else the database is asked for the keys
                self._ledger.sign_if_due(is_asked=must_sign)
            self._ledger.tell_outlets()
            self._ledger.tend_state()

    def require_desk(self) -> "FleetStore":
        """Refuse: a host's role changes no devices.

        Raises:
            BrokenSystemError: always.
        """
        raise BrokenSystemError(
            "this host may verify for its fleet, and not change devices",
            hint="Enable devices on an administrators' host; policy's 'unenrolled: enroll' is for "
            "stores of one host.",
        )

    def code_hash(self, code: str, user: str, serial_number: str) -> str:
        """Return the keyed hash of a code on paper."""
        return self.sealer.code_hash(code, user, serial_number)

    def pseudonym(self, text: str) -> str:
        """Return the keyed hash of a name; for a record, the database need not answer."""
        if self._is_administrator:
            return self.sealer.pseudonym(text)
        return self._unsealing.pseudonym(text)

    def close(self) -> None:
        """Close the files, and let go of the database."""
        with self._ledger_lock:
            self._ledger.close(may_sign=self._unsealing.is_open)
        self._links.drop_idle()  # last: a checkpoint at the end may have asked for the fleet's keys

    def _open_signing_key(self) -> "SigningKey":
        from pam_mfa.store.signing import load_signing_key  # noqa: PLC0415 - start-up cost

        return load_signing_key(self._layout, self.sealer)


def _is_record(claim: Claim) -> bool:
    """Whether nothing of the database is needed to judge a claim."""
    return not (claim.user_key or claim.serial_numbers or claim.inventory)


def _is_told_only(change: Change) -> bool:
    """Whether a change is nothing but its records."""
    return change.lock is None and not change.used_steps and change.memory is None


def _check_of(sealer: Sealer, fleet: str) -> str:
    """Return by what a fleet's key is known, and nothing of the key."""
    return sealer.document_mark(b"the key of the fleet\0" + fleet.encode())


def _tell_system_log(error: BrokenSystemError) -> None:
    syslog.syslog(syslog.LOG_AUTHPRIV | syslog.LOG_ERR, f"{error}. {error.hint}")
