# SPDX-License-Identifier: Apache-2.0
"""What is learned of users while the engine answers, for when it does not."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pam_mfa.errors import BrokenSystemError, UnreachableError
from pam_mfa.lockout import LockState
from pam_mfa.policy import Offline
from pam_mfa.store import EngineStore
from pam_mfa.store.claims import Change
from pam_mfa.store.enrollment import Enrollment, Standing
from pam_mfa.store.offline.claims import Watch, is_verified
from pam_mfa.store.offline.kept import Kept, KeptUsers
from pam_mfa.store.offline.own_state import OwnState
from pam_mfa.store.seal import Sealer

_REFRESHED_EVERY = 600.0  # seconds, of what is kept of a user who is seen again
_USERS_MAX = 4096  # of whom it is remembered what was kept


class Seen(NamedTuple):
    """A user who was looked up."""

    user: str
    enrollment: Enrollment
    at: float  # seconds since the epoch


class Keeping:
    """Keeps users who verify, and brings what is kept up to date."""

    def __init__(self, engine: EngineStore, own: OwnState, kept: KeptUsers, rules: Offline) -> None:
        """Take the engine, this host's own state, where users are kept, and for whom."""
        self._engine = engine
        self._own = own
        self._kept = kept
        self._rules = rules
        self._fresh: dict[str, tuple[tuple[int, ...], float]] = {}  # of whom kept is up to date
        self._locks: dict[str, LockState] = {}  # as they were noted last
        self.tell: Callable[[BrokenSystemError], None] = lambda _error: None

    def may_go_on(self, user: str) -> bool:
        """Whether policy has this user let in without the engine."""
        return not self._rules.users or user in self._rules.users

    def refresh(self, seen: Seen, sealer: Callable[[], Sealer]) -> None:
        """Bring up to date what is kept of a user whom the engine has shown."""
        user, standing = seen.user, seen.enrollment.standing
        if not self.may_go_on(user):
            return
        with self._trying(user):
            if not self._is_kept(user, sealer()):
                return
            if standing is Standing.ENROLLED:
                self._keep(seen, sealer())
            elif standing is Standing.NOT_ENROLLED:
                self._forget(user)

    def learn(self, seen: Seen, watch: Watch, change: Change, sealer: Callable[[], Sealer]) -> None:
        """Keep what a verification by the engine has shown and used, before it is told."""
        user = seen.user
        if not self.may_go_on(user):
            return
        with self._trying(user):
            if is_verified(change):
                self._keep(seen, sealer())
            elif not self._is_kept(user, sealer()):
                return
            lock = change.lock if change.lock is not None else watch.known.lock
            if change.used_steps or self._locks.get(user) != lock:
                self._own.note(user, lock, change)
                self._locks[user] = lock

    def note_used(self, user: str, change: Change) -> None:
        """Have this host know what the engine has judged of a user whom this host looked up."""
        with self._trying(user):
            self._own.note(user, change.lock, change)

    @contextlib.contextmanager
    def _trying(self, user: str) -> Iterator[None]:
        """Keep nothing of a user of whom not all could be kept: a used code might be missing."""
        try:
            yield
        except BrokenSystemError as error:
            self._forget(user)
            if not isinstance(error, UnreachableError):
                self.tell(error)

    def _keep(self, seen: Seen, sealer: Sealer) -> None:
        """Write down a user's devices, and what the engine knows of them."""
        user, enrollment, now = seen
        version, at = self._fresh.get(user, ((), 0.0))
        if version and version == enrollment.version and 0 <= now - at < _REFRESHED_EVERY:
            return
        devices = tuple(one for one in enrollment.all_devices() if one.type in self._rules.allow)
        if not devices:
            self._forget(user)
            return
        states = self._engine.read_devices([one.serial_number for one in devices])
        known = Change(
            accepted=True, events=(),
            used_steps={name: state.step for name, state in states.items()},
            drifts={name: state.drift for name, state in states.items()},
        )  # fmt: skip
        self._own.note(user, None, known)
        self._kept.write(user, Kept(now, devices), sealer)
        if len(self._fresh) >= _USERS_MAX:
            self._fresh.clear()
            self._locks.clear()
        self._fresh[user] = (enrollment.version, now)

    def _is_kept(self, user: str, sealer: Sealer) -> bool:
        return user in self._fresh or self._kept.find(user, sealer) is not None

    def _forget(self, user: str) -> None:
        self._fresh.pop(user, None)
        self._locks.pop(user, None)
        self._kept.forget(user)
