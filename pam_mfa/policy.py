# SPDX-License-Identifier: Apache-2.0
"""Policy: what the file says, and what it decides.

Pure: bytes and a context in, a decision out; the only room that decides. Unknown keys are
refused with their line and the nearest known key, because a misspelled rule is a hole.
"""

import enum
import re
from typing import NamedTuple, TypeVar

from pam_mfa.document import Section, parse_document
from pam_mfa.lockout import LockoutRule
from pam_mfa.oath import SEED_BITS_LOWEST, SEED_BITS_MINIMUM
from pam_mfa.wire import Phase

VERSION = 1
_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d)", re.ASCII)
_AAGUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 366 * 86400  # seconds
_FAILURES_MAX = 1000
_PROMPTS_MAX = 10
_LOOK_AHEAD_MAX = 50  # RFC 4226, section 7.4: as small as usability allows
_WINDOW_MAX = 10  # time steps: five minutes either side
_SEED_BITS_MAX = 256


_Word = TypeVar("_Word", bound=enum.StrEnum)

DEVICE_TYPES = ("ssh-key", "fido", "virtual", "token", "recovery")
SMS_REASON = (
    "SMS is not a device type: messages are intercepted, redirected by SIM swaps and not bound "
    "to this login (NIST SP 800-63B-4 restricts them, AWS IAM no longer offers them)"
)


class Mode(enum.StrEnum):
    """Whether a denial is enforced or only recorded."""

    ENFORCE = "enforce"
    REPORT_ONLY = "report-only"


class Unenrolled(enum.StrEnum):
    """What becomes of a user without a device."""

    DENY = "deny"
    ALLOW = "allow"
    ENROLL = "enroll"  # after the first factor, in PAM's account phase


class SelfService(NamedTuple):
    """What users may do to their own devices."""

    enable: bool = False
    deactivate: bool = False
    resync: bool = False


class UserVerification(enum.StrEnum):
    """Whether a security key has to verify who touches it, by its PIN or a fingerprint."""

    REQUIRED = "required"
    PREFERRED = "preferred"  # where the key can
    DISCOURAGED = "discouraged"  # a touch is enough


class SignCount(enum.StrEnum):
    """What becomes of a security key whose signature counter goes back: a possible clone."""

    REFUSE = "refuse"
    WARN = "warn"


class Fido(NamedTuple):
    """How security keys that are attached to the machine are used."""

    user_verification: UserVerification = UserVerification.DISCOURAGED
    sign_count: SignCount = SignCount.REFUSE
    touch: float = 30.0  # seconds that a touch is waited for
    insert: float = 15.0  # seconds that an absent key is waited for
    aaguids: tuple[str, ...] = ()  # models that may be enabled; empty: all
    metadata: str = ""  # path of an MDS3 file: only FIDO Certified models; "": not asked
    metadata_root: str = ""  # path of the root that its signature leads to; "": the pinned one
    roots: str = ""  # path of certificates that attestations must lead to; "": not asked


class Policy(NamedTuple):
    """A policy file's meaning, with the defaults of what it leaves out."""

    mode: Mode = Mode.ENFORCE
    devices: tuple[str, ...] = DEVICE_TYPES
    unenrolled: Unenrolled = Unenrolled.DENY
    prompts: int = 3
    window: int = 1  # time steps either side
    lockout: LockoutRule = LockoutRule()
    look_ahead: int = 10  # counters after the last used one
    self_service: SelfService = SelfService()
    fido: Fido = Fido()
    minimum_seed_bits: int = SEED_BITS_MINIMUM  # of seeds that are imported


class Action(enum.Enum):
    """What an attempt has to do."""

    NOTHING = "nothing"  # this phase has nothing to verify
    VERIFY = "verify"
    ENROLL = "enroll"


class Decision(NamedTuple):
    """What policy asks of one attempt."""

    action: Action
    devices: tuple[str, ...]


def decide(policy: Policy, phase: Phase) -> Decision:
    """Decide what an attempt in this phase has to do."""
    if phase is Phase.ACCOUNT and policy.unenrolled is Unenrolled.ENROLL:
        is_enforced = policy.mode is Mode.ENFORCE
        return Decision(Action.ENROLL if is_enforced else Action.NOTHING, ())
    if phase is not Phase.AUTH:
        return Decision(Action.NOTHING, ())
    return Decision(Action.VERIFY, policy.devices)


def asks_everyone(policy: Policy) -> bool:
    """Whether users without a device are asked for a code like the others, so as not to show."""
    return policy.mode is Mode.ENFORCE and policy.unenrolled is Unenrolled.DENY


def parse_duration(text: str) -> float:
    """Return the seconds of ``45s``, ``15m``, ``12h`` or ``7d``.

    Raises:
        ValueError: it is none of these, zero, or more than a year.
    """
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST:
        raise ValueError(text)
    return float(seconds)


def parse_policy(data: bytes, source: str) -> Policy:
    """Read a policy file.

    Args:
        data: the file's bytes.
        source: its name, for messages.

    Raises:
        DocumentError: with the line, the key, and the nearest known key.
    """
    top = parse_document(data, source)
    top.require_known(
        ("version", "mode", "defaults", "totp", "hotp", "lockout", "self_service", "fido")
    )
    if top.require("version", int) != VERSION:
        raise top.error("version", f"must be {VERSION} for this program")
    defaults = top.section("defaults")
    defaults.require_known(("devices", "unenrolled", "prompts"))
    totp = top.section("totp")
    totp.require_known(("window", "minimum_seed_bits"))
    hotp = top.section("hotp")
    hotp.require_known(("look_ahead",))
    return Policy(
        mode=_word(top, "mode", Mode, Mode.ENFORCE),
        devices=_devices(defaults),
        unenrolled=_word(defaults, "unenrolled", Unenrolled, Unenrolled.DENY),
        prompts=_number(defaults, "prompts", (1, _PROMPTS_MAX), 3),
        window=_number(totp, "window", (0, _WINDOW_MAX), 1),
        look_ahead=_number(hotp, "look_ahead", (1, _LOOK_AHEAD_MAX), 10),
        minimum_seed_bits=_number(
            totp, "minimum_seed_bits", (SEED_BITS_LOWEST, _SEED_BITS_MAX), SEED_BITS_MINIMUM
        ),
        lockout=_lockout(top.section("lockout")),
        self_service=_self_service(top.section("self_service")),
        fido=_fido(top.section("fido")),
    )


def _word(section: Section, key: str, words: type[_Word], default: _Word) -> _Word:
    text = section.get(key, str, default.value)
    if text not in {word.value for word in words}:
        raise section.error(key, f"is '{text}', not one of {', '.join(words)}")
    return words(text)


def _number(section: Section, key: str, limits: tuple[int, int], default: int) -> int:
    number = section.get(key, int, default)
    if not limits[0] <= number <= limits[1]:
        raise section.error(key, f"is {number}, not {limits[0]} to {limits[1]}")
    return number


def _duration(section: Section, key: str, default: float) -> float:
    if key not in section:
        return default
    try:
        return parse_duration(section.require(key, str))
    except ValueError as error:
        raise section.error(
            key, "is not a length of time", "Write it as 45s, 15m, 12h or 7d."
        ) from error


def _devices(section: Section) -> tuple[str, ...]:
    if "devices" not in section:
        return DEVICE_TYPES
    types = section.texts("devices")
    if not types:
        raise section.error("devices", "is empty, so nobody could ever log in")
    for index, device_type in enumerate(types):
        if device_type.lower() == "sms":
            raise section.error("devices", f"names sms. {SMS_REASON}")
        if device_type not in DEVICE_TYPES:
            known = ", ".join(DEVICE_TYPES)
            raise section.error("devices", f"names '{device_type}', not one of {known}")
        if device_type in types[:index]:
            raise section.error("devices", f"names '{device_type}' twice")
    return tuple(types)


def _lockout(section: Section) -> LockoutRule:
    section.require_known(("failures", "within", "for"))
    default = LockoutRule()
    return LockoutRule(
        failures=_number(section, "failures", (1, _FAILURES_MAX), default.failures),
        within=_duration(section, "within", default.within),
        lock_for=_duration(section, "for", default.lock_for),
    )


def _self_service(section: Section) -> SelfService:
    section.require_known(SelfService._fields)
    return SelfService(*(section.get(key, bool, default=False) for key in SelfService._fields))


def _fido(section: Section) -> Fido:
    section.require_known(("user_verification", "sign_count", "touch", "insert", "attestation"))
    attestation, default = section.section("attestation"), Fido()
    attestation.require_known(("aaguids", "roots", "metadata", "metadata_root"))
    aaguids = attestation.texts("aaguids") if "aaguids" in attestation else []
    if any(not _AAGUID.fullmatch(one) for one in aaguids):
        raise attestation.error("aaguids", "must be a list of UUIDs, in lower case")
    if "aaguids" in attestation and not aaguids:
        raise attestation.error("aaguids", "is empty, so no key could ever be enabled")
    if "metadata_root" in attestation and "metadata" not in attestation:
        raise attestation.error("metadata_root", "goes with 'metadata' only")
    return Fido(
        _word(section, "user_verification", UserVerification, default.user_verification),
        _word(section, "sign_count", SignCount, default.sign_count),
        _duration(section, "touch", default.touch),
        _duration(section, "insert", default.insert),
        tuple(aaguids),
        *(_path(attestation, key) for key in ("metadata", "metadata_root", "roots")),
    )


def _path(section: Section, key: str) -> str:
    path = section.get(key, str, default="")
    if key in section and not path.startswith("/"):
        raise section.error(key, "must be an absolute path")
    return path
