# SPDX-License-Identifier: Apache-2.0
"""The signatures of checkpoints, and the public keys that they are checked by.

Ed25519 (RFC 8032). A key is trusted because somebody has named it; the one that a log brings along
itself shows that the log was signed by one key throughout, and not whose it is.
"""

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pam_mfa.audit import format_record, name_key
from pam_mfa.audit_reading.records import Record
from pam_mfa.errors import RefusedError
from pam_mfa.store.files import read_file

_RAW_BYTES: Final = 32
_FILE_MAX: Final = 4096


class PublicKeys:
    """The keys by which signatures are checked."""

    def __init__(self, keys: Iterable[Ed25519PublicKey] = ()) -> None:
        """Trust these; without any, the first key that the log brings along is used."""
        self._keys = {name_key(key.public_bytes_raw()): key for key in keys}
        self.is_own = not self._keys  # the log's own word on who signs it

    @property
    def names(self) -> tuple[str, ...]:
        """The keys, as checkpoints call them."""
        return tuple(self._keys)

    def learn(self, record: Record) -> None:
        """Take the key of a checkpoint that brings one along, where none was named."""
        text = record.get("public_key")
        if self._keys or not isinstance(text, str):
            return
        try:
            raw = base64.b64decode(text, validate=True)
            key = Ed25519PublicKey.from_public_bytes(raw)
        except (ValueError, binascii.Error):
            return
        self._keys[name_key(raw)] = key

    def knows(self, record: Record) -> bool:
        """Whether the key that a checkpoint names is here."""
        return str(record.get("public_key_id")) in self._keys

    def is_signed(self, record: Record) -> bool:
        """Whether a checkpoint's signature is that of the key it names, over all the rest of it."""
        key = self._keys.get(str(record.get("public_key_id")))
        signed = {name: value for name, value in record.items() if name != "signature"}
        try:
            signature = base64.b64decode(str(record.get("signature")), validate=True)
            if key is None:
                return False
            key.verify(signature, format_record(signed))
        except (InvalidSignature, ValueError, binascii.Error):
            return False
        return True


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Return the key of a file: PEM, 32 bytes as they are, or in base64.

    Raises:
        FileNotFoundError: there is none.
        RefusedError: it holds no Ed25519 public key.
        UnsafeFileError: it is no regular file, or cannot be read.
    """
    data = read_file(path, owners=_Anybody(), forbidden=0, size_max=_FILE_MAX)
    wrong = RefusedError(f"{path} holds no Ed25519 public key", hint="It is PEM, as audit.pub is.")
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            found = load_pem_public_key(data)
            if isinstance(found, Ed25519PublicKey):
                return found
            raise wrong
        raw = data if len(data) == _RAW_BYTES else base64.b64decode(data.strip(), validate=True)
        return Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        raise wrong from error


class _Anybody(frozenset[int]):
    """The owners of a file whose content is public."""

    __slots__ = ()

    def __contains__(self, owner: object) -> bool:
        return True
