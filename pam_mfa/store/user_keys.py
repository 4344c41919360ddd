# SPDX-License-Identifier: Apache-2.0
"""The key under which a store knows a user: plain ASCII, one key a name, safe as a file's name."""

import hashlib
import urllib.parse
from typing import Final

ENCODED_MAX: Final = 200  # a file name has 255 bytes, a suffix and a draft's suffix included


def encode_user(user: str) -> str:
    """Return the key of any user name, one key a name.

    Bytes other than ASCII letters, digits and ``_-.~`` become ``%XX``, and so does a leading
    dot: no name is a path, hidden, or ``..``. What would be too long for a file name ends in its
    SHA-256 instead.
    """
    raw = user.encode("utf-8", "surrogateescape")
    encoded = urllib.parse.quote_from_bytes(raw, safe="")
    if encoded.startswith("."):
        encoded = f"%2E{encoded[1:]}"
    if len(encoded) <= ENCODED_MAX:
        return encoded
    # "%%" stands in no plain encoding, so no name can be made to collide with a hashed one.
    return f"{encoded[:100].rpartition('%')[0]}%%{hashlib.sha256(raw).hexdigest()}"


def is_whole(key: str) -> bool:
    """Whether a key has the whole name in it, so that it can be decoded."""
    return "%%" not in key


def decode_user(key: str) -> str:
    """Return the name that a whole key stands for."""
    return urllib.parse.unquote_to_bytes(key).decode("utf-8", "surrogateescape")
