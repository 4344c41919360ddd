# SPDX-License-Identifier: Apache-2.0
"""What a check of the chain has to tell: findings with their places, and what was proven."""

import enum
from dataclasses import dataclass, field
from typing import Final, NamedTuple

FINDINGS_MAX: Final = 1000  # that are kept; all are counted


class Kind(enum.StrEnum):
    """What was found; a closed list."""

    CHANGED = "changed"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_KEY = "unknown_key"
    ANCHOR_MISSED = "anchor_missed"
    UNREADABLE = "unreadable"  # exit status 3: a file cannot be read to its end


class Place(NamedTuple):
    """Where a line stands."""

    file: str
    line: int  # from 1

    def __str__(self) -> str:
        """Return it as editors take it."""
        return f"{self.file}:{self.line}"


class Finding(NamedTuple):
    """Something that an untouched log cannot have."""

    kind: Kind
    place: Place
    sequence: int | None  # of the record that is meant; None: not known
    text: str

    def row(self) -> dict[str, object]:
        """Return it for a listing."""
        return {
            "kind": self.kind.value,
            "file": self.place.file,
            "line": self.place.line,
            "sequence": self.sequence,
            "text": self.text,
        }


class Note(NamedTuple):
    """Something that the log says of itself and an administrator should know."""

    event_name: str
    reason: str
    place: Place
    sequence: int
    text: str

    def row(self) -> dict[str, object]:
        """Return it for a listing."""
        return {
            "event_name": self.event_name,
            "reason": self.reason,
            "file": self.place.file,
            "line": self.place.line,
            "sequence": self.sequence,
            "text": self.text,
        }


class End(NamedTuple):
    """A record at one of the chain's ends."""

    sequence: int
    hash: str  # of its line, as the record behind it has it
    time: str
    host: str


@dataclass
class Report:
    """What became of a check."""

    findings: list[Finding] = field(default_factory=list)
    findings_count: int = 0
    notes: list[Note] = field(default_factory=list)
    lines: int = 0
    records: int = 0
    first: End | None = None
    last: End | None = None
    checkpoints: int = 0  # whose signatures were found right
    unchecked_checkpoints: int = 0  # for want of any key
    proven_sequence: int = 0  # the last record that a signature vouches for
    key_id: str = ""  # of the last checkpoint whose signature was found right

    @property
    def is_intact(self) -> bool:
        """Whether nothing was found."""
        return not self.findings_count

    @property
    def is_unreadable(self) -> bool:
        """Whether a file could not be read to its end."""
        return any(one.kind is Kind.UNREADABLE for one in self.findings)

    def find(self, kind: Kind, place: Place, sequence: int | None, text: str) -> None:
        """Note a finding."""
        self.findings_count += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(kind, place, sequence, text))
