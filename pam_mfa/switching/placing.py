# SPDX-License-Identifier: Apache-2.0
"""Putting a file under /etc in place, whole and durable, with its owner, mode and label as before.

The only module of the room that writes outside the journal. A reader sees the old file or the new
one, whenever the power goes.
"""

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import NamedTuple

from pam_mfa.errors import RefusedError
from pam_mfa.store.files import sync_directory

_DRAFT_SUFFIX = ".pam-mfa-draft"
_FS_IOC_GETFLAGS = 0x80086601  # linux/fs.h
_UNCHANGEABLE = 0x30  # FS_IMMUTABLE_FL, FS_APPEND_FL
_SIZE_MAX = 1 << 20  # bytes
_MODE = 0o644


class Placed(NamedTuple):
    """A file as it stands."""

    data: bytes | None  # None: there is none
    uid: int = 0
    gid: int = 0
    mode: int = _MODE


def read_placed(path: Path) -> Placed:
    """Return a file with its owner and mode.

    Raises:
        RefusedError: it is a link or no regular file, or cannot be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return Placed(None, os.geteuid(), os.getegid())
    except OSError as error:
        raise RefusedError(
            f"{path} is a link, or cannot be read: {error.strerror}",
            hint="A link is another program's, such as authselect's; change what it points to.",
        ) from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise RefusedError(f"{path} is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(_SIZE_MAX + 1)
    finally:
        os.close(descriptor)
    if len(data) > _SIZE_MAX:
        raise RefusedError(f"{path} is larger than any file of its kind")
    return Placed(data, about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode))


def require_changeable(path: Path) -> None:
    """Make sure, before anything is done, that a file can be replaced.

    Raises:
        RefusedError: it or its directory is immutable, or the file system is read-only.
    """
    directory = path.parent
    while not directory.is_dir():
        directory = directory.parent
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise RefusedError(
            f"the file system of {directory} is read-only; nothing was changed",
            hint="Remount it: mount -o remount,rw / (or, in an image that is built, do this when "
            "it is built).",
        )
    for one in (path, directory):
        if _is_immutable(one):
            raise RefusedError(
                f"{one} is immutable; nothing was changed",
                hint=f"Somebody said so by chattr; see lsattr -d {one}. To end it: "
                f"chattr -i -a {one}",
            )
    if not os.access(directory, os.W_OK):
        raise RefusedError(f"nothing can be written into {directory}; nothing was changed")


def place(path: Path, wanted: Placed) -> None:
    """Make a file what it is to be: this content, owner and mode, or not there.

    Raises:
        OSError: it is as it was.
    """
    if wanted.data is None:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_directory(path.parent)
        return
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o755, parents=True)
        sync_directory(path.parent.parent)
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}{_DRAFT_SUFFIX}")
    try:
        _write_draft(draft, path, wanted)
        draft.rename(path)
        sync_directory(path.parent)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def remove_drafts(directory: Path) -> None:
    """Take away what a process that was killed has left of its drafts."""
    for draft in directory.glob(f".*{_DRAFT_SUFFIX}"):
        with contextlib.suppress(OSError):
            draft.unlink()


def _write_draft(draft: Path, path: Path, wanted: Placed) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(wanted.data or b"")
        file.flush()
        about = os.fstat(descriptor)
        if (about.st_uid, about.st_gid) != (wanted.uid, wanted.gid):
            os.fchown(descriptor, wanted.uid, wanted.gid)
        os.fchmod(descriptor, wanted.mode)
        _copy_labels(path, descriptor)
        os.fsync(descriptor)


def _copy_labels(path: Path, descriptor: int) -> None:
    """Give the new file the old one's attributes, SELinux's label among them."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(path, follow_symlinks=False):
            value = os.getxattr(path, name, follow_symlinks=False)
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, name, value)


def _is_immutable(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        raw = fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8))
        return bool(int.from_bytes(raw[:4], "little") & _UNCHANGEABLE)
    except OSError:
        return False  # a file system that has no such flags
    finally:
        os.close(descriptor)
