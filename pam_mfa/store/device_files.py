# SPDX-License-Identifier: Apache-2.0
"""The embedded store of devices: one YAML file a user.

Owns file names, safety and locking; what a device is, ``devices`` knows.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pam_mfa.devices import Device, format_devices, parse_devices
from pam_mfa.document import SIZE_MAX, parse_document
from pam_mfa.errors import BrokenSystemError, DocumentError, UnsafeFileError
from pam_mfa.store.documents import Entry, Found
from pam_mfa.store.files import (
    read_file,
    remove_drafts,
    remove_file,
    replace_file,
    replace_files,
)
from pam_mfa.store.user_keys import decode_user, encode_user, is_whole

_SUFFIX = ".yaml"
MOVED = ".moved"  # a file that says whereto, in the directory that stands in the old one's place


class DeviceFiles:
    """The device files in one directory."""

    def __init__(self, directory: Path) -> None:
        """Take the directory; it is not touched yet."""
        self._directory = directory

    def path(self, user: str) -> Path:
        """Return where a user's devices are kept."""
        return self._directory / f"{encode_user(user)}{_SUFFIX}"

    def version(self, user: str) -> tuple[int, ...]:
        """Return what is another after each change of a user's devices."""
        try:
            about = self.path(user).lstat()
        except OSError:
            return ()
        return about.st_dev, about.st_ino, about.st_mtime_ns

    def read(self, user: str) -> tuple[Device, ...]:
        """Return a user's devices; none where the user is not enrolled.

        Raises:
            UnsafeFileError: the file is not a regular file of ours, or others can get at it.
            DocumentError: its content is wrong.
        """
        path = self.path(user)
        try:
            data = read_file(path, owners={os.geteuid()}, forbidden=0o077, size_max=SIZE_MAX)
        except FileNotFoundError:
            # pam-u2f CVE-2020-24612: what cannot be seen is not "not enrolled".
            if not self._directory.is_dir():
                raise UnsafeFileError(
                    f"there is no directory {self._directory}",
                    hint="Mount or restore it; on a new host, enabling the first device makes it.",
                ) from None
            self._require_here()
            return ()
        return parse_devices(data, str(path), user)

    def _require_here(self) -> None:
        """Refuse what was moved: who is not found here is not "not enrolled" either.

        Raises:
            UnsafeFileError: it was moved.
        """
        try:
            where = (self._directory / MOVED).read_text("ascii").strip()[:64]
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            where = "another store"
        raise UnsafeFileError(
            f"the devices of this host were moved to {where}",
            hint=f"Say so in the policy (store: engine: {where}), or bring them back: "
            f"pam-mfa store copy --from {where} --to embedded",
        )

    def read_all(self) -> Iterator[Found]:
        """Go through everybody's devices, by name.

        Raises:
            UnsafeFileError: the directory cannot be read.
        """
        for entry in self.entries():
            try:
                yield Found(entry, () if entry.problem else self.read(entry.user))
            except (UnsafeFileError, DocumentError) as error:
                yield Found(Entry(entry.user, str(error)), ())

    def write(self, user: str, devices: tuple[Device, ...]) -> None:
        """Replace a user's devices, durably; call it under ``lock``. None: no file.

        Raises:
            BrokenSystemError: it could not be written; the old devices stand.
        """
        self._require_here()
        if not devices:
            remove_file(self.path(user))
            return
        replace_file(self.path(user), format_devices(user, devices), 0o600)

    def write_all(self, owners: Mapping[str, tuple[Device, ...]]) -> None:
        """Replace the devices of many users, durably; call it under ``lock``.

        Raises:
            BrokenSystemError: not all could be written; each user has the old devices or the new.
        """
        self._require_here()
        contents = [
            (self.path(user), format_devices(user, devices)) for user, devices in owners.items()
        ]
        replace_files(contents, 0o600)

    def remove_drafts(self) -> None:
        """Take away what a killed writer has left; call it under ``lock``."""
        remove_drafts(self._directory)

    def users(self) -> Iterator[str]:
        """Go through the users that have a device file, by name.

        Raises:
            BrokenSystemError: it cannot be told whose a file is.
        """
        for entry in self.entries():
            if entry.problem:
                raise UnsafeFileError(
                    entry.problem, hint="The others are shown all the same by: pam-mfa status"
                )
            yield entry.user

    def entries(self) -> list[Entry]:
        """Return whose device files there are, by name, and those that are nobody's.

        Raises:
            UnsafeFileError: the directory cannot be read.
        """
        try:
            # Names only: there may be 100,000.
            names = os.listdir(self._directory)  # noqa: PTH208
        except OSError as error:
            raise UnsafeFileError(f"{self._directory} cannot be read: {error.strerror}") from error
        if MOVED in names:
            self._require_here()
        stems = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        return sorted(self._entry(stem) for stem in stems)

    def _entry(self, stem: str) -> Entry:
        path = self._directory / f"{stem}{_SUFFIX}"
        try:
            user = decode_user(stem) if is_whole(stem) else self._name_inside(path)
        except (BrokenSystemError, FileNotFoundError) as error:
            return Entry(stem, str(error))
        if encode_user(user) != stem:
            return Entry(stem, f"{path} has a name that no user's device file has")
        return Entry(user, "")

    def _name_inside(self, path: Path) -> str:
        data = read_file(path, owners={os.geteuid()}, forbidden=0o077, size_max=SIZE_MAX)
        return parse_document(data, str(path)).require("user", str)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other writers out while devices are read, changed and written.

        Raises:
            BrokenSystemError: the lock file cannot be made.
        """
        path = self._directory / ".lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise BrokenSystemError(f"{path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
