# SPDX-License-Identifier: Apache-2.0
"""One-time passwords: HOTP (RFC 4226) and TOTP (RFC 6238), and the URI that applications read.

Owns the words of the two RFCs and nothing else: no clock, no state, no device. A code is one HMAC
of the standard library, by OpenSSL; pyotp takes four times as long for it, refuses the short seeds
of old tokens, and costs a login on demand its import. What it and oathtool compute is what the
tests expect.
"""

import base64
import binascii
import enum
import hmac
import re
from typing import Final, NamedTuple

from pam_mfa.errors import RefusedError
from pam_mfa.secret import Secret

DIGITS: Final = (6, 7, 8)
PERIODS: Final = (30, 60)  # seconds
SEED_BITS: Final = 160  # RFC 4226, section 4, R6: recommended length of the shared secret
SEED_BITS_MINIMUM: Final = 112  # NIST SP 800-63B-4, 3.1.4.1
SEED_BITS_LOWEST: Final = 80  # of an imported seed, where policy says so
SEED_BYTES_MAXIMUM: Final = 128
_CODE = re.compile(r"[0-9]{6,8}", re.ASCII)


class Algorithm(enum.StrEnum):
    """The HMAC's hash (RFC 6238, section 1.2)."""

    SHA1 = "SHA1"
    SHA256 = "SHA256"
    SHA512 = "SHA512"


class Parameters(NamedTuple):
    """How a device makes its codes."""

    algorithm: Algorithm = Algorithm.SHA1
    digits: int = 6
    period: int = 30  # seconds, X of RFC 6238; 0: event-based (RFC 4226), no time in it

    @property
    def is_event_based(self) -> bool:
        """Whether a counter moves the codes on, and not time."""
        return self.period == 0


def time_step(now: float, period: int) -> int:
    """Return T of RFC 6238, section 4.2, with T0 = 0; ``now`` in seconds since the epoch."""
    return int(now) // period


def codes(seed: Secret, parameters: Parameters, steps: range) -> list[str]:
    """Return the code of each time step or counter (RFC 4226, section 5.3)."""
    key, name = seed.reveal(), parameters.algorithm.value.lower()
    digits, modulus = parameters.digits, 10**parameters.digits
    digests = (hmac.digest(key, step.to_bytes(8, "big"), name) for step in steps)
    return [f"{_truncate(digest) % modulus:0{digits}d}" for digest in digests]


def find_pair(
    seed: Secret, parameters: Parameters, pair: tuple[str, str], steps: range
) -> int | None:
    """Return the time step or counter of the second of two consecutive codes, or None.

    For resynchronization (RFC 4226, section 7.4; RFC 6238, section 6), which looks at thousands
    of steps.
    """
    key, name = seed.reveal(), parameters.algorithm.value.lower()
    modulus, wanted = 10**parameters.digits, (int(pair[0]), int(pair[1]))
    if {len(pair[0]), len(pair[1])} != {parameters.digits}:
        wanted = (
            -1,
            -1,
        )  # a code of another length is none; the search takes its time all the same
    found = None
    before = -1
    for step in steps:
        current = _truncate(hmac.digest(key, step.to_bytes(8, "big"), name)) % modulus
        if before == wanted[0] and current == wanted[1] and found is None:
            found = step
        before = current
    return found


def _truncate(digest: bytes) -> int:
    """Return the number of 31 bits that a code is made of (RFC 4226, section 5.3)."""
    offset = digest[-1] & 0x0F
    return int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF


def seed_bits(seed: Secret) -> int:
    """Return a seed's length."""
    return len(seed.reveal()) * 8


def is_weak(seed: Secret) -> bool:
    """Whether a seed is shorter than NIST SP 800-63B-4 asks for."""
    return seed_bits(seed) < SEED_BITS_MINIMUM


def is_code(text: str) -> bool:
    """Whether a text has the form of a code: 6 to 8 ASCII digits."""
    return _CODE.fullmatch(text) is not None


def encode_seed(seed: Secret) -> str:
    """Return a seed in base32 without padding, as it is typed and put into a QR code."""
    return base64.b32encode(seed.reveal()).decode("ascii").rstrip("=")


def parse_seed(text: str) -> Secret:
    """Read a seed as people paste it: base32, in any case, with spaces or dashes.

    Raises:
        RefusedError: it is no base32 or has the wrong length.
    """
    compact = re.sub(r"[\s-]", "", text).rstrip("=")
    try:
        compact.encode("ascii")  # "ß" would become "SS"
        raw = base64.b32decode(compact.upper() + "=" * (-len(compact) % 8))
    except (binascii.Error, ValueError) as error:
        raise RefusedError(
            "the secret is not base32 (letters A to Z and digits 2 to 7)",
            hint="Copy it again from the device's own page, without other words around it.",
        ) from error
    if not SEED_BITS_MINIMUM <= len(raw) * 8 <= SEED_BYTES_MAXIMUM * 8:
        raise RefusedError(
            f"the secret has {len(raw) * 8} bits; {SEED_BITS_MINIMUM} to "
            f"{SEED_BYTES_MAXIMUM * 8} are accepted (NIST SP 800-63B)",
            hint="Let the command make a secret: leave --secret out.",
        )
    return Secret(raw)


def provisioning_uri(seed: Secret, parameters: Parameters, *, account: str, issuer: str) -> str:
    """Return the otpauth URI that authenticator applications read from a QR code."""
    import hashlib  # noqa: PLC0415 - start-up cost: no login makes a URI

    import pyotp  # noqa: PLC0415

    totp = pyotp.TOTP(
        encode_seed(seed),
        digits=parameters.digits,
        digest=getattr(hashlib, parameters.algorithm.value.lower()),
        interval=parameters.period,
    )
    return totp.provisioning_uri(name=account, issuer_name=issuer)
