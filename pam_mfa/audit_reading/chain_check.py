# SPDX-License-Identifier: Apache-2.0
"""The check of a chain: every line joins the one before it, and signatures vouch for all of them.

A line is bound by its own bytes, so a line that joins is not parsed: it has to hold the hash of
the line before and the next sequence, spelled as the writer spells them. No text in a record can
hold that spelling, for its quotes are escaped. Whoever writes another line with it, by a double key
or an odd space, has made another line, which the hash in the next one does not fit. Lines behind
the last signature are held to the canonical form as well: nothing else binds them.
"""

import hashlib
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from pam_mfa.audit import NO_HASH, EventName, format_record
from pam_mfa.audit_reading.anchors import Anchor
from pam_mfa.audit_reading.findings import End, Finding, Kind, Note, Place, Report
from pam_mfa.audit_reading.lines import OddLine
from pam_mfa.audit_reading.links import Link, Suspicion, judge, settle, too_much
from pam_mfa.audit_reading.records import Record, RecordError, parse_record
from pam_mfa.audit_reading.signatures import PublicKeys
from pam_mfa.errors import BrokenSystemError

_RECENT: Final = 256  # lines that a stretch may lead back to
_STRETCH_LINES: Final = 2000
_STRETCH_BYTES: Final = 1 << 24
_UNPROVEN_MAX: Final = 4096  # lines whose form is looked at together
_SUSPICIONS_MAX: Final = 10_000
_EVENT_NAME: Final = b'"event_name":"'
# The first letters of the events that the log tells of itself; no others begin so.
_OWN_EVENTS: Final = frozenset(
    one.value[:4].encode()
    for one in (EventName.CHECKPOINT, EventName.MEND_LOG, EventName.RESUME_LOG)
)


class Checked(Protocol):
    """What can be checked: a ``LogFile``, or what gives some of its lines."""

    path: Path

    def lines(self) -> Iterator[bytes | OddLine]:
        """Go through the lines.

        Raises:
            BrokenSystemError: they cannot be read to their end.
        """


class Wanted(NamedTuple):
    """What a check is to compare with."""

    keys: PublicKeys
    anchors: Sequence[tuple[str, Anchor]] = ()  # each with the name of who has kept it
    start: Anchor | None = None  # the record to begin at; its hash "": whatever stands there
    ends: frozenset[str] = frozenset()  # hashes of records that the log may end with all the same


class ChainCheck:
    """Checks files, oldest first; then ``finish`` gives the report."""

    def __init__(self, wanted: Wanted) -> None:
        """Take what to compare with."""
        self._keys = wanted.keys
        self._start = wanted.start
        self._ends = wanted.ends
        self._anchors: dict[int, list[tuple[str, Anchor]]] = {}
        for name, anchor in wanted.anchors:
            self._anchors.setdefault(anchor.sequence, []).append((name, anchor))
        self._report = Report()
        self._files: dict[str, int] = {}
        self._suspicions: list[Suspicion] = []
        self._findings: list[Finding] = []
        self._surplus: dict[str, Link] = {}
        self._torn: list[str] = []
        self._recent: deque[tuple[str, int, str, int]] = deque(maxlen=_RECENT)
        self._unproven: list[tuple[str, int, bytes]] = []
        self._stretch: list[Link] = []
        self._sequence = 0
        self._want_previous = b""
        self._want_sequence = b""
        self._last_line = b""
        self._end = Place("", 0)

    def check(self, file: Checked) -> None:
        """Check a file; it follows the one that was checked before."""
        name = str(file.path)
        self._files[name] = len(self._files)
        number = 0
        try:
            for number, line in enumerate(file.lines(), 1):
                if (
                    type(line) is bytes  # an odd line is none
                    and self._want_previous in line
                    and self._want_sequence in line
                    and self._sequence
                    and not self._stretch
                ):
                    self._accept(name, number, line)
                else:
                    self._look_closer(Place(name, number), line)
        except BrokenSystemError as error:
            self._find(Kind.UNREADABLE, Place(name, number + 1), None, str(error))
        self._report.lines += number
        self._end = Place(name, number) if number else self._end

    def finish(self) -> Report:
        """Return what was found, in the order of the lines."""
        if self._stretch:
            self._close_stretch()
        self._look_at_form()
        report = self._report
        if self._start is not None and not self._sequence:
            text = f"there is no record {self._start.sequence} to begin at"
            self._find(Kind.ANCHOR_MISSED, self._end, self._start.sequence, text)
        if self._last_line:
            report.last = _end_of(self._last_line, self._recent[-1][2])
        self._judge_anchors_left()
        # A record may be found changed by the line behind it and by its own form.
        every = [*settle(self._suspicions, self._torn), *self._findings]
        found = {(one.kind, one.place): one for one in reversed(every)}.values()
        for one in sorted(
            found, key=lambda one: (self._files.get(one.place.file, 0), one.place.line)
        ):
            report.find(*one)
        return report

    def _accept(self, name: str, number: int, line: bytes) -> None:
        """Take a line that joins."""
        digest = hashlib.sha256(line).hexdigest()
        self._sequence = sequence = self._sequence + 1
        self._want_previous = b'"previous":"%b"' % digest.encode()
        self._want_sequence = b'"sequence":%d,' % (sequence + 1)
        self._recent.append((name, number, digest, sequence))
        self._last_line = line
        self._report.records += 1
        self._unproven.append((name, number, line))
        if len(self._unproven) > _UNPROVEN_MAX:
            self._look_at_form()
        at = line.find(_EVENT_NAME) + len(_EVENT_NAME)
        if line[at : at + 4] in _OWN_EVENTS:
            self._look_at_own_event(Place(name, number), line)
        if sequence in self._anchors:
            self._compare(self._anchors.pop(sequence), Place(name, number), digest)

    def _look_closer(self, place: Place, line: bytes | OddLine) -> None:
        """Take a line that does not join at first sight, or is the first of all."""
        if not self._sequence:
            self._begin(place, line)
            return
        link = _link(place, line)
        if link.sequence == self._sequence + 1 and link.previous == self._recent[-1][2]:
            self._resolve(self._stretch, link)
            self._accept(*place, link.line)
            return
        self._stretch.append(link)
        if len(self._stretch) > 1 and link.follows(self._stretch[-2]):
            after = self._stretch[-2]
            self._resolve(self._stretch[:-2], after)
            self._restart(after)
            self._accept(*place, link.line)
        elif len(self._stretch) > _STRETCH_LINES or self._stretch_bytes() > _STRETCH_BYTES:
            self._close_stretch()

    def _begin(self, place: Place, line: bytes | OddLine) -> None:
        """Take the first line that is a record, or the record to begin at."""
        start = self._start
        if start is not None and (
            isinstance(line, OddLine) or b'"sequence":%d,' % start.sequence not in line
        ):
            return
        link = _link(place, line)
        if link.sequence is None:
            if start is None:
                self._suspect([too_much(link)])
            return
        if start is not None and link.sequence != start.sequence:
            return
        if link.sequence == 1 and link.previous != NO_HASH:
            self._find(Kind.CHANGED, place, 1, "record 1 follows another record")
        if start is not None and start.hash:
            self._compare([("--from", start)], place, link.hash)
        self._restart(link)
        self._report.first = _end_of(link.line, link.hash)

    def _restart(self, link: Link) -> None:
        """Go on from a record, whatever was before it."""
        self._sequence = (link.sequence or 0) - 1
        self._accept(*link.place, link.line)

    def _stretch_bytes(self) -> int:
        return sum(len(link.line) for link in self._stretch)

    def _close_stretch(self) -> None:
        """Judge a stretch that no two lines end by joining."""
        lines = list(self._stretch)
        # What goes back in the sequence is too much where it stands: nothing is gone on from there.
        onward = (one for one in reversed(lines) if (one.sequence or 0) > self._sequence)
        last = next(onward, None)
        if last is None:
            self._suspect([too_much(one) for one in lines])
            self._stretch = []
            return
        at = lines.index(last)
        self._resolve(lines[:at], last)
        self._restart(last)
        self._stretch = lines[at + 1 :]
        if self._stretch:
            self._close_stretch()

    def _resolve(self, lines: Sequence[Link], after: Link) -> None:
        """Judge lines that do not join, up to a record that is to be gone on from."""
        before = [Link(Place(name, number), digest, sequence)
                  for name, number, digest, sequence in self._recent]  # fmt: skip
        found = judge(before, lines, after, self._surplus)
        self._suspect(found)
        links = {one.place: one for one in (*before, *lines)}
        for one in found:
            is_surplus = one.finding.kind is Kind.INSERTED and one.finding.place in links
            if is_surplus and len(self._surplus) < _SUSPICIONS_MAX:
                self._surplus[one.hash] = links[one.finding.place]
        self._stretch = []

    def _suspect(self, found: Collection[Suspicion]) -> None:
        if len(self._suspicions) < _SUSPICIONS_MAX:
            self._suspicions.extend(found)
        else:
            self._report.findings_count += len(found)

    def _find(self, kind: Kind, place: Place, sequence: int | None, text: str) -> None:
        self._findings.append(Finding(kind, place, sequence, text))

    def _look_at_own_event(self, place: Place, line: bytes) -> None:
        """Take what the log tells of itself."""
        try:
            record = parse_record(line)
        except RecordError as error:
            self._find(Kind.CHANGED, place, self._sequence, f"not a record: {error}")
            return
        if record["event_name"] == EventName.CHECKPOINT:
            self._look_at_checkpoint(place, record)
            return
        torn = record.get("torn")
        if isinstance(torn, dict):
            self._torn.append(str(torn.get("sha256")))
        self._report.notes.append(
            Note(
                record["event_name"], record["reason"], place, self._sequence, _explain(record)
            )
        )  # fmt: skip

    def _look_at_checkpoint(self, place: Place, record: Record) -> None:
        self._keys.learn(record)
        proven = self._report.proven_sequence
        if not self._keys.names:
            self._report.unchecked_checkpoints += 1
        elif not self._keys.knows(record):
            text = (
                f"signed by the key {record.get('public_key_id')!s:.32}, which is not trusted here"
            )
            self._find(Kind.UNKNOWN_KEY, place, self._sequence, text)
        elif not self._keys.is_signed(record):
            text = f"the signature is wrong: records {proven + 1} to {self._sequence} are unproven"
            self._find(Kind.BAD_SIGNATURE, place, self._sequence, text)
        else:
            self._report.checkpoints += 1
            self._report.proven_sequence = self._sequence
            self._report.key_id = str(record["public_key_id"])
            self._unproven = self._unproven[-1:]  # its own form is looked at

    def _look_at_form(self) -> None:
        """Hold lines to the canonical form that no signature vouches for yet."""
        for name, number, line in self._unproven:
            link = _link(Place(name, number), line)
            if link.problem:
                text = f"not as it was written: {link.problem}"
                self._find(Kind.CHANGED, link.place, link.sequence, text)
        self._unproven = []

    def _compare(
        self, anchors: Sequence[tuple[str, Anchor]], place: Place, digest: str
    ) -> None:  # fmt: skip
        for name, anchor in anchors:
            if anchor.hash != digest:
                text = f"record {anchor.sequence} is another than {name} has it"
                self._find(Kind.ANCHOR_MISSED, place, anchor.sequence, text)

    def _judge_anchors_left(self) -> None:
        """Tell of anchors whose records were not met."""
        first = self._report.first
        last = self._recent[-1][2] if self._recent else NO_HASH
        for anchors in self._anchors.values():
            for name, anchor in anchors:
                if self._sequence < anchor.sequence:
                    if last in self._ends:
                        continue  # the rest is on its way into the log
                    text = (
                        f"the log ends with record {self._sequence}, but {name} has record "
                        f"{anchor.sequence}"
                    )
                    self._find(Kind.TRUNCATED, self._end, anchor.sequence, text)
                elif first is not None and anchor.sequence < first.sequence:
                    text = f"{name} has record {anchor.sequence}, which is older than what is here"
                    self._find(Kind.ANCHOR_MISSED, self._end, anchor.sequence, text)
                else:
                    text = f"{name} has record {anchor.sequence}, which is missing here"
                    self._find(Kind.ANCHOR_MISSED, self._end, anchor.sequence, text)


def _link(place: Place, line: bytes | OddLine) -> Link:
    """Return a line as a link."""
    if isinstance(line, OddLine):
        return Link(place, line.sha256, None, problem=line.problem, is_cut=line.is_cut)
    digest = hashlib.sha256(line).hexdigest()
    try:
        record = parse_record(line)
    except RecordError as error:
        return Link(place, digest, None, problem=str(error), line=line)
    sequence, previous = record.get("sequence"), record.get("previous")
    if type(sequence) is not int or not 0 < sequence < 10**18 or not isinstance(previous, str):
        return Link(place, digest, None, problem="it has no place in a chain", line=line)
    problem = "" if format_record(record) == line else "it is not in the canonical form"
    return Link(place, digest, sequence, previous, problem, line)


def _end_of(line: bytes, digest: str) -> End:
    try:
        record = parse_record(line)
    except RecordError:  # the last line joins and is none: found by its form
        return End(0, digest, "", "")
    sequence = record.get("sequence")
    return End(sequence if type(sequence) is int else 0, digest, record["time"], record["host"])


def _explain(record: Record) -> str:
    """Return what a record says of the log, in words."""
    if record["event_name"] == EventName.MEND_LOG:
        torn = record.get("torn")
        size = torn.get("bytes") if isinstance(torn, dict) else "?"
        return f"a line was torn after {size!s:.20} bytes, as by a power cut, and closed"
    reason = str(record["reason"])
    texts = {
        "state_lost": "the state was lost or older than the log; the chain went on from the log",
        "log_lost": "the log was shorter than the state; the chain went on from the state",
        "log_changed": "the log's last line was another than the state's",
    }
    return texts.get(reason, reason)
