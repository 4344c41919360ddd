# SPDX-License-Identifier: Apache-2.0
"""OpenSSH's public keys of security keys, as they stand in files and in SSH_AUTH_INFO_0.

Pure: texts and bytes in, keys out. Formats: OpenSSH's PROTOCOL.u2f and PROTOCOL.certkeys, RFC 4251,
section 5 (string). Keys that live on a security key are read; of a certificate, the key that it
certifies. Keys in files are read where it is said so: no touch is proven by them.
"""

import base64
import binascii
import hashlib
import re
from typing import Final, NamedTuple

from pam_mfa.errors import RefusedError

ED25519: Final = "sk-ssh-ed25519@openssh.com"
ECDSA: Final = "sk-ecdsa-sha2-nistp256@openssh.com"
# Each type of key or certificate, and how many strings stand before the application.
_TYPES: Final = {
    ED25519: (ED25519, 0, 1),
    ECDSA: (ECDSA, 0, 2),
    "sk-ssh-ed25519-cert-v01@openssh.com": (ED25519, 1, 1),
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com": (ECDSA, 1, 2),
}
_IN_FILES: Final = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
)  # fmt: skip
_POINT_BYTES: Final = {ED25519: 32, ECDSA: 65}
TEXT_MAX: Final = 32768  # characters
_BLOB_MAX: Final = 16384  # bytes; a certificate with many principals is long
_LINES_MAX: Final = 16
_OTHER_TYPE: Final = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]{1,60}", re.ASCII)
# Methods of which sshd writes no words that come from outside: other lines, of hostbased and
# gssapi-with-mic, name users and hosts as the client does.
_TOLD_BY_SSHD: Final = ("publickey", "password", "keyboard-interactive")


class SshKey(NamedTuple):
    """A public key on a security key."""

    type: str  # ED25519 or ECDSA; of a key in a file, OpenSSH's name as it is
    point: bytes  # the public key itself; of a key in a file, all that follows the type
    application: str  # what the key was made for, as "ssh:"; of a key in a file, nothing

    @property
    def is_on_security_key(self) -> bool:
        """Whether it lives on a security key."""
        return self.type in {ED25519, ECDSA}


class KeyFormatError(ValueError):
    """A text is not the public key of a security key; the text says why."""


def parse_key(text: str) -> SshKey:
    """Read ``TYPE BASE64 [COMMENT]``, the line of a ``.pub`` file.

    Raises:
        KeyFormatError: it is no public key of a security key.
    """
    if len(text) > TEXT_MAX:
        raise KeyFormatError("it is too long")
    if len(text.strip().splitlines()) > 1:
        raise KeyFormatError("it has several lines")
    words = text.split()
    if len(words) < 2:  # noqa: PLR2004 - type and blob
        raise KeyFormatError("it is not 'TYPE BASE64 COMMENT'")
    if words[0] not in _TYPES:
        # Of somebody else's file, nothing is quoted that may be a secret or drive a terminal.
        kind = f"'{words[0]}'" if _OTHER_TYPE.fullmatch(words[0]) else "its first word"
        raise KeyFormatError(f"{kind} is no type of key that lives on a security key")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeyFormatError("its key is not base64") from error
    return _parse_blob(words[0], blob)


def parse_any_key(text: str) -> SshKey:
    """Read a key that may live in a file, too; of a certificate in a file, nothing is read.

    Raises:
        KeyFormatError: it is no public key.
    """
    words = text.split()
    if len(text) > TEXT_MAX or len(words) < 2 or words[0] not in _IN_FILES:  # noqa: PLR2004
        return parse_key(text)
    from pam_mfa.sshsig import SignatureError, parse_public_key  # noqa: PLC0415 - mostly not needed

    try:
        key = parse_public_key(base64.b64decode(words[1], validate=True))
    except (binascii.Error, ValueError, SignatureError) as error:
        raise KeyFormatError(f"its key cannot be read: {error}") from error
    if key.type != words[0]:
        raise KeyFormatError("its key is of another type than it says")
    return SshKey(key.type, key.blob[4 + len(key.type) :], "")


def parse_auth_info(text: str) -> tuple[SshKey, ...]:
    """Return the keys of security keys that SSH_AUTH_INFO_0 names, whatever else is in it.

    A line a finished method: ``publickey TYPE BASE64``. sshd has checked the signature by each.
    What comes behind a line with a client's own words is not read: they might hold a line feed.
    """
    found = []
    for line in text.split("\n", _LINES_MAX)[:_LINES_MAX]:
        method, _, key = line.partition(" ")
        if method.partition("/")[0] not in _TOLD_BY_SSHD:
            break
        if method == "publickey":
            try:
                found.append(parse_key(key))
            except KeyFormatError:
                continue  # an ordinary key, or none: no proof
    return tuple(found)


def parse_blob(blob: bytes) -> SshKey:
    """Read a key, or the key of a certificate, as an agent has it.

    Raises:
        KeyFormatError: it is no public key of a security key.
    """
    strings, _ = _take_strings(blob[:_BLOB_MAX], 1)
    kind = strings[0].decode("ascii", "replace")
    if kind not in _TYPES:
        raise KeyFormatError("it is no type of key that lives on a security key")
    return _parse_blob(kind, blob)


def require_key(text: str, *, may_be_in_file: bool = False) -> SshKey:
    """Read a public key that somebody gave to be enabled.

    Args:
        text: of its ``.pub`` file.
        may_be_in_file: whether a key counts that lives in a file.

    Raises:
        RefusedError: it is no public key of a security key, or none at all.
    """
    try:
        return parse_any_key(text) if may_be_in_file else parse_key(text)
    except KeyFormatError as error:
        raise RefusedError(
            f"this is not the public key of a security key: {error}",
            hint="Make one: ssh-keygen -t ed25519-sk; its .pub file is what is wanted.",
        ) from error


def format_key(key: SshKey) -> str:
    """Return ``TYPE BASE64``, as ``parse_key`` reads it."""
    return f"{key.type} {base64.b64encode(key_blob(key)).decode('ascii')}"


def fingerprint(key: SshKey) -> str:
    """Return what ``ssh-keygen -l`` and sshd's log call the key: ``SHA256:...``."""
    digest = hashlib.sha256(key_blob(key)).digest()
    return f"SHA256:{base64.b64encode(digest).decode('ascii').rstrip('=')}"


def key_blob(key: SshKey) -> bytes:
    """Return the key as agents and signatures have it."""
    if not key.is_on_security_key:
        return len(key.type).to_bytes(4, "big") + key.type.encode() + key.point
    parts = [key.type.encode(), key.point, key.application.encode()]
    if key.type == ECDSA:
        parts.insert(1, b"nistp256")
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _parse_blob(kind: str, blob: bytes) -> SshKey:
    plain_type, nonces, key_strings = _TYPES[kind]
    if len(blob) > _BLOB_MAX:
        raise KeyFormatError("its key is too long")
    strings, left = _take_strings(blob, 1 + nonces + key_strings + 1)
    if strings[0] != kind.encode():
        raise KeyFormatError("its key is of another type than it says")
    if plain_type == kind and left:
        raise KeyFormatError("its key has bytes behind its end")
    curve_and_point = strings[1 + nonces : -1]
    if plain_type == ECDSA and curve_and_point[0] != b"nistp256":
        raise KeyFormatError("its curve is not nistp256")
    if len(curve_and_point[-1]) != _POINT_BYTES[plain_type]:
        raise KeyFormatError("its key is not of the length of its type")
    try:
        application = strings[-1].decode("ascii")
    except UnicodeDecodeError as error:
        raise KeyFormatError("its application is not ASCII") from error
    return SshKey(plain_type, curve_and_point[-1], application)


def _take_strings(blob: bytes, count: int) -> tuple[list[bytes], bytes]:
    strings = []
    for _ in range(count):
        length = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + length:
            raise KeyFormatError("its key is cut")
        strings.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return strings, blob
