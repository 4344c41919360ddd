# SPDX-License-Identifier: Apache-2.0
"""Finding a time in a plain log without reading the log: a binary search over byte offsets.

Records stand in the order of their sequence, and their times mostly grow with it; but a clock may
have been set back. The search never trusts that times are sorted. It trusts one thing,
``SET_BACK_MAX``: that no record is earlier by more than that than any record before it. Then one
record proves something of all the others: where it is earlier than a time by more than that, every
record before it is earlier than that time, and where it is as much later, so is every one behind
it. The search moves its bounds by such proofs alone: what it leaves out is nothing that is wanted.

A clock that was set back further hides records of before that from a search by time, not from
reading the whole log.
"""

import datetime
from collections.abc import Iterator
from typing import Final

from pam_mfa.audit_reading.files import LogFile
from pam_mfa.audit_reading.lines import LINE_MAX, OddLine, find_line, split_lines
from pam_mfa.audit_reading.records import format_moment, parse_moment, parse_record

SET_BACK_MAX: Final = datetime.timedelta(hours=1)
_NEAR: Final = 1 << 16  # bytes that are rather read than searched


def surely_before(time: str) -> str:
    """Return the time that proves a record, and all before it, earlier than this one."""
    return format_moment(_shift(parse_moment(time), -SET_BACK_MAX))


def surely_after(time: str) -> str:
    """Return the time that proves a record, and all behind it, later than this one."""
    return format_moment(_shift(parse_moment(time), SET_BACK_MAX))


def find_since(file: LogFile, since: str) -> int:
    """Return an offset of a plain file before which every record is earlier than a time."""
    bound = surely_before(since)
    low, high = 0, file.size
    while high - low > _NEAR:
        middle = (low + high) // 2
        found = _first_time(file, middle, high)
        if found is not None and found[1] < bound:
            low = found[0]
        else:
            high = middle
    return low


def find_until(file: LogFile, until: str) -> int:
    """Return an offset of a plain file from which on every record is later than a time."""
    bound = surely_after(until)
    end = file.size
    low, high = 0, end
    while high - low > _NEAR:
        middle = (low + high) // 2
        found = _first_time(file, middle, high)
        if found is not None and found[1] > bound:
            end, high = found[0], middle
        else:
            low = middle
    return end


def first_time(file: LogFile) -> str | None:
    """Return the time of a file's first line; None where that is no record."""
    line = file.first_line()
    return _time_of(line) if line is not None else None


def _first_time(file: LogFile, start: int, end: int) -> tuple[int, str] | None:
    """Return offset and time of the first record that begins between two offsets."""
    offset = find_line(file.read_at, start, end)
    for line in split_lines(_small_blocks(file, offset)):
        if offset >= end:
            return None
        if isinstance(line, OddLine):
            offset += line.size + 1
            continue
        time = _time_of(line)
        if time is not None:
            return offset, time
        offset += len(line) + 1
    return None


def _small_blocks(file: LogFile, offset: int) -> Iterator[bytes]:
    position = offset
    while block := file.read_at(position, 4096 if position == offset else LINE_MAX):
        position += len(block)
        yield block


def _time_of(line: bytes) -> str | None:
    try:
        time: str = parse_record(line)["time"]
        parse_moment(time)
    except ValueError:  # no record, or no time that there is
        return None
    return time


def _shift(moment: datetime.datetime, by: datetime.timedelta) -> datetime.datetime:
    try:
        return moment + by
    except OverflowError:
        return moment
