# SPDX-License-Identifier: Apache-2.0
"""State and records made durable together, by one disk sync.

A record is written into the state's outbox in the same transaction as the change that it tells
of, and that transaction's sync makes both durable; then it is appended to the log, without a
sync of its own. Rows leave the outbox after the log was synced. A record that a kill or a power
loss kept from the log is found in the outbox by the next commit of any process, and appended.
"""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pam_mfa.audit import (
    AuditLog,
    Event,
    EventName,
    Head,
    Origin,
    Outcome,
    PolicyField,
    Reason,
    build_record,
    format_record,
)
from pam_mfa.audit.outlets import Outlets
from pam_mfa.errors import AuditError, BrokenSystemError, StateError
from pam_mfa.lockout import LockState
from pam_mfa.policy import AuditRules, OnFailure
from pam_mfa.store.claims import Change, Claim, Inventory
from pam_mfa.store.enrollment import DeviceState
from pam_mfa.store.files import identity_of
from pam_mfa.store.joining import Joint, find_joint
from pam_mfa.store.layout import Layout
from pam_mfa.store.log_state import LogState
from pam_mfa.store.state import Committed, Outbox, Settled, State

if TYPE_CHECKING:  # start-up cost: Ed25519 behind it
    from pam_mfa.store.signing import SigningKey

_Result = TypeVar("_Result")
_LOCK_PATIENCE = 2.0  # seconds; a commit takes a millisecond
_LOCK_PAUSE = 0.0005  # seconds
_SIGN_PAUSE = 3600.0  # seconds until a checkpoint is tried again that could not be made
_ACCEPTED = "accepted"
_OUTBOX_MAX = 256  # rows that are kept before the log is synced and they are dropped


class _ApartError(AuditError):
    """Log and state have to be brought together first; the transaction is taken back."""


class Ledger:
    """The state and the audit log of one root."""

    def __init__(self, layout: Layout, open_key: "Callable[[], SigningKey] | None" = None) -> None:
        """Take the root, and what opens the signing key; no file is touched yet."""
        self._layout = layout
        self._lock_path = layout.library / "commit.lock"
        self._lock = -1
        self._lock_identity = (0, 0)
        self._origin = Origin(os.uname().nodename, os.getpid(), Path(sys.argv[0]).name[:64])
        self._audit = AuditLog(layout.audit_log)
        self._state = State(layout.state, self._format_line)
        self._last_id = 0  # of the last record that this process has put into the log
        self._log: LogState | None = None  # as this process last saw it
        self._was_rotated = False  # since the last checkpoint, as far as this process saw
        self._open_key = open_key
        self._key: SigningKey | None = None
        self._is_signing = False  # whether the commit under way is to make a checkpoint
        self._is_asked = False  # whether one is asked for, due or not
        self._is_first = False  # whether it is the key's first one
        self._sign_after = 0.0  # by time.monotonic: not again at once where it failed
        self._rules = AuditRules()
        self._tell: Callable[[BrokenSystemError], None] | None = None
        self._policy = ""  # that is to be told of, where no record has told of it
        self._outlets = Outlets()
        self._untold: list[bytes] = []  # records that the outlets have to be told of
        self._is_serving = False  # whether the caller sees to that, behind its verdicts

    def follow(self, rules: AuditRules, tell: Callable[[BrokenSystemError], None]) -> None:
        """Do from now on as policy says, and tell there what a verdict did not wait for.

        From here on ``tell_outlets`` is the caller's to call, when its verdicts are out.
        """
        self._rules, self._tell, self._is_serving = rules, tell, True
        self._outlets.follow(lambda: rules, tell)

    def follow_outlets(
        self, find_rules: Callable[[], AuditRules], tell: Callable[[BrokenSystemError], None]
    ) -> None:
        """Tell the outlets that policy has switched on, which is asked at the first record."""
        self._tell = tell
        self._outlets.follow(find_rules, tell)

    def note_policy(self, digest: str, *, is_accepted: bool) -> None:
        """Have the next commit record a policy, unless it is the one that a record tells of."""
        self._policy = f"{digest} {_ACCEPTED if is_accepted else 'refused'}"

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims; then their changes and records are on disk.

        Raises:
            StateError: nothing was changed.
            AuditError: the changes stand, their records wait in the outbox; tell no success.
        """
        with self._locked():
            try:
                committed = self._commit_joined(claims)
            except AuditError as error:  # nothing was judged
                self._require_allowed(error)
                return self._state.commit(claims, _settle_nothing).changes
            try:
                self._append(committed.lines, committed)
            except AuditError as error:
                self._require_allowed(error)
            return committed.changes

    def require_log(self) -> None:
        """Make sure that a record can be written, before something is done that needs one.

        Raises:
            StateError: the state cannot be used.
            AuditError: the log cannot be used.
        """
        with self._locked():
            self._audit.require_usable()
            self._commit_joined([])

    def tell_outlets(self) -> None:
        """Tell the outlets of the records that they were not told of yet; all are durable."""
        lines, self._untold = self._untold, []
        if lines:
            self._outlets.send(lines)

    def tend_state(self) -> None:
        """Keep the next commits quick; what hinders that, the next commit tells."""
        with contextlib.suppress(StateError):
            self._state.tend()

    def sign_if_due(self, *, is_asked: bool = False) -> None:
        """Add a checkpoint where one is due; what hinders that is told and hinders nothing else.

        Never called while somebody waits for a verdict.

        Args:
            is_asked: sign whatever was not signed yet.
        """
        self._is_asked = is_asked
        if self._open_key is None or self._log is None or self._find_due(self._log) is None:
            return
        try:
            self._key = self._key or self._open_key()
            self._is_signing = True
            with self._locked():
                committed = self._commit_joined([])
                self._append(committed.lines, committed)
        except BrokenSystemError as error:
            self._sign_after = time.monotonic() + _SIGN_PAUSE
            if self._tell is not None:
                self._tell(error)
        finally:
            self._is_signing = False

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what is known of devices."""
        return self._state.read_devices(serial_numbers)

    def read_locks(self, user_keys: Sequence[str]) -> dict[str, LockState]:
        """Return the wrong codes and locks of users."""
        return self._state.read_locks(user_keys)

    def read_inventory(self, look: Callable[[Inventory], _Result]) -> _Result:
        """Return what a look at the inventory gives."""
        return self._state.read_inventory(look)

    def read_log_end(self) -> tuple[LogState, list[bytes]]:
        """Return what the state knows of the log, and the lines that wait for it."""
        return self._state.read_log_end()

    def close(self, *, may_sign: bool = True) -> None:
        """Close the files, with every record synced into the log and none in the outbox."""
        if self._last_id:
            if may_sign:
                self.sign_if_due()
            with contextlib.suppress(BrokenSystemError), self._locked():
                self._audit.sync()
                self._state.commit([], self._settle_last)
        self._state.close()
        self._audit.close()
        self.tell_outlets()
        self._outlets.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _require_allowed(self, error: AuditError) -> None:
        """Go on where policy lets logins go on that the log cannot take; the outbox has them.

        Raises:
            AuditError: policy does not.
        """
        if self._rules.on_failure is OnFailure.DENY or self._tell is None:
            raise error
        self._tell(
            AuditError(
                f"LOGIN NOT IN THE AUDIT LOG, as policy allows (on_failure): {error}",
                hint="Its record waits in the state and is appended once the log can be written.",
            )
        )

    def _commit_joined(self, claims: list[Claim]) -> Committed:
        """Commit, with log and state brought together where they were apart."""
        try:
            committed = self._state.commit(claims, self._settle)
        except _ApartError:
            self._join()
            committed = self._state.commit(claims, self._settle)
        self._policy = ""  # told; another process may see a newer one meanwhile
        return committed

    def _join(self) -> None:
        """Append what the log lacks, and record what became of it, in a transaction of its own."""
        joint = Joint()

        def settle(outbox: Outbox, log: LogState) -> Settled:
            nonlocal joint
            self._audit.require_usable()
            joint = find_joint(self._audit, log.head, outbox.lines())
            joint.require_state(self._layout.state, log.head)
            head = log.head if joint.head is None else joint.head
            return Settled(0, log._replace(head=head), joint.events)

        committed = self._state.commit([], settle)
        self._was_rotated |= joint.was_rotated
        self._append([*joint.missing, *committed.lines], committed)

    def _append(self, lines: Sequence[bytes], committed: Committed) -> None:
        if lines:
            self._audit.write(lines)
            self._last_id = committed.last_id or self._last_id
            self._untold += lines
            if not self._is_serving:
                self.tell_outlets()
        self._log = committed.log

    def _settle(self, outbox: Outbox, log: LogState) -> Settled:
        """Make sure that the log ends where the state does; find which rows may be dropped."""
        first, last = outbox.ids()
        log, events = self._prepare(log)
        # 0: nothing of ours is in this state, which may have been deleted under us.
        if self._last_id and last == self._last_id and self._audit.is_as_left():
            if last - first < _OUTBOX_MAX:
                return Settled(0, log, events)
            self._audit.sync()
            return Settled(last, log, events)
        # Others were here, one before us was killed, or the log is not as we left it.
        self._audit.sync_written()
        joint = find_joint(self._audit, log.head, outbox.lines())
        if not joint.is_whole:
            raise _ApartError("the audit log changes while it is written")
        self._was_rotated |= joint.was_rotated
        self._last_id = last
        if last:
            self._audit.sync_written()
        return Settled(last, log, events)

    def _settle_last(self, outbox: Outbox, log: LogState) -> Settled:
        return Settled(min(self._last_id, outbox.ids()[1]), log)

    def _prepare(self, log: LogState) -> tuple[LogState, tuple[Event, ...]]:
        """Return what is recorded besides the claims, and the log as it is with that."""
        events: list[Event] = []
        if self._policy not in {"", log.policy}:
            events.append(_tell_policy(self._policy))
            log = log._replace(policy=self._policy)
        reason = self._find_due(log) if self._is_signing else None
        if reason is not None and self._key is not None:
            now = time.time()
            events.append(Event(EventName.CHECKPOINT, Outcome.SUCCESS, reason, now))
            self._is_first = log.key_id != self._key.key_id
            sequence = log.head.sequence + len(events)
            log = log._replace(signed=sequence, signed_at=now, key_id=self._key.key_id)
            self._was_rotated = False
        return log, tuple(events)

    def _find_due(self, log: LogState) -> Reason | None:
        """Return why a checkpoint is due; None where none is."""
        since, age = log.head.sequence - log.signed, time.time() - log.signed_at
        if since <= 0 or time.monotonic() < self._sign_after:
            return None
        if not log.key_id:
            return Reason.START
        if self._was_rotated:
            return Reason.ROTATION
        # A clock that went back must not put signing off.
        if since >= self._rules.checkpoint_every or not 0 <= age < self._rules.checkpoint_within:
            return Reason.INTERVAL
        return Reason.REQUESTED if self._is_asked else None

    def _format_line(self, event: Event, head: Head) -> bytes:
        record = build_record(event, os.urandom(8).hex(), self._origin, head)
        if event.name is EventName.CHECKPOINT and self._key is not None:
            record = self._key.sign(record, is_first=self._is_first)
        return format_record(record) + b"\n"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Take turns with other processes: the log's order is the order of the commits."""
        try:
            self._notice_restored_store()
            if self._lock < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._lock = os.open(self._lock_path, flags, 0o600)
                about = os.fstat(self._lock)
                self._lock_identity = (about.st_dev, about.st_ino)
            self._wait_for_lock()
        except OSError as error:
            raise StateError(
                f"{self._lock_path} cannot be locked: {error.strerror}",
                hint=f"See: fuser {self._lock_path}; ls -ld {self._lock_path.parent}; "
                f"df {self._lock_path.parent}",
            ) from error
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _notice_restored_store(self) -> None:
        """Let go of files that others have been put in the place of.

        What is written to a deleted file is gone at the next start: a code would be good again.
        """
        is_other = self._lock >= 0 and identity_of(self._lock_path) != self._lock_identity
        if is_other:
            os.close(self._lock)
            self._lock = -1
        # Not before the first commit: a verifier on demand would open the state a second time.
        if is_other or self._state.was_replaced():
            self._state.close()
            self._last_id = 0

    def _wait_for_lock(self) -> None:
        """Wait for the other process, but not for ever: it may have been stopped in its turn."""
        deadline = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOCK_PAUSE)
            else:
                return


def _settle_nothing(_outbox: Outbox, log: LogState) -> Settled:
    """Leave every row where it is, for when the log can be written again."""
    return Settled(0, log)


def _tell_policy(policy: str) -> Event:
    digest, _, word = policy.partition(" ")
    is_accepted = word == _ACCEPTED
    outcome = Outcome.SUCCESS if is_accepted else Outcome.ERROR
    reason = Reason.POLICY_ACCEPTED if is_accepted else Reason.POLICY_REFUSED
    field = PolicyField(digest, is_accepted)
    return Event(EventName.CHANGE_POLICY, outcome, reason, time.time(), policy=field)
