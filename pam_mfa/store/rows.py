# SPDX-License-Identifier: Apache-2.0
"""What a store keeps besides devices, as rows that may be carried into another store.

Values and a protocol, the same for every store; inside a transaction. What is added goes only
forward: a used step is never lowered, a lock never shortened, a seed never given to another owner.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from pam_mfa.errors import StateError
from pam_mfa.lockout import LockState
from pam_mfa.mfa_age import Verified
from pam_mfa.store.claims import Inventory, StoredToken
from pam_mfa.store.enrollment import DeviceState


class StateRow(NamedTuple):
    """What is known of a device's use, or of a code on paper."""

    serial_number: str
    state: DeviceState


class LockRow(NamedTuple):
    """A user's wrong codes and lock."""

    user_key: str
    lock: LockState


class SeedRow(NamedTuple):
    """Whose seed has this fingerprint."""

    fingerprint: str
    owner: str


class Rows(Protocol):
    """The rows of one store."""

    def states(self) -> Sequence[StateRow]:
        """Return what is known of every device."""

    def locks(self) -> Sequence[LockRow]:
        """Return the wrong codes and locks of every user."""

    def seeds(self) -> Sequence[SeedRow]:
        """Return every seed that is taken."""

    def tokens(self) -> Sequence[StoredToken]:
        """Return the inventory of tokens."""

    def sessions(self) -> Sequence[Verified]:
        """Return what is remembered of verifications at this host, the oldest first."""

    def raise_states(self, rows: Iterable[StateRow]) -> None:
        """Note the use of devices; no step goes back."""

    def raise_locks(self, rows: Iterable[LockRow]) -> None:
        """Replace wrong codes and locks; no lock ends earlier."""

    def add_seeds(self, rows: Iterable[SeedRow]) -> None:
        """Note seeds that are not noted yet."""

    def add_tokens(self, rows: Iterable[StoredToken]) -> None:
        """Put tokens in that are not there yet."""

    def add_sessions(self, rows: Iterable[Verified]) -> None:
        """Remember verifications of this host that are not remembered yet."""

    def drop_inventory(self) -> None:
        """Forget tokens, seeds and verifications, which another store has had in its care."""


@runtime_checkable
class HasRows(Protocol):
    """An inventory of a store whose rows may be carried."""

    @property
    def rows(self) -> Rows:
        """All that is kept."""


def rows_of(inventory: Inventory) -> Rows:
    """Return the rows of the transaction that an inventory is in.

    Raises:
        StateError: this store has none to carry.
    """
    if not isinstance(inventory, HasRows):
        raise StateError("what this store keeps cannot be carried into another one")
    return inventory.rows
