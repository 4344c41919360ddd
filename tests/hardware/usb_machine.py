# SPDX-License-Identifier: Apache-2.0
"""A machine with USB ports, by umockdev: sysfs, uevents and hidraw nodes that programs believe.

What is plugged in here is seen by unmodified libudev, pyudev, python-fido2 and libfido2 in this
process and its children. udevd's part, its data under /run/udev, is written as udevd would.
"""

import errno
import gc
import os
import struct
import subprocess
import sys
import termios
import threading
import warnings
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple, Self

from security_key.ctaphid import Engine
from security_key.key import SecurityKey

from pam_mfa.hardware import nodes

UDEV_DATA = Path("/run/udev/data")
BINDINGS = "/usr/lib/python3/dist-packages"
KEY_DESCRIPTOR = bytes.fromhex(
    "06d0f10901a1010920150026ff007508954081020921150026ff00750895409102c0"
)
# The boot keyboard of HID 1.11, appendix B.1.
KEYBOARD_DESCRIPTOR = bytes.fromhex(
    "05010906a101050719e029e71500250175019508810295017508810195057501050819012905910295017503"
    "910195067508150025650507190029658100c0"
)
# linux/hidraw.h, the numbers of the requests alone
_RDESC_SIZE, _RDESC, _RAW_INFO, _RAW_NAME = 1, 2, 3, 4


class Product(NamedTuple):
    """What is plugged in, as it describes itself."""

    name: str = "Acme Blue Key"
    descriptor: bytes = KEY_DESCRIPTOR
    vendor_id: int = 0x1209
    product_id: int = 0xBEEF
    tag: str | None = "1"  # what udev's rules set ID_FIDO_TOKEN to
    has_udev_data: bool = True


KEY = Product()
KEYBOARD = Product("Acme Keyboard", KEYBOARD_DESCRIPTOR, tag=None)


def load_umockdev() -> tuple[Any, Any]:
    """Return umockdev and GLib; the bindings are the distribution's, not the environment's."""
    sys.path.append(BINDINGS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # gi's own importer is of the old kind
            import gi  # noqa: PLC0415 - it is not on the path before

            gi.require_version("UMockdev", "1.0")
            from gi.repository import GLib, UMockdev  # noqa: PLC0415
    finally:
        sys.path.remove(BINDINGS)
    maps = Path("/proc/self/maps").read_text("utf-8")
    assert "libumockdev-preload" in maps, "start this layer by: tests/run hardware"
    threading.Thread(target=GLib.MainLoop().run, daemon=True).start()
    return UMockdev, GLib


UMockdev, GLib = load_umockdev()
_IoctlBase: Any = UMockdev.IoctlBase


class Plugged:
    """Something in a port: its node and what it does."""

    def __init__(self, machine: "Machine", number: int, product: Product) -> None:
        """Describe it; ``Machine.plug`` puts it in."""
        self.product = product
        self.path = f"/dev/hidraw{number}"
        self.number = number
        self.hid = f"/devices/pci0/usb1/0003:1209:BEEF.{number + 1:04X}"
        self.syspath = f"{self.hid}/hidraw/hidraw{number}"
        self.machine = machine
        self.is_gone = False
        self.descriptor = product.descriptor  # of the device itself; a test may swap it

    @property
    def place(self) -> Path:
        """Where the node really is."""
        return Path(self.machine.testbed.get_root_dir()) / self.path[1:]


class _Far(_IoctlBase):  # type: ignore[misc] # no types
    """The kernel's and the device's side of one node. Runs in the main loop's thread."""

    def __init__(self, plugged: Plugged, engine: Engine | None) -> None:
        super().__init__()
        self.plugged = plugged
        self.engine = engine
        self.packets: deque[bytes] = deque()
        self.wakener = plugged.machine.testbed.get_dev_fd(plugged.path)
        self.terminal = os.open(plugged.place.readlink(), os.O_RDWR | os.O_NOCTTY)

    def do_client_connected(self, client: Any) -> None:  # noqa: ANN401
        self.plugged.machine.opened.append(client.get_devnode())

    def do_handle_ioctl(self, client: Any) -> bool:  # noqa: ANN401
        product, descriptor = self.plugged.product, self.plugged.descriptor
        request = client.get_request() & 0xFF
        if request == _RDESC_SIZE:
            self._fill(client, 0, struct.pack("I", len(descriptor)))
        elif request == _RDESC:
            self._fill(client, 4, descriptor)
        elif request == _RAW_INFO:
            info = struct.pack("IHH", 3, product.vendor_id, product.product_id)
            self._fill(client, 0, info)
        elif request == _RAW_NAME:
            self._fill(client, 0, product.name.encode() + b"\0")
        else:
            client.complete(-1, errno.EINVAL)
        return True

    def _fill(self, client: Any, offset: int, data: bytes) -> None:  # noqa: ANN401
        client.get_arg().resolve(0, offset + len(data)).update(offset, data)
        client.complete(len(data), 0)

    def do_handle_write(self, client: Any) -> bool:  # noqa: ANN401
        report = bytes(client.get_arg().retrieve())
        if self.plugged.is_gone:
            client.complete(-1, errno.ENODEV)
            return True
        client.complete(len(report), 0)
        assert self.engine is not None, f"{self.plugged.path} was written to"
        self._send(self.engine.receive(report[1:]))
        if self.engine.find_patience() is not None:
            GLib.timeout_add(10, self._tick)
        return True

    def _tick(self) -> bool:
        assert self.engine is not None
        self._send(self.engine.tick())
        return self.engine.find_patience() is not None and not self.plugged.is_gone

    def _send(self, packets: list[bytes]) -> None:
        self.packets.extend(packets)
        if packets:
            self.wake()

    def wake(self) -> None:
        os.write(self.wakener, b"!")

    def do_handle_read(self, client: Any) -> bool:  # noqa: ANN401
        if self.packets:
            packet = self.packets.popleft()
            client.get_arg().update(0, packet)
            client.complete(len(packet), 0)
        else:
            client.complete(-1, errno.EIO if self.plugged.is_gone else errno.EAGAIN)
        if not self.packets and not self.plugged.is_gone:
            termios.tcflush(self.terminal, termios.TCIFLUSH)
        return True


class Machine:
    """Ports to plug things in; every opening of a node is written down in ``opened``."""

    def __init__(self) -> None:
        """Begin with nothing plugged in, and no udevd."""
        self.testbed = UMockdev.Testbed.new()
        self.opened: list[str] = []
        self._far: dict[str, _Far] = {}
        self._mounts: list[Path] = []
        self._count = 0

    def __enter__(self) -> Self:
        """Return itself."""
        UDEV_DATA.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Pull everything out."""
        for far in self._far.values():
            self.testbed.detach_ioctl(far.plugged.path)
            os.close(far.terminal)
        for place in self._mounts:
            run_outside("umount", place)
        run_outside("rm", "-r", "/run/udev")
        # The testbed must be gone before the next test makes one: its end clears UMOCKDEV_DIR.
        root = Path(self.testbed.get_root_dir())
        self._far.clear()
        del self.testbed
        gc.collect()
        assert not root.exists(), "something holds the testbed"

    def start_udevd(self) -> None:
        """Have events and data come from udevd."""
        nodes.UDEV_CONTROL.touch()

    def plug(self, product: Product = KEY, key: SecurityKey | None = None) -> Plugged:
        """Plug something in; a key of the tests behind it answers."""
        plugged = Plugged(self, self._count, product)
        self._count += 1
        self._write_udev_data(plugged)
        self.testbed.add_from_string(self._describe(plugged))
        far = _Far(plugged, Engine(key) if key else None)
        self.testbed.attach_ioctl(plugged.path, far)
        self._far[plugged.path] = far
        self._place_node(plugged)
        return plugged

    def unplug(self, plugged: Plugged) -> None:
        """Pull something out; who has it open reads EIO."""
        plugged.is_gone = True
        self.testbed.uevent(f"/sys{plugged.syspath}", "remove")
        for path in (plugged.syspath, plugged.hid):
            self.testbed.remove_device(f"/sys{path}")
        self._far[plugged.path].wake()

    def let_others_in(self) -> None:
        """Let other users at umockdev's own files, so that the node's mode alone keeps them out."""
        root = Path(self.testbed.get_root_dir())
        for place in (root, *(root / "ioctl").rglob("*")):
            place.chmod(0o777)

    def _write_udev_data(self, plugged: Plugged) -> None:
        if plugged.product.has_udev_data:
            tag = "" if plugged.product.tag is None else f"E:ID_FIDO_TOKEN={plugged.product.tag}\n"
            (UDEV_DATA / f"c245:{plugged.number}").write_text(f"I:1000\n{tag}V:1\n")

    def _describe(self, plugged: Plugged) -> str:
        product = plugged.product
        return (
            f"P: {plugged.hid}\n"
            "E: SUBSYSTEM=hid\n"
            f"E: HID_ID=0003:{product.vendor_id:08X}:{product.product_id:08X}\n"
            f"E: HID_NAME={product.name}\n"
            f"E: HID_PHYS=usb-0000:00:14.0-{plugged.number}/input0\n"
            f"E: HID_UNIQ=\n"
            f"H: report_descriptor={product.descriptor.hex().upper()}\n"
            "\n"
            f"P: {plugged.syspath}\n"
            f"N: hidraw{plugged.number}\n"
            "E: SUBSYSTEM=hidraw\n"
            f"E: DEVNAME={plugged.path}\n"
            "E: MAJOR=245\n"
            f"E: MINOR={plugged.number}\n"
            f"A: dev=245:{plugged.number}\\n\n"
            f"L: device=../../../{Path(plugged.hid).name}\n"
        )

    def _place_node(self, plugged: Plugged) -> None:
        """Put a node where umockdev has a link to a terminal: a link is what we refuse."""
        terminal = plugged.place.readlink()
        self.put(plugged, terminal)
        number = terminal.stat().st_rdev
        self.testbed.set_attribute(
            f"/sys{plugged.syspath}", "dev", f"{os.major(number)}:{os.minor(number)}\n"
        )

    def put(self, plugged: Plugged, source: Path) -> None:
        """Have a node's path be another file."""
        if plugged.place in self._mounts:
            run_outside("umount", plugged.place)
        else:
            plugged.place.unlink()
            plugged.place.touch()
            self._mounts.append(plugged.place)
        run_outside("mount", "--bind", source, plugged.place)

    def take_away(self, plugged: Plugged) -> None:
        """Have no node at a path, for a test to put its own there."""
        run_outside("umount", plugged.place)
        self._mounts.remove(plugged.place)
        plugged.place.unlink()


def run_outside(*command: str | Path) -> None:
    """Run a program that is not to see the fake machine."""
    subprocess.run(command, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, check=True, timeout=30)
