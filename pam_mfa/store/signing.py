# SPDX-License-Identifier: Apache-2.0
"""The key that signs checkpoints: Ed25519, made at the first checkpoint, sealed as seeds are.

Loaded where a checkpoint is due, and not by a login: Ed25519 costs start-up time.
"""

import base64
import os

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pam_mfa.audit import format_record, name_key
from pam_mfa.errors import BrokenSystemError, UnsafeFileError
from pam_mfa.secret import Secret
from pam_mfa.store.files import create_file, read_file, replace_file
from pam_mfa.store.layout import Layout
from pam_mfa.store.seal import SIGNING_KEY, SIGNING_KEY_SIZE_MAX, Sealer

_RAW = serialization.Encoding.Raw
_PEM = serialization.Encoding.PEM


class SigningKey:
    """Signs checkpoints."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Take the key."""
        self._key = key
        self._public = key.public_key().public_bytes(_RAW, serialization.PublicFormat.Raw)
        self.key_id = name_key(self._public)

    @property
    def pem(self) -> bytes:
        """The public key as ``openssl`` reads it."""
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(_PEM, kind)

    def sign(self, record: dict[str, object], *, is_first: bool) -> dict[str, object]:
        """Return a checkpoint with its signature, and with the public key where it is the first."""
        record = {**record, "public_key_id": self.key_id}
        if is_first:
            record["public_key"] = base64.b64encode(self._public).decode("ascii")
        signature = self._key.sign(format_record(record))
        return {**record, "signature": base64.b64encode(signature).decode("ascii")}


def load_signing_key(layout: Layout, sealer: Sealer) -> SigningKey:
    """Open the host's signing key, made where there is none.

    Raises:
        BrokenSystemError: it does not open with the seal key, or cannot be written.
    """
    key = _read_key(layout, sealer)
    if key is None:
        private = os.urandom(32)  # RFC 8032, section 5.1.5: any 32 bytes
        sealed = sealer.seal(Secret(private), *SIGNING_KEY)
        create_file(layout.signing_key, sealed.encode("ascii") + b"\n", 0o600)
        key = _read_key(layout, sealer)  # another process may have been first
        if key is None:
            raise BrokenSystemError(f"{layout.signing_key} went away right after it was made")
    _publish(layout, key)
    return key


def _read_key(layout: Layout, sealer: Sealer) -> SigningKey | None:
    path = layout.signing_key
    try:
        text = read_file(
            path, owners={os.geteuid()}, forbidden=0o077, size_max=SIGNING_KEY_SIZE_MAX
        )
    except FileNotFoundError:
        return None
    try:
        secret = sealer.open(text.decode("ascii").strip(), *SIGNING_KEY)
        return SigningKey(Ed25519PrivateKey.from_private_bytes(secret.reveal()))
    except (BrokenSystemError, ValueError) as error:
        raise BrokenSystemError(
            f"the key {path}, which signs the audit log, does not open with this host's seal key",
            hint=f"Restore it from the backup with the seal key. If it is lost: keep {path} and "
            f"{layout.public_key} elsewhere and remove them; the next checkpoint makes a new key.",
        ) from error


def _publish(layout: Layout, key: SigningKey) -> None:
    """Put the public key beside it, for whoever verifies."""
    try:
        data = read_file(
            layout.public_key, owners={os.geteuid()}, forbidden=0o022, size_max=SIGNING_KEY_SIZE_MAX
        )
    except (FileNotFoundError, UnsafeFileError):
        data = b""
    if data != key.pem:
        replace_file(layout.public_key, key.pem, 0o644)
