# SPDX-License-Identifier: Apache-2.0
"""The store on this host: device files, SQLite state and the audit log under one root."""

import syslog
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pam_mfa.devices import (
    Device,
)
from pam_mfa.errors import (
    BrokenSystemError,
)
from pam_mfa.lockout import LockState
from pam_mfa.policy import AuditRules
from pam_mfa.store.claims import Change, Claim, Inventory
from pam_mfa.store.device_files import DeviceFiles
from pam_mfa.store.enrollment import (
    DeviceState,
    Enrollment,
)
from pam_mfa.store.files import require_private_directory
from pam_mfa.store.layout import Layout
from pam_mfa.store.ledger import Ledger
from pam_mfa.store.seal import Sealer
from pam_mfa.store.unsealing import Opened, Unsealing, Volume
from pam_mfa.store.user_keys import encode_user

if TYPE_CHECKING:
    from pam_mfa.store.signing import SigningKey

_Result = TypeVar("_Result")


class EmbeddedStore:
    """Files and SQLite under one root."""

    patience = 0.0  # what it is asked is at hand

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
        self._unsealing = Unsealing(layout, self, self._require_directories)
        if not is_patient:
            self.open()

    def open(self) -> Opened:
        """Open the seal keys, with a decoy; other files are opened when needed.

        Raises:
            BrokenSystemError: there is no store that is ours alone, or no usable seal key.
        """
        return self._unsealing.open()

    def _require_directories(self) -> Callable[[Sealer], None]:
        for directory in (self._layout.library, self._layout.devices):
            require_private_directory(directory)
        return lambda _sealer: None  # whatever key it is, it is this host's

    @property
    def sealer(self) -> Sealer:
        """What seals and opens secrets.

        Raises:
            BrokenSystemError: as ``open``.
        """
        return self._unsealing.open_once().sealer

    def read_enrollment(self, user: str) -> Enrollment:
        """Return what a user can be verified by, after the same work for every name."""
        return self._unsealing.read_enrollment(user)

    def read_versioned(self, user: str, others: Sequence[str] = ()) -> Volume:
        """Return a user's devices and their version; what became of them is asked for later.

        Raises:
            UnsafeFileError: others may have written them.
            DocumentError: their content is wrong.
        """
        del others
        version = self.documents.version(user)  # before the look: a change in between shows
        return Volume(self.documents.read(user), version)

    def has_device(self, user: str, device: Device, version: tuple[int, ...]) -> bool:
        """Whether a device is still its user's; reads the file only where it was changed."""
        if version and self.documents.version(user) == version:
            return True
        return self._unsealing.has_device(user, device)

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
        self._unsealing.open_once()  # where no disk is mounted, no new state is to begin
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


def _tell_system_log(error: BrokenSystemError) -> None:
    syslog.syslog(syslog.LOG_AUTHPRIV | syslog.LOG_ERR, f"{error}. {error.hint}")
