# SPDX-License-Identifier: Apache-2.0
"""Which model of security key made an SSH key, by the attestation file that ssh-keygen wrote.

Pure. The file says less than a registration does: not the format of the signature, not its
algorithm, and no issuers. So both formats of security keys are tried, and a root that policy names
must have signed the key's own certificate.
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from pam_mfa.factors.attestation import Models, judge_statement, verify_model
from pam_mfa.factors.security_key import UnprovenError
from pam_mfa.ssh_attestation import SshAttestation, parse_attestation
from pam_mfa.ssh_keys import ED25519, SshKey
from pam_mfa.ssh_wire import SshFormatError

if TYPE_CHECKING:
    from fido2.webauthn import AttestationObject, AuthenticatorData

_UP, _BE, _BS = 0x01, 0x08, 0x10  # flags of authenticator data
_ES256, _EDDSA = -7, -8  # COSE algorithms
_HASH_BYTES: Final = 32
CHALLENGE_MAX: Final = 1024  # bytes


class Evidence(NamedTuple):
    """What is shown for an SSH key's model: two files, as ssh-keygen wrote and read them."""

    attestation: bytes = b""  # of -O write-attestation; b"": none
    challenge: bytes = b""  # of -O challenge


class Attested(NamedTuple):
    """What a good attestation says."""

    aaguid: str  # a UUID; "": the key does not say
    attestation: str  # "packed, certificate", "packed, by itself", "fido-u2f, certificate"


def verify_ssh_attestation(key: SshKey, evidence: Evidence, models: Models) -> Attested:
    """Check that a security key made this SSH key for this challenge, and which model it is.

    Raises:
        UnprovenError: it does not prove that; the text says which check it failed.
    """
    from fido2.webauthn import AuthenticatorData  # noqa: PLC0415 - only where a key is enabled

    try:
        file = parse_attestation(evidence.attestation)
    except SshFormatError as error:
        raise UnprovenError(f"this is no attestation file of ssh-keygen: {error}") from error
    if not file.authenticator_data or not file.signature:
        raise UnprovenError("its attestation is empty: what made the key attests nothing")
    if not evidence.challenge or len(evidence.challenge) > CHALLENGE_MAX:
        raise UnprovenError("the challenge that it was made for is missing, or too long")
    try:
        data = AuthenticatorData(file.authenticator_data)
    except Exception as error:  # whatever the library makes of hostile bytes
        raise UnprovenError("its attestation cannot be read") from error
    _verify_data(data, key)
    for made, hashed in _readings(file, data, key, evidence.challenge):
        try:
            chain, way = judge_statement(made, hashed)
        except UnprovenError:
            continue
        if models.asks:
            verify_model(made, chain, models, hashed)
        assert data.credential_data is not None  # noqa: S101 - for mypy; checked above
        aaguid = data.credential_data.aaguid
        return Attested(str(aaguid) if any(bytes(aaguid)) else "", way)
    raise UnprovenError("its attestation is wrong, or was made for another challenge")


def _verify_data(data: "AuthenticatorData", key: SshKey) -> None:
    if data.rp_id_hash != hashlib.sha256(key.application.encode()).digest():
        raise UnprovenError("its attestation is for another application")
    if not data.flags & _UP:
        raise UnprovenError("nobody touched the security key when it was made")
    if data.flags & _BS and not data.flags & _BE:
        raise UnprovenError("it says that it is backed up and cannot be")
    if data.credential_data is None:
        raise UnprovenError("its attestation names no key")
    # An attestation of another key, of whatever model, says nothing of this one.
    if dict(data.credential_data.public_key) != _cose(key):
        raise UnprovenError("its attestation is another key's")


def _cose(key: SshKey) -> dict[int, object]:
    """Return a key as a security key writes it (RFC 9053, section 7)."""
    if key.type == ED25519:
        return {1: 1, 3: _EDDSA, -1: 6, -2: key.point}
    return {1: 2, 3: _ES256, -1: 1, -2: key.point[1:33], -3: key.point[33:]}


def _readings(
    file: SshAttestation, data: "AuthenticatorData", key: SshKey, challenge: bytes
) -> Iterator[tuple["AttestationObject", bytes]]:
    """Go through what the file can mean, each with the hash that was signed."""
    from fido2.webauthn import AttestationObject  # noqa: PLC0415 - only where a key is enabled

    own = _EDDSA if key.type == ED25519 else _ES256
    statement: dict[str, object] = {"alg": own, "sig": file.signature}
    forms = [("packed", statement)]
    if file.certificate:
        # Certificates of security keys have ES256, whatever the new key has.
        statement |= {"alg": _ES256, "x5c": [file.certificate]}
        if own == _ES256:
            forms.append(("fido-u2f", statement))
    # OpenSSH hashes the challenge since 8.9; before, it was the hash.
    hashes = [hashlib.sha256(challenge).digest()]
    if len(challenge) == _HASH_BYTES:
        hashes.append(challenge)
    for name, values in forms:
        made = AttestationObject.create(name, data, values)
        for hashed in hashes:
            yield made, hashed
