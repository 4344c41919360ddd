# SPDX-License-Identifier: Apache-2.0
"""What stands beside a host's records at a target: who ships them, and when it was last heard of.

Pure, but for the reading of a host's own machine id. A claim is written once, by the first machine
that ships under a name: a second one of the same name is refused, and leaves a note of it. The
public key in a claim is the one first seen. A sign of life is replaced at each turn: without it,
an idle host and a dead one would look the same, for an idle one has no record to make.
"""

import datetime
import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from pam_mfa.audit import NO_HASH, Head
from pam_mfa.audit_reading import format_moment, parse_moment

_PURPOSE: Final = b"pam-mfa audit ship"  # machine ids are not to be shown: machine-id(5)
_ID_CHARACTERS: Final = 16
_NAME_MAX: Final = 64  # characters, as of a host's name on Linux
SIZE_MAX: Final = 4096  # bytes of a claim or a sign of life


class FormatError(ValueError):
    """A claim or a sign of life is not one; the text says why."""


class Claim(NamedTuple):
    """Whose records these are."""

    host: str
    machine: str  # a hash of the machine's id
    public_key: str = ""  # PEM, of the key that signs this host's log
    since: str = ""  # as records have times


class SignOfLife(NamedTuple):
    """What a host said of itself when it was last heard of."""

    at: str  # as records have times, by the host's clock
    chain: int  # that it adds to
    shipped: Head  # the last record that the target has
    log: Head  # the last record that the host has


def find_machine(root: Path) -> str:
    """Return a host's machine id as it may be shown; "" where there is none.

    systemd's sd_id128_get_machine_app_specific(3) does the same with another purpose.
    """
    try:
        text = (root / "etc/machine-id").read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
    if len(text) != 32:  # noqa: PLR2004 - machine-id(5); "uninitialized" is none
        return ""
    return hmac.new(text.encode(), _PURPOSE, hashlib.sha256).hexdigest()[:_ID_CHARACTERS]


def is_host_name(name: str) -> bool:
    """Whether a host can be called so at a target."""
    return 0 < len(name) <= _NAME_MAX and name.isprintable()


def to_file_name(host: str) -> str:
    """Return a host's name so that it is a safe file name, and has no "+" in it."""
    safe = quote(host, safe="")
    return f"%2E{safe[1:]}" if safe.startswith(".") else safe


def from_file_name(name: str) -> str:
    """Return the host of a file name."""
    return unquote(name)


def format_claim(claim: Claim) -> bytes:
    """Return a claim's text."""
    return _format(claim._asdict())


def parse_claim(data: bytes) -> Claim:
    """Return the claim of a text.

    Raises:
        FormatError: it is none.
    """
    found = _parse(data)
    claim = Claim(*(found.get(name, "") for name in Claim._fields))
    if not all(isinstance(value, str) for value in claim) or not claim.machine:
        raise FormatError("it names no machine")
    return claim


def format_sign(sign: SignOfLife) -> bytes:
    """Return a sign of life's text."""
    document = {**sign._asdict(), "shipped": sign.shipped._asdict(), "log": sign.log._asdict()}
    return _format(document)


def parse_sign(data: bytes) -> SignOfLife:
    """Return the sign of life of a text.

    Raises:
        FormatError: it is none.
    """
    found = _parse(data)
    at, chain = found.get("at"), found.get("chain")
    try:
        parse_moment(str(at))
    except ValueError as error:
        raise FormatError("it has no time") from error
    if type(chain) is not int:
        raise FormatError("it names no chain")
    return SignOfLife(str(at), chain, _parse_head(found, "shipped"), _parse_head(found, "log"))


def now_text(now: float) -> str:
    """Return a time as records have it."""
    return format_moment(datetime.datetime.fromtimestamp(now, datetime.UTC))


def _format(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True, indent=1).encode("ascii") + b"\n"


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError("it is not JSON") from error
    if not isinstance(found, dict):
        raise FormatError("it is no JSON object")
    return found


def _parse_head(found: Mapping[str, Any], name: str) -> Head:
    head = found.get(name)
    sequence = head.get("sequence") if isinstance(head, dict) else None
    digest = head.get("hash", NO_HASH) if isinstance(head, dict) else None
    if type(sequence) is not int or not 0 <= sequence < 10**18 or not isinstance(digest, str):
        raise FormatError(f"it has no record as '{name}'")
    return Head(sequence, digest)
