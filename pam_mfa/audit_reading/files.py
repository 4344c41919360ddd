# SPDX-License-Identifier: Apache-2.0
"""The files of an audit log: which there are, in what order, and opening them safely.

Plain files are read at any offset; packed ones (gzip, xz, bzip2, and zstd where Python has it) are
unpacked as a stream, told by their first bytes and not by their names. Follows no link, opens
nothing but regular files, writes nothing.
"""

import bz2
import contextlib
import gzip
import importlib
import io
import lzma
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from pam_mfa.audit_reading.lines import BLOCK, LINE_MAX, OddLine, split_lines
from pam_mfa.errors import BrokenSystemError, RefusedError

_MAGIC: Final = (  # RFC 1952, 2.3.1; the .xz file format, 2.1.1.1; bzip2; RFC 8878, 3.1.1
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
# Names that logrotate gives: a number, or with dateext a date, behind the log's own.
_NAME: Final = re.compile(r"(?:\.(\d{1,6})|-(\d{8}(?:-?\d{1,10})?))(?:\.(?:gz|xz|bz2|zst))?")
_FILES_MAX: Final = 10_000
_TRIES: Final = 5


class LogFile:
    """One file of a log, open."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            FileNotFoundError: there is none.
            RefusedError: it may not be read, is no regular file or reached by a link.
            BrokenSystemError: it is packed in a way that this Python cannot unpack.
        """
        self.path = path
        # A fifo must not hang, nor a link lead somewhere else.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RefusedError(
                f"{path} cannot be read: {error.strerror}",
                hint="Run it as root or in the group adm. Links are not followed.",
            ) from error
        about = os.fstat(self._descriptor)
        self.identity = (about.st_dev, about.st_ino)
        if not stat.S_ISREG(about.st_mode):
            self.close()
            raise RefusedError(f"{path} is no regular file")
        head = os.pread(self._descriptor, 6, 0)
        self.packing = next((name for magic, name in _MAGIC if head.startswith(magic)), "")

    def __enter__(self) -> Self:
        """Give the file itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close it; it may be closed already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    @property
    def size(self) -> int:
        """Bytes in the file, packed or not."""
        return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes of a plain file, fewer where it ends.

        Raises:
            BrokenSystemError: the disk does not give them.
        """
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise self._error(error) from error

    def lines(self, start: int = 0) -> Iterator[bytes | OddLine]:
        """Go through the lines, of a plain file from an offset on.

        Raises:
            BrokenSystemError: it cannot be read or unpacked to its end.
        """
        if not self.packing:
            return split_lines(self._blocks(start))
        return split_lines(self._unpacked())

    def first_line(self) -> bytes | None:
        """Return the first line; None where there is none that could be a record."""
        if self.packing:
            with contextlib.suppress(BrokenSystemError):
                line = next(self.lines(), None)
                return line if isinstance(line, bytes) else None
            return None
        first = next(split_lines(iter((self.read_at(0, LINE_MAX + 1),))), None)
        return first if isinstance(first, bytes) else None

    def _blocks(self, start: int) -> Iterator[bytes]:
        position = start
        while block := self.read_at(position, BLOCK):
            position += len(block)
            yield block

    def _unpacked(self) -> Iterator[bytes]:
        raw = io.FileIO(os.dup(self._descriptor))
        raw.seek(0)
        with raw, self._unpacker(raw) as stream:
            try:
                while block := stream.read(BLOCK):
                    yield block
            except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
                raise self._error(error) from error

    def _unpacker(self, raw: io.FileIO) -> BinaryIO:
        if self.packing == "gzip":
            return cast("BinaryIO", gzip.GzipFile(fileobj=raw, mode="rb"))
        if self.packing == "xz":
            return cast("BinaryIO", lzma.LZMAFile(raw))
        if self.packing == "bzip2":
            return cast("BinaryIO", bz2.BZ2File(raw))
        try:
            zstd = importlib.import_module("compression.zstd")  # Python 3.14 and newer
        except ImportError as error:
            raise BrokenSystemError(
                f"{self.path} is packed by zstd, which this Python cannot unpack",
                hint=f"Unpack it beside the others: zstd -d {self.path}",
            ) from error
        return cast("BinaryIO", zstd.ZstdFile(raw))

    def _error(self, error: Exception) -> BrokenSystemError:
        what = (error.strerror if isinstance(error, OSError) else None) or error
        return BrokenSystemError(
            f"{self.path} cannot be read to its end: {what}",
            hint="If it was packed, it is damaged: restore it from a backup.",
        )


def find_logs(log: Path) -> list[Path]:
    """Return a log's files that are there, the oldest first, the log itself last.

    Raises:
        RefusedError: the directory may not be read.
    """
    found: list[tuple[tuple[str, int], Path]] = []
    try:
        with os.scandir(log.parent) as entries:
            for entry in entries:
                if entry.name == log.name:
                    found.append((("~", 0), log))
                elif entry.name.startswith(log.name):
                    match = _NAME.fullmatch(entry.name.removeprefix(log.name))
                    if match and len(found) < _FILES_MAX:
                        # Dates grow, numbers shrink; where a host has both, numbers came first.
                        key = (match[2], 0) if match[2] else ("", -int(match[1]))
                        found.append((key, log.with_name(entry.name)))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RefusedError(
            f"{log.parent} cannot be read: {error.strerror}",
            hint="Run it as root or in the group adm.",
        ) from error
    return [path for _, path in sorted(found)]


@contextlib.contextmanager
def open_logs(log: Path, files: Sequence[Path] = ()) -> Iterator[list[LogFile]]:
    """Open a log's files, or only some that are named; the oldest first.

    Files that are named are put in the order of their first records. A log that is rotated while
    its files are opened is opened once more: no file is missed or read twice.

    Raises:
        RefusedError: there is none, or one may not be read.
        BrokenSystemError: one cannot be unpacked.
    """
    with contextlib.ExitStack() as stack:
        if files:
            opened = [stack.enter_context(_open_named(path)) for path in dict.fromkeys(files)]
            yield sorted(opened, key=_first_sequence)
            return
        for _ in range(_TRIES):
            with contextlib.ExitStack() as attempt:
                found = _open_found(log, attempt)
                if found is not None:
                    stack.enter_context(attempt.pop_all())
                    break
        else:
            raise BrokenSystemError(
                f"{log} is rotated again and again while it is opened", hint="Try once more."
            )
        if not found:
            raise RefusedError(f"there is no audit log {log}", hint="No record was made yet.")
        yield found


def _open_named(path: Path) -> LogFile:
    try:
        return LogFile(path)
    except FileNotFoundError as error:
        raise RefusedError(f"there is no file {path}") from error


def _open_found(log: Path, stack: contextlib.ExitStack) -> list[LogFile] | None:
    """Open what is there; None where names have moved meanwhile."""
    names = find_logs(log)
    opened: list[LogFile] = []
    for path in names:
        try:
            opened.append(stack.enter_context(LogFile(path)))
        except FileNotFoundError:
            return None
    identities = [each.identity for each in opened]
    return opened if [_identity(path) for path in find_logs(log)] == identities else None


def _identity(path: Path) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        about = path.lstat()
        return about.st_dev, about.st_ino
    return 0, 0


def _first_sequence(file: LogFile) -> int:
    match = re.search(rb'"sequence":(\d{1,18}),', file.first_line() or b"")
    return int(match[1]) if match else 0
