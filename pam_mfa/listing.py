# SPDX-License-Identifier: Apache-2.0
"""Devices as rows of a listing: plain values under the names that programs rely on."""

import datetime
from collections.abc import Mapping

from pam_mfa.devices import Bypass, Device, FidoDevice
from pam_mfa.hardware.keys import Credential, KeyReport
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


def key_row(
    report: KeyReport, owners: Mapping[Credential, tuple[tuple[str, FidoDevice], ...]]
) -> dict[str, object]:
    """Return an attached security key as ``pam-mfa keys`` shows it."""
    users = [
        f"{user}: {device.name}" for one in report.held for user, device in owners.get(one, ())
    ]
    problem = report.problem
    pin = "" if problem else "none" if not report.is_ctap2 else "set" if report.has_pin else "unset"
    return {
        "node": report.key.path,
        "product": report.key.name,
        "users": ", ".join(sorted(users)),
        "versions": " ".join(report.versions),
        "aaguid": report.aaguid,
        "pin": pin,
        "pin_attempts_left": report.pin_attempts_left if report.has_pin else "",
        "built_in_verification": "yes" if report.has_built_in_uv else "",
        "problem": f"{problem}. {problem.hint}".strip() if problem else "",
    }


def utc(moment: datetime.datetime) -> str:
    """Return a time in UTC as RFC 3339 writes it, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
