# SPDX-License-Identifier: Apache-2.0
"""What is asked of a store's transaction, and what it may touch there.

Values and protocols only, the same for every store: no SQL, no files. What a judge decides, the
store makes durable; what an inventory's function changes, it changes in the same transaction.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from pam_mfa.audit import Event
from pam_mfa.lockout import LockState
from pam_mfa.mfa_age import Verified
from pam_mfa.oath import Parameters


class Memory(NamedTuple):
    """A verification that is to be remembered, and how long any is."""

    verified: Verified
    seconds: float
    now: float  # since the epoch; what is older than so many seconds is forgotten


class Known(NamedTuple):
    """What is known of one user when a claim is judged."""

    lock: LockState
    used_steps: Mapping[str, int]  # by serial number: the last time step that was accepted
    remembered: tuple[Verified, ...] = ()  # the user's verifications, where the claim asks for them


class Change(NamedTuple):
    """A judgement: what is to be made durable, and whether the claim is accepted."""

    accepted: bool
    events: tuple[Event, ...]
    lock: LockState | None = None  # None: as it was
    used_steps: Mapping[str, int] = {}
    drifts: Mapping[str, int] = {}  # of devices whose used step is here, too
    used_at: float = 0.0  # seconds since the epoch, for "last used"; 0: not a use
    memory: Memory | None = None  # what is to be remembered


class StoredToken(NamedTuple):
    """A token in the inventory."""

    serial_number: str
    manufacturer: str
    parameters: Parameters
    counter: int
    sealed_seed: str
    user: str | None  # None: free


class Inventory(Protocol):
    """Tokens, seeds that are taken, and what is remembered of devices and users.

    Inside a transaction: what one function reads, nobody changes until it has ended.
    """

    def find_token(self, serial_number: str) -> StoredToken | None:
        """Return a token, or None."""

    def list_tokens(self) -> Iterator[StoredToken]:
        """Go through the tokens, by serial number."""

    def add_token(self, token: StoredToken) -> None:
        """Put a token in that is not there yet."""

    def assign_token(self, serial_number: str, user: str | None) -> None:
        """Give a token to a user, or back."""

    def replace_seed(self, serial_number: str, sealed_seed: str) -> None:
        """Put a token's seed that was sealed anew in the old text's place."""

    def find_owner(self, fingerprint: str) -> str | None:
        """Return the serial number of the device whose seed has this fingerprint, or None."""

    def add_fingerprint(self, fingerprint: str, owner: str) -> None:
        """Note whose seed this is, which nobody's was.

        Raises:
            StateError: it is somebody's.
        """

    def drop_fingerprints(self, owner: str) -> None:
        """Forget a device's seed."""

    def find_step(self, serial_number: str) -> int | None:
        """Return the last step of a device, or of what else is noted as one; None: never used."""

    def forget_use(self, serial_number: str, *, keep_step: bool) -> None:
        """Forget how a device was used when it leaves its user.

        Args:
            serial_number: the device's.
            keep_step: for a token, whose seed stays: what was used is never good again. An
                application's or security key's next namesake has another secret.
        """

    def remembered(self, user_key: str | None = None) -> tuple[Verified, ...]:
        """Return what is remembered of a user, or of everybody; the oldest first."""

    def end_sessions(self, user_key: str | None = None) -> int:
        """Forget what is remembered of a user, or of everybody; return how many that were."""


class Claim(NamedTuple):
    """Something to be judged against what is known, and the judge for it."""

    user_key: str
    serial_numbers: tuple[str, ...]
    judge: Callable[[Known], Change]
    inventory: Callable[[Inventory], None] | None = None  # done before judging
    asks_memory: bool = False  # whether the judge is to know what is remembered of the user
