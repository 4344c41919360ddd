# SPDX-License-Identifier: Apache-2.0
"""What the state knows of the log's end: an anchor on the same disk, for a log that was cut.

Reads only. It finds who can write the log and not the state, as a careless script; it proves
nothing against who is root here.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from pam_mfa.audit import NO_HASH, hash_line
from pam_mfa.audit_reading.anchors import Anchor
from pam_mfa.audit_reading.records import RecordError, parse_record
from pam_mfa.store.log_state import LogState

NAME: Final = "the state"


class KeptHead(NamedTuple):
    """The chain's head by the state."""

    anchor: Anchor
    ends: frozenset[str] = frozenset()  # hashes that the log may end with: the rest is under way


def find_kept_head(log: LogState, lines: Sequence[bytes]) -> KeptHead | None:
    """Return the head; None before the first record.

    A verifier that was killed leaves records in the state that the log gets by the next one.
    """
    head = log.head
    if head.hash == NO_HASH:
        return None
    ends = {hash_line(line) for line in lines}
    for line in lines[:1]:
        try:
            ends.add(str(parse_record(line.rstrip(b"\n")).get("previous")))
        except RecordError:
            break
    return KeptHead(Anchor(*head), frozenset(ends))
