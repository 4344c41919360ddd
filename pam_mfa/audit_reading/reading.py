# SPDX-License-Identifier: Apache-2.0
"""Records that are wanted, out of a log's files: all in order, or the last ones.

Leaves out what times prove to be out of the question (``seeking``) and reads the rest a block at a
time, so that neither the whole log nor memory of its size is needed.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from pam_mfa.audit_reading.files import LogFile
from pam_mfa.audit_reading.lines import OddLine, split_backward
from pam_mfa.audit_reading.records import Record, RecordError, Selection, parse_record
from pam_mfa.audit_reading.seeking import (
    find_since,
    find_until,
    first_time,
    surely_after,
    surely_before,
)

_LOOK_EVERY: Final = 256  # lines, after which it is looked whether the rest is out of the question


class _Part(NamedTuple):
    """What of a file is to be read."""

    file: LogFile
    start: int
    end: int | None  # None: to the end, also if that is packed or still growing


class Reader:
    """Reads the records of one selection; counts what it met that is no record."""

    def __init__(
        self, logs: Sequence[LogFile], selection: Selection, *, whole: bool = False
    ) -> None:
        """Take the files, oldest first.

        Args:
            logs: the files.
            selection: which records are wanted.
            whole: read every line, so that times hold whatever the clock did.
        """
        self._logs = logs
        self._selection = selection
        self._is_whole = whole
        self.odd_lines = 0  # lines that were looked at and are no records

    def records(self) -> Iterator[Record]:
        """Go through the wanted records, oldest first.

        Raises:
            BrokenSystemError: a file cannot be read to its end.
        """
        for part in self._parts():
            yield from self._choose(self._forward(part))

    def last(self, count: int) -> list[Record]:
        """Return the last wanted records, oldest first; plain files are read from their ends.

        Raises:
            BrokenSystemError: a file cannot be read to its end.
        """
        found: deque[Record] = deque()
        for part in reversed(list(self._parts())):
            missing = count - len(found)
            if missing <= 0:
                break
            if part.file.packing:
                found.extendleft(reversed(deque(self._choose(self._forward(part)), missing)))
            else:
                lines = self._stop_early(self._backward(part))
                found.extendleft(itertools.islice(self._choose(lines), missing))
        return list(found)

    def _parts(self) -> Iterator[_Part]:
        """Go through what cannot be left out by the times that are asked for."""
        since, until = self._selection.since, self._selection.until
        early = surely_before(since) if since and not self._is_whole else ""
        late = surely_after(until) if until and not self._is_whole else "~"
        firsts = [first_time(log) for log in self._logs] if early or late != "~" else []
        for index, log in enumerate(self._logs):
            following = next((time for time in firsts[index + 1 :] if time), None)
            if early and following and following < early:
                continue
            if firsts and firsts[index] and str(firsts[index]) > late:
                return
            is_plain = not log.packing
            start = find_since(log, since) if early and is_plain else 0
            end = find_until(log, until) if late != "~" and is_plain else None
            yield _Part(log, start, end)

    @staticmethod
    def _forward(part: _Part) -> Iterator[bytes | OddLine]:
        left = None if part.end is None else part.end - part.start
        for line in part.file.lines(part.start):
            if left is not None:
                if left <= 0:
                    return
                left -= (line.size if isinstance(line, OddLine) else len(line)) + 1
            yield line

    @staticmethod
    def _backward(part: _Part) -> Iterator[bytes | OddLine]:
        end = part.file.size if part.end is None else part.end
        return split_backward(part.file.read_at, part.start, end)

    def _stop_early(self, lines: Iterable[bytes | OddLine]) -> Iterator[bytes | OddLine]:
        """Go backward through lines until one proves that all before it are too early."""
        since = self._selection.since
        bound = surely_before(since) if since and not self._is_whole else ""
        for number, line in enumerate(lines):
            if bound and number % _LOOK_EVERY == 0 and isinstance(line, bytes):
                try:
                    if parse_record(line)["time"] < bound:
                        return
                except RecordError:
                    pass
            yield line

    def _choose(self, lines: Iterable[bytes | OddLine]) -> Iterator[Record]:
        selection = self._selection
        for line in lines:
            if isinstance(line, OddLine):
                self.odd_lines += 1
                continue
            if not selection.may_match(line):
                continue
            try:
                record = parse_record(line)
            except RecordError:
                self.odd_lines += 1
                continue
            if selection.matches(record):
                yield record
