# SPDX-License-Identifier: Apache-2.0
"""A metadata service of the tests' own: a root, a signer, and files signed by it.

Written from the FIDO Metadata Service's specification, version 3; nothing of it is the product's.
"""

import base64
import datetime
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SIGNER = "mds.fidoalliance.org"
Secret = ec.EllipticCurvePrivateKey
CERTIFIED = ({"status": "FIDO_CERTIFIED_L1", "effectiveDate": "2020-01-01"},)


class Times(NamedTuple):
    """When a certificate is valid."""

    start: datetime.datetime
    end: datetime.datetime


class Service:
    """Signs metadata files."""

    def __init__(self, now: float, name: str = SIGNER) -> None:
        """Have a root, an authority under it, and a signer of this name."""
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        self.times = Times(
            moment - datetime.timedelta(days=30), moment + datetime.timedelta(days=60)
        )
        self.today = moment.date()
        secrets = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
        self.root = self._certify("Root", secrets[0], "Root", secrets[0])
        self.authority = self._certify("Authority", secrets[1], "Root", secrets[0])
        self.signer = self._certify(name, secrets[2], "Authority", secrets[1], is_server=True)
        self.secret = secrets[2]

    def _certify(
        self,
        name: str,
        secret: Secret,
        issuer: str,
        issuer_secret: Secret,
        *,
        is_server: bool = False,
    ) -> x509.Certificate:
        public_key = secret.public_key()
        key_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(
            issuer_secret.public_key()
        )
        usage = x509.KeyUsage(
            digital_signature=is_server,
            key_cert_sign=not is_server,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=not is_server, path_length=None), True),
            (usage, True),
            (x509.SubjectKeyIdentifier.from_public_key(public_key), False),
            (key_identifier, False),
        ]
        if is_server:
            extensions += [
                (x509.SubjectAlternativeName([x509.DNSName(name)]), False),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.times.start)
            .not_valid_after(self.times.end)
        )
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, critical=is_critical)
        return builder.sign(issuer_secret, SHA256())

    def sign(self, *entries: dict[str, Any], days: int = 30, **header: Any) -> bytes:  # noqa: ANN401 - any field
        """Return a file that is due to be replaced in so many days."""
        payload = {
            "legalHeader": "of the tests",
            "no": 7,
            "nextUpdate": (self.today + datetime.timedelta(days=days)).isoformat(),
            "entries": entries,
        }
        chain = [_base64(one.public_bytes(Encoding.DER)) for one in (self.signer, self.authority)]
        head = {"alg": "ES256", "typ": "JWT", "x5c": chain} | header
        message = b".".join(_websafe(json.dumps(part).encode()) for part in (head, payload))
        # The DER form, which is not RFC 7515's but the one that python-fido2 takes of ES256; the
        # FIDO Alliance's own files are signed by RSA, where there is one form only.
        return message + b"." + _websafe(self.secret.sign(message, ec.ECDSA(SHA256())))


def describe_model(
    root: bytes,
    *,
    aaguid: str = "",
    key_identifier: str = "",
    reports: Sequence[dict[str, Any]] = CERTIFIED,
) -> dict[str, Any]:
    """Return what a file says of one model."""
    names: dict[str, Any] = {"aaguid": aaguid} if aaguid else {}
    if key_identifier:
        names["attestationCertificateKeyIdentifiers"] = [key_identifier]
    statement = {
        "legalHeader": "of the tests", "description": "A key of the tests",
        "authenticatorVersion": 1, "protocolFamily": "fido2" if aaguid else "u2f", "schema": 3,
        "upv": [{"major": 1, "minor": 0}],
        "authenticationAlgorithms": ["secp256r1_ecdsa_sha256_raw"],
        "publicKeyAlgAndEncodings": ["cose"], "attestationTypes": ["basic_full"],
        "userVerificationDetails": [[{"userVerificationMethod": "presence_internal"}]],
        "keyProtection": ["hardware"], "matcherProtection": ["on_chip"],
        "attachmentHint": ["external"], "tcDisplay": [],
        "attestationRootCertificates": [_base64(root)],
    }  # fmt: skip
    return names | {
        "metadataStatement": names | statement,
        "statusReports": list(reports),
        "timeOfLastStatusChange": "2020-01-01",
    }


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _websafe(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
