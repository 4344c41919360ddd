# SPDX-License-Identifier: Apache-2.0
"""The key as a real USB device: dummy_hcd is the bus, configfs and f_hid are the device.

Needs root, and the modules dummy_hcd, libcomposite and usb_f_hid. Unlike uhid's, the device has
USB parents, a path and a manufacturer for udev to see.
"""

import contextlib
import os
import select
import subprocess
import time
from pathlib import Path

from security_key.ctaphid import PACKET
from security_key.model import Model
from security_key.server import strip_report_number
from security_key.uhid import REPORT_DESCRIPTOR

MODULES = ("dummy_hcd", "libcomposite", "usb_f_hid")
CONFIGFS = Path("/sys/kernel/config")
CONTROLLERS = Path("/sys/class/udc")
ENGLISH = "0x409"
TAKEN_WITHIN_MS = 1000
CONFIGURED_WITHIN = 20.0
STATE = 32  # bytes of a state's name, at most


def wait_until_configured(state: Path) -> None:
    """Wait until a controller's host has configured the device; its hidraw node is next."""
    deadline = time.monotonic() + CONFIGURED_WITHIN
    with state.open("rb", buffering=0) as file:
        changes = select.poll()
        changes.register(file, select.POLLPRI | select.POLLERR)
        while file.read(STATE).strip() != b"configured":
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the host does not take the USB device")
            changes.poll(min(left, 0.1) * 1000)
            file.seek(0)


class Gadget:
    """One device; UDC is the socket that it is plugged into."""

    def __init__(self, model: Model, name: str = "security_key") -> None:
        """Set the device up, unplugged."""
        for module in MODULES:
            subprocess.run(["modprobe", module], check=True)
        if not (CONFIGFS / "usb_gadget").is_dir():
            subprocess.run(["mount", "-t", "configfs", "none", str(CONFIGFS)], check=True)
        self.path = CONFIGFS / "usb_gadget" / name
        self.function = self.path / "functions/hid.usb0"
        self.descriptor: int | None = None
        self._remove()
        self._write(model)

    def plug(self) -> None:
        """Plug it in, to the first controller, and wait until the host has taken it."""
        controller = min(each.name for each in CONTROLLERS.iterdir())
        (self.path / "UDC").write_text(controller)
        self.descriptor = os.open(self._node(), os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        wait_until_configured(CONTROLLERS / controller / "state")

    def unplug(self) -> None:
        """Pull it out."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        (self.path / "UDC").write_text("\n")

    def close(self) -> None:
        """Take the whole device away."""
        self._remove()

    def filenos(self) -> list[int]:
        """Return the descriptor."""
        return [] if self.descriptor is None else [self.descriptor]

    def receive(self, fileno: int) -> list[bytes]:
        """Return a host's packet."""
        try:
            data = os.read(fileno, PACKET)
        except BlockingIOError:
            return []
        return [strip_report_number(data)] if data else []

    def send(self, packet: bytes) -> None:
        """Send a packet, which a host takes only while it has the device open."""
        if self.descriptor is None:
            return
        ready = select.poll()
        ready.register(self.descriptor, select.POLLOUT)
        if not ready.poll(TAKEN_WITHIN_MS):
            raise TimeoutError("no host takes the packet")
        os.write(self.descriptor, packet)

    def _node(self) -> str:
        """Return the function's device node, made here where nobody else makes it."""
        number = (self.function / "dev").read_text().strip()
        major, minor = (int(part) for part in number.split(":"))
        node = f"/dev/hidg{minor}"
        with contextlib.suppress(FileExistsError):
            os.mknod(node, 0o600 | 0o020000, os.makedev(major, minor))
        return node

    def _write(self, model: Model) -> None:
        """Write the device's description."""
        texts = {
            "idVendor": f"{model.vendor_id:#06x}",
            "idProduct": f"{model.product_id:#06x}",
            "bcdUSB": "0x0200",
            "bcdDevice": "0x0100",
            f"strings/{ENGLISH}/manufacturer": model.manufacturer,
            f"strings/{ENGLISH}/product": model.product,
            f"strings/{ENGLISH}/serialnumber": model.serial_number,
            f"configs/c.1/strings/{ENGLISH}/configuration": "FIDO",
            "functions/hid.usb0/protocol": "0",
            "functions/hid.usb0/subclass": "0",
            "functions/hid.usb0/report_length": str(PACKET),
        }
        for name, text in texts.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (self.function / "report_desc").write_bytes(REPORT_DESCRIPTOR)
        (self.path / "configs/c.1/hid.usb0").symlink_to(self.function)

    def _remove(self) -> None:
        """Take the device apart, in the order in which configfs allows it."""
        if not self.path.is_dir():
            return
        with contextlib.suppress(OSError):
            (self.path / "UDC").write_text("\n")
        (self.path / "configs/c.1/hid.usb0").unlink(missing_ok=True)
        for name in (
            f"configs/c.1/strings/{ENGLISH}",
            "configs/c.1",
            "functions/hid.usb0",
            f"strings/{ENGLISH}",
            "",
        ):
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).rmdir()
