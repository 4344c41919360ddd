# SPDX-License-Identifier: Apache-2.0
"""State and records made durable together, by one disk sync.

A record is written into the state's outbox in the same transaction as the change that it tells
of, and that transaction's sync makes both durable; then it is appended to the log, without a
sync of its own. Rows leave the outbox after the log was synced. A record that a kill or a power
loss kept from the log is found in the outbox by the next commit of any process, and appended.
"""

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from pam_mfa.audit import AuditLog, Event, format_event
from pam_mfa.errors import BrokenSystemError, StateError
from pam_mfa.lockout import LockState
from pam_mfa.store.enrollment import DeviceState
from pam_mfa.store.files import identity_of
from pam_mfa.store.layout import Layout
from pam_mfa.store.state import Change, Claim, Outbox, State

_Result = TypeVar("_Result")
_LOCK_PATIENCE = 2.0  # seconds; a commit takes a millisecond
_LOCK_PAUSE = 0.0005  # seconds
_OUTBOX_MAX = 256  # rows that are kept before the log is synced and they are dropped


class Ledger:
    """The state and the audit log of one root."""

    def __init__(self, layout: Layout) -> None:
        """Take the root; no file is touched yet."""
        self._lock_path = layout.library / "commit.lock"
        self._lock = -1
        self._lock_identity = (0, 0)
        self._host = os.uname().nodename
        self._audit = AuditLog(layout.audit_log)
        self._state = State(layout.state, self._format_line)
        self._last_id = 0  # of the last record that this process has put into the log

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims; then their changes and records are on disk.

        Raises:
            StateError: nothing was changed.
            AuditError: the changes stand, their records wait in the outbox; tell no success.
        """
        with self._locked():
            committed = self._state.commit(claims, self._settle)
            if committed.lines:
                self._audit.write(committed.lines)
                self._last_id = committed.last_id
            return committed.changes

    def require_log(self) -> None:
        """Make sure that a record can be written, before something is done that needs one.

        Raises:
            StateError: the state cannot be used.
            AuditError: the log cannot be used.
        """
        with self._locked():
            self._audit.require_usable()
            self._state.commit([], self._settle)

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what is known of devices."""
        return self._state.read_devices(serial_numbers)

    def read_locks(self, user_keys: Sequence[str]) -> dict[str, LockState]:
        """Return the wrong codes and locks of users."""
        return self._state.read_locks(user_keys)

    def read_inventory(self, look: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Return what a look at the inventory gives."""
        return self._state.read_inventory(look)

    def close(self) -> None:
        """Close the files, with every record synced into the log and none in the outbox."""
        if self._last_id:
            with contextlib.suppress(BrokenSystemError), self._locked():
                self._audit.sync()
                self._state.commit([], lambda outbox: min(self._last_id, outbox.ids()[1]))
        self._state.close()
        self._audit.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _settle(self, outbox: Outbox) -> int:
        """Append what is missing in the log; return the id up to which rows may be dropped."""
        first, last = outbox.ids()
        if last != self._last_id:  # others were here, or one before us was killed
            lines = outbox.lines()
            if len(lines) > 1 or not all(map(self._audit.ends_with, lines)):
                present = self._audit.recent()
                self._audit.write([line for line in lines if line not in present])
            self._last_id = last
        elif last - first < _OUTBOX_MAX and not self._audit.was_rotated():
            return 0
        if last:
            self._audit.sync()
        return last

    def _format_line(self, event: Event) -> bytes:
        return format_event(event, os.urandom(8).hex(), self._host)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Take turns with other processes: the log's order is the order of the commits."""
        try:
            self._notice_restored_store()
            if self._lock < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._lock = os.open(self._lock_path, flags, 0o600)
                about = os.fstat(self._lock)
                self._lock_identity = (about.st_dev, about.st_ino)
            self._wait_for_lock()
        except OSError as error:
            raise StateError(
                f"{self._lock_path} cannot be locked: {error.strerror}",
                hint=f"See: fuser {self._lock_path}; ls -ld {self._lock_path.parent}; "
                f"df {self._lock_path.parent}",
            ) from error
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _notice_restored_store(self) -> None:
        """Let go of files that others have been put in the place of.

        What is written to a deleted file is gone at the next start: a code would be good again.
        """
        if self._lock >= 0 and identity_of(self._lock_path) != self._lock_identity:
            os.close(self._lock)
            self._lock = -1
        if self._lock < 0 or self._state.was_replaced():
            self._state.close()
            self._last_id = 0

    def _wait_for_lock(self) -> None:
        """Wait for the other process, but not for ever: it may have been stopped in its turn."""
        deadline = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOCK_PAUSE)
            else:
                return
