# SPDX-License-Identifier: Apache-2.0
"""Devices as rows of a listing: plain values under the names that programs rely on."""

import datetime

from pam_mfa.devices import Bypass, Device
from pam_mfa.lifecycle import DeviceStatus, UserStatus


def list_row(user: str, device: Device) -> dict[str, object]:
    """Return a device as ``pam-mfa list`` shows it."""
    return {
        "user": user,
        "serial_number": device.serial_number,
        "type": device.type,
        "name": device.name,
        "enabled_at": utc(device.enabled_at),
    }


def status_row(status: UserStatus) -> dict[str, object]:
    """Return a user, with each device and what became of it, as ``pam-mfa status`` has them."""
    until = status.locked_until
    return {
        "user": status.user,
        "standing": status.standing.value,
        "problem": status.problem or None,
        "locked_until": utc(until) if until else None,
        "recent_failures": status.recent_failures,
        "devices": [_device_row(one) for one in status.devices],
    }


def _device_row(one: DeviceStatus) -> dict[str, object]:
    device = one.device
    return {
        "serial_number": device.serial_number,
        "type": device.type,
        "name": device.name,
        "enabled_at": utc(device.enabled_at),
        "last_used_at": utc(one.last_used_at) if one.last_used_at else None,
        "drift": one.drift,
        "codes_left": one.codes_left,
        "expires_at": utc(device.expires_at) if isinstance(device, Bypass) else None,
        "weak": one.is_weak,
        "problem": one.problem or None,
    }


def utc(moment: datetime.datetime) -> str:
    """Return a time in UTC as RFC 3339 writes it, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
