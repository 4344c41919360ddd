# SPDX-License-Identifier: Apache-2.0
"""The hidraw nodes that are FIDO keys. Reads sysfs and udev's data; opens no node.

A node is a key where the kernel's copy of its report descriptor says so and udev tagged it. Where
udev knows nothing of the node because no udevd runs (containers, rescue systems), the descriptor
decides alone. A node that udev looked at and did not tag stays untouched, whatever its descriptor
says: so an administrator hides a key. ``ID_SECURITY_TOKEN`` without ``ID_FIDO_TOKEN`` is a smart
card or the like.

``pyudev`` is loaded only when some descriptor is a key's: 15 ms, and libudev is looked up by
running ldconfig.
"""

import functools
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

from pam_mfa.hardware.report_descriptor import (
    SIZE_MAX,
    FidoReports,
    ReportDescriptorError,
    find_fido_reports,
)

HIDRAW = Path("/sys/class/hidraw")
UDEV_CONTROL = Path("/run/udev/control")  # there while udevd runs, as libudev judges it, too
_LABEL_MAX = 64  # characters of what a device calls itself
_TAG = "ID_FIDO_TOKEN"
_LIBUDEV = threading.Lock()  # libudev's objects are for one thread at a time


class AttachedKey(NamedTuple):
    """A key as it is plugged in now; plugged in again, it is another one."""

    path: str  # "/dev/hidraw3"
    sysname: str  # "hidraw3"
    syspath: str  # resolved, and never the same twice: HID devices are numbered on
    device_number: int  # as st_rdev
    name: str  # the maker and product as the device gives them, printable, perhaps ""
    serial_number: str  # of the device, printable; most keys have none: ""
    vendor_id: int
    product_id: int
    location: str  # the port: "usb-0000:00:14.0-2/input0", or ""
    reports: FidoReports


def list_keys() -> tuple[AttachedKey, ...]:
    """Return the keys that are attached now, in the order of their numbers."""
    try:
        names = os.listdir(HIDRAW)  # noqa: PTH208 - names are wanted, and Path() costs
    except OSError:
        return ()  # no HID in this kernel, or no sysfs
    keys = [key for name in sorted(names, key=_numbered) if (key := _read_node(name))]
    return tuple(_keep_tagged(keys)) if keys else ()


def _numbered(name: str) -> tuple[int, str]:
    return len(name), name


def _read_node(sysname: str) -> AttachedKey | None:
    """Return what sysfs says of a node; None where it is no key, or is gone meanwhile."""
    node = HIDRAW / sysname
    try:
        reports = find_fido_reports(_read_attribute(node / "device/report_descriptor"))
        if reports is None:
            return None
        major, minor = _read_attribute(node / "dev").decode("ascii").strip().split(":")
        about = _parse_uevent(_read_attribute(node / "device/uevent"))
        vendor_id, product_id = _parse_hid_id(about.get("HID_ID", ""))
        syspath = os.path.realpath(node)
        device_number = os.makedev(int(major), int(minor))
    except (OSError, ValueError):  # ValueError is ReportDescriptorError, too
        return None
    return AttachedKey(
        path=f"/dev/{sysname}",
        sysname=sysname,
        syspath=syspath,
        device_number=device_number,
        name=about.get("HID_NAME", ""),
        serial_number=about.get("HID_UNIQ", ""),
        vendor_id=vendor_id,
        product_id=product_id,
        location=about.get("HID_PHYS", ""),
        reports=reports,
    )


def _read_attribute(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        data = file.read(SIZE_MAX + 1)
    if len(data) > SIZE_MAX:
        raise ReportDescriptorError(f"{path} is longer than any attribute")
    return data


def _parse_uevent(text: bytes) -> dict[str, str]:
    """Return the names and values, printable; the first of a name stands.

    A device chooses its name, line breaks and terminal sequences included; the kernel writes
    HID_ID before it.
    """
    about: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition("=")
        printable = "".join(each for each in value if each.isprintable())
        about.setdefault(name, printable.strip()[:_LABEL_MAX])
    return about


def _parse_hid_id(text: str) -> tuple[int, int]:
    """Return vendor and product of "0003:00001209:0000BEEF"."""
    _, vendor_id, product_id = text.split(":")
    return int(vendor_id, 16), int(product_id, 16)


def _keep_tagged(keys: list[AttachedKey]) -> list[AttachedKey]:
    with _LIBUDEV:
        try:
            context = _load_libudev()
        except ImportError:
            return [] if UDEV_CONTROL.exists() else keys
        return [key for key in keys if _is_key_to_udev(context, key)]


@functools.cache
def _load_libudev() -> Any:  # noqa: ANN401 - pyudev has no types
    """Return a context for this module alone, under its lock: making one runs ldconfig."""
    import pyudev  # noqa: PLC0415 - slow, and most logins are without a key

    return pyudev.Context()


def _is_key_to_udev(context: Any, key: AttachedKey) -> bool:  # noqa: ANN401
    import pyudev  # noqa: PLC0415

    try:
        device = pyudev.Devices.from_name(context, "hidraw", key.sysname)
    except pyudev.DeviceNotFoundError:
        return False  # pulled out meanwhile
    tag = device.properties.get(_TAG)
    if tag is not None or device.is_initialized:
        return bool(tag == "1")
    # Not looked at: with a running udevd it is not ready yet, and its event will come.
    return not UDEV_CONTROL.exists()
