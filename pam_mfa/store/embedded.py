# SPDX-License-Identifier: Apache-2.0
"""The store on this host: device files, SQLite state and the audit log under one root."""

import datetime
import hmac
import os
import syslog
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pam_mfa.devices import (
    Bypass,
    CodeDevice,
    Device,
    FidoDevice,
    RecoveryCodes,
    SshKeyDevice,
    TokenDevice,
    VirtualDevice,
    format_devices,
    parse_devices,
)
from pam_mfa.errors import (
    BrokenSystemError,
    DocumentError,
    SealError,
    UnknownKeyError,
    UnsafeFileError,
)
from pam_mfa.lockout import LockState
from pam_mfa.oath import SEED_BITS, Parameters
from pam_mfa.policy import AuditRules
from pam_mfa.secret import Secret
from pam_mfa.store.claims import Change, Claim, Inventory
from pam_mfa.store.device_files import DeviceFiles
from pam_mfa.store.enrollment import (
    DeviceState,
    Enrollment,
    OpenDevice,
    Standing,
    standing_of,
)
from pam_mfa.store.files import require_private_directory
from pam_mfa.store.layout import Layout
from pam_mfa.store.ledger import Ledger
from pam_mfa.store.seal import Sealer, find_ring, load_sealer
from pam_mfa.store.user_keys import encode_user

if TYPE_CHECKING:
    from pam_mfa.store.signing import SigningKey

_Result = TypeVar("_Result")

_DECOY_USER = "?"
_DECOY_SLOTS = 1024  # rows at most that unknown names can fill
_READINGS_MAX = 3  # of devices whose keys are rotated meanwhile; a rotation takes longer than one


class _Opened(NamedTuple):
    """The host's keys, as they were read last."""

    sealer: Sealer
    decoy: bytes  # a device file for names without one
    path: str  # of the keys
    mark: tuple[int, ...]  # of their file, before it was read


class _Unsealed(NamedTuple):
    """A user's devices that make codes, with their seeds."""

    devices: tuple[OpenDevice, ...]
    problems: str
    lacks_key: bool  # whether one was sealed by a key that is not in the ring


class EmbeddedStore:
    """Files and SQLite under one root."""

    def __init__(self, layout: Layout, *, is_patient: bool = False) -> None:
        """Open the store.

        Args:
            layout: where it is.
            is_patient: let it be opened by the first who needs it: a daemon that starts before
                its disk is mounted refuses logins until then, and works from then on.

        Raises:
            BrokenSystemError: as ``open``, unless it is patient.
        """
        self.documents = DeviceFiles(layout.devices)
        self._layout = layout
        self._ledger = Ledger(layout, self._open_signing_key)
        self._opened: _Opened | None = None
        if not is_patient:
            self.open()

    def open(self) -> _Opened:
        """Open the seal keys, with a decoy; other files are opened when needed.

        Raises:
            BrokenSystemError: there is no store that is ours alone, or no usable seal key.
        """
        for directory in (self._layout.library, self._layout.devices):
            require_private_directory(directory)
        path = str(find_ring(self._layout).path)
        mark = _mark(path)  # before they are read: a change in between shows
        sealer = load_sealer(self._layout)
        self._opened = _Opened(sealer, _decoy_document(sealer), path, mark)
        return self._opened

    @property
    def sealer(self) -> Sealer:
        """What seals and opens secrets.

        Raises:
            BrokenSystemError: as ``open``.
        """
        return self._open_once().sealer

    def _open_once(self) -> _Opened:
        """Return the keys, read again where they were rotated.

        Keys that went away are kept, as always: a restore takes the file away for a moment.
        """
        opened = self._opened
        if opened is None or _mark(opened.path) not in (opened.mark, ()):
            return self.open()
        return opened

    def read_enrollment(self, user: str) -> Enrollment:
        """Return what a user can be verified by.

        A name without devices gets a decoy, read and unsealed like a real device, so that the
        time taken does not tell who is enrolled.
        """
        for _ in range(_READINGS_MAX):
            opened = self._open_once()
            version = self.documents.version(user)  # before the look: a change in between shows
            try:
                devices = self.documents.read(user)
            except (UnsafeFileError, DocumentError) as error:
                return self._decoy_enrollment(user, Standing.UNREADABLE, str(error))
            # After the devices: what they were sealed by was in the keys' file before.
            sealer = self._open_once().sealer
            unsealed = self._open_devices(user, devices, sealer)
            if not unsealed.lacks_key or (
                self._open_once() is opened and self.documents.version(user) == version
            ):
                break
        paper = tuple(one for one in devices if isinstance(one, RecoveryCodes | Bypass))
        keys = tuple(one for one in devices if isinstance(one, FidoDevice))
        ssh_keys = tuple(one for one in devices if isinstance(one, SshKeyDevice))
        standing = standing_of(devices, (*unsealed.devices, *paper, *keys, *ssh_keys))
        if standing is not Standing.ENROLLED:
            return self._decoy_enrollment(user, standing, unsealed.problems)
        return Enrollment(
            encode_user(user), standing, unsealed.devices, paper, keys, ssh_keys, version,
            unsealed.problems,
        )  # fmt: skip

    def has_device(self, user: str, device: Device, version: tuple[int, ...]) -> bool:
        """Whether a device is still its user's; reads the file only where it was changed."""
        if version and self.documents.version(user) == version:
            return True
        try:
            devices = self.documents.read(user)
            return device in devices or any(
                self._is_sealed_anew(user, device, one) for one in devices
            )
        except (UnsafeFileError, DocumentError, SealError):
            return False

    def _is_sealed_anew(self, user: str, device: Device, other: Device) -> bool:
        """Whether the other is the device after the keys were rotated, and nothing else.

        Raises:
            SealError: the other does not open.
        """
        if not isinstance(device, CodeDevice) or not isinstance(other, CodeDevice):
            return False
        if other._replace(sealed_seed=device.sealed_seed) != device:
            return False
        sealer, serial_number = self.sealer, device.serial_number
        seed = sealer.open(other.sealed_seed, user, serial_number)
        try:
            before = sealer.open(device.sealed_seed, user, serial_number)
        except UnknownKeyError:
            return True  # its key is retired by now; enabled at that second was no other
        return hmac.compare_digest(seed.reveal(), before.reveal())

    def code_hash(self, code: str, user: str, serial_number: str) -> str:
        """Return the keyed hash of a code on paper."""
        return self.sealer.code_hash(code, user, serial_number)

    def require_log(self) -> None:
        """Make sure that a record can be written, before something is done that needs one.

        Raises:
            BrokenSystemError: it could not.
        """
        self._ledger.require_log()

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what the state knows of devices.

        Raises:
            StateError: it cannot be read.
        """
        return self._ledger.read_devices(serial_numbers)

    def read_locks(self, users: Sequence[str]) -> dict[str, LockState]:
        """Return the wrong codes and locks of users, by name; those without any are left out.

        Raises:
            StateError: they cannot be read.
        """
        keys = {encode_user(user): user for user in users}
        return {keys[key]: lock for key, lock in self._ledger.read_locks([*keys]).items()}

    def read_inventory(self, look: Callable[[Inventory], _Result]) -> _Result:
        """Return what a look at the inventory gives.

        Raises:
            StateError: it cannot be read.
        """
        return self._ledger.read_inventory(look)

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims; then their changes and records are on disk.

        Raises:
            StateError: nothing was changed.
            AuditError: the changes stand, their records are not in the log; tell no success.
        """
        self._open_once()  # where no disk is mounted, no new state is to begin
        return self._ledger.commit(claims)

    def follow(self, rules: AuditRules, tell: Callable[[BrokenSystemError], None]) -> None:
        """Keep records from now on as policy says; tell there what a verdict did not wait for."""
        self._ledger.follow(rules, tell)

    def follow_file(self, path: Path) -> None:
        """Tell outlets of records as a policy file says, which is read with the first record.

        For programs that decide no login: their records are never left out of the log.
        """

        def find_rules() -> AuditRules:
            from pam_mfa.store.policies import read_policy  # noqa: PLC0415 - most need it not

            try:
                return read_policy(path).audit
            except BrokenSystemError:
                return AuditRules()

        self._ledger.follow_outlets(find_rules, _tell_system_log)

    def note_policy(self, digest: str, *, is_accepted: bool) -> None:
        """Have the next commit record a policy that no record has told of."""
        self._ledger.note_policy(digest, is_accepted=is_accepted)

    def follow_up(self, *, must_sign: bool = False) -> None:
        """Sign the audit log where that is due, and tell the other logs of its records.

        For when the verdicts are out: nobody waits for it.
        """
        self._ledger.sign_if_due(is_asked=must_sign)
        self._ledger.tell_outlets()
        self._ledger.tend_state()

    def require_desk(self) -> "EmbeddedStore":
        """Return itself: devices are this host's own."""
        return self

    def pseudonym(self, text: str) -> str:
        """Return the keyed hash of a name."""
        return self.sealer.pseudonym(text)

    def close(self) -> None:
        """Close the files."""
        self._ledger.close()

    def _open_signing_key(self) -> "SigningKey":
        from pam_mfa.store.signing import load_signing_key  # noqa: PLC0415 - start-up cost

        if self._layout.signing_key.exists():
            return load_signing_key(self._layout, self.sealer)
        with self.documents.lock():  # whoever seals does it under this lock, for rotations
            return load_signing_key(self._layout, self.sealer)

    def _decoy_enrollment(self, user: str, standing: Standing, problem: str) -> Enrollment:
        opened = self._open_once()
        devices = parse_devices(opened.decoy, "decoy", _DECOY_USER)
        decoys = self._open_devices(_DECOY_USER, devices, opened.sealer).devices
        slot = int(self.pseudonym(user), 16) % _DECOY_SLOTS
        return Enrollment(f"?{slot}", standing, decoys, problem=problem)

    def _open_devices(self, user: str, devices: tuple[Device, ...], sealer: Sealer) -> _Unsealed:
        """Unseal what opens; a device that does not leaves the others usable."""
        opened, problems, lacks_key = [], [], False
        sealed = [one for one in devices if isinstance(one, VirtualDevice | TokenDevice)]
        states = self._ledger.read_devices([device.serial_number for device in sealed])
        for device in sealed:
            try:
                seed = sealer.open(device.sealed_seed, user, device.serial_number)
                state = states.get(device.serial_number, DeviceState())
                opened.append(OpenDevice(device, seed, state))
            except SealError as error:
                problems.append(str(error))
                lacks_key |= isinstance(error, UnknownKeyError)
        return _Unsealed(tuple(opened), "; ".join(problems), lacks_key)


def _tell_system_log(error: BrokenSystemError) -> None:
    syslog.syslog(syslog.LOG_AUTHPRIV | syslog.LOG_ERR, f"{error}. {error.hint}")


def _mark(path: str) -> tuple[int, ...]:
    """Return what is another after each change of a file; () where there is none."""
    try:
        about = os.lstat(path)
    except OSError:
        return ()
    return about.st_dev, about.st_ino, about.st_mtime_ns


def _decoy_document(sealer: Sealer) -> bytes:
    seed = Secret(os.urandom(SEED_BITS // 8))
    serial_number = "virtual/?/decoy"
    sealed = sealer.seal(seed, _DECOY_USER, serial_number)
    now = datetime.datetime.now(datetime.UTC)
    decoy = VirtualDevice(serial_number, "decoy", now, Parameters(), sealed)
    return format_devices(_DECOY_USER, (decoy,))
