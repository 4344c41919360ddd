# SPDX-License-Identifier: Apache-2.0
"""Enabling MFA devices: applications and hardware tokens, and what enabling others has in common.

The first part of ``lifecycle``, the public Python API; ``paper_enabling`` adds recovery codes and
bypasses, ``key_enabling`` security keys.
Owns how a device comes to its user and its record in the audit log: nothing is enabled that could
not be recorded.
"""

import datetime
import functools
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pam_mfa import oath
from pam_mfa.actor import Actor
from pam_mfa.audit import DeviceField, Event, EventName, Outcome, Reason
from pam_mfa.devices import (
    DEVICES_MAX,
    CodeDevice,
    Device,
    TokenDevice,
    VirtualDevice,
    count_devices,
    require_name,
    require_user,
    serial_number_of,
)
from pam_mfa.errors import BrokenSystemError, RefusedError, StateError
from pam_mfa.factors import code
from pam_mfa.oath import SEED_BITS, Parameters
from pam_mfa.secret import Secret
from pam_mfa.store import (
    AdministratorsStore,
    Change,
    Claim,
    DeviceState,
    Inventory,
    OpenDevice,
    encode_user,
)

ENABLE_WINDOW = 2  # time steps either side that a virtual device's two codes may lie in


class TokenNotFreeError(RefusedError):
    """There is no such token, or somebody has it; which, is for administrators to know."""


class DevicesChangedError(RefusedError):
    """A user's devices are not those any more that the user was verified with."""


class KeyRefusedError(RefusedError):
    """What a key answered or signed was refused; that is recorded."""


class PendingDevice(NamedTuple):
    """A device that is not enabled yet: its two codes must come first."""

    user: str
    name: str
    parameters: Parameters
    seed: Secret
    token: str = ""  # the serial number of a hardware token; "": a virtual device
    counter: int = 0  # the next one of an event-based token
    beside: frozenset[str] | None = None  # serial numbers that its user must still have; no others

    def uri(self, issuer: str) -> str:
        """Return what the QR code holds; it is a secret."""
        return oath.provisioning_uri(self.seed, self.parameters, account=self.user, issuer=issuer)


class Enabling:
    """How devices come to the users of one store."""

    def __init__(
        self, store: AdministratorsStore, clock: Callable[[], float], actor: Actor
    ) -> None:
        """Take the store, the clock (seconds since the epoch) and who acts."""
        self._store = store
        self._files = store.documents
        self._clock = clock
        self._actor = actor

    def list_devices(self, user: str) -> tuple[Device, ...]:
        """Return a user's devices, in the order they were enabled.

        Raises:
            RefusedError: the name cannot be an account's.
            BrokenSystemError: the device file cannot be read.
        """
        require_user(user)
        return self._files.read(user)

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
        chosen = name or free_name("phone", devices)
        require_room(user, chosen, devices)
        made = seed or Secret(os.urandom(SEED_BITS // 8))
        return PendingDevice(user, chosen, parameters, made)

    def begin_token(self, user: str, serial_number: str, name: str | None = None) -> PendingDevice:
        """Prepare a hardware token of the inventory for a user.

        Raises:
            RefusedError: there is no such token, somebody has it, or the user has no room.
        """
        devices = self.list_devices(user)
        chosen = name or free_name("token", devices)
        require_room(user, chosen, devices)
        token = self._store.read_inventory(lambda db: db.find_token(serial_number))
        if token is None:
            raise TokenNotFreeError(
                f"there is no token {serial_number} in the inventory",
                hint="See: pam-mfa token list; bring it in with: pam-mfa token import FILE",
            )
        if token.user is not None:
            raise TokenNotFreeError(
                f"the token {serial_number} belongs to {token.user}",
                hint=f"Take it back first: pam-mfa deactivate {token.user} {serial_number}",
            )
        seed = self._store.sealer.open(token.sealed_seed, "", serial_number)
        return PendingDevice(user, chosen, token.parameters, seed, serial_number, token.counter)

    def enable(self, pending: PendingDevice, first: str, second: str) -> CodeDevice:
        """Enable a device by two consecutive codes, which then count as used.

        Raises:
            RefusedError: the codes are not two consecutive ones of this device and this time, or
                the seed is another device's.
            DevicesChangedError: the user's devices are not those of ``pending.beside``.
            BrokenSystemError: the device could not be stored.
        """
        device = self._make_device(pending)
        match = self._find_pair(pending, device, (first, second))
        event = self._event(EventName.ENABLE_MFA_DEVICE, pending.user, device)
        event = event._replace(used_step=match.step)
        take = functools.partial(self._take, pending, device, match)
        self._add(pending.user, device, take, event, pending.beside)
        return device

    def _add(
        self,
        user: str,
        device: Device,
        take: Callable[[], None],
        event: Event,
        beside: frozenset[str] | None,
    ) -> None:
        """Store a new device: what it takes in the state, then its file, then its record."""
        self._store.require_log()  # nothing is done that could not be recorded
        with self._files.lock():
            devices = self._files.read(user)
            require_unchanged(user, beside, devices)
            require_room(user, device.name, devices)
            device = self._seal_anew(user, device)
            take()
            try:
                self._files.write(user, (*devices, device))
            except BrokenSystemError:
                self._release((device,), ())
                raise
            try:
                self._record(user, event)
            except StateError:  # no device without its record
                self._files.write(user, devices)
                raise
            # An AuditError leaves the device: its record is durable in the outbox, and nobody
            # logs in before it is in the log.

    def _seal_anew(self, user: str, device: Device) -> Device:
        """Have a device sealed by the key that seals now: under the lock that rotations take.

        One that an old key sealed while its codes were typed would be lost with that key.
        """
        if not isinstance(device, CodeDevice):
            return device
        sealed = self._store.sealer.seal_anew(device.sealed_seed, user, device.serial_number)
        return device._replace(sealed_seed=sealed)

    def _find_pair(
        self, pending: PendingDevice, device: CodeDevice, typed: tuple[str, str]
    ) -> code.Match:
        """Find the two codes: near now for an application, a day around for a token's clock."""
        # What a token's codes were used for before, by whomever, they are not good for again.
        serial_number = device.serial_number
        known = self._store.read_devices([serial_number]).get(serial_number, DeviceState())
        used = max(known.step, pending.counter - 1)
        steps = code.resync_steps(
            OpenDevice(device, pending.seed, DeviceState(step=used)), self._clock()
        )
        if not pending.token and not pending.parameters.is_event_based:
            current = oath.time_step(self._clock(), pending.parameters.period)
            steps = range(max(0, current - ENABLE_WINDOW), current + ENABLE_WINDOW + 1)
        pair = (code.parse_answer(typed[0]), code.parse_answer(typed[1]))
        step = oath.find_pair(pending.seed, pending.parameters, pair, steps) if all(pair) else None
        if step is None or step <= used:
            raise RefusedError(
                f"the two codes are not consecutive codes of the device {pending.name} "
                f"of {pending.user}; nothing was enabled",
                hint="Wait for a new code, type it, then type the one after it. If it fails "
                "again, compare this host's clock with the device's: date -u",
            )
        if pending.parameters.is_event_based or not pending.token:
            return code.Match(device, step, device.serial_number)
        drift = step - oath.time_step(self._clock(), pending.parameters.period)
        return code.Match(device, step, device.serial_number, drift)

    def _make_device(self, pending: PendingDevice) -> CodeDevice:
        kind = TokenDevice if pending.token else VirtualDevice
        serial_number = pending.token or serial_number_of("virtual", pending.user, pending.name)
        return kind(
            serial_number=serial_number,
            name=pending.name,
            enabled_at=self._now(),
            parameters=pending.parameters,
            sealed_seed=self._store.sealer.seal(pending.seed, pending.user, serial_number),
        )

    def _take(self, pending: PendingDevice, device: CodeDevice, match: code.Match) -> None:
        """Use the two codes up and make the seed this device's alone, in one transaction."""
        fingerprint = self._store.sealer.fingerprint(pending.seed)

        def take(inventory: Inventory) -> None:
            owner = inventory.find_owner(fingerprint)
            if owner not in (None, device.serial_number if pending.token else None):
                raise RefusedError(
                    "this secret is another device's already, so it cannot tell who logs in",
                    hint="Let the command make a secret: leave --secret out.",
                )
            if owner is None:
                inventory.add_fingerprint(fingerprint, device.serial_number)
            if pending.token:
                self._assign(inventory, pending)

        self._commit_match(pending.user, match, None, take)

    @staticmethod
    def _assign(inventory: Inventory, pending: PendingDevice) -> None:
        token = inventory.find_token(pending.token)
        if token is None or token.user is not None:
            raise RefusedError(f"the token {pending.token} was given to somebody else meanwhile")
        inventory.assign_token(pending.token, pending.user)

    def _release(self, devices: tuple[Device, ...], events: tuple[Event, ...]) -> None:
        """Give seeds free: a token goes back, an application's seed is forgotten."""

        def release(inventory: Inventory) -> None:
            for device in devices:
                is_token = isinstance(device, TokenDevice)
                if is_token:
                    inventory.assign_token(device.serial_number, None)
                else:
                    inventory.drop_fingerprints(device.serial_number)
                inventory.forget_use(device.serial_number, keep_step=is_token)

        change = Change(accepted=True, events=events)
        self._store.commit([Claim("", (), lambda _: change, release)])

    def _commit_match(
        self,
        user: str,
        match: code.Match,
        event: Event | None,
        take: Callable[[Inventory], None] | None = None,
    ) -> None:
        change = Change(
            accepted=True,
            events=(event,) if event else (),
            used_steps={match.key: match.step},
            drifts={} if match.drift is None else {match.key: match.drift},
        )
        self._store.commit([Claim(encode_user(user), (), lambda _: change, take)])

    def _now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(int(self._clock()), datetime.UTC)

    def _record(self, user: str, event: Event) -> None:
        key = encode_user(user)

        def end_sessions(inventory: Inventory) -> None:
            inventory.end_sessions(key)

        change = Change(accepted=True, events=(event,))
        # Whoever needs a bypass has lost a device, and perhaps to somebody.
        then = end_sessions if event.name is EventName.ISSUE_BYPASS else None
        self._store.commit([Claim(key, (), lambda _: change, then)])

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

    def _record_unproven(self, user: str, detail: str) -> None:
        """Record that what was shown for a key does not prove it."""
        event = self._event(EventName.ENABLE_MFA_DEVICE, user)
        self._record(
            user,
            event._replace(
                outcome=Outcome.DENIED, reason=Reason.UNPROVEN_REGISTRATION, detail=detail
            ),
        )

    def _replace(
        self,
        name: EventName,
        user: str,
        before_after: tuple[tuple[Device, ...], tuple[Device, ...]],
        device: Device,
    ) -> None:
        before, after = before_after
        self._files.write(user, after)
        try:
            self._record(user, self._event(name, user, device))
        except StateError:  # no device without its record
            self._files.write(user, before)
            raise


def free_name(stem: str, devices: tuple[Device, ...]) -> str:
    """Return a name that no device has: the stem, or the stem and a number."""
    taken = {device.name for device in devices}
    names = [stem, *(f"{stem}-{number}" for number in range(2, DEVICES_MAX + 2))]
    return next(name for name in names if name not in taken)


def serial_numbers(devices: Iterable[Device]) -> frozenset[str]:
    """Return which devices these are."""
    return frozenset(device.serial_number for device in devices)


def require_unchanged(
    user: str, beside: frozenset[str] | None, devices: tuple[Device, ...]
) -> None:
    """Refuse what was begun with other devices than the user has now; None: whatever they are.

    Whoever began with a stolen password when there was no device must not go on beside the
    user's first one; nor with a stolen device that was taken away meanwhile.

    Raises:
        DevicesChangedError: they are others.
    """
    if beside is not None and beside != serial_numbers(devices):
        raise DevicesChangedError(
            f"the devices of {user} were changed meanwhile; nothing was enabled",
            hint="Run the command again.",
        )


def require_room(user: str, name: str, devices: tuple[Device, ...]) -> None:
    """Refuse a device more than a user may have, or one of a name that is taken.

    Raises:
        RefusedError: the user has eight devices, or one of this name; or it cannot be a name.
    """
    require_name(name)
    if count_devices(devices) >= DEVICES_MAX:
        raise RefusedError(
            f"{user} has {count_devices(devices)} devices, the most that one user may have",
            hint=f"Deactivate one that is no longer used: pam-mfa list {user}",
        )
    if any(device.name == name for device in devices):
        raise RefusedError(
            f"{user} has a device named {name} already", hint="Choose another with --name."
        )
