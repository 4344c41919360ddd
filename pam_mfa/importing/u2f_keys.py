# SPDX-License-Identifier: Apache-2.0
"""The file of pam_u2f, ``u2f_keys``, as its documentation and ``pamu2fcfg`` have it.

A line is a user and the user's credentials, each ``keyHandle,publicKey,coseType,options``, all with
colons between them. The old format, up to 1.0.8, has ``keyHandle,publicKey`` alone and encodes
both otherwise. Pure. An error quotes nothing of a line.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from pam_mfa.factors.attestation import CREDENTIAL_ID_MAX

_RESIDENT: Final = "*"
_HEX_POINT = re.compile(r"04[0-9A-Fa-f]{128}", re.ASCII)
_OPTIONS = re.compile(r"(?:\+[a-z]+)*", re.ASCII)
_VERIFYING: Final = frozenset(("verification", "pin"))
_MODULUS, _EXPONENT = 256, 3  # bytes of an RSA key there


class EnrolledKey(NamedTuple):
    """One credential of one user, in use with pam_u2f."""

    user: str
    source: str  # the file, for the record
    line: int
    credential_id: bytes
    public_key: bytes  # COSE_Key in CBOR
    algorithm: str  # the word for it there: es256, eddsa, rs256
    is_old: bool = False  # of the old format: made for an "appid", not an "origin"
    must_verify_user: bool = False
    obstacle: str = ""  # why it cannot be taken although it is well understood


class BadKey(NamedTuple):
    """What a file says of a user and is not to be understood."""

    user: str
    source: str
    line: int
    reason: str


class U2fKeys(NamedTuple):
    """What one file says."""

    credentials: tuple[EnrolledKey, ...]
    bad: tuple[BadKey, ...]


class _FaultError(Exception):
    """A credential that cannot be understood."""


def parse_u2f_keys(data: bytes, source: str) -> U2fKeys:
    """Read a file of pam_u2f.

    Args:
        data: the file's bytes.
        source: its name, for the record.
    """
    lines = list(_lines(data))
    last = {user: number for number, user, _ in lines}
    credentials: list[EnrolledKey] = []
    bad: list[BadKey] = []
    for number, user, parts in lines:
        for part in parts:
            try:
                found = _parse_credential(part)._replace(user=user, source=source, line=number)
            except _FaultError as fault:
                bad.append(BadKey(user, source, number, str(fault)))
                continue
            if last[user] != number:
                obstacle = "pam_u2f does not read it: the user has a later line"
                found = found._replace(obstacle=obstacle)
            credentials.append(found)
        if not parts:
            bad.append(BadKey(user, source, number, "the line has a user and no credential"))
    return U2fKeys(tuple(credentials), tuple(bad))


def _lines(data: bytes) -> Iterator[tuple[int, str, list[str]]]:
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.strip().decode("utf-8", "surrogateescape")
        if not line or line.startswith("#"):
            continue
        user, *parts = line.split(":")
        yield number, user, [part for part in parts if part]


def _parse_credential(text: str) -> EnrolledKey:
    handle, separator, rest = text.partition(",")
    if not separator:
        raise _FaultError("a credential has not the two fields key handle and public key")
    fields = rest.split(",")
    if len(fields) > 3:  # noqa: PLR2004 - public key, type, options
        raise _FaultError("a credential has more than four fields")
    is_old = len(fields) == 1
    public_key, kind, options = (*fields, "", "")[:3]
    if not _OPTIONS.fullmatch(options):
        raise _FaultError("a credential's options are not words such as +presence")
    if is_old:
        kind = "es256"
    elif kind not in _KINDS:
        raise _FaultError(f"a credential's type is none of {', '.join(_KINDS)}")
    obstacle = ""
    if handle == _RESIDENT:
        obstacle = (
            "it lies on the key alone, and pam-mfa asks for a credential by its id; "
            "enable the key anew: pam-mfa enable fido"
        )
    raw = _decode_old_point(public_key) if is_old else _decode(public_key, "public key")
    return EnrolledKey(
        user="",
        source="",
        line=0,
        credential_id=b"" if obstacle else _decode_handle(handle, is_old=is_old),
        public_key=_KINDS[kind](raw),
        algorithm=kind,
        is_old=is_old,
        must_verify_user=not _VERIFYING.isdisjoint(options.split("+")),
        obstacle=obstacle,
    )


def _decode_handle(text: str, *, is_old: bool) -> bytes:
    if is_old:
        text = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
        text += "=" * (-len(text) % 4)
    handle = _decode(text, "key handle")
    if not 0 < len(handle) <= CREDENTIAL_ID_MAX:
        raise _FaultError(f"a key handle is not 1 to {CREDENTIAL_ID_MAX} bytes long")
    return handle


def _decode(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _FaultError(f"a {what} is not base64") from error


def _decode_old_point(text: str) -> bytes:
    if not _HEX_POINT.fullmatch(text):
        raise _FaultError("a public key of the old format is not 65 bytes in hex, from 04 on")
    return bytes.fromhex(text)[1:]


def _encode_es256(raw: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - an import is rare
    from fido2 import cbor  # noqa: PLC0415

    if len(raw) != 64:  # noqa: PLR2004 - the coordinates x and y
        raise _FaultError("a public key of type es256 is not 64 bytes long")
    x, y = raw[:32], raw[32:]
    numbers = (int.from_bytes(x, "big"), int.from_bytes(y, "big"))
    try:
        ec.EllipticCurvePublicNumbers(*numbers, ec.SECP256R1()).public_key()
    except ValueError as error:
        raise _FaultError("a public key of type es256 is no point of its curve") from error
    return cbor.encode({1: 2, 3: -7, -1: 1, -2: x, -3: y})  # RFC 9053, sections 2.1 and 7.1


def _encode_eddsa(raw: bytes) -> bytes:
    from fido2 import cbor  # noqa: PLC0415 - an import is rare

    if len(raw) != 32:  # noqa: PLR2004 - RFC 8032, section 5.1.5
        raise _FaultError("a public key of type eddsa is not 32 bytes long")
    return cbor.encode({1: 1, 3: -8, -1: 6, -2: raw})  # RFC 9053, sections 2.2 and 7.2


def _encode_rs256(raw: bytes) -> bytes:
    from fido2 import cbor  # noqa: PLC0415 - an import is rare

    if len(raw) != _MODULUS + _EXPONENT:
        raise _FaultError("a public key of type rs256 is not that of 2048 bits")
    modulus, exponent = raw[:_MODULUS], raw[_MODULUS:]
    return cbor.encode({1: 3, 3: -257, -1: modulus, -2: exponent})  # RFC 8230, section 4


_KINDS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "es256": _encode_es256,
    "eddsa": _encode_eddsa,
    "rs256": _encode_rs256,
}
