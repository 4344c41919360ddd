# SPDX-License-Identifier: Apache-2.0
"""Whether a new credential is what was asked for, and which model of key made it.

Pure: the key's answer, the ceremony and the administrator's files come as arguments. A certificate
in an attestation is only as good as the root that it leads to: without ``roots`` or ``metadata``
it is taken at its word, and whoever builds a key can claim any model.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pam_mfa.factors.security_key import RP_ID, Ceremony, UnprovenError, client_data_hash

if TYPE_CHECKING:
    from pam_mfa.factors.metadata import Metadata

# COSE algorithms of credentials that are made here, the preferred first: ES256 and EdDSA.
NEW_ALGORITHMS: Final = (-7, -8)
CREDENTIAL_ID_MAX: Final = 1023  # bytes; WebAuthn level 3, section 7.1
_UP, _UV, _BE, _BS = 0x01, 0x04, 0x08, 0x10  # flags of authenticator data
_AAGUID_OID: Final = "1.3.6.1.4.1.45724.1.1.4"
_OCTETS_16: Final = b"\x04\x10"  # DER: an octet string of 16 bytes
_ZERO: Final = bytes(16)


class Models(NamedTuple):
    """Which models of key may be enabled; nothing asked for: any."""

    aaguids: tuple[str, ...] = ()
    roots: tuple[bytes, ...] = ()  # certificates in DER that attestations must lead to
    metadata: "Metadata | None" = None  # of the FIDO Alliance: certified models only

    @property
    def asks(self) -> bool:
        """Whether the key must prove what it is."""
        return bool(self.aaguids or self.roots or self.metadata)


class Wanted(NamedTuple):
    """What a registration was asked for."""

    ceremony: Ceremony
    must_verify_user: bool
    models: Models


class Registered(NamedTuple):
    """What a good registration says."""

    credential_id: bytes
    public_key: bytes  # COSE_Key in CBOR
    aaguid: str  # a UUID; "": the key does not say
    sign_count: int
    attestation: str  # "packed, certificate", "packed, by itself", "fido-u2f, certificate", "none"


def verify_registration(attestation_object: bytes, wanted: Wanted) -> Registered:
    """Check everything of a new credential but whose it is, which only the store knows.

    WebAuthn level 3, section 7.1.

    Raises:
        UnprovenError: it is not what was asked for; the text says which check it failed.
    """
    from fido2 import cbor  # noqa: PLC0415 - only where a key is used: start-up cost
    from fido2.webauthn import AttestationObject  # noqa: PLC0415

    try:
        made = AttestationObject(attestation_object)
        data = made.auth_data.credential_data
    except Exception as error:  # whatever the library makes of hostile bytes
        raise UnprovenError("its attestation cannot be read") from error
    _verify_data(made.auth_data, wanted)
    if data is None:
        raise UnprovenError("it carries no new credential")
    if not 0 < len(data.credential_id) <= CREDENTIAL_ID_MAX:
        raise UnprovenError(f"its credential id is not 1 to {CREDENTIAL_ID_MAX} bytes long")
    if data.public_key.get(3) not in NEW_ALGORITHMS:
        raise UnprovenError("its algorithm is not one that was asked for")
    hashed = client_data_hash(wanted.ceremony, "webauthn.create")
    chain, way = judge_statement(made, hashed)
    if wanted.models.asks:
        verify_model(made, chain, wanted.models, hashed)
    return Registered(
        credential_id=bytes(data.credential_id),
        public_key=cbor.encode(dict(data.public_key)),
        aaguid=str(data.aaguid) if bytes(data.aaguid) != _ZERO else "",
        sign_count=made.auth_data.counter,
        attestation=way,
    )


def _verify_data(data: Any, wanted: Wanted) -> None:  # noqa: ANN401 - fido2's own type, imported late
    if data.rp_id_hash != hashlib.sha256(RP_ID.encode()).digest():
        raise UnprovenError("it was made for another relying party")
    if not data.flags & _UP:
        raise UnprovenError("nobody touched the key")
    if wanted.must_verify_user and not data.flags & _UV:
        raise UnprovenError("the key did not verify its user")
    if data.flags & _BS and not data.flags & _BE:
        raise UnprovenError("it says that it is backed up and cannot be")


def judge_statement(made: Any, hashed: bytes) -> tuple[list[bytes], str]:  # noqa: ANN401 - fido2's own type
    """Check an attestation's own signature; only what security keys make is known here.

    Args:
        made: fido2's attestation object.
        hashed: what was signed with the authenticator data.

    Returns:
        The certificates, the key's own first, and words for what it is; none by itself.

    Raises:
        UnprovenError: it is wrong.
    """
    from fido2.attestation.base import (  # noqa: PLC0415 - start-up cost
        Attestation,
        AttestationType,
        NoneAttestation,
    )
    from fido2.attestation.packed import PackedAttestation  # noqa: PLC0415
    from fido2.attestation.u2f import FidoU2FAttestation  # noqa: PLC0415

    known: dict[str, Attestation] = {
        "packed": PackedAttestation(),
        "fido-u2f": FidoU2FAttestation(),
        "none": NoneAttestation(),
    }
    if made.fmt not in tuple(known):  # of a hostile key it may be anything, a list too
        raise UnprovenError("its attestation is of a kind that no security key makes")
    try:
        result = known[made.fmt].verify(made.att_stmt, made.auth_data, hashed)
        # U2F's signature does not cover the AAGUID: a model that stands there is nobody's word.
        is_claim = made.fmt == "fido-u2f" and any(bytes(made.auth_data.credential_data.aaguid))
    except Exception as error:  # whatever the library makes of hostile bytes, it is no proof
        raise UnprovenError("its attestation is wrong") from error
    if is_claim:
        raise UnprovenError("it names a model in a registration of U2F, which has none")
    chain = list(result.trust_path) if result.attestation_type is AttestationType.BASIC else []
    return chain, made.fmt + (", certificate" if chain else ", by itself" if made.att_stmt else "")


def verify_model(made: Any, chain: list[bytes], models: Models, hashed: bytes) -> None:  # noqa: ANN401
    """Check that a certificate says which model it is, and that policy allows that one.

    Raises:
        UnprovenError: it does not, or another one.
    """
    if not chain:
        # Self attestation proves possession of the new key and nothing of who made it.
        raise UnprovenError("the key does not prove which model it is")
    if models.aaguids:
        model = _find_model(chain[0])
        said = bytes(made.auth_data.credential_data.aaguid)
        if model is None or (made.fmt == "packed" and model != said):
            raise UnprovenError("the key's certificate does not say which model it is")
        if _format_aaguid(model) not in models.aaguids:
            raise UnprovenError(f"policy does not list its model, {_format_aaguid(model)}")
    if models.roots:
        _verify_root(chain, models.roots)
    if models.metadata is not None:
        models.metadata.verify_certified(made, chain, hashed)


def _find_model(certificate: bytes) -> bytes | None:
    """Return the AAGUID in a certificate (WebAuthn level 3, section 8.2.1)."""
    from cryptography import x509  # noqa: PLC0415 - start-up cost

    try:
        extensions = x509.load_der_x509_certificate(certificate).extensions
        found = extensions.get_extension_for_oid(x509.ObjectIdentifier(_AAGUID_OID)).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return None
    raw = found.value if isinstance(found, x509.UnrecognizedExtension) else b""
    return raw[2:] if raw.startswith(_OCTETS_16) and len(raw) == 18 else None  # noqa: PLR2004


def _verify_root(chain: Sequence[bytes], roots: Sequence[bytes]) -> None:
    from cryptography import x509  # noqa: PLC0415 - start-up cost
    from fido2.attestation.base import verify_x509_chain  # noqa: PLC0415

    for root in roots:
        try:
            last = x509.load_der_x509_certificate(chain[-1])
            if last.issuer == x509.load_der_x509_certificate(root).subject:
                verify_x509_chain([*chain, root])
                return
        except Exception:  # noqa: BLE001,S112 - of hostile bytes; another root may fit
            continue
    raise UnprovenError("the key's certificate leads to none of the roots that policy names")


def _format_aaguid(aaguid: bytes) -> str:
    text = aaguid.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
