# SPDX-License-Identifier: Apache-2.0
"""The life of an MFA device: enable, list, resync, deactivate, replace when lost.

The public Python API: the command line is a thin layer over it. Owns what may be done to a
device and its record in the audit log; who may ask for it is for the caller to settle.
"""

import datetime
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pam_mfa import lockout, oath
from pam_mfa.audit import DeviceField, Event, EventName, Outcome, Reason
from pam_mfa.devices import (
    DEVICES_MAX,
    Bypass,
    CodeDevice,
    Device,
    RecoveryCodes,
    TokenDevice,
    VirtualDevice,
    count_devices,
    require_name,
    require_user,
    serial_number_of,
)
from pam_mfa.errors import BrokenSystemError, RefusedError, StateError
from pam_mfa.factors import code, paper
from pam_mfa.oath import SEED_BITS, Parameters
from pam_mfa.policy import SMS_REASON
from pam_mfa.secret import Secret
from pam_mfa.store import inventory
from pam_mfa.store.device_files import encode_user
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.enrollment import DeviceState, OpenDevice
from pam_mfa.store.state import Change, Claim, Known

ENABLE_WINDOW = 2  # time steps either side that a virtual device's two codes may lie in
BYPASS_LONGEST = 7 * 86400.0  # seconds
_NO_LOGIN_UID = 0xFFFFFFFF  # of /proc/self/loginuid: nobody has logged in


class PendingDevice(NamedTuple):
    """A device that is not enabled yet: its two codes must come first."""

    user: str
    name: str
    parameters: Parameters
    seed: Secret
    token: str = ""  # the serial number of a hardware token; "": a virtual device
    counter: int = 0  # the next one of an event-based token

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


class DeviceStatus(NamedTuple):
    """A device and what became of it."""

    device: Device
    last_used_at: datetime.datetime | None
    drift: int  # time steps that its clock is ahead
    codes_left: int | None  # of recovery codes


class Lifecycle:
    """What may be done to the devices of one store."""

    def __init__(self, store: EmbeddedStore, clock: Callable[[], float], actor: Actor) -> None:
        """Take the store, the clock (seconds since the epoch) and who acts."""
        self._store = store
        self._files = store.device_files
        self._clock = clock
        self._actor = actor

    def users(self) -> list[str]:
        """Return the users that have a device file."""
        return list(self._files.users())

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
        chosen = name or _free_name("phone", devices)
        _require_room(user, chosen, devices)
        made = seed or Secret(os.urandom(SEED_BITS // 8))
        return PendingDevice(user, chosen, parameters, made)

    def begin_token(self, user: str, serial_number: str, name: str | None = None) -> PendingDevice:
        """Prepare a hardware token of the inventory for a user.

        Raises:
            RefusedError: there is no such token, somebody has it, or the user has no room.
        """
        devices = self.list_devices(user)
        chosen = name or _free_name("token", devices)
        _require_room(user, chosen, devices)
        token = self._store.read_inventory(lambda db: inventory.find_token(db, serial_number))
        if token is None:
            raise RefusedError(
                f"there is no token {serial_number} in the inventory",
                hint="See: pam-mfa token list; bring it in with: pam-mfa token import FILE",
            )
        if token.user is not None:
            raise RefusedError(
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
            BrokenSystemError: the device could not be stored.
        """
        device = self._make_device(pending)
        match = self._find_pair(pending, device, (first, second))
        self._store.require_log()  # nothing is done that could not be recorded
        with self._files.lock():
            devices = self._files.read(pending.user)
            _require_room(pending.user, pending.name, devices)
            self._take(pending, device, match)
            try:
                self._files.write(pending.user, (*devices, device))
            except BrokenSystemError:
                self._release((device,), ())
                raise
            try:
                self._record(EventName.ENABLE_MFA_DEVICE, pending.user, device)
            except StateError:  # no device without its record
                self._files.write(pending.user, devices)
                raise
            # An AuditError leaves the device: its record is durable in the outbox, and nobody
            # logs in before it is in the log.
        return device

    def enable_recovery(self, user: str) -> list[str]:
        """Make a new set of recovery codes in the place of an old one, and return them once.

        Raises:
            RefusedError: the user has eight devices.
            BrokenSystemError: the set could not be stored; the old one stands.
        """
        require_user(user)
        codes = [paper.make_code(os.urandom(paper.CODE_BYTES)) for _ in range(paper.SET_SIZE)]
        now = self._now()
        serial_number = serial_number_of("recovery", user, now.strftime("%Y%m%dT%H%M%SZ"))
        serial_number += f"-{os.urandom(2).hex()}"
        hashes = self._hash_codes(codes, user, serial_number)
        made = RecoveryCodes(serial_number, "recovery", now, hashes)
        self._store.require_log()  # nothing is done that could not be recorded
        with self._files.lock():
            devices = self._files.read(user)
            others = tuple(one for one in devices if not isinstance(one, RecoveryCodes))
            _require_room(user, made.name, others)
            self._replace(EventName.ENABLE_MFA_DEVICE, user, (devices, (*others, made)), made)
        return codes

    def issue_bypass(self, user: str, seconds: float) -> str:
        """Return a code that lets a user in once, within so many seconds; it ends an older one.

        Raises:
            RefusedError: the time is not between a minute and a week.
        """
        require_user(user)
        if not 60 <= seconds <= BYPASS_LONGEST:  # noqa: PLR2004 - a minute
            raise RefusedError("a bypass lasts from one minute to seven days", hint="Try --for 1h")
        made, now = paper.make_code(os.urandom(paper.CODE_BYTES)), self._now()
        serial_number = serial_number_of("bypass", user, os.urandom(4).hex())
        expires_at = now + datetime.timedelta(seconds=seconds)
        hashes = self._hash_codes([made], user, serial_number)
        bypass = Bypass(serial_number, "bypass", now, expires_at, hashes)
        self._store.require_log()  # nothing is done that could not be recorded
        with self._files.lock():
            devices = self._files.read(user)
            others = tuple(one for one in devices if not isinstance(one, Bypass))
            self._replace(EventName.ISSUE_BYPASS, user, (devices, (*others, bypass)), bypass)
        return made

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
        if not pending.token:
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

        def take(connection: sqlite3.Connection) -> None:
            owner = inventory.find_owner(connection, fingerprint)
            if owner not in (None, device.serial_number if pending.token else None):
                raise RefusedError(
                    "this secret is another device's already, so it cannot tell who logs in",
                    hint="Let the command make a secret: leave --secret out.",
                )
            if owner is None:
                inventory.add_fingerprint(connection, fingerprint, device.serial_number)
            if pending.token:
                self._assign(connection, pending)

        self._commit_match(pending.user, match, None, take)

    @staticmethod
    def _assign(connection: sqlite3.Connection, pending: PendingDevice) -> None:
        token = inventory.find_token(connection, pending.token)
        if token is None or token.user is not None:
            raise RefusedError(f"the token {pending.token} was given to somebody else meanwhile")
        inventory.assign_token(connection, pending.token, pending.user)

    def _release(self, devices: tuple[Device, ...], events: tuple[Event, ...]) -> None:
        """Give seeds free: a token goes back, an application's seed is forgotten."""

        def release(connection: sqlite3.Connection) -> None:
            for device in devices:
                if isinstance(device, TokenDevice):
                    inventory.assign_token(connection, device.serial_number, None)
                else:
                    inventory.drop_fingerprints(connection, device.serial_number)

        change = Change(accepted=True, events=events)
        self._store.commit([Claim("", (), lambda _: change, release)])

    def _commit_match(
        self,
        user: str,
        match: code.Match,
        event: Event | None,
        take: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        change = Change(
            accepted=True,
            events=(event,) if event else (),
            used_steps={match.key: match.step},
            drifts={} if match.drift is None else {match.key: match.drift},
        )
        self._store.commit([Claim(encode_user(user), (), lambda _: change, take)])

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
            self._record(name, user, device)
        except StateError:  # no device without its record
            self._files.write(user, before)
            raise

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
        if isinstance(device, VirtualDevice | TokenDevice):
            serial_number = device.serial_number
            state = self._store.read_devices([serial_number]).get(serial_number, DeviceState())
            return DeviceStatus(device, _moment(state.last_used_at), state.drift, None)
        keys = paper.used_keys(device)
        used = self._store.read_devices(keys)
        last = max((state.last_used_at for state in used.values()), default=0.0)
        return DeviceStatus(device, _moment(last), 0, len(keys) - len(used))

    def _hash_codes(self, codes: list[str], user: str, serial_number: str) -> tuple[str, ...]:
        plain = [paper.parse_answer(one) for one in codes]
        return tuple(self._store.code_hash(one, user, serial_number) for one in plain)

    def _now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(int(self._clock()), datetime.UTC)

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


def _find_resync(opened: OpenDevice, typed: tuple[str, str], now: float) -> code.Match | None:
    pair = (code.parse_answer(typed[0]), code.parse_answer(typed[1]))
    matches = code.find_pair(pair, (opened,), now) if all(pair) else ()
    return code.find_fresh(matches, {opened.device.serial_number: opened.state.step})


def _moment(at: float) -> datetime.datetime | None:
    return datetime.datetime.fromtimestamp(at, datetime.UTC) if at else None


def _free_name(stem: str, devices: tuple[Device, ...]) -> str:
    taken = {device.name for device in devices}
    names = [stem, *(f"{stem}-{number}" for number in range(2, DEVICES_MAX + 2))]
    return next(name for name in names if name not in taken)


def _require_room(user: str, name: str, devices: tuple[Device, ...]) -> None:
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
