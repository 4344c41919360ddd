# SPDX-License-Identifier: Apache-2.0
"""A user's devices, opened for one attempt."""

import enum
from typing import NamedTuple

from pam_mfa.devices import Device
from pam_mfa.secret import Secret


class Standing(enum.Enum):
    """Whether a user has devices that can be used."""

    ENROLLED = "enrolled"
    NOT_ENROLLED = "not enrolled"
    UNREADABLE = "unreadable"  # there is a device file, and nothing in it can be used


class OpenDevice(NamedTuple):
    """A device with its seed unsealed."""

    device: Device
    seed: Secret


class Enrollment(NamedTuple):
    """What one user can be verified by.

    ``devices`` are a decoy that nobody holds, unless ``standing`` is ENROLLED.
    """

    user_key: str  # of the user's row in the state
    standing: Standing
    devices: tuple[OpenDevice, ...]
    problem: str = ""  # why some or all devices cannot be used; for the log only
