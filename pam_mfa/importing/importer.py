# SPDX-License-Identifier: Apache-2.0
"""Taking over credentials that are in use with another program.

The administrator vouches for them, so no codes are asked for; the record of each device says where
it comes from. Users are taken in batches, and every batch may be taken again: a seed's fingerprint,
its used step and the record are durable before the device file is written, so that an interrupted
import is completed by running it again, and never leaves a device without them.
"""

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pam_mfa.actor import Actor
from pam_mfa.audit import DeviceField, Event, EventName, Outcome, Reason
from pam_mfa.devices import Device, RecoveryCodes, VirtualDevice, require_user
from pam_mfa.errors import BrokenSystemError, DocumentError, RefusedError, UnsafeFileError
from pam_mfa.importing.admission import Admission, Result, Row, Rules, Settlement, mark_of
from pam_mfa.importing.credentials import Credential
from pam_mfa.store import AdministratorsStore, Change, Claim, Inventory

BATCH = 200  # users; a login that enables a device waits for one batch at most

_Batch = Mapping[str, Sequence[Credential]]


class Importer:
    """Takes credentials into one store."""

    def __init__(
        self, store: AdministratorsStore, clock: Callable[[], float], actor: Actor, rules: Rules
    ) -> None:
        """Take the store, the clock (seconds since the epoch), who acts and the rules."""
        self._store = store
        self._files = store.documents
        self._clock = clock
        self._actor = actor
        self._rules = rules

    def plan(
        self,
        credentials: Iterable[Credential],
        progress: Callable[[int], None] = lambda _count: None,
    ) -> list[Row]:
        """Return what ``carry_out`` would do; nothing is changed.

        Args:
            credentials: what the other program's files say.
            progress: told how many credentials are settled.
        """
        rows: list[Row] = []
        claimed: dict[str, str] = {}  # by fingerprint: the device that would have the seed
        for batch in _batches(credentials):
            settled = self._store.read_inventory(self._settler(batch, claimed))
            rows += [row for each in settled for row in each.rows]
            progress(sum(map(len, batch.values())))
        return rows

    def carry_out(
        self,
        credentials: Iterable[Credential],
        source: str,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> list[Row]:
        """Take the credentials in and return what became of each; it may be run again.

        Args:
            credentials: what the other program's files say.
            source: the files, for the record of the import as a whole.
            progress: told how many credentials are settled.

        Raises:
            BrokenSystemError: not all could be stored; those that were stay.
        """
        self._store.require_log()  # nothing is done that could not be recorded
        with self._files.lock():
            self._files.remove_drafts()
        rows: list[Row] = []
        for batch in _batches(credentials):
            rows += self._take_in(batch)
            progress(sum(map(len, batch.values())))
        self._record(rows, source)
        return rows

    def _take_in(self, batch: _Batch) -> list[Row]:
        settled: list[Settlement] = []
        with self._files.lock():
            settle = self._settler(batch, None)
            claim = Claim(
                "",
                (),
                lambda _: self._change(settled),
                lambda inventory: settled.extend(settle(inventory)),
            )
            self._store.commit([claim])
            owners = {each.rows[0].user: self._devices(each) for each in settled if each.gains}
            try:
                self._files.write_all(owners)
            except BrokenSystemError as error:
                error.hint += "\nThen run the import again: it goes on where it stopped."
                raise
        return [row for each in settled for row in each.rows]

    def _settler(
        self, batch: _Batch, claimed: dict[str, str] | None
    ) -> Callable[[Inventory], list[Settlement]]:
        """Return what settles a batch; the files are read now, not in the transaction."""
        known = {user: self._read(user) for user in batch}

        def settle(inventory: Inventory) -> list[Settlement]:
            now = self._clock()
            desk = Admission(self._store.sealer, inventory, self._rules, now, claimed)
            return [desk.settle(user, batch[user], known[user]) for user in batch]

        return settle

    def _read(self, user: str) -> tuple[Device, ...] | str:
        """Return a user's devices, or why the user cannot have any."""
        try:
            require_user(user)
            return self._files.read(user)
        except (RefusedError, UnsafeFileError, DocumentError) as error:
            return str(error)

    def _change(self, settled: Sequence[Settlement]) -> Change:
        """Return what is to be durable before a device file is written."""
        now = self._clock()
        steps: dict[str, int] = {}
        drifts: dict[str, int] = {}
        events: list[Event] = []
        for each in settled:
            for gain in each.gains:
                credential = gain.credential
                steps[gain.serial_number] = gain.used
                steps[mark_of(self._store.sealer.fingerprint(credential.seed))] = 1
                drifts[gain.serial_number] = credential.drift
                field = DeviceField(gain.serial_number, "virtual", gain.name)
                event = self._event(now, credential.user, field, credential.source)
                used_step = gain.used if gain.used >= 0 else None
                events.append(event._replace(used_step=used_step))
            for device, used, source in each.advances:
                steps |= used
                field = DeviceField(device.serial_number, device.type, device.name)
                event = self._event(now, each.rows[0].user, field, source)
                used_step = used.get(device.serial_number)
                event = event._replace(name=EventName.RESYNC_MFA_DEVICE, used_step=used_step)
                events.append(event)
            if each.codes:
                field = DeviceField(each.codes.serial_number, "recovery", each.codes.name)
                events.append(self._event(now, each.rows[0].user, field, each.codes.source))
        return Change(accepted=True, events=tuple(events), used_steps=steps, drifts=drifts)

    def _devices(self, settlement: Settlement) -> tuple[Device, ...]:
        """Return a user's devices as they are to be."""
        user = settlement.rows[0].user
        moment = datetime.datetime.fromtimestamp(int(self._clock()), datetime.UTC)
        seal = self._store.sealer.seal
        devices: list[Device] = [
            VirtualDevice(
                gain.serial_number, gain.name, moment, gain.credential.parameters,
                seal(gain.credential.seed, user, gain.serial_number),
            )
            for gain in settlement.gains
        ]  # fmt: skip
        if settlement.codes:
            name, serial_number, codes, _ = settlement.codes
            hashes = tuple(self._store.code_hash(one, user, serial_number) for one in codes)
            devices.append(RecoveryCodes(serial_number, name, moment, hashes))
        return (*settlement.devices, *devices)

    def _event(self, now: float, user: str, device: DeviceField, source: str) -> Event:
        return Event(
            name=EventName.ENABLE_MFA_DEVICE,
            outcome=Outcome.SUCCESS,
            reason=Reason.REQUESTED,
            at=now,
            user=user,
            device=device,
            caller_uid=self._actor.uid,
            caller_pid=self._actor.pid,
            login_uid=self._actor.login_uid,
            detail=f"imported from {self._rules.program}, {source}",
        )

    def _record(self, rows: Sequence[Row], source: str) -> None:
        """Record the import as a whole."""
        count = sum(1 for row in rows if row.result is Result.IMPORT)
        event = self._actor.tell(
            EventName.IMPORT_DEVICES,
            self._clock(),
            f"{count} devices from {self._rules.program}, {source}",
        )
        change = Change(accepted=True, events=(event,))
        self._store.commit([Claim("", (), lambda _: change)])


def _batches(credentials: Iterable[Credential]) -> Iterator[_Batch]:
    """Go through the users in batches, each with all that is theirs."""
    users: dict[str, list[Credential]] = {}
    for credential in credentials:
        users.setdefault(credential.user, []).append(credential)
    batch: dict[str, Sequence[Credential]] = {}
    for user, theirs in users.items():
        batch[user] = theirs
        if len(batch) == BATCH:
            yield batch
            batch = {}
    if batch:
        yield batch


__all__ = ["Importer", "Result", "Row", "Rules"]
