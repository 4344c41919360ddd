# SPDX-License-Identifier: Apache-2.0
"""A disk with a cache that a power cut empties: every write and flush, and what a cut leaves.

Like a real disk it promises one thing: what was written before a flush is kept once the flush is
answered. Of what came later, any part may be kept, in any order. Does no I/O.
"""

import random
from typing import NamedTuple

_ATOM = 4096  # bytes that a disk of today writes whole or not at all


class Write(NamedTuple):
    """Bytes that were written, or a flush where there are none."""

    offset: int
    data: bytes

    @property
    def is_flush(self) -> bool:
        """Whether everything before it is kept from here on."""
        return not self.data


class LossyDisk:
    """A disk and the history of what happened to it since it was switched on."""

    def __init__(self, content: bytes) -> None:
        """Begin with this content, all of it kept."""
        self._first = content
        self._now = bytearray(content)
        self.history: list[Write] = []

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return len(self._now)

    def read(self, offset: int, size: int) -> bytes:
        """Return what was written last."""
        return bytes(self._now[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Write into the cache."""
        self._now[offset : offset + len(data)] = data
        self.history.append(Write(offset, data))

    def flush(self) -> None:
        """Keep everything written so far."""
        self.history.append(Write(0, b""))

    def after_cut(self, length: int, dice: random.Random) -> bytes:
        """Return what is left where the power goes after this many writes and flushes."""
        content = bytearray(self._first)
        before = self.history[:length]
        flushes = [number for number, one in enumerate(before) if one.is_flush]
        kept = flushes[-1] if flushes else 0
        for offset, data in before[:kept]:
            content[offset : offset + len(data)] = data
        chance = dice.choice((0.0, 1.0, dice.random()))  # nothing, everything, some of it
        for offset, data in before[kept:]:
            for at in range(0, len(data), _ATOM):
                if dice.random() < chance:
                    part = data[at : at + _ATOM]
                    content[offset + at : offset + at + len(part)] = part
        return bytes(content)
