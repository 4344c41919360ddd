# SPDX-License-Identifier: Apache-2.0
"""The FIDO Alliance's metadata on models of key (FIDO Metadata Service 3): who is certified.

Pure: the file's bytes, the root and the time come as arguments. The file is signed for
``mds.fidoalliance.org`` by a certificate that leads to a public root: the name is checked, for that
root signs for half of the web. A file that is older than it says it may be is refused: it cannot
know what was revoked since.
"""

import base64
import datetime
import json
from typing import TYPE_CHECKING, Any, Final

from pam_mfa.errors import BrokenSystemError
from pam_mfa.factors.security_key import UnprovenError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509
    from fido2.mds3 import MetadataBlobPayload

SIGNER: Final = "mds.fidoalliance.org"
# GlobalSign Root CA - R3, SHA-256 of the certificate; the FIDO Alliance names it as the root.
ROOT_FINGERPRINT: Final = "cbb522d7b7f127ad6a0113865bdf1cd4102e7d0759af635a7cf4720dc963c53b"
ADDRESS: Final = "https://mds3.fidoalliance.org/"
_CERTIFIED: Final = "FIDO_CERTIFIED"
_FATAL: Final = frozenset((
    "REVOKED", "USER_VERIFICATION_BYPASS", "USER_KEY_REMOTE_COMPROMISE",
    "USER_KEY_PHYSICAL_COMPROMISE",
))  # fmt: skip
_ATTESTATION_COMPROMISE: Final = "ATTESTATION_KEY_COMPROMISE"


class Metadata:
    """A metadata file whose signature is good."""

    def __init__(self, payload: "MetadataBlobPayload") -> None:
        """Take what the file says."""
        from fido2.mds3 import MdsAttestationVerifier  # noqa: PLC0415 - start-up cost

        # What its own filters would drop is looked at here, so that it is told by its name.
        self._verifier = MdsAttestationVerifier(payload, entry_filter=None, attestation_filter=None)

    def verify_certified(self, made: Any, chain: "Sequence[bytes]", hashed: bytes) -> None:  # noqa: ANN401 - fido2's own type
        """Check that an attestation leads to a certified model of which nothing bad is known.

        Args:
            made: fido2's attestation object.
            chain: its certificates.
            hashed: the hash of the client data.

        Raises:
            UnprovenError: it does not.
        """
        try:
            entry = self._verifier.find_entry(made, hashed)
        except Exception as error:  # whatever the library makes of hostile bytes
            raise UnprovenError("the key's certificate cannot be checked") from error
        if entry is None:
            raise UnprovenError("the FIDO Alliance's metadata does not know its model")
        # What a newer edition of the metadata reports has no value here.
        reports = [(getattr(one.status, "value", ""), one) for one in entry.status_reports]
        for name, report in reports:
            about = [one for one in (report.certificate, report.batch_certificate) if one]
            is_fatal = name in _FATAL or (
                name == _ATTESTATION_COMPROMISE and (not about or any(x in chain for x in about))
            )
            if is_fatal:
                raise UnprovenError(f"the FIDO Alliance reports its model as {name}")
        if not any(name.startswith(_CERTIFIED) for name, _ in reports):
            raise UnprovenError("its model is not FIDO Certified")


def parse_metadata(
    blob: bytes, source: str, root: "x509.Certificate", now: datetime.datetime
) -> Metadata:
    """Read a metadata file: the signed BLOB as it is downloaded.

    Args:
        blob: the file's bytes.
        source: its name, for messages.
        root: the certificate that its signature must lead to.
        now: in UTC.

    Raises:
        BrokenSystemError: it is not signed by the FIDO Alliance, out of date, or cannot be read.
    """
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - start-up
    from fido2.mds3 import parse_blob  # noqa: PLC0415

    _verify_signer(blob, source, root, now)
    try:
        payload = parse_blob(blob.strip(), root.public_bytes(Encoding.DER))
        metadata, next_update = Metadata(payload), payload.next_update
    except Exception as error:  # whatever the library makes of wrong bytes
        raise _error(source, "its signature is wrong, or it cannot be read") from error
    if next_update < now.date():
        raise _error(source, f"it was due to be replaced on {next_update}")
    return metadata


def _verify_signer(
    blob: bytes, source: str, root: "x509.Certificate", now: datetime.datetime
) -> None:
    from cryptography import x509  # noqa: PLC0415 - start-up cost
    from cryptography.x509.verification import PolicyBuilder, Store  # noqa: PLC0415

    try:
        part = blob.strip().split(b".")[0]
        header = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
        chain = [x509.load_der_x509_certificate(base64.b64decode(one)) for one in header["x5c"]]
        builder = PolicyBuilder().store(Store([root])).time(now)
        verifier = builder.build_server_verifier(x509.DNSName(SIGNER))
        verifier.verify(chain[0], chain[1:])
    except Exception as error:  # whatever the library makes of wrong bytes
        raise _error(source, f"it is not signed by {SIGNER}") from error


def _error(source: str, problem: str) -> BrokenSystemError:
    return BrokenSystemError(
        f"the FIDO metadata {source} is not used: {problem}",
        hint=f"Download it anew from {ADDRESS}",
    )


def load_certificates(data: bytes, source: str) -> "list[x509.Certificate]":
    """Read certificates, PEM or one in DER.

    Raises:
        BrokenSystemError: there is none in it, or one cannot be read.
    """
    from cryptography import x509  # noqa: PLC0415 - start-up cost

    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificates(data)
        return [x509.load_der_x509_certificate(data)]
    except ValueError as error:
        raise BrokenSystemError(
            f"{source} holds no certificates, or one that cannot be read",
            hint="Certificates are expected as PEM, or one in DER.",
        ) from error


def find_pinned_root(certificates: "list[x509.Certificate]") -> "x509.Certificate | None":
    """Return the root that the FIDO Alliance names, or None."""
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - start-up cost

    for certificate in certificates:
        if certificate.fingerprint(SHA256()).hex() == ROOT_FINGERPRINT:
            return certificate
    return None
