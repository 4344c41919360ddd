# SPDX-License-Identifier: Apache-2.0
"""Reading and replacing files that must not be trusted by their name.

A file is judged by its open descriptor, so that what was checked is what is read; a new version
takes the old one's place whole or not at all.
"""

import contextlib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO

from pam_mfa.errors import BrokenSystemError, UnsafeFileError

_WRITABLE_BY_OTHERS = 0o022
_DRAFT_SUFFIX = ".new"
_SYNCS_AT_ONCE = 8


def read_file(
    path: Path,
    *,
    owners: Collection[int],
    forbidden: int,
    size_max: int,
    is_alone: bool = False,
) -> bytes:
    """Return a regular file's bytes.

    Args:
        path: its name; the last part must not be a symbolic link.
        owners: user ids that may own it.
        forbidden: permission bits that must not be set.
        size_max: bytes.
        is_alone: whether it must have no other name, by which it could be somebody else's file.

    Raises:
        FileNotFoundError: there is none.
        UnsafeFileError: it is not as the arguments say, or cannot be opened.
    """
    # pam_oath CVE-2024-47191, pam-u2f CVE-2019-12209: no links; O_NONBLOCK: a fifo must not hang.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnsafeFileError(
            f"{path} cannot be opened: {error.strerror}", hint=f"See: ls -l {path}"
        ) from error
    try:
        about = os.fstat(descriptor)
        _require_safe(path, about, owners, forbidden)
        if is_alone and about.st_nlink != 1:
            raise UnsafeFileError(f"{path} has {about.st_nlink} names")
        data = _read_up_to(descriptor, size_max + 1)
    except OSError as error:
        raise UnsafeFileError(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > size_max:
        raise UnsafeFileError(f"{path} is larger than {size_max} bytes")
    return data


def _read_up_to(descriptor: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _require_safe(path: Path, about: os.stat_result, owners: Collection[int], bits: int) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise UnsafeFileError(
            f"{path} is not a regular file", hint="Move it away and restore the file."
        )
    if about.st_uid not in owners:
        raise UnsafeFileError(
            f"{path} belongs to user id {about.st_uid}, not to {' or '.join(map(str, owners))}",
            hint=f"If its content is right: chown {next(iter(owners))} {path}",
        )
    if about.st_mode & bits:
        raise UnsafeFileError(
            f"{path} has the mode {stat.S_IMODE(about.st_mode):04o}, "
            f"which lets others at it ({bits:03o} must be clear)",
            hint=f"If nobody used that: chmod {stat.S_IMODE(about.st_mode) & ~bits:04o} {path}",
        )


def make_private_file(path: Path) -> None:
    """Make an empty file of ours where there is none, and refuse one that others can get at.

    For files that a library opens by name afterwards, in a directory that is ours alone.

    Raises:
        UnsafeFileError: it is not a regular file of ours, or others can get at it.
        OSError: it can be neither opened nor made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        _require_safe(path, os.fstat(descriptor), (os.geteuid(),), 0o077)
    finally:
        os.close(descriptor)


def identity_of(path: Path) -> tuple[int, int]:
    """Return a file's device and inode number; zeros where there is none."""
    try:
        about = path.lstat()
    except OSError:
        return (0, 0)
    return (about.st_dev, about.st_ino)


def require_private_directory(path: Path) -> None:
    """Refuse a directory in which others could put a file in the place of ours.

    Raises:
        UnsafeFileError: it is missing, no directory, not ours, or others may write to it.
    """
    try:
        about = path.lstat()
    except OSError as error:
        raise UnsafeFileError(
            f"there is no directory {path}",
            hint="Mount or restore it. On a new host, any pam-mfa command that root runs makes "
            "it, for example: pam-mfa list",
        ) from error
    if not stat.S_ISDIR(about.st_mode) or about.st_uid not in (0, os.geteuid()):
        raise UnsafeFileError(f"{path} is not a directory of the verifier's user")
    if about.st_mode & _WRITABLE_BY_OTHERS:
        raise UnsafeFileError(
            f"others may write to {path}", hint=f"If nobody did: chmod 0700 {path}"
        )


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Make a file's new content durable, then put it in the old one's place.

    Raises:
        BrokenSystemError: it could not be written; the old file stands as it was.
    """
    with _draft(path, data, mode) as draft:
        draft.rename(path)


def replace_files(contents: Sequence[tuple[Path, bytes]], mode: int) -> None:
    """Do what ``replace_file`` does for many files of one directory, whose names share one sync.

    Raises:
        BrokenSystemError: not all could be written; each is as it was or as it is to be.
    """
    if not contents:
        return
    directory = contents[0][0].parent
    drafts: list[tuple[Path, Path]] = []
    try:
        with contextlib.ExitStack() as opened:
            descriptors = []
            for path, data in contents:
                drafts.append((_draft_name(path), path))
                file = opened.enter_context(_open_draft(drafts[-1][0], mode))
                file.write(data)
                file.flush()
                descriptors.append(file.fileno())
            _sync_all(descriptors)
        while drafts:
            draft, path = drafts[-1]
            draft.rename(path)
            drafts.pop()
        sync_directory(directory)
    except OSError as error:
        raise _write_error(contents[0][0] if not drafts else drafts[-1][1], error) from error
    finally:
        for draft, _ in drafts:
            with contextlib.suppress(OSError):
                draft.unlink()


def remove_drafts(directory: Path, name: str = "") -> None:
    """Take away the drafts of a writer that was killed; no other may be at work meanwhile.

    Args:
        directory: where they are.
        name: of the one file whose drafts they are; "": of any.
    """
    for draft in directory.glob(f"{name}*{_DRAFT_SUFFIX}"):
        with contextlib.suppress(OSError):
            draft.unlink()


def remove_file(path: Path) -> None:
    """Take a file away, durably; it may be gone already.

    Raises:
        BrokenSystemError: it could not be taken away.
    """
    try:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise BrokenSystemError(f"{path} cannot be removed: {error.strerror}") from error


def create_file(path: Path, data: bytes, mode: int) -> None:
    """Make a new file durable; where another process was first, its file stands.

    Raises:
        BrokenSystemError: it could not be written.
    """
    with _draft(path, data, mode) as draft, contextlib.suppress(FileExistsError):
        os.link(draft, path)


@contextlib.contextmanager
def _draft(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Write a durable draft beside a file, for the block to put in place; then tidy up."""
    draft = _draft_name(path)
    try:
        _write_draft(draft, data, mode)
        yield draft
        sync_directory(path.parent)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _draft_name(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.urandom(6).hex()}{_DRAFT_SUFFIX}")


def _write_draft(draft: Path, data: bytes, mode: int) -> None:
    with _open_draft(draft, mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _open_draft(draft: Path, mode: int) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(draft, flags, mode), "wb")


def _sync_all(descriptors: Sequence[int]) -> None:
    """Sync many files at once: a disk that waits for each takes three times as long."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - not what a login needs

    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
        for _ in pool.map(os.fsync, descriptors):
            pass  # what failed is raised here


def _write_error(path: Path, error: OSError) -> BrokenSystemError:
    return BrokenSystemError(
        f"{path} cannot be written: {error.strerror}",
        hint=f"See: df {path.parent}; ls -ld {path.parent}",
    )


def sync_directory(path: Path) -> None:
    """Make a directory's names durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
