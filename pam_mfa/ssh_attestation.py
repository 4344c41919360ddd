# SPDX-License-Identifier: Apache-2.0
"""Attestation files of SSH keys, as ``ssh-keygen -O write-attestation=PATH`` writes them.

Pure. Format: OpenSSH's PROTOCOL.u2f, "ssh-sk-attest-v01". Whether what stands in one proves
anything, ``factors`` judges.
"""

from typing import Final, NamedTuple

from pam_mfa.ssh_wire import Reader, SshFormatError

FILE_MAX: Final = 8192  # bytes; certificates have about 1,000
_VERSION: Final = b"ssh-sk-attest-v01"
# CBOR (RFC 8949, section 3.1): how a byte string of one or two bytes of length begins.
_ONE_BYTE, _TWO_BYTES = 0x58, 0x59


class SshAttestation(NamedTuple):
    """What a security key said of a new SSH key; every part may be empty."""

    certificate: bytes  # in DER, the one that signed; its issuers are not in the file
    signature: bytes
    authenticator_data: bytes  # WebAuthn level 3, section 6.1


def parse_attestation(data: bytes) -> SshAttestation:
    """Read an attestation file.

    Raises:
        SshFormatError: it is none, or of another version.
    """
    if len(data) > FILE_MAX:
        raise SshFormatError("it is too long")
    reader = Reader(data)
    if reader.string() != _VERSION:
        raise SshFormatError("it is of another version")
    certificate, signature, authenticator_data = reader.string(), reader.string(), reader.string()
    reader.number()  # reserved flags: they mean nothing yet
    reader.string()  # reserved
    reader.end()
    return SshAttestation(certificate, signature, _unwrap(authenticator_data))


def _unwrap(data: bytes) -> bytes:
    """Return what a CBOR byte string holds; libfido2 hands authenticator data out as one."""
    for first, size in ((_ONE_BYTE, 1), (_TWO_BYTES, 2)):
        start = 1 + size
        if data[:1] == bytes((first,)) and data[1:start] == (len(data) - start).to_bytes(
            size, "big"
        ):
            return data[start:]
    return data
