# SPDX-License-Identifier: Apache-2.0
"""One QEMU process: its flags, its acceleration, its end.

Knows nothing of what runs in the guest. A process ends with the one that started it, however that
ends, and the disk's changes are gone with it.
"""

import functools
import re
import subprocess
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from vm.host_commands import TIED_TO_PARENT, HostError, run_on_host
from vm.image import Image
from vm.monitor import Monitor

STOP_SECONDS = 10.0
COPY_SUFFIX = ".qcow2"  # of a copied disk
_PROBE_SECONDS = 5.0
_MEMORY = "1024"  # MiB
# Not microvm, which boots a second sooner: without the clocks that pc has, its kernel may hang in
# calibrating its own where the host is busy.
_MACHINE = "pc"
# The guest is nobody's neighbor; what protects neighbors costs time. no_timer_check: on a busy host
# the kernel would take a timer that is late for none, and wait for another that there is not.
_KERNEL_LINE = (
    "console=ttyS0 root=/dev/vda rw quiet mitigations=off nokaslr net.ifnames=0 no_timer_check"
)


class Accelerator(StrEnum):
    """What runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


_ACCELERATION = {
    Accelerator.KVM: ("-accel", "kvm", "-cpu", "host"),
    Accelerator.TCG: ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"),
}


class Start(NamedTuple):
    """How a guest starts, where that is not from the image's own disk."""

    disk: Path | None = None  # of another guest (`Qemu.copy_disk`), which is not changed
    words: str = ""  # behind the kernel's line, as somebody types them in a boot menu
    second_disk: Path | None = None  # such a one, beside the root file system
    drives: tuple[str, ...] = ()  # more disks, which nothing comes between, in words of -drive
    is_awaited: bool = True  # False: it comes to no boot by itself


class Forward(NamedTuple):
    """A port of the guest that a port of the host's loopback leads to."""

    guest_port: int
    host_port: int


@functools.cache
def find_accelerator(image: Image) -> Accelerator:
    """Return KVM where it really runs this kernel, else TCG.

    A /dev/kvm that opens is no proof: on a virtual machine it may end QEMU, or crawl. The kernel
    is started without a disk, and must come as far as missing it.
    """
    command = [
        *(*TIED_TO_PARENT, *_machine(image, Accelerator.KVM)),
        *("-no-reboot", "-append", f"{_KERNEL_LINE} panic=-1", "-serial", "stdio"),
    ]
    try:
        tried = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=_PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Accelerator.TCG
    missed_it = tried.returncode == 0 and b"Kernel panic" in tried.stdout
    return Accelerator.KVM if missed_it else Accelerator.TCG


class Setting(NamedTuple):
    """What all guests of a run have in common."""

    image: Image
    accelerator: Accelerator
    ports: tuple[int, ...]


class Qemu:
    """A started QEMU; its files are in `folder`, which is its own."""

    def __init__(self, setting: Setting, folder: Path, start: Start) -> None:
        """Start it, with ports of the guest reachable by ports of loopback.

        Raises:
            HostError: it ended at once.
        """
        self.serial_socket = folder / "serial.socket"
        self._serial = folder / "serial"
        self._errors = folder / "errors"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                _command(setting, folder, start),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        try:
            self._monitor = Monitor(folder / "monitor", self.require_running)
        except HostError as error:
            self._stop()
            raise HostError(f"QEMU did not start: {self.log_text()}") from error
        except BaseException:
            self._stop()
            raise
        self.forwards = tuple(_parse_forwards(self._order("info usernet")))

    def close(self) -> None:
        """End the process and collect it."""
        self._monitor.close()
        self._stop()

    def kill(self) -> None:
        """End the process at once: what the guest had not flushed, QEMU does not flush either."""
        self._process.kill()
        self._process.wait()

    def require_running(self) -> None:
        """Raise where the process is gone.

        Raises:
            HostError: with what it said last.
        """
        if self._process.poll() is not None:
            raise HostError(f"QEMU ended: {self.log_text()}")

    def log_text(self) -> str:
        """Return the end of what QEMU and the guest's serial port have written."""
        paths = [path for path in (self._errors, self._serial) if path.exists()]
        return "\n".join(path.read_text(errors="replace") for path in paths)[-4000:]

    def await_reset(self) -> None:
        """Wait until the guest has reset the machine, as a reboot does."""
        self._monitor.await_event("RESET")

    def reset(self) -> None:
        """Start the machine again without a word to the guest, as a power cut does."""
        self._monitor.execute("system_reset")
        self.await_reset()

    def save(self, name: str) -> None:
        """Keep memory and disk as they are, until this process ends."""
        self._require_silence(self._order(f"savevm {name}"))

    def restore(self, name: str) -> None:
        """Bring back what was kept under this name; connections into the guest are dead."""
        self._require_silence(self._order(f"loadvm {name}"))

    def copy_disk(self, target: Path) -> None:
        """Copy the root file system as it is in this moment; the guest goes on."""
        self._monitor.execute(
            "drive-backup", device="root", target=str(target), format="qcow2", sync="top"
        )
        self._monitor.await_event("BLOCK_JOB_COMPLETED")

    def _order(self, line: str) -> str:
        """Give a command in the monitor's language for people; return what it said."""
        return str(self._monitor.execute("human-monitor-command", **{"command-line": line}))

    def _require_silence(self, said: str) -> None:
        if said.strip():
            raise HostError(f"QEMU says: {said.strip()}")

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _machine(image: Image, accelerator: Accelerator) -> list[str]:
    """Return the flags that a probe shares with a guest."""
    return [
        *("qemu-system-x86_64", "-M", _MACHINE, *_ACCELERATION[accelerator]),
        *("-smp", "2", "-m", _MEMORY, "-nodefaults", "-display", "none"),
        *("-kernel", str(image.kernel)),
    ]


def _command(setting: Setting, folder: Path, start: Start) -> list[str]:
    """Return the command line of a guest that can reach nothing and is reached from loopback."""
    # Port 0: one that is free. Loopback only: the accounts' passwords are no secret.
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:0-:{port}" for port in setting.ports)
    second = _drive("second", start.second_disk, folder) if start.second_disk else []
    for number, words in enumerate(start.drives):
        second += ["-drive", f"id=more{number},if=none,format=raw,{words}"]
        second += ["-device", f"virtio-blk-pci,drive=more{number}"]
    return [
        *(*TIED_TO_PARENT, *_machine(setting.image, setting.accelerator)),
        *("-initrd", str(setting.image.initrd), "-append", f"{_KERNEL_LINE} {start.words}"),
        *(*_drive("root", start.disk or setting.image.disk, folder), *second),
        *("-netdev", f"user,id=net,ipv6=off,restrict=on{forwards}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-chardev", _serial(folder), "-serial", "chardev:serial"),
        *("-qmp", f"unix:{folder / 'monitor'},server=on,wait=off"),
    ]


def _drive(name: str, disk: Path, folder: Path) -> list[str]:
    """Return the flags of a disk whose changes go into a file of the guest's own.

    Not snapshot=on: with it QEMU 7.2 deletes the disk itself when a saved state is brought back.
    """
    kind = "qcow2" if disk.suffix == COPY_SUFFIX else "raw"
    overlay = folder / f"{name}.qcow2"
    run_on_host(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk.resolve(), "-F", kind, overlay],
        timeout=60,
    )
    return [
        *("-drive", f"id={name},if=none,format=qcow2,cache=unsafe,file={overlay}"),
        *("-device", f"virtio-blk-pci,drive={name}"),
    ]


def _serial(folder: Path) -> str:
    """Return the serial port: written down, and somebody may come and type there."""
    place = folder / "serial"
    return f"socket,id=serial,path={place}.socket,server=on,wait=off,logfile={place}"


def _parse_forwards(listed: str) -> Iterator[Forward]:
    """Read the ports out of the monitor's `info usernet`."""
    pattern = r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)"
    for host_port, guest_port in re.findall(pattern, listed):
        yield Forward(int(guest_port), int(host_port))
