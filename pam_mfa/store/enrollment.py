# SPDX-License-Identifier: Apache-2.0
"""A user's devices, opened for one attempt."""

import enum
from collections.abc import Sized
from typing import NamedTuple

from pam_mfa.devices import CodeDevice, Device, FidoDevice, PaperDevice, SshKeyDevice
from pam_mfa.secret import Secret


class Standing(enum.Enum):
    """Whether a user has devices that can be used."""

    ENROLLED = "enrolled"
    NOT_ENROLLED = "not enrolled"
    OUT_OF_REACH = "out of reach"  # the database is silent, and nothing is known of the name
    UNREADABLE = "unreadable"  # there is a device file, and nothing in it can be used


def standing_of(devices: Sized, usable: Sized) -> Standing:
    """Return a user's standing, from the devices of the file and those of them that open."""
    if not devices:
        return Standing.NOT_ENROLLED
    return Standing.ENROLLED if usable else Standing.UNREADABLE


class DeviceState(NamedTuple):
    """What the state knows of one device."""

    step: int = -1  # the last time step or counter that was accepted
    drift: int = 0  # time steps by which the device's clock is ahead of this host's
    last_used_at: float = 0.0  # seconds since the epoch; 0: never


class OpenDevice(NamedTuple):
    """A device with its seed unsealed."""

    device: CodeDevice
    seed: Secret
    state: DeviceState = DeviceState()


class Enrollment(NamedTuple):
    """What one user can be verified by.

    ``devices`` are a decoy that nobody holds, unless ``standing`` is ENROLLED.
    """

    user_key: str  # of the user's row in the state
    standing: Standing
    devices: tuple[OpenDevice, ...]
    paper: tuple[PaperDevice, ...] = ()  # recovery codes and a bypass
    security_keys: tuple[FidoDevice, ...] = ()
    ssh_keys: tuple[SshKeyDevice, ...] = ()
    version: tuple[int, ...] = ()  # of what was read; another one: it was changed since
    problem: str = ""  # why some or all devices cannot be used; for the log only

    def all_devices(self) -> tuple[Device, ...]:
        """Return the devices that can be used, of every kind; none but the user's own."""
        if self.standing is not Standing.ENROLLED:
            return ()
        codes = tuple(one.device for one in self.devices)
        return (*codes, *self.paper, *self.security_keys, *self.ssh_keys)
