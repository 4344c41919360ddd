# SPDX-License-Identifier: Apache-2.0
"""Taking over security keys that are in use with pam_u2f.

The administrator vouches for them, so nothing is touched; the record of each device says where it
comes from. Each user may be taken again: whose a credential is and the record are durable before
the device file is written, so that an interrupted import is completed by running it again. What was
deactivated since an import stays so.
"""

import datetime
import enum
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pam_mfa.audit import DeviceField, Event, EventName, Outcome, Reason
from pam_mfa.devices import (
    DEVICES_MAX,
    Device,
    FidoDevice,
    count_devices,
    require_user,
    serial_number_of,
)
from pam_mfa.errors import BrokenSystemError, DocumentError, RefusedError, UnsafeFileError
from pam_mfa.importing.admission import begun_name, mark_of
from pam_mfa.importing.u2f_keys import EnrolledKey
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.store import AdministratorsStore, Change, Claim, Inventory, encode_user

_PROGRAM = "u2f"  # the devices' name


class Result(enum.StrEnum):
    """What becomes of a credential."""

    IMPORT = "import"
    PRESENT = "already there"
    LEFT_OUT = "left out"


class Row(NamedTuple):
    """What becomes of one credential of one user, for people to read."""

    user: str
    result: Result
    serial_number: str  # of the device here; "" where there is none
    kind: str
    note: str


class Origins(NamedTuple):
    """The relying parties that pam_u2f was set up with: its arguments origin and appid."""

    origin: str
    appid: str  # of credentials of the old format

    def of(self, key: EnrolledKey) -> str:
        """Return the relying party of a credential."""
        return self.appid if key.is_old else self.origin


class _Gain(NamedTuple):
    """A device that a user is to have."""

    device: FidoDevice
    fingerprint: str
    is_new: bool  # False: an interrupted import has noted whose it is
    source: str


class _Settlement(NamedTuple):
    """What becomes of one user."""

    rows: tuple[Row, ...] = ()
    gains: tuple[_Gain, ...] = ()


class KeyImporter:
    """Takes credentials of pam_u2f into one store."""

    def __init__(
        self, store: AdministratorsStore, clock: Callable[[], float], actor: Actor, origins: Origins
    ) -> None:
        """Take the store, the clock (seconds since the epoch), who acts, and the origins."""
        self._store = store
        self._files = store.documents
        self._clock = clock
        self._actor = actor
        self._origins = origins
        self._lifecycle = Lifecycle(store, clock, actor)

    def plan(self, credentials: Iterable[EnrolledKey]) -> list[Row]:
        """Return what ``carry_out`` would do; nothing is changed."""
        claimed: dict[str, str] = {}  # by fingerprint: the device that would have the credential
        rows: list[Row] = []
        for user, theirs in _by_user(credentials).items():
            settle = functools.partial(self._settle, user, theirs, self._read(user), claimed)
            settled = self._store.read_inventory(settle)
            claimed |= {gain.fingerprint: gain.device.serial_number for gain in settled.gains}
            rows += settled.rows
        return rows

    def carry_out(self, credentials: Iterable[EnrolledKey], source: str) -> list[Row]:
        """Take the credentials in and return what became of each; it may be run again.

        Raises:
            BrokenSystemError: not all could be stored; those that were stay.
        """
        self._store.require_log()  # nothing is done that could not be recorded
        rows: list[Row] = []
        for user, theirs in _by_user(credentials).items():
            rows += self._take_in(user, theirs)
        self._record(rows, source)
        return rows

    def _take_in(self, user: str, theirs: Sequence[EnrolledKey]) -> tuple[Row, ...]:
        settled: list[_Settlement] = []
        with self._files.lock():
            known = self._read(user)

            def settle(inventory: Inventory) -> None:
                settled.append(self._settle(user, theirs, known, {}, inventory))
                for gain in settled[0].gains:
                    if gain.is_new:
                        serial_number = gain.device.serial_number
                        inventory.add_fingerprint(gain.fingerprint, serial_number)
                        inventory.forget_use(serial_number, keep_step=False)

            claim = Claim(encode_user(user), (), lambda _: self._change(user, settled[0]), settle)
            self._store.commit([claim])
            gains = settled[0].gains
            if gains and not isinstance(known, str):
                try:
                    self._files.write(user, (*known, *(gain.device for gain in gains)))
                except BrokenSystemError as error:
                    error.hint += "\nThen run the import again: it goes on where it stopped."
                    raise
        return settled[0].rows

    def _settle(
        self,
        user: str,
        theirs: Sequence[EnrolledKey],
        known: tuple[Device, ...] | str,
        claimed: Mapping[str, str],
        inventory: Inventory,
    ) -> _Settlement:
        """Decide what becomes of one user's credentials, by the devices or why there are none."""
        desk = _Desk(inventory, user, known, claimed)
        for key in theirs:
            fingerprint = self._lifecycle.credential_fingerprint(key.credential_id)
            desk.settle(key, fingerprint, self._origins.of(key), self._clock())
        return _Settlement(tuple(desk.rows), tuple(desk.gains))

    def _read(self, user: str) -> tuple[Device, ...] | str:
        """Return a user's devices, or why the user cannot have any."""
        try:
            require_user(user)
            return self._files.read(user)
        except (RefusedError, UnsafeFileError, DocumentError) as error:
            return str(error)

    def _change(self, user: str, settlement: _Settlement) -> Change:
        """Return what is to be durable before a device file is written."""
        events, steps = [], {}
        for gain in settlement.gains:
            device = gain.device
            field = DeviceField(device.serial_number, device.type, device.name)
            event = self._event(EventName.ENABLE_MFA_DEVICE, f"imported from {gain.source}")
            events.append(event._replace(user=user, device=field))
            steps[mark_of(gain.fingerprint)] = 1
        return Change(accepted=True, events=tuple(events), used_steps=steps)

    def _record(self, rows: Sequence[Row], source: str) -> None:
        """Record the import as a whole."""
        count = sum(1 for row in rows if row.result is Result.IMPORT)
        event = self._event(EventName.IMPORT_DEVICES, f"{count} devices from pam_u2f, {source}")
        change = Change(accepted=True, events=(event,))
        self._store.commit([Claim("", (), lambda _: change)])

    def _event(self, name: EventName, detail: str) -> Event:
        return Event(
            name=name,
            outcome=Outcome.SUCCESS,
            reason=Reason.REQUESTED,
            at=self._clock(),
            caller_uid=self._actor.uid,
            caller_pid=self._actor.pid,
            login_uid=self._actor.login_uid,
            detail=detail,
        )


class _Desk:
    """Settles one user's credentials, inside one transaction of the caller's."""

    def __init__(
        self,
        inventory: Inventory,
        user: str,
        known: tuple[Device, ...] | str,
        claimed: Mapping[str, str],
    ) -> None:
        self.rows: list[Row] = []
        self.gains: list[_Gain] = []
        self._inventory = inventory
        self._user = user
        self._known = known
        self._claimed = claimed

    def settle(self, key: EnrolledKey, fingerprint: str, rp_id: str, now: float) -> None:
        """Decide what becomes of one credential."""
        kind = f"{key.algorithm.upper()}, {rp_id}"
        known = self._known
        if isinstance(known, str) or key.obstacle:
            self._leave_out(kind, known if isinstance(known, str) else key.obstacle)
            return
        owner = self._find_owner(fingerprint)
        devices: list[Device] = [*known, *(gain.device for gain in self.gains)]
        same = [
            one.serial_number
            for one in devices
            if isinstance(one, FidoDevice) and one.credential_id == key.credential_id
        ]
        if same:
            self.rows.append(Row(self._user, Result.PRESENT, same[0], kind, ""))
            return
        begun = begun_name("fido", self._user, owner)
        if obstacle := "" if begun else self._find_obstacle(fingerprint, owner):
            self._leave_out(kind, obstacle)
            return
        if count_devices(devices) >= DEVICES_MAX:
            self._leave_out(kind, f"a user has at most {DEVICES_MAX} devices")
            return
        name = begun or next(one for one in _names() if one not in {each.name for each in devices})
        device = FidoDevice(
            serial_number=serial_number_of("fido", self._user, name),
            name=name,
            enabled_at=datetime.datetime.fromtimestamp(int(now), datetime.UTC),
            credential_id=key.credential_id,
            public_key=key.public_key,
            rp_id=rp_id,
            aaguid="",
            user_verification="required" if key.must_verify_user else "",
        )
        source = f"pam_u2f, {key.source}"
        self.gains.append(_Gain(device, fingerprint, owner is None, source))
        note = "its PIN or fingerprint is asked for" if key.must_verify_user else ""
        self.rows.append(Row(self._user, Result.IMPORT, device.serial_number, kind, note))

    def _leave_out(self, kind: str, reason: str) -> None:
        self.rows.append(Row(self._user, Result.LEFT_OUT, "", kind, reason))

    def _find_obstacle(self, fingerprint: str, owner: str | None) -> str:
        if owner is not None:
            return f"the same credential is {owner} already; enable the key for {self._user} anew"
        if self._inventory.find_step(mark_of(fingerprint)) is not None:
            return (
                "it was imported before and deactivated since; whoever still has the key enables "
                f"it anew: pam-mfa enable fido {self._user}"
            )
        return ""

    def _find_owner(self, fingerprint: str) -> str | None:
        gained = {gain.fingerprint: gain.device.serial_number for gain in self.gains}
        return (
            gained.get(fingerprint)
            or self._claimed.get(fingerprint)
            or self._inventory.find_owner(fingerprint)
        )


def _by_user(credentials: Iterable[EnrolledKey]) -> dict[str, list[EnrolledKey]]:
    users: dict[str, list[EnrolledKey]] = {}
    for credential in credentials:
        users.setdefault(credential.user, []).append(credential)
    return users


def _names() -> Iterator[str]:
    yield _PROGRAM
    yield from (f"{_PROGRAM}-{number}" for number in range(2, DEVICES_MAX + 2))
