# SPDX-License-Identifier: Apache-2.0
"""The life of an MFA device: enable, list, resync, deactivate, replace when lost.

The public Python API: the command line is a thin layer over it. Owns what may be done to a
device once it is enabled, and its record in the audit log; who may ask for it is for the caller to
settle. How a device is enabled, ``enabling`` owns.
"""

import datetime
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
    Enabling,
    PendingDevice,
    TokenNotFreeError,
    current_actor,
    serial_numbers,
)
from pam_mfa.errors import RefusedError, StateError
from pam_mfa.factors import code, paper
from pam_mfa.policy import SMS_REASON
from pam_mfa.store.device_files import encode_user
from pam_mfa.store.enrollment import DeviceState, OpenDevice
from pam_mfa.store.state import Change, Claim, Known


class Standing(NamedTuple):
    """Whether a user is locked."""

    locked_until: datetime.datetime | None
    recent_failures: int


class DeviceStatus(NamedTuple):
    """A device and what became of it."""

    device: Device
    last_used_at: datetime.datetime | None
    drift: int  # time steps that its clock is ahead
    codes_left: int | None  # of recovery codes


class Lifecycle(Enabling):
    """What may be done to the devices of one store."""

    def users(self) -> list[str]:
        """Return the users that have a device file."""
        return list(self._files.users())

    def resync(self, user: str, serial_number: str, first: str, second: str) -> DeviceStatus:
        """Move a device's time drift or counter to two consecutive codes, which are then used.

        Raises:
            RefusedError: there is no such device, or these are not its codes of late.
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
        return self._status(device)

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
        """Return whether a user is locked, and how many wrong codes are counted."""
        known = self._look(user)
        locked = lockout.is_locked(known.lock, self._clock())
        until = datetime.datetime.fromtimestamp(known.lock.locked_until, datetime.UTC)
        return Standing(until if locked else None, len(known.lock.failures))

    def device_statuses(self, user: str) -> list[DeviceStatus]:
        """Return a user's devices with what became of them."""
        return [self._status(device) for device in self.list_devices(user)]

    def unlock(self, user: str) -> bool:
        """End a user's lock and forget the wrong codes; return whether there were any."""
        require_user(user)
        had = self._look(user).lock != lockout.LockState()
        event = self._event(EventName.UNLOCK_USER, user)
        change = Change(accepted=True, events=(event,), lock=lockout.LockState())
        self._store.commit([Claim(encode_user(user), (), lambda _: change)])
        return had

    def _look(self, user: str) -> Known:
        seen: list[Known] = []

        def judge(known: Known) -> Change:
            seen.append(known)
            return Change(accepted=False, events=())

        self._store.commit([Claim(encode_user(user), (), judge)])
        return seen[0]

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

    def _status(self, device: Device) -> DeviceStatus:
        if not isinstance(device, RecoveryCodes | Bypass):
            serial_number = device.serial_number
            state = self._store.read_devices([serial_number]).get(serial_number, DeviceState())
            return DeviceStatus(device, _moment(state.last_used_at), state.drift, None)
        keys = paper.used_keys(device)
        used = self._store.read_devices(keys)
        last = max((state.last_used_at for state in used.values()), default=0.0)
        return DeviceStatus(device, _moment(last), 0, len(keys) - len(used))


def refuse_sms() -> RefusedError:
    """Return the error for whoever asks for SMS as a device."""
    return RefusedError(SMS_REASON, hint="Use a virtual MFA device: pam-mfa enable virtual USER")


def _find_resync(opened: OpenDevice, typed: tuple[str, str], now: float) -> code.Match | None:
    pair = (code.parse_answer(typed[0]), code.parse_answer(typed[1]))
    matches = code.find_pair(pair, (opened,), now) if all(pair) else ()
    return code.find_fresh(matches, {opened.device.serial_number: opened.state.step})


def _moment(at: float) -> datetime.datetime | None:
    return datetime.datetime.fromtimestamp(at, datetime.UTC) if at else None


__all__ = [
    "Actor",
    "DeviceStatus",
    "DevicesChangedError",
    "Lifecycle",
    "PendingDevice",
    "Standing",
    "TokenNotFreeError",
    "current_actor",
    "refuse_sms",
    "serial_numbers",
]
