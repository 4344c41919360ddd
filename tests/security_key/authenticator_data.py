# SPDX-License-Identifier: Apache-2.0
"""Authenticator data (WebAuthn, section 6.1): what every signature of a key covers."""

from dataclasses import dataclass

from security_key.ctap import Flag


@dataclass(frozen=True)
class AuthenticatorData:
    """Fields in the order in which they are encoded; ``rest`` is what follows the counter."""

    rp_id_hash: bytes
    flags: Flag
    sign_count: int
    rest: bytes = b""

    def encode(self) -> bytes:
        """Return the bytes."""
        counter = self.sign_count.to_bytes(4, "big")
        return self.rp_id_hash + bytes((self.flags,)) + counter + self.rest


def encode_attested(aaguid: bytes, credential_id: bytes, public_key: bytes) -> bytes:
    """Return attested credential data: what a new credential adds."""
    return aaguid + len(credential_id).to_bytes(2, "big") + credential_id + public_key
