# SPDX-License-Identifier: Apache-2.0
"""What a login finds of a user: devices with their seeds, or a decoy that takes the same work.

Owns the host's seal keys while a store is open, and reads them again where they were rotated.
"""

import datetime
import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

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
from pam_mfa.oath import SEED_BITS, Parameters
from pam_mfa.secret import Secret
from pam_mfa.store.enrollment import DeviceState, Enrollment, OpenDevice, Standing, standing_of
from pam_mfa.store.layout import Layout
from pam_mfa.store.seal import Sealer, find_ring, load_sealer
from pam_mfa.store.user_keys import encode_user

_DECOY_USER = "?"
_DECOY = "virtual/?/decoy"  # its serial number
_DECOY_SLOTS = 1024  # rows at most that unknown names can fill
_READINGS_MAX = 3  # of devices whose keys are rotated meanwhile; a rotation takes longer than one


class Volume(NamedTuple):
    """A user's devices, as they are read."""

    devices: tuple[Device, ...]
    version: tuple[int, ...]  # of no later moment than the devices; (): there are none
    states: Mapping[str, DeviceState] | None = None  # None: they are to be asked for


class Shelf(Protocol):
    """Where devices and what became of them are read."""

    def read_versioned(self, user: str, others: Sequence[str] = ()) -> Volume:
        """Return a user's devices, and perhaps what became of them and of others.

        Raises:
            UnsafeFileError: others may have written them.
            DocumentError: their content is wrong.
        """

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what is known of devices."""


_States = Mapping[str, DeviceState] | None


class Opened(NamedTuple):
    """The keys, as they were read last."""

    sealer: Sealer
    decoy: bytes  # a document for names without one
    path: str  # of the keys
    mark: tuple[int, ...]  # of their file, before it was read


class _Unsealed(NamedTuple):
    """A user's devices that make codes, with their seeds."""

    devices: tuple[OpenDevice, ...]
    problems: str
    lacks_key: bool  # whether one was sealed by a key that is not in the ring


class Unsealing:
    """Opens devices with the seal keys; its decoy's seed is on no disk."""

    def __init__(
        self, layout: Layout, shelf: Shelf, require: Callable[[], Callable[[Sealer], None]]
    ) -> None:
        """Take the root, what reads, and what must hold before keys are read, and of them."""
        self._layout = layout
        self._shelf = shelf
        self._require = require
        self._opened: Opened | None = None

    def open(self) -> Opened:
        """Read the keys, and make a decoy.

        Raises:
            BrokenSystemError: there is no usable key.
        """
        judge = self._require()
        path = str(find_ring(self._layout).path)
        mark = _mark(path)  # before they are read: a change in between shows
        sealer = load_sealer(self._layout)
        judge(sealer)
        self._opened = Opened(sealer, _make_decoy(sealer), path, mark)
        return self._opened

    def open_once(self) -> Opened:
        """Return the keys, read again where they were rotated.

        Keys that went away are kept, as always: a restore takes the file away for a moment.

        Raises:
            BrokenSystemError: as ``open``.
        """
        opened = self._opened
        if opened is None or _mark(opened.path) not in (opened.mark, ()):
            return self.open()
        return opened

    @property
    def is_open(self) -> bool:
        """Whether the keys were read, and what must hold of them held."""
        return self._opened is not None

    def pseudonym(self, text: str) -> str:
        """Return the keyed hash of a name; nothing is asked for it but this host's keys.

        Raises:
            BrokenSystemError: it has none.
        """
        if self._opened is not None:
            return self._opened.sealer.pseudonym(text)
        if not find_ring(self._layout).path.exists():
            raise BrokenSystemError("there is no seal key")  # reading one would make one
        return load_sealer(self._layout).pseudonym(text)

    def read_enrollment(self, user: str) -> Enrollment:
        """Return what a user can be verified by.

        A name without devices gets a decoy, read and unsealed like a real device, so that the
        time taken does not tell who is enrolled.
        """
        for _ in range(_READINGS_MAX):
            opened = self.open_once()
            try:
                devices, version, states = self._shelf.read_versioned(user, (_DECOY,))
            except (UnsafeFileError, DocumentError) as error:
                return self._decoy_enrollment(user, Standing.UNREADABLE, str(error))
            # After the devices: what they were sealed by was in the keys' file before.
            unsealed = self._open_devices(user, devices, states)
            if not unsealed.lacks_key or (
                self.open_once() is opened and self._is_of_version(user, version)
            ):
                break
        paper = tuple(one for one in devices if isinstance(one, RecoveryCodes | Bypass))
        keys = tuple(one for one in devices if isinstance(one, FidoDevice))
        ssh_keys = tuple(one for one in devices if isinstance(one, SshKeyDevice))
        standing = standing_of(devices, (*unsealed.devices, *paper, *keys, *ssh_keys))
        if standing is not Standing.ENROLLED:
            return self._decoy_enrollment(user, standing, unsealed.problems, states)
        return Enrollment(
            encode_user(user), standing, unsealed.devices, paper, keys, ssh_keys, version,
            unsealed.problems,
        )  # fmt: skip

    def has_device(self, user: str, device: Device) -> bool:
        """Whether a device is still its user's, by another look."""
        try:
            devices = self._shelf.read_versioned(user).devices
            return device in devices or any(
                self._is_sealed_anew(user, device, one) for one in devices
            )
        except (UnsafeFileError, DocumentError, SealError):
            return False

    def _is_of_version(self, user: str, version: tuple[int, ...]) -> bool:
        try:
            return self._shelf.read_versioned(user).version == version
        except (UnsafeFileError, DocumentError):
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
        sealer, serial_number = self.open_once().sealer, device.serial_number
        seed = sealer.open(other.sealed_seed, user, serial_number)
        try:
            before = sealer.open(device.sealed_seed, user, serial_number)
        except UnknownKeyError:
            return True  # its key is retired by now; enabled at that second was no other
        return hmac.compare_digest(seed.reveal(), before.reveal())

    def _decoy_enrollment(
        self, user: str, standing: Standing, problem: str, states: _States = None
    ) -> Enrollment:
        opened = self.open_once()
        devices = parse_devices(opened.decoy, "decoy", _DECOY_USER)
        decoys = self._open_devices(_DECOY_USER, devices, states).devices
        slot = int(opened.sealer.pseudonym(user), 16) % _DECOY_SLOTS
        return Enrollment(f"?{slot}", standing, decoys, problem=problem)

    def _open_devices(self, user: str, devices: tuple[Device, ...], states: _States) -> _Unsealed:
        """Unseal what opens; a device that does not leaves the others usable."""
        opened, problems, lacks_key = [], [], False
        sealed = [one for one in devices if isinstance(one, VirtualDevice | TokenDevice)]
        sealer = self.open_once().sealer
        if states is None:
            states = self._shelf.read_devices([device.serial_number for device in sealed])
        for device in sealed:
            try:
                seed = sealer.open(device.sealed_seed, user, device.serial_number)
                state = states.get(device.serial_number, DeviceState())
                opened.append(OpenDevice(device, seed, state))
            except SealError as error:
                problems.append(str(error))
                lacks_key |= isinstance(error, UnknownKeyError)
        return _Unsealed(tuple(opened), "; ".join(problems), lacks_key)


def _mark(path: str) -> tuple[int, ...]:
    """Return what is another after each change of a file; () where there is none."""
    try:
        about = os.lstat(path)
    except OSError:
        return ()
    return about.st_dev, about.st_ino, about.st_mtime_ns


def _make_decoy(sealer: Sealer) -> bytes:
    seed = Secret(os.urandom(SEED_BITS // 8))
    sealed = sealer.seal(seed, _DECOY_USER, _DECOY)
    now = datetime.datetime.now(datetime.UTC)
    decoy = VirtualDevice(_DECOY, "decoy", now, Parameters(), sealed)
    return format_devices(_DECOY_USER, (decoy,))
