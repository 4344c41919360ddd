# SPDX-License-Identifier: Apache-2.0
"""Who made the key: a root, and an attestation certificate as WebAuthn, section 8.2.1, wants it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from security_key.cbor import Item
from security_key.ctap import ES256
from security_key.signing_key import CURVE, SigningKey, generate_key, load_key

AAGUID_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.45724.1.1.4")
FROM, UNTIL = datetime(2020, 1, 1), datetime(2049, 12, 31)  # noqa: DTZ001 - UTC, by cryptography


def make_name(unit: str, common_name: str) -> x509.Name:
    """Return a name; AA is a country that nobody may be given."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "AA"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Keys"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


@dataclass(frozen=True)
class Attestation:
    """The key that vouches for new credentials; certificates in DER."""

    key: SigningKey
    certificate: bytes
    root: bytes

    def sign_packed(self, message: bytes) -> dict[str, Item]:
        """Return a packed statement with a certificate."""
        return {"alg": ES256, "sig": self.key.sign(message), "x5c": [self.certificate]}

    def to_json(self) -> dict[str, object]:
        """Return it as the state file has it."""
        return {
            "private_key": self.key.raw.hex(),
            "certificate": self.certificate.hex(),
            "root": self.root.hex(),
        }


def parse_attestation(values: Mapping[str, Any]) -> Attestation:
    """Return the attestation of a state file."""
    return Attestation(
        key=load_key(ES256, bytes.fromhex(values["private_key"])),
        certificate=bytes.fromhex(values["certificate"]),
        root=bytes.fromhex(values["root"]),
    )


def start_certificate(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    """Return what both certificates have."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(FROM)
        .not_valid_after(UNTIL)
    )


def make_attestation(aaguid: bytes) -> Attestation:
    """Return a new root's attestation for a model of key."""
    root_secret = ec.generate_private_key(CURVE)
    root_name = make_name("Root", "Example Keys Root")
    root = (
        start_certificate(root_name, root_name)
        .public_key(root_secret.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root_secret, SHA256())
    )
    key = generate_key(ES256)
    certificate = (
        start_certificate(make_name("Authenticator Attestation", "Example Key"), root_name)
        .public_key(key.secret.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            # An OCTET STRING within the extension's own.
            x509.UnrecognizedExtension(AAGUID_EXTENSION, b"\x04\x10" + aaguid),
            critical=False,
        )
        .sign(root_secret, SHA256())
    )
    return Attestation(key, certificate.public_bytes(Encoding.DER), root.public_bytes(Encoding.DER))
