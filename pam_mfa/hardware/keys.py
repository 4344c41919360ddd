# SPDX-License-Identifier: Apache-2.0
"""What an attempt asks of attached security keys, and what it is told.

Types only, so that an attempt without a key imports nothing heavy; ``attached_keys`` does the work.
Each call of ``Keys`` blocks, opens what it needs and releases it before it returns, and ends early
when ``canceled`` is set by another thread.
"""

import enum
from collections.abc import Sequence
from threading import Event
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pam_mfa.errors import SecurityKeyError
from pam_mfa.hardware.nodes import AttachedKey

if TYPE_CHECKING:
    from fido2.ctap2.base import Info


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


class Showing(NamedTuple):
    """What a key signed untouched, to show that it holds a credential."""

    client_data_hash: bytes
    assertion: Assertion


class Holder(NamedTuple):
    """An attached key that holds an enrolled credential, or says so."""

    key: AttachedKey
    credential: Credential
    has_pin: bool = False
    has_built_in_uv: bool = False  # a fingerprint reader that is set up, or the like
    is_always_uv: bool = False  # the key itself insists on user verification
    is_ctap2: bool = True  # False: a U2F-only key
    showing: Showing | None = None  # of a U2F-only key, which signs nothing untouched: None
    info: "Info | None" = None  # what it said of itself; None: it is to be asked


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
    """Why there is no assertion, or no new credential."""

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
    EXCLUDED = "the key holds a credential of this user already"
    FULL = "the key has no room for another discoverable credential"
    UNSUPPORTED = "the key cannot make such a credential"
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
    """There is no assertion, or no new credential."""

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


class KeyReport(NamedTuple):
    """What an attached key says of itself without a touch; of one that cannot be asked, why."""

    key: AttachedKey
    problem: SecurityKeyError | None = None  # None: it was asked
    is_ctap2: bool = False  # False: a U2F-only key
    versions: tuple[str, ...] = ()
    aaguid: str = ""  # the model, as a UUID; "": it does not say
    has_pin: bool = False
    pin_attempts_left: int = -1  # -1: it has no PIN
    has_built_in_uv: bool = False
    is_always_uv: bool = False
    must_verify_user: bool = False  # to make a credential that is not discoverable
    can_be_discoverable: bool = False
    held: tuple[Credential, ...] = ()  # of the credentials that it was asked for


class NewCredential(NamedTuple):
    """A credential that an attached key is to make (CTAP 2.1, section 6.1)."""

    report: KeyReport  # the key's
    client_data_hash: bytes
    rp_id: str
    user_handle: bytes
    user: str
    algorithms: tuple[int, ...]  # COSE, the preferred first
    excluded: tuple[Credential, ...]  # a key that holds one of these makes none
    method: Method
    pin: str = ""
    is_discoverable: bool = False
    seconds: float = 30.0

    def __repr__(self) -> str:
        """Do not show the PIN."""
        return f"NewCredential({self.user!r}, {self.method})"


class Made(NamedTuple):
    """A key made a credential; what it says of that is not judged yet."""

    attestation_object: bytes  # as WebAuthn has it (level 3, section 6.5.4)


class Registrar(Protocol):
    """The attached keys, as those on which credentials can be made."""

    def examine(self, credentials: Sequence[Credential], canceled: Event) -> tuple[KeyReport, ...]:
        """Have every attached key say what it is and which credentials it holds, untouched."""

    def wait(self, seconds: float, canceled: Event) -> tuple[KeyReport, ...]:
        """Wait until a key is plugged in, and examine it."""

    def choose(
        self, reports: Sequence[KeyReport], seconds: float, canceled: Event
    ) -> KeyReport | None:
        """Return the key that is touched first, all of them blinking."""

    def make(self, wanted: NewCredential, canceled: Event) -> Made | Untouched:
        """Have one key make a credential."""
