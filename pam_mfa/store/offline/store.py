# SPDX-License-Identifier: Apache-2.0
"""An engine, and what stands in for it while it cannot be reached.

The engine is asked first, each time. Only where it cannot be reached (``UnreachableError``: no
connection, no answer in time) a user who has verified here is looked up in what is kept, and
judged by this host's own state. An answer is an answer, also one that refuses. Whoever was looked
up without the engine has a key of this host's own (``claims.HERE``), so that claims tell by
themselves where they belong. Once the engine answers again it judges them, too, after everything
that was used here has been handed in, which only ever raises what it knows.
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pam_mfa.devices import Device
from pam_mfa.errors import BrokenSystemError, StateError, UnreachableError, UnsafeFileError
from pam_mfa.policy import AuditRules, Offline
from pam_mfa.store import AdministratorsStore, EngineStore
from pam_mfa.store.claims import Change, Claim
from pam_mfa.store.enrollment import DeviceState, Enrollment, Standing
from pam_mfa.store.layout import Layout
from pam_mfa.store.offline.claims import HERE, Watch, hand_over, is_own, mark_offline, raise_to
from pam_mfa.store.offline.contact import Link
from pam_mfa.store.offline.files import turn
from pam_mfa.store.offline.keeping import Keeping, Seen
from pam_mfa.store.offline.kept import KeptUsers, Pending
from pam_mfa.store.offline.own_state import OwnState
from pam_mfa.store.seal import Sealer, find_ring
from pam_mfa.store.unsealing import Unsealing, Volume
from pam_mfa.store.user_keys import encode_user

_VERSION = -1  # the first number of a version of what is kept
_SEEN_MAX = 4096  # users


class _Thread(threading.local):
    """Whether this thread judges by this host's own state now."""

    is_judging = False


class OfflineStore:
    """An engine with a stand-in; for several threads where the engine is."""

    def __init__(
        self,
        engine: EngineStore,
        layout: Layout,
        rules: Offline,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the engine, this host's root, what policy lets go on, and the clock."""
        self._engine = engine
        self._layout = layout
        self._rules = rules
        self._clock = clock
        self._kept = KeptUsers(layout.offline)
        self._unsealing = Unsealing(layout, self, self._require_keys)
        self._link = Link(layout.offline / "contact", rules, self._find_sealer, clock)
        self._own = OwnState(layout)
        self._keeping = Keeping(engine, self._own, self._kept, rules)
        self._thread = _Thread()
        self._seen: dict[str, Seen] = {}
        self._tell: Callable[[BrokenSystemError], None] = lambda _error: None

    @property
    def patience(self) -> float:
        """Seconds that an answer may take."""
        return self._engine.patience

    @property
    def sealer(self) -> Sealer:
        """What seals and opens what is kept: the engine's keys, as this host has them.

        Raises:
            BrokenSystemError: it has none.
        """
        return self._unsealing.open_once().sealer

    def _find_sealer(self) -> Sealer:
        return self.sealer

    def _require_keys(self) -> Callable[[Sealer], None]:
        """Make no key: a new one would not be the fleet's."""
        path = find_ring(self._layout).path
        if not path.exists():
            raise UnreachableError(
                f"the database cannot be reached, and there is no seal key at {path}",
                hint="Copy it from a host that has it.",
            )
        return lambda _sealer: None

    def open(self) -> None:
        """Open the engine; where it cannot be reached, logins may go on.

        Raises:
            BrokenSystemError: it can be reached, and cannot be opened.
        """
        try:
            self._engine.open()
        except UnreachableError as error:
            self._note_silence(error)

    def read_enrollment(self, user: str) -> Enrollment:
        """Return what a user can be verified by, or could when the engine was last asked.

        Raises:
            UnreachableError: policy does not let anybody in without the engine.
        """
        if not self._link.is_cut():
            try:
                self._hand_in()
                enrollment = self._engine.read_enrollment(user)
            except UnreachableError as error:
                self._note_silence(error)
            else:
                self._note_answer()
                self._keeping.refresh(self._note_seen(user, enrollment), self._find_sealer)
                return enrollment
        return self._read_kept(user)

    def has_device(self, user: str, device: Device, version: tuple[int, ...]) -> bool:
        """Whether a device is still its user's, by the engine or, where it is silent, as kept."""
        if version[:1] != (_VERSION,):
            return self._engine.has_device(user, device, version)
        if self._thread.is_judging:
            return self._unsealing.has_device(user, device)
        return self._engine.has_device(user, device, ())

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims where they belong, and make their changes and records durable.

        Raises:
            UnreachableError: a user who was looked up by the engine cannot be judged without it.
            BrokenSystemError: nothing was changed, or is to be told.
        """
        own = [claim for claim in claims if is_own(claim)]
        others = [claim for claim in claims if not is_own(claim)]
        changes = iter(self._commit_there(others) if others or not own else [])
        own_changes = iter(self._commit_own(own) if own else [])
        return [next(own_changes if is_own(claim) else changes) for claim in claims]

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what the engine knows of devices; of what is kept, what this host does."""
        if self._thread.is_judging:
            return self._own.read_devices(serial_numbers)
        return self._engine.read_devices(serial_numbers)

    def code_hash(self, code: str, user: str, serial_number: str) -> str:
        """Return the keyed hash by which a code on paper is known."""
        return self.sealer.code_hash(code, user, serial_number)

    def pseudonym(self, text: str) -> str:
        """Return what stands in records for a name that no account has."""
        return self.sealer.pseudonym(text)

    def follow(self, rules: AuditRules, tell: Callable[[BrokenSystemError], None]) -> None:
        """Keep records from now on as policy says; tell there what a verdict did not wait for."""
        self._tell = self._keeping.tell = tell
        self._engine.follow(rules, tell)
        self._own.follow(rules, tell)

    def note_policy(self, digest: str, *, is_accepted: bool) -> None:
        """Have the next commit record a policy that no record has told of."""
        self._engine.note_policy(digest, is_accepted=is_accepted)

    def follow_up(self, *, must_sign: bool = False) -> None:
        """Do what no verdict waits for: sign records where due, and tell other logs of them."""
        self._engine.follow_up(must_sign=must_sign)
        self._own.tell_outlets()

    def require_desk(self) -> AdministratorsStore:
        """Return what takes a user's device at a login.

        Raises:
            BrokenSystemError: devices are not changed from here.
        """
        return self._engine.require_desk()

    def close(self) -> None:
        """Leave everything on disk where the next one expects it."""
        self._engine.close()
        self._own.close()

    # What is kept, read in the engine's place.

    def read_versioned(self, user: str, others: Sequence[str] = ()) -> Volume:
        """Return a user's devices as they are kept, and their version.

        Raises:
            UnsafeFileError: nothing is kept of the user, or it is too old.
        """
        del others  # their states are asked for like the user's own
        kept = self._kept.find(user, self.sealer) if self._keeping.may_go_on(user) else None
        if kept is None or not 0 <= self._clock() - kept.at < self._rules.seconds:
            raise UnsafeFileError("nothing of this user is kept here, or it is too old")
        devices = tuple(one for one in kept.devices if one.type in self._rules.allow)
        return Volume(devices, (_VERSION, round(kept.at * 1e6)))

    def _read_kept(self, user: str) -> Enrollment:
        """Look a user up in what is kept; whoever is not there gets a decoy, as everybody does."""
        left = self._link.require_allowed()
        with self._judging():
            enrollment = self._unsealing.read_enrollment(user)
        if enrollment.standing is not Standing.ENROLLED:
            # Never "not enrolled": a name of which nothing is known may have devices.
            enrollment = enrollment._replace(
                standing=Standing.OUT_OF_REACH,
                problem="the database cannot be reached, and nothing is kept here by which this "
                "user could be verified",
            )
        key = f"{HERE}{enrollment.user_key}"
        problem = enrollment.problem or f"without the database, for {left:.0f} s more at most"
        enrollment = enrollment._replace(user_key=key, problem=problem)
        self._note_seen(user, enrollment)
        return enrollment

    @contextlib.contextmanager
    def _judging(self) -> Iterator[None]:
        """Have this thread judge by this host's own state."""
        self._thread.is_judging = True
        try:
            yield
        finally:
            self._thread.is_judging = False

    # Claims of whom this host has looked up by itself.

    def _commit_own(self, claims: list[Claim]) -> list[Change]:
        """Judge them by the engine where it answers again, else by this host's own state."""
        if not self._link.is_cut():
            try:
                changes = self._ask([hand_over(claim) for claim in claims])
            except UnreachableError as error:
                self._note_silence(error)
            else:
                self._note_used(claims, changes)
                return changes
        self._link.require_allowed()
        with turn(self._lock_path, is_alone=False):
            for claim in claims:
                self._note_pending(claim)
            with self._judging():
                return self._own.commit([mark_offline(claim) for claim in claims])

    def _note_used(self, claims: list[Claim], changes: list[Change]) -> None:
        """Have this host know what the engine has judged of users whom this host looked up."""
        for claim, change in zip(claims, changes, strict=True):
            seen = self._seen.get(claim.user_key)
            if seen is not None and seen.enrollment.standing is Standing.ENROLLED:
                self._keeping.note_used(seen.user, change)

    def _note_pending(self, claim: Claim) -> None:
        seen = self._seen.get(claim.user_key)
        if seen is None:
            raise StateError(f"nobody was looked up as {claim.user_key}")
        if seen.enrollment.standing is Standing.ENROLLED:
            devices = seen.enrollment.all_devices()
            self._kept.note_pending(seen.user, [one.serial_number for one in devices])

    @property
    def _lock_path(self) -> Path:
        self._kept.make_directories()
        return self._layout.offline / "lock"

    # Claims of whom the engine has shown, and what is learned from them.

    def _commit_there(self, claims: list[Claim]) -> list[Change]:
        """Have the engine judge claims.

        Raises:
            UnreachableError: it cannot be reached.
        """
        watches = [Watch(claim) for claim in claims]
        try:
            changes = self._ask([watch.claim for watch in watches])
        except UnreachableError as error:
            self._note_silence(error)
            raise
        for watch, change in zip(watches, changes, strict=True):
            seen = self._seen.get(watch.claim.user_key)
            if seen is not None:
                self._keeping.learn(seen, watch, change, self._find_sealer)
        return changes

    def _ask(self, claims: list[Claim]) -> list[Change]:
        """Have the engine judge, once it knows what was used here."""
        is_asking = any(claim.user_key for claim in claims)  # else it may be this host's log alone
        if is_asking:
            self._hand_in()
        changes = self._engine.commit(claims)
        if is_asking:
            self._note_answer()
        return changes

    def _note_seen(self, user: str, enrollment: Enrollment) -> Seen:
        while len(self._seen) >= _SEEN_MAX:
            with contextlib.suppress(KeyError, RuntimeError):
                del self._seen[next(iter(self._seen))]
        seen = self._seen[enrollment.user_key] = Seen(user, enrollment, self._clock())
        return seen

    # The way to the engine.

    def _note_silence(self, error: UnreachableError) -> None:
        if self._link.note_silence():
            types = ", ".join(self._rules.allow)
            self._tell(
                UnreachableError(
                    f"{error}; logins by {types} go on as policy lets them (store: offline)",
                    hint="For how long, and for whom, says: pam-mfa store status",
                )
            )

    def _note_answer(self) -> None:
        if self._link.note_answer():
            self._tell(BrokenSystemError("the database answers again, and is asked again"))

    def _hand_in(self) -> None:
        """Have the engine know all that was used and missed here, before it is asked anything.

        Raises:
            UnreachableError: it cannot be reached; all is kept.
        """
        if not self._kept.has_pending():
            return
        with turn(self._lock_path, is_alone=True):
            for pending in self._kept.list_pending():
                self._hand_in_one(pending)

    def _hand_in_one(self, pending: Pending) -> None:
        states = self._own.read_devices(pending.serial_numbers)
        lock = self._own.read_lock(pending.user)
        judge = functools.partial(raise_to, lock, states)
        claim = Claim(encode_user(pending.user), (), judge)
        self._engine.commit([claim])
        self._kept.settle(pending.user)
