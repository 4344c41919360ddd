# SPDX-License-Identifier: Apache-2.0
"""A stretch of lines that does not join, judged: which record was changed, removed, put in, moved.

Pure. A line's bytes are vouched for by the hash that the line behind it holds. So the judge begins
at a line that is vouched for, behind the stretch, and goes backward from hash to hash: what it
reaches is as it was written, what it does not reach was put in, and where no line has the hash that
is asked for, a record was changed (something stands in its place) or removed (nothing does).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pam_mfa.audit_reading.findings import Finding, Kind, Place


class Link(NamedTuple):
    """A line as a link of the chain."""

    place: Place
    hash: str
    sequence: int | None  # None: it is no record of a chain
    previous: str = ""
    problem: str = ""  # why it is no record
    line: bytes = b""
    is_cut: bool = False  # the file ends in it

    def follows(self, other: "Link") -> bool:
        """Whether this line vouches for the other as the one before it."""
        return (
            self.sequence is not None
            and other.sequence is not None
            and self.previous == other.hash
            and self.sequence == other.sequence + 1
        )


class Suspicion(NamedTuple):
    """A finding that may turn out to be a half of another."""

    finding: Finding
    hash: str = ""  # of the line that does not belong where it stands
    missing: str = ""  # the hash of the record that is not where it was


def judge(
    before: Sequence[Link], lines: Sequence[Link], after: Link, surplus: Mapping[str, Link]
) -> list[Suspicion]:
    """Return what was found in a stretch.

    Args:
        before: lines of late that did join.
        lines: the stretch.
        after: a record behind it that is vouched for, or the last one there is.
        surplus: lines that were too much where they stood before, by their hashes.
    """
    walk = _Walk(before, lines, after, surplus)
    while walk.current is not None:
        walk.step(walk.current)
    return [*walk.found, *map(too_much, walk.unreached())]


class _Walk:
    """The way backward from hash to hash."""

    def __init__(
        self,
        before: Sequence[Link],
        lines: Sequence[Link],
        after: Link,
        surplus: Mapping[str, Link],
    ) -> None:
        self._before = before
        self._lines = lines
        self._surplus = surplus
        self._by_hash = {link.hash: link for link in (*lines, *before)}
        self._positions = {link.place: index for index, link in enumerate(before)}
        self._reached: set[Place] = set()
        self._position: int | None = None  # in ``before``, of where the way has ended
        self._is_doubted = (
            False  # whether the current line's own hash of the one before may be wrong
        )
        self.current: Link | None = after
        self.found: list[Suspicion] = []

    def step(self, current: Link) -> None:
        """Find the record before the current one, or what has become of it."""
        wanted = (current.sequence or 0) - 1
        link = self._by_hash.get(current.previous)
        if self._is_doubted and link is not None and link.sequence != wanted:
            link = None  # a line that is in another's place leads somewhere else
        if link is None and current.previous in self._surplus:
            link = self._surplus[current.previous]
            self._suspect(Kind.REMOVED, current, wanted, _gone(wanted, wanted))
        if link is not None and link.place not in self._reached:
            if link.sequence is not None and link.sequence != wanted:
                text = f"record {current.sequence} joins record {link.sequence}: numbers left out"
                self._find(Kind.CHANGED, current, text)
            self._go_to(link, is_doubted=False)
            return
        claimed = self._claimed(wanted)
        if claimed is None or not self._is_doubted:
            self._tell_of_loss(current, wanted, claimed)
        else:
            self._go_to(claimed, is_doubted=False)

    def unreached(self) -> Iterable[Link]:
        """Go through the lines that the way did not lead to."""
        if self._position is not None:
            yield from self._before[self._position + 1 :]
        yield from (link for link in self._lines if link.place not in self._reached)

    def _tell_of_loss(self, current: Link, wanted: int, claimed: Link | None) -> None:
        if wanted < 1:
            text = "another chain begins here, with a record 1 of its own"
            self._find(Kind.INSERTED, current, text)
            self.current = None
            return
        claimed = claimed or self._stand_in()
        if claimed is not None:
            text = f"record {wanted} is not what was written"
            finding = Finding(Kind.CHANGED, claimed.place, wanted, text)
            self.found.append(Suspicion(finding, claimed.hash, current.previous))
            self._go_to(claimed._replace(sequence=wanted), is_doubted=True)
            return
        lower = max(
            (link for link in self._open_links() if (link.sequence or wanted) < wanted),
            key=lambda link: link.sequence or 0,
            default=None,
        )
        if lower is None:
            text = f"record {current.sequence} stands behind later ones"
            self._find(Kind.REORDERED, current, text)
            self.current = None
            return
        first = (lower.sequence or 0) + 1
        self._suspect(Kind.REMOVED, current, first, _gone(first, wanted))
        self._go_to(lower, is_doubted=True)

    def _open_links(self) -> Iterable[Link]:
        yield from self._before
        yield from (link for link in self._lines if link.place not in self._reached)

    def _claimed(self, sequence: int) -> Link | None:
        """Return the line that says it is this record."""
        return next((one for one in self._open_links() if one.sequence == sequence), None)

    def _stand_in(self) -> Link | None:
        """Return a line that is nothing else and stands where a record is missing."""
        copies = {link.hash for link in self._before} | set(self._surplus)
        return next(
            (
                one
                for one in reversed(self._lines)
                if one.place not in self._reached and one.hash not in copies
            ),
            None,
        )

    def _go_to(self, link: Link, *, is_doubted: bool) -> None:
        self._is_doubted = is_doubted
        self._position = self._positions.get(link.place)
        self._reached.add(link.place)
        self.current = link if self._position is None else None

    def _find(self, kind: Kind, link: Link, text: str) -> None:
        self.found.append(Suspicion(Finding(kind, link.place, link.sequence, text)))

    def _suspect(self, kind: Kind, current: Link, sequence: int, text: str) -> None:
        finding = Finding(kind, current.place, sequence, text)
        self.found.append(Suspicion(finding, missing=current.previous))


def settle(suspicions: Sequence[Suspicion], torn: Iterable[str]) -> list[Finding]:
    """Return what is left: a line that is missing here and too much there was moved.

    Args:
        suspicions: all that were found.
        torn: hashes of torn lines that the log itself tells of.
    """
    mended = set(torn)
    misplaced = {one.hash for one in suspicions if one.hash}
    missing = {one.missing for one in suspicions if one.missing}
    left: list[Finding] = []
    for one in suspicions:
        finding = one.finding
        if finding.kind is Kind.INSERTED and one.hash in mended:
            continue
        if finding.kind is Kind.REMOVED and one.missing in misplaced:
            continue  # it is told where it stands now
        if one.hash in missing:
            text = (
                f"record {finding.sequence} was moved here from another place"
                if finding.kind is Kind.INSERTED
                else f"another record stands here in the place of record {finding.sequence}"
            )
            finding = finding._replace(kind=Kind.REORDERED, text=text)
        left.append(finding)
    return left


def too_much(link: Link) -> Suspicion:
    """Return the suspicion of a line that does not belong where it stands."""
    if link.is_cut:
        return Suspicion(Finding(Kind.TRUNCATED, link.place, None, link.problem), link.hash)
    text = (
        f"not a record: {link.problem}"
        if link.sequence is None
        else f"record {link.sequence} does not belong here: nothing behind it leads back to it"
    )
    return Suspicion(Finding(Kind.INSERTED, link.place, link.sequence, text), link.hash)


def _gone(first: int, last: int) -> str:
    if first == last:
        return f"record {first} is missing before this line"
    return f"records {first} to {last} are missing before this line"
