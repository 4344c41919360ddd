# SPDX-License-Identifier: Apache-2.0
"""The embedded store taken out of service when another store has taken over, and back into it.

A mark that says whereto stands among the devices first; then these are moved beside it, a user at
a time: logins are refused, as where the policy still names this store, and nobody counts as not
enrolled. The directory itself is there at every moment, for an empty one would be made in its
place. Put back into service, the store has what it was given meanwhile, and nothing of before but
used codes and locks.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from pam_mfa.errors import BrokenSystemError
from pam_mfa.store.device_files import MOVED
from pam_mfa.store.files import replace_file, sync_directory
from pam_mfa.store.layout import Layout


class IncomingLayout(Layout):
    """A root whose devices are collected beside those that are in service."""

    @property
    def devices(self) -> Path:
        """Where they are collected."""
        return self.library / "devices.incoming"


def is_retired(layout: Layout) -> bool:
    """Whether the store is out of service, or on its way there or back."""
    return (layout.devices / MOVED).exists()


def retire(layout: Layout, where: str) -> None:
    """Take the store out of service; running verifiers notice with their next login.

    Raises:
        BrokenSystemError: it could not be done; run it again.
    """
    with _told(layout):
        if not is_retired(layout):
            replace_file(layout.devices / MOVED, f"{where}\n".encode("ascii"), 0o600)
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        _move_all(layout.devices, layout.library / f"devices.moved-{moment}")


def collect(layout: Layout) -> tuple[Layout, bool]:
    """Return where devices are collected for a retired store, and whether none are there yet.

    Raises:
        BrokenSystemError: the directory cannot be made.
    """
    incoming = IncomingLayout(layout.root)
    with _told(layout):
        incoming.devices.mkdir(mode=0o700, exist_ok=True)
        sync_directory(layout.library)
        is_empty = not any(name.suffix == ".yaml" for name in incoming.devices.iterdir())
    return incoming, is_empty


def return_to_service(layout: Layout) -> None:
    """Put what was collected into service.

    Raises:
        BrokenSystemError: it could not be done; run it again.
    """
    incoming = IncomingLayout(layout.root).devices
    with _told(layout):
        _move_all(incoming, layout.devices)
        (layout.devices / MOVED).unlink(missing_ok=True)
        sync_directory(layout.devices)
        for name in incoming.iterdir():  # the lock file
            name.unlink()
        incoming.rmdir()


def _move_all(source: Path, target: Path) -> None:
    """Move device files, durably; each is in one of the two at any moment."""
    names = [name for name in source.iterdir() if name.suffix == ".yaml"]
    if not names:
        return
    target.mkdir(mode=0o700, exist_ok=True)
    for name in names:
        name.rename(target / name.name)
    sync_directory(target)
    sync_directory(source)
    sync_directory(target.parent)


@contextlib.contextmanager
def _told(layout: Layout) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BrokenSystemError(
            f"the store in {layout.library} cannot be moved: {error.strerror}",
            hint=f"See: ls -la {layout.library}; df {layout.library}. Then run it again.",
        ) from error
