# SPDX-License-Identifier: Apache-2.0
"""SQLite's write-ahead log as a file: made as long as it gets before logins need it.

A sync of a file that has grown is two writes of the disk, one after the other: what was written,
and the file system's journal with the new size. Of a file that was written before it is one. So a
process that stays writes zeros once; SQLite ignores what stands behind its last whole frame.
"""

import os
from pathlib import Path
from typing import Final

_ROOM: Final = 1024 * (4096 + 24)  # bytes: SQLite begins anew where 1,000 pages were written


def make_room(database: Path) -> None:
    """Lengthen the log of a database; only by whoever has its write transaction.

    Nobody else writes into the log meanwhile, so nothing of it can be lost by this. Where the disk
    is full the log stays as it is: commits are slower, and that is all.
    """
    path = f"{database}-wal"
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        try:
            while (end := os.lseek(descriptor, 0, os.SEEK_END)) < _ROOM:
                os.write(descriptor, bytes(_ROOM - end))
            os.fdatasync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
