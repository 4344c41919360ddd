# SPDX-License-Identifier: Apache-2.0
"""What became of users' devices: last use, drift, codes left, locks.

A part of ``lifecycle``, which is the public Python API. Reads only: nothing here changes a device
or leaves a record.
"""

import datetime
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pam_mfa import lockout
from pam_mfa.devices import Bypass, Device, RecoveryCodes, TokenDevice, VirtualDevice
from pam_mfa.enabling import Enabling
from pam_mfa.errors import DocumentError, SealError, UnsafeFileError
from pam_mfa.factors import paper
from pam_mfa.lockout import LockState
from pam_mfa.oath import SEED_BITS_MINIMUM
from pam_mfa.store import enrollment
from pam_mfa.store.enrollment import DeviceState
from pam_mfa.store.rows import rows_of
from pam_mfa.store.user_keys import encode_user

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


class Statuses(Enabling):
    """What became of the devices of one store."""

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

    def fleet_statuses(self) -> Iterator[UserStatus]:
        """Go through everybody who has devices in the store, by name; no seed is opened.

        The store is asked three questions, whatever number of users there are; what is known of
        devices' use is held in memory meanwhile.

        Raises:
            BrokenSystemError: the store cannot be read.
        """
        states, locks = self._store.read_inventory(
            lambda inventory: (rows_of(inventory).states(), rows_of(inventory).locks())
        )
        used, locked = dict(states), {row.user_key: row.lock for row in locks}
        for found in self._files.read_all():
            user, problem = found.entry
            lock = locked.get(encode_user(user), LockState())
            yield self._user_status((user, found.devices, problem), used, lock, are_opened=False)

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
