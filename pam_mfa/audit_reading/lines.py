# SPDX-License-Identifier: Apache-2.0
"""Lines of a log, forward and backward, in bounded memory whatever the file holds.

Splits bytes at newlines and knows nothing of what a line tells. A line that no record can be, for
it is too long or has no newline at its end, is measured and hashed and never kept.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

LINE_MAX: Final = 1 << 17  # bytes; the longest record is under half of it
BLOCK: Final = 1 << 20  # bytes that are read at once
_SMALL: Final = 1 << 14  # bytes in which a line's end is looked for
ReadAt = Callable[[int, int], bytes]  # offset and size to bytes


class OddLine(NamedTuple):
    """What stands in a log and cannot be a line of it."""

    size: int  # bytes, without the newline
    sha256: str
    is_cut: bool  # the file ends in it

    @property
    def problem(self) -> str:
        """What is wrong, in words."""
        if self.is_cut:
            return f"the file ends in the middle of a line, after {self.size} bytes of it"
        return f"a line of {self.size} bytes, longer than any record"


class _Overlong:
    """A line that is too long, while it is read."""

    def __init__(self) -> None:
        self._size = 0
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self._size += len(data)
        self._hash.update(data)

    def end(self, *, is_cut: bool) -> OddLine:
        return OddLine(self._size, self._hash.hexdigest(), is_cut)


def split_lines(blocks: Iterable[bytes]) -> Iterator[bytes | OddLine]:
    """Go through the lines of a file, without their newlines."""
    rest = b""
    overlong: _Overlong | None = None
    for block in blocks:
        data = block
        if overlong is not None:
            head, newline, data = block.partition(b"\n")
            overlong.add(head)
            if not newline:
                continue
            yield overlong.end(is_cut=False)
            overlong = None
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            yield line if len(line) <= LINE_MAX else _measure(line, is_cut=False)
        if len(rest) > LINE_MAX:
            overlong = _Overlong()
            overlong.add(rest)
            rest = b""
    if overlong is not None:
        yield overlong.end(is_cut=True)
    elif rest:
        yield _measure(rest, is_cut=True)


def split_backward(read_at: ReadAt, start: int, end: int) -> Iterator[bytes | OddLine]:
    """Go through the lines between two offsets from the last to the first.

    An odd line's size and hash are of its end only.
    """
    rest = b""
    position = end
    is_last = True  # what follows the last newline is no whole line
    while position > start:
        size = min(BLOCK, position - start)
        position -= size
        pieces = (read_at(position, size) + rest).split(b"\n")
        rest = pieces[0][-LINE_MAX - 1 :]  # longer than any record remains longer than any
        for line in reversed(pieces[1:]):
            if is_last:
                is_last = False
                if line:
                    yield _measure(line, is_cut=True)
            else:
                yield line if len(line) <= LINE_MAX else _measure(line, is_cut=False)
    if end > start and (rest or not is_last):
        is_whole = not is_last and len(rest) <= LINE_MAX
        yield rest if is_whole else _measure(rest, is_cut=is_last)


def find_line(read_at: ReadAt, at: int, end: int) -> int:
    """Return where the first line begins that begins at an offset or behind it, or the end."""
    if at == 0:
        return 0
    position = at - 1
    while position < end:
        block = read_at(position, min(_SMALL, end - position))
        if not block:
            return end
        found = block.find(b"\n")
        if found >= 0:
            return position + found + 1
        position += len(block)
    return end


def _measure(line: bytes, *, is_cut: bool) -> OddLine:
    return OddLine(len(line), hashlib.sha256(line).hexdigest(), is_cut)
