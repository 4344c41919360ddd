# SPDX-License-Identifier: Apache-2.0
"""Devices as rows of a listing: plain values under the names that programs rely on."""

import datetime

from pam_mfa.devices import Device
from pam_mfa.lifecycle import DeviceStatus, Standing


def list_row(user: str, device: Device) -> dict[str, object]:
    """Return a device as ``pam-mfa list`` shows it."""
    return {
        "user": user,
        "serial_number": device.serial_number,
        "type": device.type,
        "name": device.name,
        "enabled_at": utc(device.enabled_at),
    }


def status_row(user: str, found: DeviceStatus, standing: Standing) -> dict[str, object]:
    """Return a device and what became of it as ``pam-mfa status`` shows it."""
    until = standing.locked_until
    return {
        "user": user,
        "serial_number": found.device.serial_number,
        "type": found.device.type,
        "last_used_at": utc(found.last_used_at) if found.last_used_at else "never",
        "drift": found.drift,
        "codes_left": "" if found.codes_left is None else found.codes_left,
        "locked_until": utc(until) if until else "",
    }


def utc(moment: datetime.datetime) -> str:
    """Return a time in UTC as RFC 3339 writes it, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
