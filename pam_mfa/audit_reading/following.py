# SPDX-License-Identifier: Apache-2.0
"""Lines as they are written: waits at a log's end, and goes on in the new file after a rotation."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pam_mfa.audit_reading.files import LogFile, find_logs
from pam_mfa.audit_reading.lines import BLOCK, OddLine, split_lines
from pam_mfa.store.files import identity_of

_TRIES: Final = 20


class Follower:
    """Follows one log."""

    def __init__(self, log: Path, wait: Callable[[], None]) -> None:
        """Take the log, which need not be there yet, and what to do until more can be there."""
        self._log = log
        self._wait = wait

    def lines(self) -> Iterator[bytes | OddLine]:
        """Go through the lines that are written from now on, for ever.

        Raises:
            RefusedError: a file may not be read.
            BrokenSystemError: the disk does not give it.
        """
        file, start = self._open_end()
        while True:
            with file:
                yield from split_lines(self._blocks(file, start))
                following = self._open_next(file.identity)
            file, start = following, 0

    def _open_end(self) -> tuple[LogFile, int]:
        """Open the log at its end, or wait for it to be made."""
        if self._log.exists():
            with contextlib.suppress(FileNotFoundError):
                file = LogFile(self._log)
                return file, file.size
        return self._open(), 0

    def _open(self) -> LogFile:
        """Open the log, or wait for it to be made."""
        while True:
            with contextlib.suppress(FileNotFoundError):
                return LogFile(self._log)
            self._wait()

    def _blocks(self, file: LogFile, start: int) -> Iterator[bytes]:
        """Go through a file's bytes until it is no longer the log and its writer has left it."""
        position = start
        is_left = bool(file.packing)
        while True:
            block = b"" if file.packing else file.read_at(position, BLOCK)
            if block:
                position += len(block)
                yield block
            elif is_left:
                return
            else:
                # A writer that had the file open when it was renamed may write once more.
                is_left = identity_of(self._log) != file.identity
                if file.size < position:
                    position = 0  # it was emptied in its place
                else:
                    self._wait()

    def _open_next(self, identity: tuple[int, int]) -> LogFile:
        """Open the file that follows one; that is not the log where it was rotated twice since."""
        for _ in range(_TRIES):
            name = self._name_behind(identity)
            if name is None:
                break  # the old file is gone, packed or deleted: nothing says what followed it
            with contextlib.suppress(FileNotFoundError):
                file = LogFile(name)
                if self._name_behind(identity) == name and identity_of(name) == file.identity:
                    return file
                file.close()  # names have moved meanwhile
        return self._open()

    def _name_behind(self, identity: tuple[int, int]) -> Path | None:
        names = find_logs(self._log)
        pairs = itertools.pairwise((*names, None))
        return next(
            (after or self._log for one, after in pairs if one and identity_of(one) == identity),
            None,
        )
