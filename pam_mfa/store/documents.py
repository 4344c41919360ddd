# SPDX-License-Identifier: Apache-2.0
"""What every store offers of users' devices: a document a user, changed under a lock."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from pam_mfa.devices import Device


class Entry(NamedTuple):
    """A user's document, as it is found."""

    user: str  # the document's own name, where it cannot be told whose it is
    problem: str  # why it cannot; "" where it can


class Found(NamedTuple):
    """A user's devices among everybody's."""

    entry: Entry  # with a problem where they cannot be read
    devices: tuple[Device, ...]


class Documents(Protocol):
    """The devices of users."""

    def version(self, user: str) -> tuple[int, ...]:
        """Return what is another after each change of a user's devices; () where there are none."""

    def read(self, user: str) -> tuple[Device, ...]:
        """Return a user's devices; none where the user is not enrolled.

        Raises:
            UnsafeFileError: others may have written them.
            DocumentError: their content is wrong.
        """

    def read_all(self) -> Iterator[Found]:
        """Go through everybody's devices, by name; what cannot be read is told with its entry.

        Raises:
            BrokenSystemError: they cannot be listed.
        """

    def write(self, user: str, devices: tuple[Device, ...]) -> None:
        """Replace a user's devices, durably; call it under ``lock``.

        Raises:
            BrokenSystemError: they could not be written; the old devices stand.
        """

    def write_all(self, owners: Mapping[str, tuple[Device, ...]]) -> None:
        """Replace the devices of many users, durably; call it under ``lock``.

        Raises:
            BrokenSystemError: not all could be written; each user has the old devices or the new.
        """

    def remove_drafts(self) -> None:
        """Take away what a killed writer has left; call it under ``lock``."""

    def users(self) -> Iterator[str]:
        """Go through the users that have devices, by name.

        Raises:
            BrokenSystemError: it cannot be told whose a document is.
        """

    def entries(self) -> list[Entry]:
        """Return whose documents there are, by name, and those that are nobody's.

        Raises:
            BrokenSystemError: they cannot be listed.
        """

    def lock(self) -> AbstractContextManager[None]:
        """Keep other writers out while devices are read, changed and written.

        What is committed meanwhile is durable when the lock is let go, at the latest.

        Raises:
            BrokenSystemError: it cannot be had; or what was done under it could not be kept.
        """
