# SPDX-License-Identifier: Apache-2.0
"""The life of an MFA device: enable, list, deactivate, unlock. Also the public Python API.

Owns what may be done to a device and its record in the audit log; who may ask for it is for the
caller to settle.
"""

import datetime
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pam_mfa import lockout, oath
from pam_mfa.audit import DeviceField, Event, EventName, Outcome, Reason
from pam_mfa.devices import (
    DEVICES_MAX,
    Device,
    VirtualDevice,
    require_name,
    require_user,
    serial_number_of,
)
from pam_mfa.errors import RefusedError, StateError
from pam_mfa.factors.code import parse_answer
from pam_mfa.oath import SEED_BITS, Parameters
from pam_mfa.policy import SMS_REASON
from pam_mfa.secret import Secret
from pam_mfa.store.device_files import encode_user
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.state import Change, Claim, Known

ENABLE_WINDOW = 2  # time steps either side that the two codes may lie in
_NO_LOGIN_UID = 0xFFFFFFFF  # of /proc/self/loginuid: nobody has logged in


class PendingDevice(NamedTuple):
    """A device that is not enabled yet: its codes must come first."""

    user: str
    name: str
    parameters: Parameters
    seed: Secret

    def uri(self, issuer: str) -> str:
        """Return what the QR code holds; it is a secret."""
        return oath.provisioning_uri(self.seed, self.parameters, account=self.user, issuer=issuer)


class Actor(NamedTuple):
    """Who acts, for the record."""

    uid: int
    pid: int
    login_uid: int | None  # None: nobody has logged in above this process


class Standing(NamedTuple):
    """Whether a user is locked."""

    locked_until: datetime.datetime | None
    recent_failures: int


class Lifecycle:
    """What may be done to the devices of one store."""

    def __init__(self, store: EmbeddedStore, clock: Callable[[], float], actor: Actor) -> None:
        """Take the store, the clock (seconds since the epoch) and who acts."""
        self._store = store
        self._clock = clock
        self._actor = actor

    def users(self) -> list[str]:
        """Return the enrolled users."""
        return list(self._store.device_files.users())

    def list_devices(self, user: str) -> tuple[Device, ...]:
        """Return a user's devices, in the order they were enabled.

        Raises:
            RefusedError: the name cannot be an account's.
            BrokenSystemError: the device file cannot be read.
        """
        require_user(user)
        return self._store.device_files.read(user)

    def begin_virtual(
        self,
        user: str,
        name: str | None = None,
        *,
        seed: Secret | None = None,
        parameters: Parameters = Parameters(),  # noqa: B008 - immutable
    ) -> PendingDevice:
        """Prepare a virtual MFA device; a new seed is made unless one is given.

        Raises:
            RefusedError: the user has eight devices, or one of this name.
        """
        devices = self.list_devices(user)
        chosen = name or _free_name(devices)
        _require_room(user, chosen, devices)
        made = seed or Secret(os.urandom(SEED_BITS // 8))
        return PendingDevice(user, chosen, parameters, made)

    def enable(self, pending: PendingDevice, first: str, second: str) -> Device:
        """Enable a device by two consecutive codes, which then count as used.

        Raises:
            RefusedError: the codes are not two consecutive ones of this device and this time.
            BrokenSystemError: the device could not be stored.
        """
        step = self._find_pair(pending, first, second)
        files = self._store.device_files
        with files.lock():
            devices = files.read(pending.user)
            _require_room(pending.user, pending.name, devices)
            device = self._seal(pending)
            self._use_up(pending.user, device, step)
            files.write(pending.user, (*devices, device))
            try:
                self._record(EventName.ENABLE_MFA_DEVICE, pending.user, device)
            except StateError:  # no device without its record
                files.write(pending.user, devices)
                raise
            # An AuditError leaves the device: its record is durable in the outbox, and nobody
            # logs in before it is in the log.
        return device

    def deactivate(self, user: str, serial_number: str) -> Device:
        """Take a device from its user.

        Raises:
            RefusedError: the user has no such device.
        """
        require_user(user)
        files = self._store.device_files
        with files.lock():
            devices = files.read(user)
            found = next((one for one in devices if one.serial_number == serial_number), None)
            if found is None:
                raise RefusedError(
                    f"{user} has no device {serial_number}", hint=f"See: pam-mfa list {user}"
                )
            files.write(user, tuple(one for one in devices if one is not found))
            try:
                self._record(EventName.DEACTIVATE_MFA_DEVICE, user, found)
            except StateError:
                files.write(user, devices)
                raise
        return found

    def standing(self, user: str) -> Standing:
        """Return whether a user is locked, and how many wrong codes are counted."""
        known = self._look(user)
        locked = lockout.is_locked(known.lock, self._clock())
        until = datetime.datetime.fromtimestamp(known.lock.locked_until, datetime.UTC)
        return Standing(until if locked else None, len(known.lock.failures))

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

    def _find_pair(self, pending: PendingDevice, first: str, second: str) -> int:
        current = oath.time_step(self._clock(), pending.parameters.period)
        steps = range(max(0, current - ENABLE_WINDOW), current + ENABLE_WINDOW + 1)
        codes = oath.codes(pending.seed, pending.parameters, steps)
        typed = (parse_answer(first), parse_answer(second))
        for step, pair in zip(steps[1:], itertools.pairwise(codes), strict=True):
            if pair == typed:
                return step
        raise RefusedError(
            f"the two codes are not consecutive codes of the device {pending.name} "
            f"of {pending.user}; nothing was enabled",
            hint="Wait for a new code, type it, then type the one after it. If it fails again, "
            "compare this host's clock with the device's: date -u",
        )

    def _seal(self, pending: PendingDevice) -> Device:
        serial_number = serial_number_of("virtual", pending.user, pending.name)
        return VirtualDevice(
            serial_number=serial_number,
            name=pending.name,
            enabled_at=datetime.datetime.fromtimestamp(int(self._clock()), datetime.UTC),
            parameters=pending.parameters,
            sealed_seed=self._store.sealer.seal(pending.seed, pending.user, serial_number),
        )

    def _use_up(self, user: str, device: Device, step: int) -> None:
        change = Change(accepted=True, events=(), used_steps={device.serial_number: step})
        self._store.commit([Claim(encode_user(user), (), lambda _: change)])

    def _record(self, name: EventName, user: str, device: Device) -> None:
        change = Change(accepted=True, events=(self._event(name, user, device),))
        self._store.commit([Claim(encode_user(user), (), lambda _: change)])

    def _event(self, name: EventName, user: str, device: Device | None = None) -> Event:
        return Event(
            name=name,
            outcome=Outcome.SUCCESS,
            reason=Reason.REQUESTED,
            at=self._clock(),
            user=user,
            device=DeviceField(device.serial_number, device.type, device.name) if device else None,
            caller_uid=self._actor.uid,
            caller_pid=self._actor.pid,
            login_uid=self._actor.login_uid,
        )


def current_actor() -> Actor:
    """Return who runs this process; ask before rights are dropped."""
    try:
        login_uid = int(Path("/proc/self/loginuid").read_text("ascii"))
    except (OSError, ValueError):
        login_uid = _NO_LOGIN_UID
    known = None if login_uid == _NO_LOGIN_UID else login_uid
    return Actor(os.getuid(), os.getpid(), known)


def refuse_sms() -> RefusedError:
    """Return the error for whoever asks for SMS as a device."""
    return RefusedError(SMS_REASON, hint="Use a virtual MFA device: pam-mfa enable virtual USER")


def _free_name(devices: tuple[Device, ...]) -> str:
    taken = {device.name for device in devices}
    names = ["phone", *(f"phone-{number}" for number in range(2, DEVICES_MAX + 2))]
    return next(name for name in names if name not in taken)


def _require_room(user: str, name: str, devices: tuple[Device, ...]) -> None:
    require_name(name)
    if len(devices) >= DEVICES_MAX:
        raise RefusedError(
            f"{user} has {len(devices)} devices, the most that one user may have",
            hint=f"Deactivate one that is no longer used: pam-mfa list {user}",
        )
    if any(device.name == name for device in devices):
        raise RefusedError(
            f"{user} has a device named {name} already", hint="Choose another with --name."
        )
