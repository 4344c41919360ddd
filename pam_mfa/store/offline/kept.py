# SPDX-License-Identifier: Apache-2.0
"""What is kept of users who have verified here: their devices, sealed, and what is to be handed in.

One file a user, readable by this host's verifier alone and bound to the user's name. Devices of
types that do not count without the database are left out.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pam_mfa.devices import Device, format_devices, parse_devices
from pam_mfa.errors import DocumentError, SealError, StateError, UnsafeFileError
from pam_mfa.secret import Secret
from pam_mfa.store.files import read_file, remove_file, replace_file
from pam_mfa.store.offline.files import make_directory, read_sealed
from pam_mfa.store.seal import Sealer
from pam_mfa.store.user_keys import encode_user

_NAME = "offline/devices"  # what a file is bound to, besides its user
_SUFFIX = ".sealed"
_NOTE = ".used"
_PENDING_MAX = 1 << 16  # bytes of a note


class Kept(NamedTuple):
    """A user's devices, and when the database had them."""

    at: float  # seconds since the epoch
    devices: tuple[Device, ...]


class Pending(NamedTuple):
    """A user who was verified without the database."""

    user: str
    serial_numbers: tuple[str, ...]  # of devices that may have been used


class KeptUsers:
    """The files of one host."""

    def __init__(self, directory: Path) -> None:
        """Take the directory; it is made with the first file."""
        self.directory = directory
        self._pending = directory / "pending"

    def find(self, user: str, sealer: Sealer) -> Kept | None:
        """Return what is kept of a user; what does not open any more is as good as nothing.

        Raises:
            UnsafeFileError: others can get at it.
        """
        path = self._path(user)
        try:
            data = read_sealed(path, sealer, (user, _NAME))
            if data is None:
                return None
            fields = json.loads(data.reveal())
            devices = parse_devices(fields["document"].encode("utf-8"), str(path), user)
            return Kept(float(fields["at"]), devices)
        except (SealError, DocumentError, ValueError, KeyError, TypeError):
            return None

    def write(self, user: str, kept: Kept, sealer: Sealer) -> None:
        """Keep a user's devices.

        Raises:
            BrokenSystemError: they could not be written.
        """
        self.make_directories()
        document = format_devices(user, kept.devices).decode("utf-8")
        text = json.dumps({"at": kept.at, "document": document}).encode("utf-8")
        sealed = sealer.seal(Secret(text), user, _NAME)
        replace_file(self._path(user), sealed.encode("ascii"), 0o600)

    def forget(self, user: str) -> None:
        """Keep nothing of a user."""
        if self._path(user).exists():
            remove_file(self._path(user))

    def count(self) -> int:
        """Return of how many users something is kept."""
        return len(_names(self.directory, _SUFFIX))

    def note_pending(self, user: str, serial_numbers: Iterable[str]) -> None:
        """Note, durably, that what a user used here is to be handed in.

        Raises:
            BrokenSystemError: it could not be written.
        """
        self.make_directories()
        path = self._pending / f"{encode_user(user)}{_NOTE}"
        text = json.dumps([user, *serial_numbers]).encode("ascii")
        replace_file(path, text, 0o600)

    def has_pending(self) -> bool:
        """Whether there is anything to be handed in."""
        return bool(_names(self._pending, _NOTE))

    def list_pending(self) -> list[Pending]:
        """Return what is to be handed in.

        Raises:
            BrokenSystemError: a note cannot be read.
        """
        return [self._read_pending(self._pending / name) for name in _names(self._pending, _NOTE)]

    def _read_pending(self, path: Path) -> Pending:
        owners = {os.geteuid()}
        try:
            data = read_file(path, owners=owners, forbidden=0o077, size_max=_PENDING_MAX)
            user, *serial_numbers = json.loads(data)
            return Pending(str(user), tuple(map(str, serial_numbers)))
        except (FileNotFoundError, UnsafeFileError, ValueError, TypeError) as error:
            raise StateError(
                f"{path}, which says what was used while the database could not be reached, "
                f"cannot be read: {error}",
                hint="If nobody was verified without the database since it was written, remove it.",
            ) from error

    def settle(self, user: str) -> None:
        """Note that all was handed in.

        Raises:
            BrokenSystemError: the note stays.
        """
        remove_file(self._pending / f"{encode_user(user)}{_NOTE}")

    def _path(self, user: str) -> Path:
        return self.directory / f"{encode_user(user)}{_SUFFIX}"

    def make_directories(self) -> None:
        """Make what is missing of the directories.

        Raises:
            BrokenSystemError: it cannot be made.
        """
        make_directory(self.directory)
        make_directory(self._pending)


def _names(directory: Path, suffix: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return [name for name in os.listdir(directory) if name.endswith(suffix)]  # noqa: PTH208
    return []
