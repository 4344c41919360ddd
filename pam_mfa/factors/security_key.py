# SPDX-License-Identifier: Apache-2.0
"""Proof by a FIDO security key: what is signed, and whether an assertion proves anything.

Pure: the challenge comes as an argument, the key's answer from ``hardware``. The relying party and
the client of WebAuthn are both this program, so client data is never sent about: it is made anew
from the ceremony when the signature over it is checked (WebAuthn level 3, section 7.2).
"""

import hashlib
import json
from base64 import urlsafe_b64encode
from typing import Final, NamedTuple

from pam_mfa.devices import FidoDevice
from pam_mfa.errors import PamMfaError
from pam_mfa.hardware.keys import Assertion, Showing

RP_ID: Final = "pam-mfa"
CHALLENGE_BYTES: Final = 32  # WebAuthn level 3, section 13.4.3: at least 16
# COSE algorithms: ES256, EdDSA, RS256, ESP256 and Ed25519; none with SHA-1.
ALGORITHMS: Final = (-7, -8, -257, -9, -19)
_UP, _UV, _BE, _BS, _AT = 0x01, 0x04, 0x08, 0x10, 0x40  # flags of authenticator data


class UnprovenError(PamMfaError):
    """An assertion proves nothing; the text says which check it failed."""


class Ceremony(NamedTuple):
    """What one touch is asked for; nothing of it comes from the key."""

    challenge: bytes  # CHALLENGE_BYTES random bytes, used once
    host: str
    service: str
    user: str


class Proof(NamedTuple):
    """What a good assertion says."""

    sign_count: int
    is_user_verified: bool


def client_data(ceremony: Ceremony, kind: str = "webauthn.get") -> bytes:
    """Return the client data (WebAuthn level 3, section 5.8.1): host, service and user in it."""
    values = {
        "type": kind,
        "challenge": urlsafe_b64encode(ceremony.challenge).decode("ascii").rstrip("="),
        "origin": f"pam-mfa://{ceremony.host}/{ceremony.service}",
        "user": ceremony.user,
        "crossOrigin": False,
    }
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def client_data_hash(ceremony: Ceremony, kind: str = "webauthn.get") -> bytes:
    """Return the SHA-256 of the client data: what a key is given to sign."""
    return hashlib.sha256(client_data(ceremony, kind)).digest()


def user_handle(user: str) -> bytes:
    """Return the user handle of a credential: it says nothing of the user to who reads the key."""
    return hashlib.sha256(
        b"pam-mfa user handle\0" + user.encode("utf-8", "surrogateescape")
    ).digest()


def verify_assertion(
    device: FidoDevice, assertion: Assertion, ceremony: Ceremony, *, must_verify_user: bool
) -> Proof:
    """Check everything of an assertion but the sign count, which only the state can judge.

    Raises:
        UnprovenError: it proves nothing.
    """
    if assertion.credential_id != device.credential_id:
        raise UnprovenError("the key answered for another credential")
    if (
        assertion.user_handle
        and device.rp_id == RP_ID
        and assertion.user_handle != user_handle(ceremony.user)
    ):
        raise UnprovenError("the key answered for another user")
    data = assertion.authenticator_data
    if len(data) < 37:  # noqa: PLR2004 - WebAuthn level 3, section 6.1
        raise UnprovenError("its authenticator data is cut")
    flags = data[32]
    if data[:32] != hashlib.sha256(device.rp_id.encode()).digest():
        raise UnprovenError("it was made for another relying party")
    if not flags & _UP:
        raise UnprovenError("nobody touched the key")
    if must_verify_user and not flags & _UV:
        raise UnprovenError("the key did not verify its user")
    if flags & _BS and not flags & _BE:
        raise UnprovenError("it says that it is backed up and cannot be")
    if flags & _AT:
        raise UnprovenError("it carries a new credential")
    _verify_signature(device, data + client_data_hash(ceremony), assertion.signature)
    return Proof(int.from_bytes(data[33:37], "big"), bool(flags & _UV))


def is_shown(device: FidoDevice, showing: Showing) -> bool:
    """Whether a key has shown, untouched, that it holds a credential.

    Else whatever says so would be handed the PIN, or end the wait for the key that does.
    """
    assertion = showing.assertion
    if assertion.credential_id != device.credential_id:
        return False
    signed = assertion.authenticator_data + showing.client_data_hash
    try:
        _verify_signature(device, signed, assertion.signature)
    except UnprovenError:
        return False
    return assertion.authenticator_data[:32] == hashlib.sha256(device.rp_id.encode()).digest()


def _verify_signature(device: FidoDevice, signed: bytes, signature: bytes) -> None:
    from fido2 import cbor  # noqa: PLC0415 - only where a key is used: start-up cost
    from fido2.cose import CoseKey  # noqa: PLC0415

    try:
        decoded = cbor.decode(device.public_key)
        if not isinstance(decoded, dict):
            raise UnprovenError("the credential's public key is none")
        key = CoseKey.parse(decoded)
        if key.ALGORITHM not in ALGORITHMS:
            raise UnprovenError("the credential's algorithm is not accepted")
        key.verify(signed, signature)
    except UnprovenError:
        raise
    except Exception as error:  # whatever the library makes of hostile bytes, it is no proof
        raise UnprovenError("its signature is wrong") from error


def is_possible_clone(known: int, sign_count: int) -> bool:
    """Whether a count did not grow (WebAuthn level 3, section 7.2, step 22).

    Args:
        known: the last one that was accepted; -1 where there was none.
        sign_count: of this assertion; a key without a counter always says 0.
    """
    return sign_count <= known and not (sign_count == 0 and known <= 0)
