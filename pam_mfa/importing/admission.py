# SPDX-License-Identifier: Apache-2.0
"""What becomes of credentials that are to be imported: the rules, applied to one user at a time.

Reads the state inside a transaction of the caller's, and notes there whose a seed is. Owns the
decisions and the words for them; what is written besides, ``importing`` owns.
"""

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pam_mfa import oath
from pam_mfa.devices import (
    DEVICES_MAX,
    Device,
    RecoveryCodes,
    count_devices,
    require_name,
    serial_number_of,
)
from pam_mfa.errors import RefusedError
from pam_mfa.factors.paper import used_key
from pam_mfa.importing.credentials import Credential
from pam_mfa.oath import SEED_BITS_MINIMUM
from pam_mfa.policy import Policy
from pam_mfa.store import Inventory
from pam_mfa.store.seal import Sealer

_RECOVERY = "recovery"
_IMPORTED_SET = re.compile(r"[0-9a-f]{16}", re.ASCII)  # the end of such a set's serial number
_FUTURE = 100  # time steps that a used one may be ahead of now; the largest window there


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
    parameters: oath.Parameters
    recovery_codes: int
    note: str


class Rules(NamedTuple):
    """What is imported, and how."""

    program: str  # where the credentials come from: the devices' name, and in the records
    policy: Policy


class Gain(NamedTuple):
    """A device that a user is to have."""

    credential: Credential
    name: str
    serial_number: str
    used: int  # the last time step or counter that was accepted


class Advance(NamedTuple):
    """A device that is there already, and of which the other program has accepted codes since."""

    device: Device
    steps: Mapping[str, int]  # by the key under which the state notes what is used
    source: str


class CodeSet(NamedTuple):
    """A set of recovery codes that a user is to have."""

    name: str
    serial_number: str
    codes: tuple[str, ...]
    source: str


class Settlement(NamedTuple):
    """What becomes of one user."""

    rows: tuple[Row, ...]
    devices: tuple[Device, ...] = ()  # as they are
    gains: tuple[Gain, ...] = ()
    codes: CodeSet | None = None
    advances: tuple[Advance, ...] = ()


class Admission:
    """Settles users one after the other, by what the state says inside one transaction."""

    def __init__(
        self,
        sealer: Sealer,
        inventory: Inventory,
        rules: Rules,
        now: float,
        claimed: dict[str, str] | None,
    ) -> None:
        """Take the time in seconds since the epoch, and for a dry run who would have a seed."""
        self._sealer = sealer
        self._inventory = inventory
        self._rules = rules
        self._now = now
        self._claimed = claimed

    def settle(
        self, user: str, credentials: Sequence[Credential], devices: tuple[Device, ...] | str
    ) -> Settlement:
        """Decide what becomes of one user's credentials, by the devices or why there are none."""
        if isinstance(devices, str):
            return Settlement(tuple(_leave_out(each, devices) for each in credentials))
        settlement = Settlement((), devices)
        for credential in credentials:
            settlement = self._add(settlement, user, credential)
        return settlement

    def _add(self, sofar: Settlement, user: str, credential: Credential) -> Settlement:
        print_ = self._sealer.fingerprint(credential.seed)
        owner = self._find_owner(print_)
        names = {one.serial_number for one in (*sofar.devices, *sofar.gains)}
        if owner in names:
            return self._advance(sofar, user, credential, str(owner))
        # A seed that has its owner and no device: an import was interrupted there.
        begun = begun_name("virtual", user, owner)
        obstacle = self._find_obstacle(sofar, credential, owner if not begun else None)
        if not obstacle and owner is None and self._was_deactivated(print_):
            obstacle = (
                "it was imported before and deactivated since; whoever still has it enables it "
                f"by two of its codes: pam-mfa enable virtual {user} --secret -"
            )
        if obstacle:
            return sofar._replace(rows=(*sofar.rows, _leave_out(credential, obstacle)))
        name = begun or self._free_name(user, sofar)
        serial_number = serial_number_of("virtual", user, name)
        if owner is None:
            self._claim(print_, serial_number)
        gain = Gain(credential, name, serial_number, self._last_used(credential))
        added = sofar._replace(gains=(*sofar.gains, gain))
        codes, notes = self._add_codes(added, user, credential)
        notes = [*self._notes(credential), *notes]
        count = len(codes.codes) if codes else 0
        row = Row(
            user, Result.IMPORT, serial_number, credential.parameters, count, "; ".join(notes)
        )
        return added._replace(rows=(*sofar.rows, row), codes=codes or sofar.codes)

    def _advance(
        self, sofar: Settlement, user: str, credential: Credential, serial_number: str
    ) -> Settlement:
        """Use up here what the other program has accepted since a device was imported."""
        advances = []
        for device in sofar.devices:
            if device.serial_number == serial_number:
                steps = self._later_step(serial_number, credential)
            elif isinstance(device, RecoveryCodes):
                steps = self._spent_codes(user, device, credential)
            else:
                continue
            if steps:
                advances.append(Advance(device, steps, credential.source))
        note = "codes accepted there meanwhile are used up" if advances else ""
        row = Row(user, Result.PRESENT, serial_number, credential.parameters, 0, note)
        return sofar._replace(rows=(*sofar.rows, row), advances=(*sofar.advances, *advances))

    def _later_step(self, serial_number: str, credential: Credential) -> dict[str, int]:
        """Return the last step that was accepted there, where its code could count here."""
        used, parameters = self._last_used(credential), credential.parameters
        known = self._inventory.find_step(serial_number)
        if used <= (-1 if known is None else known):
            return {}
        if not parameters.is_event_based:
            current = oath.time_step(self._now, parameters.period) + credential.drift
            if used < current - self._rules.policy.window:
                return {}
        return {serial_number: used}

    def _spent_codes(
        self, user: str, device: RecoveryCodes, credential: Credential
    ) -> dict[str, int]:
        """Return the keys of an imported set's codes that are no longer in the file."""
        serial_number = device.serial_number
        own = serial_number.removeprefix(serial_number_of(_RECOVERY, user, ""))
        if credential.scratch_codes is None or not _IMPORTED_SET.fullmatch(own):
            return {}
        left = {self._sealer.code_hash(code, user, serial_number)
                for code in credential.scratch_codes}  # fmt: skip
        keys = (
            used_key(device, number)
            for number, kept in enumerate(device.hashes)
            if kept not in left
        )
        return {key: 1 for key in keys if self._inventory.find_step(key) is None}

    def _last_used(self, credential: Credential) -> int:
        """Return the last step that was accepted; one far ahead of now would lock its user out."""
        steps = credential.used_steps
        if credential.parameters.is_event_based:
            return max(steps, default=-1)
        current = oath.time_step(self._now, credential.parameters.period) + credential.drift
        return max((step for step in steps if step <= current + _FUTURE), default=-1)

    def _find_obstacle(self, sofar: Settlement, credential: Credential, owner: str | None) -> str:
        bits, least = oath.seed_bits(credential.seed), self._rules.policy.minimum_seed_bits
        if credential.obstacle:
            return credential.obstacle
        if bits < least:
            way = "" if least > SEED_BITS_MINIMUM or bits < oath.SEED_BITS_LOWEST else (
                f"; totp: {{minimum_seed_bits: {bits}}} in the policy lets it in, marked weak"
            )  # fmt: skip
            return f"its secret has {bits} bits, and {least} are asked for{way}"
        if owner is not None:
            return f"its secret is that of {owner} already"
        if _count(sofar) >= DEVICES_MAX:
            return f"its user has {DEVICES_MAX} devices, the most that one may have"
        return ""

    def _add_codes(
        self, sofar: Settlement, user: str, credential: Credential
    ) -> tuple[CodeSet | None, list[str]]:
        """Return the set that scratch codes become, and what is to be said of them."""
        codes = credential.scratch_codes
        if not codes:
            return None, []
        if sofar.codes or any(isinstance(one, RecoveryCodes) for one in sofar.devices):
            return None, ["scratch codes left out: its user has recovery codes already"]
        if _count(sofar) >= DEVICES_MAX:
            return None, [f"scratch codes left out: they would be one of more than {DEVICES_MAX}"]
        # By what is in it: a set that is imported again keeps what was used of it.
        digest = self._sealer.pseudonym(" ".join(("scratch codes of", user, *codes)))
        serial_number = serial_number_of(_RECOVERY, user, digest)
        taken = {one.name for one in (*sofar.devices, *sofar.gains)}
        name = next(one for one in _names(_RECOVERY) if one not in taken)
        return CodeSet(name, serial_number, codes, credential.source), []

    def _notes(self, credential: Credential) -> list[str]:
        policy, notes = self._rules.policy, []
        if oath.is_weak(credential.seed):
            notes.append(f"weak: {oath.seed_bits(credential.seed)} bits")
        is_event_based = credential.parameters.is_event_based
        here = policy.look_ahead if is_event_based else 2 * policy.window + 1
        if credential.window and credential.window != here:
            notes.append(f"{credential.window} codes at a time count there, {here} here")
        return notes

    def _find_owner(self, fingerprint: str) -> str | None:
        claimed = self._claimed.get(fingerprint) if self._claimed else None
        return claimed or self._inventory.find_owner(fingerprint)

    def _claim(self, fingerprint: str, serial_number: str) -> None:
        if self._claimed is not None:
            self._claimed[fingerprint] = serial_number
        else:
            self._inventory.add_fingerprint(fingerprint, serial_number)

    def _was_deactivated(self, fingerprint: str) -> bool:
        return self._inventory.find_step(mark_of(fingerprint)) is not None

    def _free_name(self, user: str, sofar: Settlement) -> str:
        """Return a name that no device has or had: what an old one used up is not the new one's."""
        taken = {one.name for one in (*sofar.devices, *sofar.gains)}
        return next(
            name
            for name in _names(self._rules.program)
            if name not in taken
            and self._inventory.find_step(serial_number_of("virtual", user, name)) is None
        )


def _leave_out(credential: Credential, reason: str) -> Row:
    return Row(credential.user, Result.LEFT_OUT, "", credential.parameters, 0, reason)


def _count(settlement: Settlement) -> int:
    extra = len(settlement.gains) + (settlement.codes is not None)
    return count_devices(settlement.devices) + extra


def begun_name(device_type: str, user: str, owner: str | None) -> str:
    """Return the name of the device that a seed or credential was taken for, if it is this user's.

    Where an import was interrupted before the device file was written.
    """
    prefix = serial_number_of(device_type, user, "")
    if owner is None or not owner.startswith(prefix):
        return ""
    name = owner.removeprefix(prefix)
    try:
        require_name(name)
    except RefusedError:  # of a user whose name begins like this one's and a slash
        return ""
    return name


def mark_of(fingerprint: str) -> str:
    """Return where the state notes that a seed or credential was imported."""
    return f"imported/{fingerprint}"


def _names(stem: str) -> Iterator[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1
