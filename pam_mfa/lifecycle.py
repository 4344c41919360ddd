# SPDX-License-Identifier: Apache-2.0
"""The life of an MFA device: enable, list, resync, deactivate, replace when lost.

This is the public Python API; the command line is a thin layer over it. ``open_lifecycle`` opens
the devices of a host, and everything else is a method of the ``Lifecycle`` that it gives:

==================================================== ==================================
``begin_virtual``, ``begin_token``, then ``enable``  a device, by two consecutive codes
``begin_fido``, ``accept_registration``,             a security key, by two touches
``enable_fido``
``enable_recovery``, ``issue_bypass``                codes on paper, returned this once
``users``, ``list_devices``, ``enrolled_keys``       who has what
``device_statuses``, ``user_statuses``, ``standing`` last use, drift, codes left, locks
``resync``                                           move a device's drift or counter
``deactivate``, ``deactivate_all``                   take devices away
``unlock``                                           end a lock
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
enabled, ``enabling``, ``paper_enabling`` and ``key_enabling`` own.
"""

import contextlib
import datetime
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pam_mfa import lockout
from pam_mfa.audit import EventName
from pam_mfa.devices import (
    Bypass,
    Device,
    RecoveryCodes,
    TokenDevice,
    VirtualDevice,
    count_devices,
    require_user,
)
from pam_mfa.enabling import (
    Actor,
    DevicesChangedError,
    PendingDevice,
    TokenNotFreeError,
    current_actor,
    serial_numbers,
)
from pam_mfa.errors import DocumentError, RefusedError, SealError, StateError, UnsafeFileError
from pam_mfa.factors import code, paper
from pam_mfa.key_enabling import KeyEnabling, KeyWish, PendingKey
from pam_mfa.lockout import LockState
from pam_mfa.oath import SEED_BITS_MINIMUM
from pam_mfa.paper_enabling import PaperEnabling
from pam_mfa.policy import SMS_REASON
from pam_mfa.ssh_key_enabling import SshKeyEnabling
from pam_mfa.store import enrollment
from pam_mfa.store.device_files import Entry, encode_user
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.enrollment import DeviceState, OpenDevice
from pam_mfa.store.layout import Layout, drop_privileges, make_directories, make_own_directories
from pam_mfa.store.state import Change, Claim

_BATCH = 500  # users whose state is read by one query


class Standing(NamedTuple):
    """Whether a user is locked."""

    locked_until: datetime.datetime | None  # UTC
    recent_failures: int  # wrong codes that count towards a lock


class DeviceStatus(NamedTuple):
    """A device and what became of it."""

    device: Device
    last_used_at: datetime.datetime | None  # UTC; None: never
    drift: int  # time steps that its clock is ahead
    codes_left: int | None  # of codes on paper; None: it makes its codes
    is_weak: bool = False  # its seed is shorter than NIST SP 800-63B asks for
    problem: str = ""  # why it cannot be used; its seed does not open


class UserStatus(NamedTuple):
    """A user's devices, and whether they can be used."""

    user: str
    standing: enrollment.Standing
    devices: tuple[DeviceStatus, ...]  # in the order they were enabled
    locked_until: datetime.datetime | None  # UTC
    recent_failures: int
    problem: str = ""  # why the device file cannot be read


class Lifecycle(PaperEnabling, KeyEnabling, SshKeyEnabling):
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
        self._commit_match(user, match, self._event(EventName.RESYNC_MFA_DEVICE, user, device))
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

    def standing(self, user: str) -> Standing:
        """Return whether a user is locked, and how many wrong codes are counted.

        Raises:
            StateError: the state cannot be read.
        """
        lock = self._store.read_locks([user]).get(user, LockState())
        return self._lock_standing(lock)

    def device_statuses(self, user: str) -> list[DeviceStatus]:
        """Return a user's devices with what became of them, in the order they were enabled.

        Raises:
            RefusedError: the name cannot be an account's.
            BrokenSystemError: the device file or the state cannot be read.
        """
        devices = self.list_devices(user)
        states = self._store.read_devices(_keys_of(devices))
        return [self._status(device, states) for device in devices]

    def user_statuses(
        self, users: Iterable[str], *, are_opened: bool = True
    ) -> Iterator[UserStatus]:
        """Go through users with their devices and locks, in the order given.

        A device file that cannot be read is told in ``problem``, and ends nothing. Memory does not
        grow with the number of users.

        Args:
            users: names, whether they have devices or not.
            are_opened: try whether each device's seed opens; else no seed is touched.

        Raises:
            StateError: the state cannot be read.
        """
        names = iter(users)
        while batch := list(itertools.islice(names, _BATCH)):
            found = {user: self._read(user) for user in batch}
            devices = [device for each, _ in found.values() for device in each]
            states = self._store.read_devices(_keys_of(devices))
            locks = self._store.read_locks(batch)
            for user in batch:
                yield self._user_status(
                    (user, *found[user]), states, locks.get(user, LockState()), are_opened
                )

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

    def _read(self, user: str) -> tuple[tuple[Device, ...], str]:
        """Return a user's devices as a login finds them, or why they cannot be read."""
        try:
            return self._files.read(user), ""
        except (UnsafeFileError, DocumentError) as error:
            return (), str(error)

    def _user_status(
        self,
        found: tuple[str, tuple[Device, ...], str],
        states: dict[str, DeviceState],
        lock: LockState,
        are_opened: bool,  # noqa: FBT001 - private
    ) -> UserStatus:
        user, devices, problem = found
        statuses = tuple(self._status(device, states) for device in devices)
        if are_opened:
            statuses = tuple(self._try_to_open(user, status) for status in statuses)
        standing = enrollment.standing_of(devices, [one for one in statuses if not one.problem])
        if problem:
            standing = enrollment.Standing.UNREADABLE
        return UserStatus(user, standing, statuses, *self._lock_standing(lock), problem)

    def _try_to_open(self, user: str, status: DeviceStatus) -> DeviceStatus:
        device = status.device
        if isinstance(device, VirtualDevice | TokenDevice):
            try:
                self._store.sealer.open(device.sealed_seed, user, device.serial_number)
            except SealError as error:
                return status._replace(problem=str(error))
        return status

    def _lock_standing(self, lock: LockState) -> Standing:
        locked = lockout.is_locked(lock, self._clock())
        until = datetime.datetime.fromtimestamp(lock.locked_until, datetime.UTC)
        return Standing(until if locked else None, len(lock.failures))

    def _status(self, device: Device, states: dict[str, DeviceState]) -> DeviceStatus:
        if isinstance(device, RecoveryCodes | Bypass):
            used = [states[key] for key in paper.used_keys(device) if key in states]
            last = max((state.last_used_at for state in used), default=0.0)
            return DeviceStatus(device, _moment(last), 0, len(device.hashes) - len(used))
        state = states.get(device.serial_number, DeviceState())
        is_weak = isinstance(device, VirtualDevice | TokenDevice) and (
            0 < self._store.sealer.sealed_bits(device.sealed_seed) < SEED_BITS_MINIMUM
        )
        return DeviceStatus(device, _moment(state.last_used_at), state.drift, None, is_weak)


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


def open_store(layout: Layout) -> tuple[EmbeddedStore, Actor]:
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
    return EmbeddedStore(layout), actor


def refuse_sms() -> RefusedError:
    """Return the error for whoever asks for SMS as a device."""
    return RefusedError(SMS_REASON, hint="Use a virtual MFA device: pam-mfa enable virtual USER")


def _find_resync(opened: OpenDevice, typed: tuple[str, str], now: float) -> code.Match | None:
    pair = (code.parse_answer(typed[0]), code.parse_answer(typed[1]))
    matches = code.find_pair(pair, (opened,), now) if all(pair) else ()
    return code.find_fresh(matches, {opened.device.serial_number: opened.state.step})


def _keys_of(devices: Iterable[Device]) -> list[str]:
    """Return the keys under which the state knows devices and codes on paper."""
    keys: list[str] = []
    for device in devices:
        if isinstance(device, RecoveryCodes | Bypass):
            keys += paper.used_keys(device)
        else:
            keys.append(device.serial_number)
    return keys


def _moment(at: float) -> datetime.datetime | None:
    return datetime.datetime.fromtimestamp(at, datetime.UTC) if at else None


__all__ = [
    "Actor",
    "DeviceStatus",
    "DevicesChangedError",
    "KeyWish",
    "Lifecycle",
    "PendingDevice",
    "PendingKey",
    "Standing",
    "TokenNotFreeError",
    "UserStatus",
    "current_actor",
    "open_lifecycle",
    "open_store",
    "refuse_sms",
    "serial_numbers",
]
