# SPDX-License-Identifier: Apache-2.0
"""The life of an MFA device: enable, list, resync, deactivate, replace when lost.

This is the public Python API; the command line is a thin layer over it. ``open_lifecycle`` opens
the devices of a host, and everything else is a method of the ``Lifecycle`` that it gives:

==================================================== ==================================
``begin_virtual``, ``begin_token``, then ``enable``  a device, by two consecutive codes
``begin_fido``, ``accept_registration``,             a security key, by two touches
``enable_fido``
``begin_ssh_key``, ``enable_proven_ssh_key``         an SSH key, by a signature
``vouch_for_ssh_key``, ``enable_ssh_key``            an SSH key that the caller vouches for
``enable_recovery``, ``issue_bypass``                codes on paper, returned this once
``users``, ``list_devices``, ``enrolled_keys``       who has what
``device_statuses``, ``user_statuses``, ``standing`` last use, drift, codes left, locks
``resync``                                           move a device's drift or counter
``deactivate``, ``deactivate_all``                   take devices away
``unlock``                                           end a lock
``mfa_sessions``, ``end_mfa_sessions``               what is remembered for MFA age, and its end
==================================================== ==================================

The contract:

- A **user** is an account's name as PAM has it; it need not exist. A **device** is known by its
  serial number. **Codes** are texts as people type them; spaces do not matter.
- Times are aware ``datetime`` values in UTC; lengths of time are seconds; a drift is in time steps
  of the device's own period.
- What is returned is immutable. ``PendingDevice`` and the codes of ``enable_recovery`` and
  ``issue_bypass`` are secrets: show them to their user and keep them nowhere.
- A change has been made and recorded in the audit log, both on disk, when its method returns.
- ``RefusedError``: what was asked for is not allowed, and nothing was changed.
  ``BrokenSystemError``: something on the host must be mended first; what was changed, if
  anything, its text says. Both have a sentence and, in ``hint``, what to do next.
- A ``Lifecycle`` is for one thread. Processes may have one each, and daemons may run meanwhile.

Who may ask for what is for the caller to settle: nothing here asks for a password. How a device is
enabled, ``enabling``, ``paper_enabling``, ``key_enabling`` and ``ssh_key_enabling`` own; what
became of it, ``statuses``; what is remembered of verifications, ``mfa_sessions``.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from pam_mfa.actor import Actor, current_actor
from pam_mfa.audit import EventName
from pam_mfa.devices import (
    Bypass,
    Device,
    TokenDevice,
    VirtualDevice,
    count_devices,
    require_user,
)
from pam_mfa.enabling import (
    DevicesChangedError,
    KeyRefusedError,
    PendingDevice,
    TokenNotFreeError,
    serial_numbers,
)
from pam_mfa.errors import RefusedError, StateError
from pam_mfa.factors import code
from pam_mfa.factors.ssh_attestation import Evidence
from pam_mfa.key_enabling import KeyEnabling, KeyWish, PendingKey
from pam_mfa.lockout import LockState
from pam_mfa.mfa_sessions import MfaSession, MfaSessions
from pam_mfa.paper_enabling import PaperEnabling
from pam_mfa.policy import SMS_REASON
from pam_mfa.ssh_key_enabling import PendingSshKey, SshKeyEnabling, SshKeyWish
from pam_mfa.statuses import DeviceStatus, Standing, Statuses, UserStatus
from pam_mfa.store import (
    AdministratorsStore,
    Change,
    Claim,
    DeviceState,
    Entry,
    OpenDevice,
    encode_user,
)
from pam_mfa.store.layout import Layout, drop_privileges, make_directories, make_own_directories
from pam_mfa.store.opening import open_administrators_store


class Lifecycle(PaperEnabling, KeyEnabling, SshKeyEnabling, Statuses, MfaSessions):
    """What may be done to the devices of one store."""

    def users(self) -> list[str]:
        """Return the users that have a device file, by name.

        Raises:
            BrokenSystemError: it cannot be told whose a file is.
        """
        return list(self._files.users())

    def entries(self) -> list[Entry]:
        """Return the device files, by name: whose each is, or why that cannot be told.

        Raises:
            BrokenSystemError: the directory cannot be read.
        """
        return self._files.entries()

    def resync(self, user: str, serial_number: str, first: str, second: str) -> DeviceStatus:
        """Move a device's time drift or counter to two consecutive codes, which are then used.

        Args:
            user: whose device it is.
            serial_number: of a virtual device or a token.
            first: a code within a day of now, or 1,000 counters ahead of the last used one.
            second: the code that the device shows after it.

        Raises:
            RefusedError: there is no such device, or these are not its codes of late.
            BrokenSystemError: nothing was changed, or only the record waits to be written.
        """
        device = self._find_device(user, serial_number, self.list_devices(user))
        if not isinstance(device, VirtualDevice | TokenDevice):
            raise RefusedError(f"{serial_number} makes no codes, so it cannot be out of step")
        seed = self._store.sealer.open(device.sealed_seed, user, serial_number)
        state = self._store.read_devices([serial_number]).get(serial_number, DeviceState())
        match = _find_resync(OpenDevice(device, seed, state), (first, second), self._clock())
        if match is None:
            raise RefusedError(
                f"these are not two consecutive, unused codes of {serial_number} within a day or "
                f"{code.RESYNC_COUNTERS} counters; nothing was changed",
                hint="Wait for a new code, type it, then type the one after it.",
            )
        event = self._event(EventName.RESYNC_MFA_DEVICE, user, device)
        self._commit_match(user, match, event._replace(used_step=match.step))
        return self._status(device, self._store.read_devices([serial_number]))

    def deactivate(self, user: str, serial_number: str, *, leave_none: bool = False) -> Device:
        """Take a device from its user; a token goes back to the inventory.

        Raises:
            RefusedError: the user has no such device, or no other and ``leave_none`` is not said.
        """
        require_user(user)
        self._store.require_log()  # nothing is done that could not be recorded
        with self._files.lock():
            devices = self._files.read(user)
            found = self._find_device(user, serial_number, devices)
            kept = tuple(one for one in devices if one is not found)
            self._require_some(user, kept, leave_none=leave_none or isinstance(found, Bypass))
            self._take_away(user, devices, (found,))
        return found

    def deactivate_all(self, user: str, *, leave_none: bool = False) -> tuple[Device, ...]:
        """Take every device from a user, for whoever has lost them.

        Raises:
            RefusedError: the user has none, or ``leave_none`` is not said.
        """
        require_user(user)
        self._store.require_log()  # nothing is done that could not be recorded
        with self._files.lock():
            devices = self._files.read(user)
            if not devices:
                raise RefusedError(f"{user} has no MFA device")
            self._require_some(user, (), leave_none=leave_none)
            self._take_away(user, devices, devices)
        return devices

    def unlock(self, user: str) -> bool:
        """End a user's lock and forget the wrong codes; return whether there were any."""
        require_user(user)
        had = self._store.read_locks([user]).get(user, LockState()) != LockState()
        event = self._event(EventName.UNLOCK_USER, user)
        change = Change(accepted=True, events=(event,), lock=LockState())
        self._store.commit([Claim(encode_user(user), (), lambda _: change)])
        return had

    def _take_away(self, user: str, devices: tuple[Device, ...], gone: tuple[Device, ...]) -> None:
        events = tuple(
            self._event(EventName.DEACTIVATE_MFA_DEVICE, user, device) for device in gone
        )
        self._files.write(user, tuple(one for one in devices if one not in gone))
        try:
            self._release(gone, events)
        except StateError:
            self._files.write(user, devices)
            raise

    @staticmethod
    def _find_device(user: str, serial_number: str, devices: tuple[Device, ...]) -> Device:
        for device in devices:
            if device.serial_number == serial_number:
                return device
        raise RefusedError(
            f"{user} has no device {serial_number}", hint=f"See: pam-mfa list {user}"
        )

    @staticmethod
    def _require_some(user: str, kept: tuple[Device, ...], *, leave_none: bool) -> None:
        if not leave_none and not count_devices(kept):
            raise RefusedError(
                f"{user} would have no MFA device left, and policy may then refuse them",
                hint="If that is what you want, say so: --leave-none. To let them in once: "
                f"pam-mfa bypass {user} --for 1h",
            )


@contextlib.contextmanager
def open_lifecycle(root: Path = Path("/")) -> Iterator[Lifecycle]:
    """Open the devices of a host, or of a directory that stands for one; close them afterwards.

    **The process gives root up for good** and is the system user ``pam-mfa`` from here on, as
    ``open_store`` says: do first what needs root, or call this in a process of its own.

    Args:
        root: the host itself, or the directory under which everything lies.

    Raises:
        RefusedError: the process is not root, or is not any more because it has opened them
            before, or there is no such directory.
        BrokenSystemError: the store cannot be opened.
    """
    store, actor = open_store(Layout(root.absolute()))
    try:
        yield Lifecycle(store, time.time, actor)
    finally:
        store.close()


def require_root() -> None:
    """Refuse everybody else.

    Raises:
        RefusedError: the process is not root.
    """
    if os.geteuid() != 0:
        raise RefusedError("only root may do this", hint="Run the command with sudo.")


def open_store(layout: Layout) -> tuple[AdministratorsStore, Actor]:
    """Open a store as the service user, and return it with who acts.

    What is missing of its directories is made. Then real, effective and saved ids of the process
    are the service user's, other groups are gone, and there is no way back: files of ours are
    never touched as root.

    Raises:
        RefusedError: the process is not root, or there is no such root directory.
        BrokenSystemError: the store cannot be opened.
    """
    require_root()
    if not layout.root.is_dir():
        raise RefusedError(f"there is no directory {layout.root} to act under")
    actor = current_actor()
    make_directories(layout)
    drop_privileges()
    make_own_directories(layout)
    return open_administrators_store(layout), actor


def refuse_sms() -> RefusedError:
    """Return the error for whoever asks for SMS as a device."""
    return RefusedError(SMS_REASON, hint="Use a virtual MFA device: pam-mfa enable virtual USER")


def _find_resync(opened: OpenDevice, typed: tuple[str, str], now: float) -> code.Match | None:
    pair = (code.parse_answer(typed[0]), code.parse_answer(typed[1]))
    matches = code.find_pair(pair, (opened,), now) if all(pair) else ()
    return code.find_fresh(matches, {opened.device.serial_number: opened.state.step})


__all__ = [
    "Actor",
    "DeviceStatus",
    "DevicesChangedError",
    "Evidence",
    "KeyRefusedError",
    "KeyWish",
    "Lifecycle",
    "MfaSession",
    "PendingDevice",
    "PendingKey",
    "PendingSshKey",
    "SshKeyWish",
    "Standing",
    "TokenNotFreeError",
    "UserStatus",
    "current_actor",
    "open_lifecycle",
    "open_store",
    "refuse_sms",
    "serial_numbers",
]
