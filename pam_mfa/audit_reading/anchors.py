# SPDX-License-Identifier: Apache-2.0
"""Anchors: one short line that tells where a chain has come to, to be kept elsewhere.

Pure. Whoever may write the log, its signing key and its state can make another log that is sound
in itself; what he cannot do is make it fit a line that he cannot get at.
"""

import re
from typing import Final, NamedTuple

from pam_mfa.errors import RefusedError

_PREFIX: Final = "pam-mfa-anchor:1,"
_ANCHOR: Final = re.compile(
    r"sequence=(?P<sequence>[1-9]\d{0,17}),hash=(?P<hash>[0-9a-f]{64}),"
    r"time=(?P<time>[0-9T:.Z-]{27}),host=(?P<host>[\x21-\x2b\x2d-\x7e]{1,255}),"
    r"key=(?P<key>[0-9a-f]{16}|none)",
    re.ASCII,
)
LENGTH_MAX: Final = 512  # characters


class Anchor(NamedTuple):
    """A record, and with it all before it."""

    sequence: int
    hash: str  # of the record's line
    time: str = ""
    host: str = ""
    key_id: str = ""  # of the last signature before it; "": there is none

    def __str__(self) -> str:
        """Return the line to keep; it has no spaces, so that a shell takes it as one word."""
        host = re.sub(r"[^\x21-\x2b\x2d-\x7e]", "?", self.host)[:255] or "?"
        return (
            f"{_PREFIX}sequence={self.sequence},hash={self.hash},time={self.time},host={host},"
            f"key={self.key_id or 'none'}"
        )


def parse_anchor(text: str) -> Anchor:
    """Return the anchor of a line; what stands around it, as in a journal's line, is left out.

    Raises:
        RefusedError: there is none in it.
    """
    _, prefix, rest = text.rpartition(_PREFIX)
    match = _ANCHOR.match(rest[:LENGTH_MAX]) if prefix else None
    if match is None:
        raise RefusedError(
            "that is no anchor", hint="An anchor is what 'pam-mfa audit verify --anchor' prints."
        )
    key_id = "" if match["key"] == "none" else match["key"]
    return Anchor(int(match["sequence"]), match["hash"], match["time"], match["host"], key_id)
