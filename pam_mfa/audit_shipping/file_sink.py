# SPDX-License-Identifier: Apache-2.0
"""A directory as a target: a file a chain, ``HOST.jsonl``, then ``HOST+2.jsonl`` and so on.

Lines are appended and synced. A line that a kill has torn is completed, never written twice. The
files may be rotated and packed there as the log itself may. Beside them stand the claim, the sign
of life, and a note of another machine that has tried to ship under the same name.
"""

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pam_mfa.audit_reading import LogFile, find_logs
from pam_mfa.audit_shipping.hosts import (
    SIZE_MAX,
    Claim,
    FormatError,
    SignOfLife,
    format_claim,
    format_sign,
    parse_claim,
    to_file_name,
)
from pam_mfa.audit_shipping.sinks import Chain
from pam_mfa.audit_shipping.source import Entry, find_last, parse_entry
from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.store.files import create_file, replace_file, sync_directory

CLAIM: Final = ".host.json"
ALIVE: Final = ".alive.json"
OTHER: Final = ".other.json"
LOG: Final = ".jsonl"
# Behind the host's name: the chain's number, and what a rotation adds.
_CHAIN: Final = re.compile(r"(?:\+([2-9]|[1-9]\d))?\.jsonl(?:[.-]\d.*)?")
_MODE: Final = 0o640
_TAIL: Final = 1 << 18  # bytes in which a torn line is looked for: twice the longest record


def chain_file(directory: Path, host: str, number: int) -> Path:
    """Return the file of a chain."""
    suffix = f"+{number}" if number > 1 else ""
    return directory / f"{to_file_name(host)}{suffix}{LOG}"


def find_chains(directory: Path, host: str) -> list[tuple[int, Path]]:
    """Return a host's chains and their files, by number; a file that was rotated counts, too.

    Raises:
        BrokenSystemError: the directory cannot be read.
    """
    found = set()
    name = to_file_name(host)
    for each in list_names(directory):
        match = _CHAIN.fullmatch(each, len(name)) if each.startswith(name) else None
        if match:
            found.add(int(match[1] or 1))
    return [(number, chain_file(directory, host, number)) for number in sorted(found)]


def list_names(directory: Path) -> list[str]:
    """Return the names in a target's directory.

    Raises:
        BrokenSystemError: it cannot be read.
    """
    try:
        return [each.name for each in directory.iterdir()]
    except OSError as error:
        raise BrokenSystemError(
            f"{directory} cannot be read: {error.strerror}",
            hint="Mount it, or make it for the user pam-mfa: "
            f"install -d -o pam-mfa -g pam-mfa -m 0750 {directory}",
        ) from error


def read_small(path: Path) -> bytes | None:
    """Return a small file's bytes; None where there is none.

    Raises:
        RefusedError: it may not be read, or is no regular file.
        BrokenSystemError: the disk does not give it.
    """
    try:
        with LogFile(path) as file:
            return file.read_at(0, SIZE_MAX)
    except FileNotFoundError:
        return None


class FileSink:
    """A directory, opened for one host."""

    has_records = True

    def __init__(self, directory: Path, claim: Claim) -> None:
        """Open it, and claim the host's name there.

        Raises:
            RefusedError: another machine has the name, or another process ships for this one.
            BrokenSystemError: the directory cannot be used.
        """
        self._directory = directory
        self._claim = claim
        self._lock = -1
        _require_safe(directory)
        self._require_own_name()
        self._take_turn()
        self._remove_drafts()

    def chains(self) -> Sequence[Chain]:
        """Return what is there."""
        found = []
        for number, path in find_chains(self._directory, self._claim.host):
            entry = _read_end(path)
            if entry is not None:
                found.append(Chain(number, entry.head))
        return found

    def hash_of(self, number: int, sequence: int) -> str:
        """Return the hash of a record of a chain; "" where there is none."""
        needle = b'"sequence":%d,' % sequence
        for path in find_logs(chain_file(self._directory, self._claim.host, number)):
            with LogFile(path) as file:
                for line in file.lines():
                    if isinstance(line, bytes) and needle in line:
                        entry = parse_entry(line)
                        if entry is not None and entry.head.sequence == sequence:
                            return entry.head.hash
        return ""

    def put(self, number: int, lines: Sequence[bytes]) -> None:
        """Append lines and sync them."""
        path = chain_file(self._directory, self._claim.host, number)
        try:
            descriptor, is_new = _open_to_append(path)
            try:
                _append(descriptor, b"".join(lines))
            finally:
                os.close(descriptor)
            if is_new:
                sync_directory(self._directory)
        except OSError as error:
            raise BrokenSystemError(
                f"{path} cannot be written: {error.strerror}",
                hint=f"See: df {self._directory}; ls -ld {path}. Nothing is lost: what is missing "
                "there is shipped once it can be.",
            ) from error

    def tell_alive(self, sign: SignOfLife) -> None:
        """Replace the host's sign of life."""
        replace_file(self._beside(ALIVE), format_sign(sign), _MODE)

    def close(self) -> None:
        """Let others ship."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _beside(self, suffix: str) -> Path:
        return self._directory / f"{to_file_name(self._claim.host)}{suffix}"

    def _require_own_name(self) -> None:
        path = self._beside(CLAIM)
        data = read_small(path)
        if data is None:
            create_file(path, format_claim(self._claim), _MODE)
            data = read_small(path) or b""  # another machine may have been first
        try:
            owner = parse_claim(data)
        except FormatError as error:
            raise BrokenSystemError(
                f"{path} is damaged: {error}", hint="Restore it, or move this host's files there."
            ) from error
        if owner.machine == self._claim.machine:
            return
        with contextlib.suppress(BrokenSystemError):
            replace_file(self._beside(OTHER), format_claim(self._claim), _MODE)
        raise RefusedError(
            f"'{self._claim.host}' is another machine's name at {self._directory}, since "
            f"{owner.since[:19] or 'some time'}",
            hint="Two hosts of one name: give this one another (--name). The same host, installed "
            f"anew: move {to_file_name(self._claim.host)}* there to an archive first.",
        )

    def _remove_drafts(self) -> None:
        """Take away what killed shippers of this host have left; no other is at work."""
        own = f"{to_file_name(self._claim.host)}{ALIVE}."
        for name in list_names(self._directory):
            if name.startswith(own) and name.endswith(".new"):
                with contextlib.suppress(OSError):
                    (self._directory / name).unlink()

    def _take_turn(self) -> None:
        path = self._beside(CLAIM)
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            # Not a refusal, which the service takes for its end: whoever may read the file, and
            # not only a shipper, can hold it for a while.
            raise BrokenSystemError(
                f"another process ships this host's records to {self._directory}",
                hint="See: systemctl status pam-mfa-audit-ship",
            ) from error
        except OSError as error:
            self.close()
            raise BrokenSystemError(f"{path} cannot be opened: {error.strerror}") from error


def _require_safe(directory: Path) -> None:
    """Refuse a directory in which anybody could put a file in the place of ours."""
    list_names(directory)
    if directory.stat().st_mode & stat.S_IWOTH:
        raise RefusedError(
            f"anybody may write to {directory}", hint=f"Take a directory of its own, or: "
            f"chmod o-w {directory}",
        )  # fmt: skip


def _read_end(path: Path) -> Entry | None:
    """Return the last record of a chain, whose file may have been rotated; None where none is."""
    for name in reversed(find_logs(path)):
        with LogFile(name) as file:
            entry = find_last(file)
        if entry is not None:
            return entry
    return None


def _open_to_append(path: Path) -> tuple[int, bool]:
    # No link is followed, a fifo does not hang, no child inherits it.
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor, is_new = os.open(path, flags), False
    except FileNotFoundError:
        descriptor, is_new = os.open(path, flags | os.O_CREAT | os.O_EXCL, _MODE), True
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
        os.close(descriptor)
        raise BrokenSystemError(f"{path} is no regular file, or has a second name")
    return descriptor, is_new


def _append(descriptor: int, data: bytes) -> None:
    """Append, going on with a line that was torn."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL))
    torn = tail.rpartition(b"\n")[2]
    if torn:
        data = _mend(descriptor, torn, data)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fdatasync(descriptor)


def _mend(descriptor: int, torn: bytes, data: bytes) -> bytes:
    """Return what is to be written behind a torn line.

    It is the beginning of what comes next, cut by a kill: completed, so that a file that can only
    be appended to is mended as well. Anything else, as a power cut's zeros, is cut off; where that
    is not allowed it is ended, for verifying to tell of.
    """
    if data.startswith(torn):
        return data[len(torn) :]
    with contextlib.suppress(PermissionError):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - len(torn))
        return data
    return b"\n" + data
