# SPDX-License-Identifier: Apache-2.0
"""Opening a key's node, and nothing else than that key's node.

What was opened is judged by its descriptor before a byte is written: the device number that the
kernel gave the key, and the report descriptor and ids that the opened device itself has. hidraw
has no exclusive opening, and every reader gets every packet; libfido2 (pam_u2f, ssh, fido2-token)
takes a lock on the node with flock(2) while it uses a key, so the same lock is taken here.
"""

import errno
import fcntl
import os
import stat
import struct

from pam_mfa.errors import (
    KeyAccessError,
    KeyBusyError,
    KeyGoneError,
    SecurityKeyError,
    UnsafeNodeError,
)
from pam_mfa.hardware.nodes import AttachedKey
from pam_mfa.hardware.report_descriptor import (
    SIZE_MAX,
    ReportDescriptorError,
    find_fido_reports,
)

# linux/hidraw.h
_HIDIOCGRDESCSIZE = 0x80044801
_HIDIOCGRDESC = 0x90044802
_HIDIOCGRAWINFO = 0x80084803
GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO, errno.ESHUTDOWN})


def open_node(key: AttachedKey) -> int:
    """Return a descriptor of a key's node, checked and locked; the caller closes it.

    Raises:
        KeyAccessError: this user may not open it.
        UnsafeNodeError: something else stands at its path.
        KeyGoneError: it is no longer attached.
        KeyBusyError: another program holds its lock.
    """
    # No links; O_NONBLOCK and O_NOCTTY: what stands there may be a fifo or a terminal.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(key.path, flags)
    except OSError as error:
        raise _opening_error(key, error) from error
    try:
        _require_own_node(key, os.fstat(descriptor))
        _require_key(key, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise KeyBusyError(
            f"another program is using {describe(key)}", hint="End that program, or wait for it."
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise gone_error(key) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def describe(key: AttachedKey) -> str:
    """Return a key's words for a person: what it calls itself, and its node."""
    return (
        f"the security key {key.name or f'{key.vendor_id:04x}:{key.product_id:04x}'} ({key.path})"
    )


def gone_error(key: AttachedKey) -> KeyGoneError:
    """Return the error of a key that was pulled out."""
    return KeyGoneError(f"{describe(key)} was pulled out", hint="Attach it again.")


def _opening_error(key: AttachedKey, error: OSError) -> SecurityKeyError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return KeyAccessError(
            f"user id {os.geteuid()} may not open {describe(key)}",
            hint="Install the udev rule 71-pam-mfa.rules, then: udevadm control --reload; "
            "udevadm trigger --subsystem-match=hidraw; without udev: "
            f"chgrp pam-mfa {key.path}; chmod 0660 {key.path}",
        )
    if error.errno in GONE:
        return gone_error(key)
    if error.errno == errno.ELOOP:
        return UnsafeNodeError(
            f"{key.path} is a symbolic link, not a device", hint=f"See: ls -l {key.path}"
        )
    return SecurityKeyError(f"{describe(key)} cannot be opened: {error.strerror}")


def _require_own_node(key: AttachedKey, about: os.stat_result) -> None:
    if not stat.S_ISCHR(about.st_mode) or about.st_rdev != key.device_number:
        raise UnsafeNodeError(
            f"{key.path} is not the device node of {key.sysname}", hint=f"See: ls -l {key.path}"
        )


def _require_key(key: AttachedKey, descriptor: int) -> None:
    """Refuse a device that took the key's number after it was listed."""
    size_field = fcntl.ioctl(descriptor, _HIDIOCGRDESCSIZE, bytes(4))
    size = min(int.from_bytes(size_field, "little"), SIZE_MAX)
    field = struct.pack("I", size) + bytes(size)  # struct hidraw_report_descriptor
    report_descriptor = bytearray(field)
    fcntl.ioctl(descriptor, _HIDIOCGRDESC, report_descriptor)
    info = fcntl.ioctl(descriptor, _HIDIOCGRAWINFO, bytes(8))
    _, vendor_id, product_id = struct.unpack("IHH", info)
    try:
        reports = find_fido_reports(bytes(report_descriptor[4:]))
    except ReportDescriptorError:
        reports = None
    if reports != key.reports or (vendor_id, product_id) != (key.vendor_id, key.product_id):
        raise KeyGoneError(
            f"another device has taken the place of {describe(key)}", hint="Attach it again."
        )
