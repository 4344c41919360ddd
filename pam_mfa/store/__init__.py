# SPDX-License-Identifier: Apache-2.0
"""The store: devices and state behind one interface.

``Store`` is what verification knows, ``ServingStore`` what a verifier does besides, and
``AdministratorsStore`` what changing devices takes. Nobody outside this room knows which engine is
behind them: ``opening`` chooses it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from pam_mfa.devices import Device
from pam_mfa.errors import BrokenSystemError
from pam_mfa.lockout import LockState
from pam_mfa.policy import AuditRules, StoreRules
from pam_mfa.store.claims import Change, Claim, Inventory, Known, Memory, StoredToken
from pam_mfa.store.documents import Documents, Entry
from pam_mfa.store.enrollment import DeviceState, Enrollment, OpenDevice, Standing
from pam_mfa.store.user_keys import encode_user

if TYPE_CHECKING:
    from pam_mfa.store.seal import Sealer

_Result = TypeVar("_Result")


class Store(Protocol):
    """What is kept of users and devices."""

    @property
    def patience(self) -> float:
        """Seconds that an answer may take, by a network; 0: what it is asked is at hand."""

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


class AdministratorsStore(Store, Protocol):
    """A store whose devices may be changed."""

    @property
    def documents(self) -> Documents:
        """The devices of users."""

    @property
    def sealer(self) -> "Sealer":
        """What seals and opens secrets.

        Raises:
            BrokenSystemError: there is no usable seal key.
        """

    def require_log(self) -> None:
        """Make sure that a record can be written, before something is done that needs one.

        Raises:
            BrokenSystemError: it could not.
        """

    def read_locks(self, users: Sequence[str]) -> dict[str, LockState]:
        """Return the wrong codes and locks of users, by name; those without any are left out."""

    def read_inventory(self, look: Callable[[Inventory], _Result]) -> _Result:
        """Return what a look at the inventory gives."""

    def follow_file(self, path: Path) -> None:
        """Tell outlets of records as a policy file says, which is read with the first record."""


class EngineStore(Store, Protocol):
    """A store whose records a verifier has kept as policy says."""

    def open(self) -> object:
        """Open what the first login would, to tell early what is broken.

        Raises:
            BrokenSystemError: it cannot be opened now.
        """

    def follow(self, rules: AuditRules, tell: Callable[[BrokenSystemError], None]) -> None:
        """Keep records from now on as policy says; tell there what a verdict did not wait for."""

    def note_policy(self, digest: str, *, is_accepted: bool) -> None:
        """Have the next commit record a policy that no record has told of."""

    def follow_up(self, *, must_sign: bool = False) -> None:
        """Do what no verdict waits for: sign records where due, and tell other logs of them."""

    def require_desk(self) -> AdministratorsStore:
        """Return what takes a user's device at a login.

        Raises:
            BrokenSystemError: devices are not changed from here.
        """


class ServingStore(EngineStore, Protocol):
    """What a verifier has: the engine that policy names, which may be another one tomorrow."""

    def choose(self, rules: StoreRules) -> None:
        """Go on with the engine that policy names; without a change, nothing is done."""


__all__ = [
    "AdministratorsStore",
    "Change",
    "Claim",
    "DeviceState",
    "Documents",
    "EngineStore",
    "Enrollment",
    "Entry",
    "Inventory",
    "Known",
    "Memory",
    "OpenDevice",
    "ServingStore",
    "Standing",
    "Store",
    "StoredToken",
    "encode_user",
]
