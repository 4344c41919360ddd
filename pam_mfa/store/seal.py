# SPDX-License-Identifier: Apache-2.0
"""Sealing of seeds: AES-256-GCM with the user and serial number bound in.

A sealed seed that is copied to another user or device does not open. The key is 32 bytes in
``seal.key``, or the systemd credential ``pam-mfa.seal`` where the verifier was given one.
"""

import base64
import binascii
import hashlib
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pam_mfa.errors import BrokenSystemError, SealError
from pam_mfa.secret import Secret
from pam_mfa.store.files import create_file, read_file
from pam_mfa.store.layout import Layout

KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D, 8.2.1
_TAG_BYTES = 16  # NIST SP 800-38D, 5.2.1.2
CREDENTIAL = "pam-mfa.seal"
_PREFIX = "sealed:v1:"


class Sealer:
    """Seals and opens with one key."""

    def __init__(self, key: Secret) -> None:
        """Take the key of ``KEY_BYTES`` bytes."""
        self._key = key
        self._cipher = AESGCM(key.reveal())

    def seal(self, secret: Secret, user: str, serial_number: str) -> str:
        """Return the sealed text of a secret, bound to its user and device."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, secret.reveal(), _bound(user, serial_number))
        return _PREFIX + base64.b64encode(nonce + sealed).decode("ascii")

    def open(self, sealed: str, user: str, serial_number: str) -> Secret:
        """Return what was sealed for this user and device.

        Raises:
            SealError: it was sealed for others, by another key, or changed.
        """
        try:
            if not sealed.startswith(_PREFIX):
                raise ValueError(_PREFIX)
            raw = base64.b64decode(sealed.removeprefix(_PREFIX), validate=True)
            bound = _bound(user, serial_number)
            return Secret(self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], bound))
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise SealError(
                f"the secret of device {serial_number} does not open with this host's seal key",
                hint="It was sealed by another key, for another user or device, or changed. "
                "Deactivate the device and enable it again.",
            ) from error

    @staticmethod
    def sealed_bits(sealed: str) -> int:
        """Return how many bits a sealed secret has, by its length: nothing is opened.

        0: it is no sealed secret.
        """
        try:
            length = len(base64.b64decode(sealed.removeprefix(_PREFIX)))
        except ValueError:
            return 0
        return max(0, length - NONCE_BYTES - _TAG_BYTES) * 8

    def pseudonym(self, text: str) -> str:
        """Return a keyed hash that stands for a text which must not be written down."""
        return self._keyed_hash("pseudonym", text.encode("utf-8", "surrogateescape"))[:16]

    def fingerprint(self, seed: Secret) -> str:
        """Return a keyed hash by which the same seed is known again, and nothing else."""
        return self._keyed_hash("fingerprint", seed.reveal())

    def code_hash(self, code: str, user: str, serial_number: str) -> str:
        """Return what is kept of a code on paper, bound to its user and set."""
        return self._keyed_hash("code", _bound(user, serial_number) + b"\0" + code.encode("ascii"))

    def _keyed_hash(self, purpose: str, data: bytes) -> str:
        key = hashlib.sha256(f"pam-mfa {purpose}".encode() + self._key.reveal()).digest()
        return hmac.digest(key, data, "sha256").hex()


def _bound(user: str, serial_number: str) -> bytes:
    return b"\0".join(
        text.encode("utf-8", "surrogateescape") for text in ("pam-mfa seed", user, serial_number)
    )


def load_sealer(layout: Layout) -> Sealer:
    """Open the host's seal key, made at the first use.

    Raises:
        BrokenSystemError: there is none, or it is not safe or not a key.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(directory) / CREDENTIAL if directory else None
    path = credential if credential and credential.exists() else layout.seal_key
    if path == layout.seal_key:
        _make_key(layout)
    try:
        # A credential is root's or ours, readable by us alone; systemd sees to it.
        key = read_file(path, owners={os.geteuid(), 0}, forbidden=0o077, size_max=KEY_BYTES)
    except FileNotFoundError as error:
        raise BrokenSystemError(
            f"there is no seal key at {path}",
            hint="Restore it from the backup.",
        ) from error
    if len(key) != KEY_BYTES:
        raise BrokenSystemError(f"{path} does not hold a key of {KEY_BYTES} bytes")
    return Sealer(Secret(key))


def _make_key(layout: Layout) -> None:
    """Make the host's seal key where there is none; an existing one is never replaced.

    Raises:
        BrokenSystemError: devices are there but their key is not, or it cannot be written.
    """
    if layout.seal_key.exists():
        return
    if any(layout.devices.glob("*.yaml")):
        raise BrokenSystemError(
            f"{layout.seal_key} is missing and devices are there that it sealed",
            hint="Restore it from the backup; a new key could not open them.",
        )
    create_file(layout.seal_key, os.urandom(KEY_BYTES), 0o600)
