# SPDX-License-Identifier: Apache-2.0
"""The seal keys of a host, oldest first, and what becomes of them when they are rotated.

Pure: bytes in, rings and bytes out. A new key is *staged*: it opens and does not seal. Then it is
*used*: what is sealed from then on is sealed by it. At last those before it are *retired*. What is
hashed and not sealed (recovery codes, fingerprints of seeds, pseudonyms) cannot be made anew
without the secrets, so it has keys of its own, which no rotation changes.

A file of 32 bytes is a ring of one key, as every host begins.
"""

import binascii
import hashlib
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.secret import Secret

KEY_BYTES = 32
RING_BYTES_MAX = 4096
KEYS_MAX = 16
PURPOSES = ("pseudonym", "fingerprint", "code", "document")  # of hashes
_HEAD = "pam-mfa seal ring 1"
_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)
_RESTORE = "Restore it from the backup, or from another host of the fleet: pam-mfa seal export."


class SealKey(NamedTuple):
    """A key; its name can be told to anybody."""

    name: str
    secret: Secret


class KeyRing(NamedTuple):
    """The keys of a host."""

    keys: tuple[SealKey, ...]  # oldest first
    used: str  # the name of the one that seals
    first: str  # the name of the one that sealed before keys had names; "": retired
    hashing: Mapping[str, Secret]  # by purpose

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys, oldest first."""
        return tuple(key.name for key in self.keys)

    @property
    def staged(self) -> tuple[str, ...]:
        """The names of the keys that do not seal yet."""
        return self.names[self.names.index(self.used) + 1 :]

    @property
    def old(self) -> tuple[str, ...]:
        """The names of the keys that do not seal any more."""
        return self.names[: self.names.index(self.used)]


def name_of(secret: Secret) -> str:
    """Return a key's name: of a hash, so it tells nothing of the key."""
    return hashlib.sha256(b"pam-mfa seal key name" + secret.reveal()).hexdigest()[:8]


def ring_of(secret: Secret) -> KeyRing:
    """Return the ring of a host that has never rotated its one key."""
    key = SealKey(name_of(secret), secret)
    hashing = {
        purpose: Secret(hashlib.sha256(f"pam-mfa {purpose}".encode() + secret.reveal()).digest())
        for purpose in PURPOSES
    }
    return KeyRing((key,), key.name, key.name, hashing)


def parse_ring(data: bytes, source: str) -> KeyRing:
    """Read a ring.

    Args:
        data: a file's bytes, or a credential's.
        source: its name, for messages, which never quote what is in it.

    Raises:
        BrokenSystemError: it is neither a key nor a whole ring.
    """
    # A ring that is cut to a key's length must not be taken for a key, which everybody knows.
    if len(data) == KEY_BYTES and not data.startswith(_HEAD.encode("ascii")):
        return ring_of(Secret(data))
    try:
        lines = data.decode("ascii").splitlines()
    except UnicodeDecodeError:
        lines = []
    if not lines or lines[0] != _HEAD or not data.endswith(b"\n"):
        raise BrokenSystemError(
            f"{source} holds neither a key of {KEY_BYTES} bytes nor a whole ring of keys",
            hint=_RESTORE,
        )
    keys: list[SealKey] = []
    marks: dict[str, str] = {}
    hashing: dict[str, Secret] = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            _parse_line(line, keys, marks, hashing)
        except ValueError as error:
            raise BrokenSystemError(f"{source}, line {number}: {error}", hint=_RESTORE) from None
    names = [key.name for key in keys]
    if not (
        0 < len(keys) <= KEYS_MAX
        and marks.get("used") in names
        and marks.get("first", names[0]) in names
        and hashing.keys() == set(PURPOSES)
    ):
        raise BrokenSystemError(f"{source} is no whole ring of keys", hint=_RESTORE)
    return KeyRing(tuple(keys), marks["used"], marks.get("first", ""), hashing)


def _parse_line(
    line: str, keys: list[SealKey], marks: dict[str, str], hashing: dict[str, Secret]
) -> None:
    """Take a line in; the error that it raises quotes nothing of it."""
    match line.split(" "):
        case ["key", name, text]:
            secret = _parse_secret(text)
            # A turned bit would seal what no other host can open.
            if name != name_of(secret):
                raise ValueError("the key does not fit its name")
            if any(key.name == name for key in keys):
                raise ValueError("the key is there twice")
            keys.append(SealKey(name, secret))
        case ["used" | "first" as mark, name] if mark not in marks and _ID.fullmatch(name):
            marks[mark] = name
        case ["hash", purpose, text] if purpose in PURPOSES and purpose not in hashing:
            hashing[purpose] = _parse_secret(text)
        case _:
            raise ValueError("this is no line of a ring of keys")


def _parse_secret(text: str) -> Secret:
    try:
        raw = binascii.unhexlify(text)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise ValueError(f"this is no key of {KEY_BYTES} bytes")
    return Secret(raw)


def format_ring(ring: KeyRing) -> bytes:
    """Return a ring's bytes, which ``parse_ring`` reads back to the same ring."""
    lines = [_HEAD, *(f"key {key.name} {key.secret.reveal().hex()}" for key in ring.keys)]
    lines += [f"used {ring.used}", *([f"first {ring.first}"] if ring.first else [])]
    lines += [f"hash {purpose} {ring.hashing[purpose].reveal().hex()}" for purpose in PURPOSES]
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def stage(ring: KeyRing, secret: Secret) -> KeyRing:
    """Add a new key, which does not seal yet.

    Raises:
        RefusedError: there are too many keys.
    """
    if len(ring.keys) >= KEYS_MAX:
        raise RefusedError(
            f"the ring has {len(ring.keys)} keys, the most that it may have",
            hint="End the rotations that were begun: pam-mfa seal rotate --finish",
        )
    return ring._replace(keys=(*ring.keys, SealKey(name_of(secret), secret)))


def join(ring: KeyRing, other: KeyRing) -> KeyRing:
    """Add the keys of another host's ring, which do not seal here yet.

    Raises:
        RefusedError: it is another fleet's, or the two cannot be brought into one order.
    """
    if other.hashing != ring.hashing:
        raise RefusedError(
            "that is the ring of another fleet, or of a host that stands for itself: the keys by "
            "which recovery codes and seeds are known again are not the same; nothing was changed",
            hint="Take the ring of a host of the same fleet. A host without devices takes any.",
        )
    missing = set(ring.staged) - set(other.names)
    if missing and set(other.names) - set(ring.names):
        raise RefusedError(
            f"this ring has the staged key {', '.join(sorted(missing))} and that one has another; "
            "nothing was changed",
            hint="Stage a new key on one host only. Here it is taken back by: "
            "pam-mfa seal rotate --unstage",
        )
    added = tuple(key for key in other.keys if key.name not in ring.names)
    if len(ring.keys) + len(added) > KEYS_MAX:
        raise RefusedError(f"together the rings have more than {KEYS_MAX} keys")
    return ring._replace(keys=(*ring.keys, *added))


def unstage(ring: KeyRing) -> KeyRing:
    """Take the keys back that never sealed."""
    return without(ring, ring.staged)


def use_newest(ring: KeyRing) -> KeyRing:
    """Have the newest key seal from now on."""
    return ring._replace(used=ring.names[-1])


def retire(ring: KeyRing) -> KeyRing:
    """Take away the keys that do not seal any more."""
    return without(ring, ring.old)


def without(ring: KeyRing, names: Collection[str]) -> KeyRing:
    """Take these keys away, but never the one that seals."""
    gone = {name for name in names if name != ring.used}
    kept = tuple(key for key in ring.keys if key.name not in gone)
    return ring._replace(keys=kept, first="" if ring.first in gone else ring.first)
