# SPDX-License-Identifier: Apache-2.0
"""The chain: each record has the hash of the one before it; signatures are made over records.

Pure. A line's hash is over its own bytes without the newline. A checkpoint is a record whose
``signature`` is over the canonical text of the record without it: it signs its own sequence
and the hash of the record before, and so all that is before.

Where state and log were found apart, a ``ResumeLog`` follows whichever goes further: behind the
log's last record where the state was lost, behind the state's where records were taken from the
log. The sequence then has a gap where they were, and the hash does not join: what is missing
stays visible.
"""

import hashlib
from typing import Final, NamedTuple

NO_HASH: Final = "0" * 64  # what the first record of all has as the hash of the one before
_KEY_ID_CHARACTERS: Final = 16


class Head(NamedTuple):
    """The last record of a chain."""

    sequence: int = 0
    hash: str = NO_HASH


def hash_line(line: bytes) -> str:
    """Return a line's hash, with or without its newline."""
    return hashlib.sha256(line.removesuffix(b"\n")).hexdigest()


def follow(head: Head, line: bytes) -> Head:
    """Return the head of a chain that a line was added to."""
    return Head(head.sequence + 1, hash_line(line))


def name_key(public_key: bytes) -> str:
    """Return what a raw public key is called in the checkpoints that it verifies."""
    return hashlib.sha256(public_key).hexdigest()[:_KEY_ID_CHARACTERS]
