# SPDX-License-Identifier: Apache-2.0
"""What an attempt asks of attached security keys, and what it is told.

Types only, so that an attempt without a key imports nothing heavy; ``attached_keys`` does the work.
Each call of ``Keys`` blocks, opens what it needs and releases it before it returns, and ends early
when ``canceled`` is set by another thread.
"""

import enum
from collections.abc import Sequence
from threading import Event
from typing import NamedTuple, Protocol

from pam_mfa.hardware.nodes import AttachedKey


class Credential(NamedTuple):
    """An enrolled credential, as a key knows it."""

    id: bytes
    rp_id: str


class Assertion(NamedTuple):
    """A key's answer (CTAP 2.1, section 6.2)."""

    credential_id: bytes
    authenticator_data: bytes
    signature: bytes
    user_handle: bytes = b""  # of a discoverable credential


class Holder(NamedTuple):
    """An attached key that holds an enrolled credential."""

    key: AttachedKey
    credential: Credential
    has_pin: bool = False
    has_built_in_uv: bool = False  # a fingerprint reader that is set up, or the like
    is_always_uv: bool = False  # the key itself insists on user verification
    is_ctap2: bool = True  # False: a U2F-only key


class Sight(NamedTuple):
    """What a look at the attached keys showed."""

    holders: tuple[Holder, ...] = ()
    attached: int = 0  # keys of whatever owner
    problems: tuple[str, ...] = ()  # sentences on keys that could not be looked at


class Method(enum.Enum):
    """How a key is to verify who touches it."""

    NONE = "none"  # a touch is enough
    BUILT_IN = "built-in"
    PIN = "pin"


class End(enum.StrEnum):
    """Why there is no assertion."""

    TIMED_OUT = "nobody touched the key in time"
    CANCELED = "it was canceled"
    DENIED = "the key was told to refuse"
    GONE = "the key was pulled out"
    BUSY = "another program is using the key"
    WRONG_PIN = "the PIN was wrong"
    PIN_LOCKED_UNTIL_REPLUGGED = "too many wrong PINs in a row"
    PIN_BLOCKED = "the PIN is blocked"
    NO_PIN = "the key has no PIN"
    NOT_VERIFIED = "the key did not recognize its user"
    FAULTY = "the key answered what no key may answer"


class Touch(NamedTuple):
    """A touch that is asked for."""

    holders: tuple[Holder, ...]
    client_data_hash: bytes
    method: Method
    pin: str = ""
    seconds: float = 30.0

    def __repr__(self) -> str:
        """Do not show the PIN."""
        return f"Touch({self.method}, {len(self.holders)} keys)"


class Touched(NamedTuple):
    """Somebody touched a key, and it signed."""

    holder: Holder
    assertion: Assertion


class Untouched(NamedTuple):
    """There is no assertion."""

    end: End
    attempts_left: int = -1  # for the PIN; -1: not known
    detail: str = ""


class Keys(Protocol):
    """The security keys that are attached to this machine."""

    def look(self, credentials: Sequence[Credential], canceled: Event) -> Sight:
        """Find the keys that hold one of these credentials, without a touch."""

    def wait(self, credentials: Sequence[Credential], seconds: float, canceled: Event) -> Sight:
        """Look again at every key that is plugged in, until one holds a credential."""

    def select(self, holders: Sequence[Holder], seconds: float, canceled: Event) -> Holder | None:
        """Return the key that is touched first, all of them blinking."""

    def touch(self, touch: Touch, canceled: Event) -> Touched | Untouched:
        """Have the keys of these holders blink, and return what the first one signs."""
