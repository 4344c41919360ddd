# SPDX-License-Identifier: Apache-2.0
"""Sealing of seeds: AES-256-GCM with the user and serial number bound in.

A sealed seed that is copied to another user or device does not open. The keys are in ``seal.key``
(``key_ring`` says how), or in the systemd credential ``pam-mfa.seal`` where the verifier was given
one. A sealed text names its key; one of before keys had names was sealed by the first one.
"""

import base64
import binascii
import hmac
import os
import re
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pam_mfa.errors import BrokenSystemError, SealError, UnknownKeyError
from pam_mfa.secret import Secret
from pam_mfa.store.files import create_file, read_file
from pam_mfa.store.key_ring import KEY_BYTES, RING_BYTES_MAX, KeyRing, parse_ring
from pam_mfa.store.layout import Layout

NONCE_BYTES = 12  # NIST SP 800-38D, 8.2.1
_TAG_BYTES = 16  # NIST SP 800-38D, 5.2.1.2
CREDENTIAL = "pam-mfa.seal"
FIRST = "first"  # the name of a first key that is in no ring any more
SIGNING_KEY = ("?", "audit/signing-key")  # what the log's key is bound to: no user, no device
SIGNING_KEY_SIZE_MAX = 1024  # bytes, sealed
_FIRST_PREFIX = "sealed:v1:"
_PREFIX = re.compile(r"sealed:(?:v1|v2:(?P<key>[0-9a-f]{8})):", re.ASCII)


class Sealer:
    """Opens with every key of a ring, and seals with one."""

    def __init__(self, ring: KeyRing) -> None:
        """Take the ring."""
        self.ring = ring
        self._ciphers = {key.name: AESGCM(key.secret.reveal()) for key in ring.keys}
        is_first = ring.used == ring.first  # read by programs that know no names, too
        self._prefix = _FIRST_PREFIX if is_first else f"sealed:v2:{ring.used}:"

    def seal(self, secret: Secret, user: str, serial_number: str) -> str:
        """Return the sealed text of a secret, bound to its user and device."""
        nonce = os.urandom(NONCE_BYTES)
        cipher = self._ciphers[self.ring.used]
        sealed = cipher.encrypt(nonce, secret.reveal(), _bound(user, serial_number))
        return self._prefix + base64.b64encode(nonce + sealed).decode("ascii")

    def open(self, sealed: str, user: str, serial_number: str) -> Secret:
        """Return what was sealed for this user and device.

        Raises:
            UnknownKeyError: it was sealed by a key that is not in the ring.
            SealError: it was sealed for others, or changed.
        """
        found = _PREFIX.match(sealed)
        name = (found["key"] or self.ring.first) if found else ""
        if found and name not in self._ciphers:
            raise self._unknown_key(name, serial_number)
        try:
            if not found:
                raise ValueError(_PREFIX.pattern)
            raw = base64.b64decode(sealed[found.end() :], validate=True)
            bound = _bound(user, serial_number)
            cipher = self._ciphers[name]
            return Secret(cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], bound))
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise SealError(
                f"the secret of device {serial_number} does not open with this host's seal key",
                hint="It was sealed by another key, for another user or device, or changed. "
                "Deactivate the device and enable it again.",
            ) from error

    def _unknown_key(self, name: str, serial_number: str) -> UnknownKeyError:
        which = f"the key {name}" if name else "the first key"
        return UnknownKeyError(
            f"the secret of device {serial_number} was sealed by {which}, which is not in this "
            f"host's ring ({', '.join(self.ring.names)})",
            hint="Bring the ring of a host that has it: pam-mfa seal rotate --stage --from FILE; "
            "or restore seal.key from the backup. See: pam-mfa seal status",
        )

    def is_current(self, sealed: str) -> bool:
        """Whether a text was sealed by the key that seals now."""
        return sealed.startswith(self._prefix)

    def seal_anew(self, sealed: str, user: str, serial_number: str) -> str:
        """Return a secret's text by the key that seals now; the same text where it is by that.

        Raises:
            SealError: as ``open``.
        """
        if self.is_current(sealed):
            return sealed
        return self.seal(self.open(sealed, user, serial_number), user, serial_number)

    def key_of(self, sealed: str) -> str:
        """Return the name of the key that sealed a text; "" where it is no sealed text."""
        found = _PREFIX.match(sealed)
        return (found["key"] or self.ring.first or FIRST) if found else ""

    @staticmethod
    def sealed_bits(sealed: str) -> int:
        """Return how many bits a sealed secret has, by its length: nothing is opened.

        0: it is no sealed secret.
        """
        found = _PREFIX.match(sealed)
        try:
            length = len(base64.b64decode(sealed[found.end() :])) if found else 0
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

    def document_mark(self, data: bytes) -> str:
        """Return a keyed hash by which a document of ours is known from anybody else's."""
        return self._keyed_hash("document", data)

    def _keyed_hash(self, purpose: str, data: bytes) -> str:
        return hmac.digest(self.ring.hashing[purpose].reveal(), data, "sha256").hex()


def _bound(user: str, serial_number: str) -> bytes:
    return b"\0".join(
        text.encode("utf-8", "surrogateescape") for text in ("pam-mfa seed", user, serial_number)
    )


class RingPlace(NamedTuple):
    """Where a host's keys are."""

    path: Path
    is_credential: bool  # systemd's: it is not ours to write


def find_ring(layout: Layout) -> RingPlace:
    """Return where the keys are: the credential, where this process was given one."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(directory) / CREDENTIAL if directory else None
    if credential and credential.exists():
        return RingPlace(credential, is_credential=True)
    return RingPlace(layout.seal_key, is_credential=False)


def read_ring(layout: Layout) -> KeyRing:
    """Read the host's keys, made at the first use.

    Raises:
        BrokenSystemError: there are none, or their file is not safe or holds no keys.
    """
    place = find_ring(layout)
    if not place.is_credential:
        _make_key(layout)
    try:
        # A credential is root's or ours, readable by us alone; systemd sees to it.
        owners = {os.geteuid(), 0}
        data = read_file(place.path, owners=owners, forbidden=0o077, size_max=RING_BYTES_MAX)
    except FileNotFoundError as error:
        raise BrokenSystemError(
            f"there is no seal key at {place.path}",
            hint="Restore it from the backup.",
        ) from error
    return parse_ring(data, str(place.path))


def load_sealer(layout: Layout) -> Sealer:
    """Open the host's keys.

    Raises:
        BrokenSystemError: as ``read_ring``.
    """
    return Sealer(read_ring(layout))


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
