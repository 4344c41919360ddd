# SPDX-License-Identifier: Apache-2.0
"""The host's own log, read for a target: where the target's last record is in it, and what follows.

Reads rotated and packed files as ``audit_reading`` does, writes nothing. A line that has no place
in a chain, as one that a power cut has torn, is counted and left out: what mends the log has
written anew what stood in it.
"""

import contextlib
import enum
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pam_mfa.audit import NO_HASH, Head, hash_line
from pam_mfa.audit_reading import LogFile, find_logs, open_logs
from pam_mfa.audit_reading.lines import OddLine, split_backward

# As the writer spells them; the head in a ResumeLog has no comma behind its sequence.
_SEQUENCE: Final = re.compile(rb'"sequence":([1-9]\d{0,17}),')
_PREVIOUS: Final = re.compile(rb'"previous":"([0-9a-f]{64})"')
_START: Final = f'"previous":"{NO_HASH}"'.encode()
_PACKINGS: Final = (".gz", ".xz", ".bz2", ".zst")


class Standing(enum.Enum):
    """How a target's last record stands to the host's log."""

    JOINED = enum.auto()  # it is here, or the one that follows it
    GAP = enum.auto()  # it was rotated away; later ones are here
    OTHER = enum.auto()  # another record has its place
    SHORTER = enum.auto()  # the log ends before it


class Spot(NamedTuple):
    """Where in the files to begin."""

    file: int = 0  # index
    line: int = 0  # so many lines of it come before


class Entry(NamedTuple):
    """A record of the log."""

    head: Head
    line: bytes  # with its newline
    is_start: bool  # a chain begins with it


class Found(NamedTuple):
    """What a look for a record has found."""

    standing: Standing
    spot: Spot
    last: Head  # the log's last record, where it is not joined


class Stand(NamedTuple):
    """Up to where a log was read."""

    identity: tuple[int, int]
    offset: int


class Source:
    """Reads one host's log."""

    def __init__(self, log: Path) -> None:
        """Take the log, which need not be there."""
        self._log = log
        self.skipped = 0  # lines that have no place in a chain
        self.stand: Stand | None = None  # up to where everything was read

    @contextlib.contextmanager
    def open(self) -> Iterator["LogRecords"]:
        """Open the log's files, which may be rotated meanwhile.

        Raises:
            RefusedError: a file may not be read.
            BrokenSystemError: a file cannot be read.
        """
        with contextlib.ExitStack() as stack:
            files: list[LogFile] = []
            if find_logs(self._log):
                files = _without_copies(stack.enter_context(open_logs(self._log)))
            yield LogRecords(self, files)

    def fresh(self) -> Iterator[Entry] | None:
        """Return what was written since all was read; None where that has to be looked for anew.

        Raises:
            RefusedError: the log may not be read.
            BrokenSystemError: the disk does not give it.
        """
        stand, file = self.stand, self._open_newest()
        if file is None:
            return None
        if stand is None or file.identity != stand.identity or file.size < stand.offset:
            file.close()
            return None
        return self._read_fresh(file, stand)

    def mark(self) -> Stand | None:
        """Return how the log looks from outside, to know later whether it has changed.

        Raises:
            RefusedError: the log may not be read.
        """
        file = self._open_newest()
        if file is None:
            return None
        with file:
            return Stand(file.identity, file.size)

    def _open_newest(self) -> LogFile | None:
        """Open the log, or what it was rotated to where no record has made a new one yet."""
        names = find_logs(self._log)
        with contextlib.suppress(FileNotFoundError):
            return LogFile(names[-1]) if names else None
        return None

    def _read_fresh(self, file: LogFile, stand: Stand) -> Iterator[Entry]:
        with file:
            yield from self.read(file, stand.offset)

    def read(self, file: LogFile, start: int = 0, skip: int = 0) -> Iterator[Entry]:
        """Go through a file's records; the stand is behind each that was taken."""
        offset = start
        self.stand = None if file.packing else Stand(file.identity, offset)
        for number, line in enumerate(file.lines(start)):
            if isinstance(line, OddLine):
                if line.is_cut and not file.packing:
                    return  # being written, or torn: whoever mends it ends the line
                offset += line.size + 1
                self.skipped += number >= skip
            else:
                offset += len(line) + 1
            # Told before the record is: whoever takes no more of them looks anew.
            self.stand = None if file.packing else Stand(file.identity, offset)
            if number < skip or isinstance(line, OddLine):
                continue
            entry = parse_entry(line)
            if entry is None:
                self.skipped += 1
            else:
                yield entry


class LogRecords:
    """The files of a log, open."""

    def __init__(self, source: Source, files: Sequence[LogFile]) -> None:
        """Take the files, oldest first, the log itself last."""
        self._source = source
        self._parts = _in_order(files)
        self._files = [part.file for part in self._parts]

    def find(self, head: Head) -> Found:
        """Look for a record, or for the one that follows it.

        Raises:
            BrokenSystemError: a file cannot be read to its end.
        """
        first = self._likely(head.sequence)
        found = self._look(head, first)
        if found.standing is Standing.JOINED or not first:
            return found
        return self._look(head, 0)

    def behind(self, spot: Spot, highest: int = 0) -> Iterator[Entry]:
        """Go through the records from a spot on; what an older file has already is left out.

        Args:
            spot: where to begin.
            highest: the sequence of the record before it.

        Raises:
            BrokenSystemError: a file cannot be read to its end.
        """
        for index in range(spot.file, len(self._files)):
            is_copy: bool | None = None  # not known before the sequence goes back in it
            skip = spot.line if index == spot.file else 0
            for entry in self._source.read(self._files[index], skip=skip):
                sequence = entry.head.sequence
                if sequence <= highest:
                    if is_copy is None:
                        is_copy = self._has_before(entry, index)
                    if is_copy:
                        continue
                highest = sequence if entry.is_start else max(highest, sequence)
                yield entry

    def _likely(self, sequence: int) -> int:
        """Return the oldest file that is likely to have this record.

        That is the newest that begins before it, or one before that which goes as far: where
        somebody has copied a part of the log, the original has what follows.
        """
        likely = 0
        for index, part in enumerate(self._parts):
            if 0 < part.first <= sequence:
                likely = index
        while likely and self._goes_to(likely - 1, sequence, self._parts[likely].chain):
            likely -= 1
        return likely

    def _goes_to(self, index: int, sequence: int, chain: int) -> bool:
        """Whether a file of this chain has a record of this sequence, or a later one."""
        part = self._parts[index]
        if part.chain != chain:
            return False
        last = find_last(part.file)
        return last is not None and last.head.sequence >= sequence

    def _look(self, head: Head, first: int) -> Found:
        needle = f'"previous":"{head.hash}"'.encode()
        last, later, has_other = b"", None, False
        for index in range(first, len(self._files)):
            for number, line in enumerate(_whole_lines(self._files[index])):
                match = _SEQUENCE.search(line)
                if match is None:
                    continue
                last, sequence = line, int(match[1])
                if needle in line:
                    return Found(Standing.JOINED, Spot(index, number), head)
                if sequence == head.sequence:
                    if hash_line(line) == head.hash:
                        return Found(Standing.JOINED, Spot(index, number + 1), head)
                    has_other = True
                elif sequence > head.sequence and later is None:
                    later = Spot(index, number)
        entry = parse_entry(last)
        end = entry.head if entry is not None else Head()
        if has_other:
            return Found(Standing.OTHER, Spot(), end)
        if later is not None:
            return Found(Standing.GAP, later, end)
        return Found(Standing.SHORTER, Spot(), end)

    def _has_before(self, entry: Entry, index: int) -> bool:
        """Whether an older file has this very line: somebody has copied files of the log."""
        text = entry.line[:-1]
        return any(line == text for file in self._files[:index] for line in _whole_lines(file))


def parse_entry(line: bytes) -> Entry | None:
    """Return a line as a record; None where it has no place in a chain."""
    sequence, previous = _SEQUENCE.search(line), _PREVIOUS.search(line)
    if sequence is None or previous is None:
        return None
    number = int(sequence[1])
    is_start = number == 1 and previous[0] == _START
    return Entry(Head(number, hash_line(line)), line + b"\n", is_start)


def find_last(file: LogFile) -> Entry | None:
    """Return a file's last record; a plain file is read from its end. None where none is.

    Raises:
        BrokenSystemError: it cannot be read to its end.
    """
    if not file.packing:
        lines = split_backward(file.read_at, 0, file.size)
        found = (parse_entry(line) for line in lines if isinstance(line, bytes))
        return next((entry for entry in found if entry is not None), None)
    last = b""
    for line in file.lines():
        if isinstance(line, bytes) and _SEQUENCE.search(line):
            last = line
    return parse_entry(last)


class _Part(NamedTuple):
    """A file, and where in which chain of the log it begins."""

    file: LogFile
    chain: int
    first: int  # sequence; 0: it has no record


def _in_order(files: Sequence[LogFile]) -> list[_Part]:
    """Put files in the order of their records, whatever they are called; the log stays last."""
    parts, starts, chain = [], set(), 0
    for file in files:
        first = parse_entry(file.first_line() or b"")
        if first is not None and first.is_start and first.head.hash not in starts:
            starts.add(first.head.hash)
            chain += 1
        parts.append(_Part(file, chain, first.head.sequence if first is not None else 0))
    return [*sorted(parts[:-1], key=lambda part: (part.chain, part.first)), *parts[-1:]]


def _whole_lines(file: LogFile) -> Iterator[bytes]:
    return (line if isinstance(line, bytes) else b"" for line in file.lines())


def _without_copies(files: Sequence[LogFile]) -> list[LogFile]:
    """Leave out a file that is being packed: its original is there until that is done."""
    names = {file.path.name for file in files}
    return [
        file
        for file in files
        if not any(
            file.path.name.endswith(packing) and file.path.name.removesuffix(packing) in names
            for packing in _PACKINGS
        )
    ]
