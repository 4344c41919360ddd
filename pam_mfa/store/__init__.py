# SPDX-License-Identifier: Apache-2.0
"""The store: devices and state behind one interface.

``Store`` is what verification and lifecycle know; ``EmbeddedStore`` (files and SQLite on this
host) is one implementation.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from pam_mfa.devices import Device
from pam_mfa.errors import BrokenSystemError
from pam_mfa.policy import AuditRules
from pam_mfa.store.enrollment import DeviceState, Enrollment, OpenDevice, Standing
from pam_mfa.store.mfa_sessions import Memory
from pam_mfa.store.state import Change, Claim, Known


class Store(Protocol):
    """What is kept of users and devices."""

    def read_enrollment(self, user: str) -> Enrollment:
        """Return what a user can be verified by, after the same work for every name."""

    def has_device(self, user: str, device: Device, version: tuple[int, ...]) -> bool:
        """Whether a device of an enrollment of this version is still its user's."""

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims and make their changes and records durable."""

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what is known of devices, or of codes on paper, that were used."""

    def code_hash(self, code: str, user: str, serial_number: str) -> str:
        """Return the keyed hash by which a code on paper is known."""

    def close(self) -> None:
        """Leave everything on disk where the next one expects it."""

    def pseudonym(self, text: str) -> str:
        """Return what stands in records for a name that no account has."""


class ServingStore(Store, Protocol):
    """A store whose records a verifier has kept as policy says."""

    def follow(self, rules: AuditRules, tell: Callable[[BrokenSystemError], None]) -> None:
        """Keep records from now on as policy says; tell there what a verdict did not wait for."""

    def note_policy(self, digest: str, *, is_accepted: bool) -> None:
        """Have the next commit record a policy that no record has told of."""

    def sign_if_due(self, *, is_asked: bool = False) -> None:
        """Sign the records where that is due; never while somebody waits for a verdict."""


__all__ = [
    "Change",
    "Claim",
    "DeviceState",
    "Enrollment",
    "Known",
    "Memory",
    "OpenDevice",
    "ServingStore",
    "Standing",
    "Store",
]
