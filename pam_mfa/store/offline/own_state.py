# SPDX-License-Identifier: Apache-2.0
"""This host's own state and log, for several threads."""

import threading
from collections.abc import Callable, Sequence

from pam_mfa.errors import BrokenSystemError
from pam_mfa.lockout import LockState
from pam_mfa.policy import AuditRules
from pam_mfa.store.claims import Change, Claim
from pam_mfa.store.enrollment import DeviceState
from pam_mfa.store.layout import Layout
from pam_mfa.store.ledger import Ledger
from pam_mfa.store.offline.claims import own_key


class OwnState:
    """What was used and guessed here; beside the engine's own ledger, as another process is."""

    def __init__(self, layout: Layout) -> None:
        """Take the root; no file is touched yet."""
        self._ledger = Ledger(layout)
        self._lock = threading.RLock()

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims; then their changes and records are on disk.

        Raises:
            StateError: nothing was changed.
            AuditError: the changes stand, their records are not in the log; tell no success.
        """
        with self._lock:
            return self._ledger.commit(claims)

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what is known of devices."""
        with self._lock:
            return self._ledger.read_devices(serial_numbers)

    def read_lock(self, user: str) -> LockState:
        """Return a user's wrong codes and lock."""
        key = own_key(user)
        with self._lock:
            return self._ledger.read_locks([key]).get(key, LockState())

    def note(self, user: str, lock: LockState | None, change: Change) -> None:
        """Have it know what the engine does: a lock as it is, and of a step nothing is lowered."""
        if lock is None and not change.used_steps:
            return
        known = Change(
            accepted=True, events=(), lock=lock, used_steps=change.used_steps,
            drifts=change.drifts, used_at=change.used_at,
        )  # fmt: skip
        self.commit([Claim(own_key(user), (), lambda _: known)])

    def follow(self, rules: AuditRules, tell: Callable[[BrokenSystemError], None]) -> None:
        """Keep records from now on as policy says."""
        with self._lock:
            self._ledger.follow(rules, tell)

    def tell_outlets(self) -> None:
        """Tell other logs of the records that they were not told of yet."""
        with self._lock:
            self._ledger.tell_outlets()

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            self._ledger.close()
