# SPDX-License-Identifier: Apache-2.0
"""The store on this host: device files, SQLite state and the audit log under one root."""

import datetime
import os
import syslog
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pam_mfa.devices import (
    Bypass,
    Device,
    FidoDevice,
    RecoveryCodes,
    SshKeyDevice,
    TokenDevice,
    VirtualDevice,
    format_devices,
    parse_devices,
)
from pam_mfa.errors import BrokenSystemError, DocumentError, SealError, UnsafeFileError
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
from pam_mfa.store.seal import Sealer, load_sealer
from pam_mfa.store.user_keys import encode_user

if TYPE_CHECKING:
    from pam_mfa.store.signing import SigningKey

_Result = TypeVar("_Result")

_DECOY_USER = "?"
_DECOY_SLOTS = 1024  # rows at most that unknown names can fill


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
        self._opened: tuple[Sealer, bytes] | None = None
        if not is_patient:
            self.open()

    def open(self) -> tuple[Sealer, bytes]:
        """Open the seal key, and return it with a decoy; other files are opened when needed.

        Raises:
            BrokenSystemError: there is no store that is ours alone, or no usable seal key.
        """
        for directory in (self._layout.library, self._layout.devices):
            require_private_directory(directory)
        sealer = load_sealer(self._layout)
        self._opened = (sealer, _decoy_document(sealer))
        return self._opened

    @property
    def sealer(self) -> Sealer:
        """What seals and opens secrets.

        Raises:
            BrokenSystemError: as ``open``.
        """
        return self._open_once()[0]

    def _open_once(self) -> tuple[Sealer, bytes]:
        return self._opened or self.open()

    def read_enrollment(self, user: str) -> Enrollment:
        """Return what a user can be verified by.

        A name without devices gets a decoy, read and unsealed like a real device, so that the
        time taken does not tell who is enrolled.
        """
        self._open_once()
        version = self.documents.version(user)  # before the look: a change in between shows
        try:
            devices = self.documents.read(user)
        except (UnsafeFileError, DocumentError) as error:
            return self._decoy_enrollment(user, Standing.UNREADABLE, str(error))
        paper = tuple(one for one in devices if isinstance(one, RecoveryCodes | Bypass))
        keys = tuple(one for one in devices if isinstance(one, FidoDevice))
        opened, problems = self._open_devices(user, devices)
        ssh_keys = tuple(one for one in devices if isinstance(one, SshKeyDevice))
        standing = standing_of(devices, (*opened, *paper, *keys, *ssh_keys))
        if standing is not Standing.ENROLLED:
            return self._decoy_enrollment(user, standing, problems)
        key = encode_user(user)
        return Enrollment(key, standing, opened, paper, keys, ssh_keys, version, problems)

    def has_device(self, user: str, device: Device, version: tuple[int, ...]) -> bool:
        """Whether a device is still its user's; reads the file only where it was changed."""
        if version and self.documents.version(user) == version:
            return True
        try:
            return device in self.documents.read(user)
        except (UnsafeFileError, DocumentError):
            return False

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

    def sign_if_due(self, *, is_asked: bool = False) -> None:
        """Add a checkpoint to the audit log where one is due; never while somebody waits."""
        self._ledger.sign_if_due(is_asked=is_asked)

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

        return load_signing_key(self._layout, self.sealer)

    def _decoy_enrollment(self, user: str, standing: Standing, problem: str) -> Enrollment:
        decoys, _ = self._open_devices(
            _DECOY_USER, parse_devices(self._open_once()[1], "decoy", _DECOY_USER)
        )
        slot = int(self.pseudonym(user), 16) % _DECOY_SLOTS
        return Enrollment(f"?{slot}", standing, decoys, problem=problem)

    def _open_devices(
        self, user: str, devices: tuple[Device, ...]
    ) -> tuple[tuple[OpenDevice, ...], str]:
        """Unseal what opens; a device that does not leaves the others usable."""
        opened, problems = [], []
        sealed = [one for one in devices if isinstance(one, VirtualDevice | TokenDevice)]
        states = self._ledger.read_devices([device.serial_number for device in sealed])
        for device in sealed:
            try:
                seed = self.sealer.open(device.sealed_seed, user, device.serial_number)
                state = states.get(device.serial_number, DeviceState())
                opened.append(OpenDevice(device, seed, state))
            except SealError as error:
                problems.append(str(error))
        return tuple(opened), "; ".join(problems)


def _tell_system_log(error: BrokenSystemError) -> None:
    syslog.syslog(syslog.LOG_AUTHPRIV | syslog.LOG_ERR, f"{error}. {error.hint}")


def _decoy_document(sealer: Sealer) -> bytes:
    seed = Secret(os.urandom(SEED_BITS // 8))
    serial_number = "virtual/?/decoy"
    sealed = sealer.seal(seed, _DECOY_USER, serial_number)
    now = datetime.datetime.now(datetime.UTC)
    decoy = VirtualDevice(serial_number, "decoy", now, Parameters(), sealed)
    return format_devices(_DECOY_USER, (decoy,))
