# SPDX-License-Identifier: Apache-2.0
"""The log file: opening, appending, reading its end. Knows lines, not what they tell."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pam_mfa.errors import AuditError

_END_BYTES = 1 << 21  # of a log's end, where records of late are found again
_STEP_BYTES = 4096  # of a log's end that is read first, to find its last line
_TORN_MAX = 1 << 26  # bytes of a line that is looked at
_RECENT = 2  # rotated logs that records of late are looked for in
_ROTATED_MAX = 8  # rotated logs that are looked at
_COMPRESSED = ".gz"
_FORBIDDEN = 0o007  # nobody outside the log's group reads or writes it


class End(NamedTuple):
    """How a log ends."""

    last: bytes = b""  # its last whole line, with the newline; b"": there is none
    torn: bytes = b""  # what stands behind it: a line that a power cut has cut


class AuditLog:
    """The log file: opened when first needed, and again when it was rotated away.

    Writers of several processes take turns by the store's lock, not by one on this file: whoever
    may read the log could hold that and keep everybody from logging in.
    """

    def __init__(self, path: Path) -> None:
        """Take the path; it is not touched yet."""
        self._path = path
        self._descriptor = -1
        self._identity = (0, 0)
        self._size = -1  # of the file after this process's last record

    def write(self, lines: Sequence[bytes]) -> None:
        """Append records; they are durable after ``sync``, or by the store's own copy.

        Raises:
            AuditError: nothing of them is left in the log.
        """
        data = b"".join(lines)
        if not data:
            return
        try:
            descriptor = self._current_descriptor()
            size = os.fstat(descriptor).st_size
            # A record that a power loss or a kill has cut must not spoil the next one; what this
            # process wrote last it wrote whole.
            if size not in {0, self._size} and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data
            self._size = -1
            try:
                if os.write(descriptor, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(descriptor, size)
                raise
            self._size = size + len(data)
        except OSError as error:
            raise self._error(error) from error

    def sync(self) -> None:
        """Make everything durable that this process has written, also if it was rotated away.

        Raises:
            AuditError: it is not.
        """
        try:
            if self._descriptor < 0:
                self._descriptor = self._open()
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise self._error(error) from error

    def sync_written(self) -> None:
        """Make what this process has written durable, before the file may be let go of.

        Raises:
            AuditError: it is not.
        """
        if self._descriptor >= 0:
            self.sync()

    def require_usable(self) -> None:
        """Open the log, where it is not open yet.

        Raises:
            AuditError: no record could be written to it.
        """
        try:
            self._current_descriptor()
        except OSError as error:
            raise self._error(error) from error

    def is_as_left(self) -> bool:
        """Whether the log ends with what this process wrote last; False where it wrote nothing."""
        try:
            about = self._path.lstat()
        except OSError:
            return False
        if _find_fault(about):
            return False
        return (about.st_dev, about.st_ino, about.st_size) == (*self._identity, self._size)

    def read_end(self) -> End:
        """Return how the log ends; nothing where there is none.

        Raises:
            AuditError: it is no log that records could be written to.
        """
        try:
            return _end_of(self._current_descriptor(may_make=False))
        except FileNotFoundError:
            return End()
        except OSError as error:
            raise self._error(error) from error

    def rotated_ends(self) -> Iterator[End]:
        """Go through the ends of rotated logs, made durable; compressed ones are not read."""
        for name in self._rotated()[:_ROTATED_MAX]:
            if name.suffix != _COMPRESSED:
                yield _read_rotated(name)

    def has_rotated(self) -> bool:
        """Whether there is a log that was rotated away."""
        return bool(self._rotated())

    def recent(self) -> set[bytes]:
        """Return the lines at the ends of this log and of the newest rotated ones, made durable.

        Raises:
            AuditError: they are not.
        """
        rotated = self._rotated()
        # One that is just being compressed is the newest by its time, and not whole.
        plain = [name for name in rotated if name.suffix != _COMPRESSED]
        names = [self._path, *(plain or rotated)[:_RECENT]]
        try:
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    _sync(name)
        except OSError as error:
            raise self._error(error) from error
        ends = [_read_bytes(name, _END_BYTES) for name in names]
        return {line for end in ends for line in end.splitlines(keepends=True)}

    def close(self) -> None:
        """Close the file, to be opened again by the next record."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        self._size = -1

    def _rotated(self) -> list[Path]:
        """Return the names of rotated logs, the newest first."""
        names = self._path.parent.glob(f"{self._path.name}?*")
        return sorted(names, key=_modified, reverse=True)

    def _error(self, error: OSError) -> AuditError:
        return AuditError(
            f"the audit log {self._path} cannot be written: {error.strerror}",
            hint=f"See: df {self._path.parent}; ls -l {self._path.parent}. "
            "Until it can be written, every login is refused.",
        )

    def _current_descriptor(self, *, may_make: bool = True) -> int:
        """Return the log's descriptor, opened anew where it was rotated, and judged each time."""
        if self._descriptor < 0 or _identity_of(self._path) != self._identity:
            if self._descriptor >= 0:
                os.fdatasync(self._descriptor)  # the state may soon drop its copies of these
            self.close()
            self._descriptor = self._open(may_make=may_make)
        else:
            self._require_safe(os.fstat(self._descriptor))
        return self._descriptor

    def _require_safe(self, about: os.stat_result) -> None:
        wrong = _find_fault(about)
        if wrong:
            raise AuditError(
                f"the audit log {self._path} is not used: {wrong}",
                hint="Move it away; a new one is made by the next record.",
            )

    def _open(self, *, may_make: bool = True) -> int:
        # pam-u2f CVE-2019-12209: no link is followed; CVE-2019-12210: no child inherits it.
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self._path, flags)
        except FileNotFoundError:
            if not may_make:
                raise
            descriptor = os.open(self._path, flags | os.O_CREAT, 0o640)
            os.fchmod(descriptor, 0o640)  # for the log's group, whatever the umask is
        try:
            about = os.fstat(descriptor)
            self._require_safe(about)
        except BaseException:
            os.close(descriptor)
            raise
        self._identity = (about.st_dev, about.st_ino)
        return descriptor


def _find_fault(about: os.stat_result) -> str:
    """Return what is wrong with a file that is to be the log; "" where nothing is."""
    if not stat.S_ISREG(about.st_mode):
        return "it is not a regular file"
    if about.st_uid != os.geteuid():
        return f"it belongs to user id {about.st_uid}"
    return "others may read or write it" if about.st_mode & _FORBIDDEN else ""


def _identity_of(path: Path) -> tuple[int, int]:
    """Return a file's device and inode number; zeros where there is none."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return (0, 0)
    return (about.st_dev, about.st_ino)


def _modified(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.lstat().st_mtime_ns
    return 0


def _sync(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        return  # none of ours, and not read either
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _end_of(descriptor: int) -> End:
    """Return how an open file ends, read backward until a whole line is found."""
    size, step = os.fstat(descriptor).st_size, _STEP_BYTES
    while True:
        start = max(0, size - step)
        data = os.pread(descriptor, size - start, start)
        whole, newline, torn = data.rpartition(b"\n")
        _, before, last = whole.rpartition(b"\n")
        if not start or before or step >= _TORN_MAX:
            return End(last + newline, torn)
        step *= 8


def _read_rotated(path: Path) -> End:
    with contextlib.suppress(OSError):
        _sync(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _end_of(descriptor)
        finally:
            os.close(descriptor)
    return End()


def _read_bytes(path: Path, size: int) -> bytes:
    """Return the end of a log, also of one that was compressed at once."""
    with contextlib.suppress(OSError, EOFError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if path.suffix == _COMPRESSED:
                return _decompress(descriptor, size)
            return os.pread(descriptor, size, max(0, os.fstat(descriptor).st_size - size))
        finally:
            os.close(descriptor)
    return b""


def _decompress(descriptor: int, size: int) -> bytes:
    import gzip  # noqa: PLC0415 - start-up cost: only where a kill and a rotation coincide

    end = b""
    with open(descriptor, "rb", closefd=False) as raw, gzip.open(raw) as file:
        while part := file.read(size):
            end = (end + part)[-size:]
    return end
