# SPDX-License-Identifier: Apache-2.0
"""The store of a verifier: the engine that the policy in force names, and no other.

A daemon outlives its policy. Before one is read there is nobody to verify, and what is recorded is
this host's own.
"""

from collections.abc import Callable, Sequence

from pam_mfa.devices import Device
from pam_mfa.errors import BrokenSystemError
from pam_mfa.policy import AuditRules, StoreRules
from pam_mfa.store import AdministratorsStore, EngineStore
from pam_mfa.store.claims import Change, Claim
from pam_mfa.store.enrollment import DeviceState, Enrollment


class ChosenStore:
    """Hands everything to one engine."""

    def __init__(self, open_engine: Callable[[StoreRules], EngineStore]) -> None:
        """Take what opens an engine; none is opened yet."""
        self._open_engine = open_engine
        self._rules = StoreRules()
        self._engine: EngineStore | None = None

    def choose(self, rules: StoreRules) -> None:
        """Go on with the engine that policy names; what is under way ends with the one before."""
        if rules == self._rules:
            return
        before, self._engine, self._rules = self._engine, None, rules
        if before is not None:
            before.close()

    @property
    def engine(self) -> EngineStore:
        """The engine, opened at its first use."""
        if self._engine is None:
            self._engine = self._open_engine(self._rules)
        return self._engine

    @property
    def patience(self) -> float:
        """Seconds that an answer may take; 0: what it is asked is at hand."""
        return self.engine.patience

    def read_enrollment(self, user: str) -> Enrollment:
        """Return what a user can be verified by."""
        return self.engine.read_enrollment(user)

    def has_device(self, user: str, device: Device, version: tuple[int, ...]) -> bool:
        """Whether a device of an enrollment of this version is still its user's."""
        return self.engine.has_device(user, device, version)

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims and make their changes and records durable."""
        return self.engine.commit(claims)

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what is known of devices."""
        return self.engine.read_devices(serial_numbers)

    def code_hash(self, code: str, user: str, serial_number: str) -> str:
        """Return the keyed hash by which a code on paper is known."""
        return self.engine.code_hash(code, user, serial_number)

    def pseudonym(self, text: str) -> str:
        """Return what stands in records for a name that no account has."""
        return self.engine.pseudonym(text)

    def follow(self, rules: AuditRules, tell: Callable[[BrokenSystemError], None]) -> None:
        """Keep records from now on as policy says."""
        self.engine.follow(rules, tell)

    def note_policy(self, digest: str, *, is_accepted: bool) -> None:
        """Have the next commit record a policy that no record has told of."""
        self.engine.note_policy(digest, is_accepted=is_accepted)

    def follow_up(self, *, must_sign: bool = False) -> None:
        """Do what no verdict waits for."""
        self.engine.follow_up(must_sign=must_sign)

    def require_desk(self) -> AdministratorsStore:
        """Return what takes a user's device at a login."""
        return self.engine.require_desk()

    def open(self) -> None:
        """Open it before the first login does, to tell early what is broken.

        Raises:
            BrokenSystemError: it cannot be opened now.
        """
        self.engine.open()

    def close(self) -> None:
        """Leave everything on disk where the next one expects it."""
        if self._engine is not None:
            self._engine.close()
