# SPDX-License-Identifier: Apache-2.0
"""A running guest: commands in it, files into it, its clock, its reboot.

Owns the way in: an ssh connection to a port of its own, apart from the sshd that is tested. Every
guest starts from the image as it was made. Nothing of the product is known here.
"""

import contextlib
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vm.host_commands import TIED_TO_PARENT, HostError
from vm.image import Image, make_image
from vm.qemu import STOP_SECONDS, Accelerator, Qemu, Setting, Start, find_accelerator
from vm.root_tree import CONTROL_PORT

SSHD_PORT = 22  # in the guest: the sshd that is tested
BOOT_SECONDS = 120.0  # a boot takes 6 s without hardware virtualization; a loaded machine is slow
COMMAND_SECONDS = 60.0
_ISOLATION = (
    "BatchMode=yes",
    "GlobalKnownHostsFile=/dev/null",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "LogLevel=ERROR",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
)


class Guest:
    """A guest; enter it as a context manager, which boots it."""

    def __init__(
        self,
        image: Image | None = None,
        accelerator: Accelerator | None = None,
        start: Start | None = None,
    ) -> None:
        """Describe it: by default the cached image, and KVM where that works."""
        self._start = start or Start()
        self._image = make_image() if image is None else image
        self.accelerator = accelerator or find_accelerator(self._image)
        self._cleanup = contextlib.ExitStack()
        self._master: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Boot, and wait until systemd has started everything."""
        with contextlib.ExitStack() as cleanup:
            folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="mfa-guest-"))
            self._control = Path(folder, "control")
            setting = Setting(self._image, self.accelerator, (CONTROL_PORT, SSHD_PORT))
            self._qemu = Qemu(setting, Path(folder), self._start)
            cleanup.callback(self._qemu.close)
            cleanup.callback(self._disconnect)
            if self._start.is_awaited:
                self.await_boot()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the guest as a power cut does."""
        self._cleanup.close()

    @property
    def ssh_port(self) -> int:
        """The port of the host's loopback that leads to the sshd under test."""
        return self._host_port(SSHD_PORT)

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = COMMAND_SECONDS,
        stdin: str = "",
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root, a line of shell or a program with its arguments.

        Raises:
            subprocess.CalledProcessError: it failed, and `check` is true.
            subprocess.TimeoutExpired: it took too long.
        """
        done = subprocess.run(
            self.remote_command(command),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            failure = subprocess.CalledProcessError(
                done.returncode, command, done.stdout, done.stderr
            )
            failure.add_note(f"{done.stdout}\n{done.stderr}")
            raise failure
        return done

    def output(self, command: str | Sequence[str], *, stdin: str = "") -> str:
        """Run a command as root and return what it printed, without spaces around it."""
        return self.run(command, stdin=stdin).stdout.strip()

    def start(self, program: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a Python program of this machine in the guest, as root, on two pipes.

        It has to end when its standard input does: nothing else ends it. What it writes to
        standard error shows with that of the tests.
        """
        python = ["python3", "-c", program.read_text(), *arguments]
        return subprocess.Popen(
            self.remote_command(python),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def put(self, source: Path, destination: str) -> None:
        """Copy a folder's content into a folder, or a file to a path; they become root's."""
        folder, name = (source, ".") if source.is_dir() else (source.parent, source.name)
        target = destination if source.is_dir() else str(Path(destination).parent)
        unpack = f"mkdir -p {shlex.quote(target)} && tar -x -C {shlex.quote(target)}"
        if not source.is_dir():
            unpack += f" --transform {shlex.quote(f's|.*|{Path(destination).name}|')}"
        packing = subprocess.Popen(
            ["tar", "-c", "--owner=0", "--group=0", "-C", folder, name], stdout=subprocess.PIPE
        )
        try:
            subprocess.run(
                self.remote_command(unpack),
                stdin=packing.stdout,
                check=True,
                timeout=COMMAND_SECONDS,
            )
        finally:
            packing.kill()
            packing.communicate()

    def set_clock(self, moment: float) -> None:
        """Set the guest's clock, to seconds since the epoch."""
        self.run(["date", "--set", f"@{moment:.3f}"])

    def reboot(self) -> None:
        """Reboot, and wait as at the first start; the disk's changes stay."""
        self.run("systemctl reboot", check=False)
        self._qemu.await_reset()
        self._disconnect()
        self.await_boot()

    def cut_power(self) -> None:
        """Have the machine start again without a word to it; wait as at the first start."""
        self._qemu.reset()
        self._disconnect()
        self.await_boot()

    def kill(self) -> None:
        """End the machine at once; it does not start again."""
        self._qemu.kill()

    def save(self, name: str) -> None:
        """Keep everything as it is, for `restore`."""
        self._qemu.save(name)

    def restore(self, name: str) -> None:
        """Bring back what was saved under this name, with the clock of now."""
        self._disconnect()
        self._qemu.restore(name)
        self._await_banner(CONTROL_PORT)
        self._connect()
        self.set_clock(time.time())

    def copy_disk(self, target: Path) -> None:
        """Copy the disk with all that was written, for another guest to start from."""
        self.run("sync")
        self._qemu.copy_disk(target)

    @property
    def serial_socket(self) -> Path:
        """Where the guest's serial port, which is the kernel's console, is typed at."""
        return self._qemu.serial_socket

    def remote_command(self, command: str | Sequence[str], *options: str) -> list[str]:
        """Return the command line that runs a command in the guest as root.

        `-tt` among ssh's options gives it a terminal.
        """
        line = command if isinstance(command, str) else shlex.join(command)
        return [*self._ssh(), *options, "root@127.0.0.1", line]

    def await_boot(self) -> None:
        """Wait until systemd has started everything, and the way in is open."""
        self._await_banner(CONTROL_PORT)
        self._connect()
        self.run("systemctl is-system-running --wait", timeout=BOOT_SECONDS, check=False)
        self.set_clock(time.time())

    def await_sshd(self) -> None:
        """Wait until the sshd under test answers."""
        self._await_banner(SSHD_PORT)

    def _await_banner(self, port: int) -> None:
        """Wait until a port answers as sshd does."""
        deadline = time.monotonic() + BOOT_SECONDS
        while not self._is_answering(port):
            self._qemu.require_running()
            if time.monotonic() > deadline:
                raise HostError(f"the guest did not boot: {self._qemu.log_text()}")
            time.sleep(0.05)

    def _is_answering(self, port: int) -> bool:
        # QEMU accepts every connection; it is the guest's own first word that counts.
        address = ("127.0.0.1", self._host_port(port))
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=1) as probe:
            return probe.recv(4) == b"SSH-"
        return False

    def _connect(self) -> None:
        """Open the connection that all commands share."""
        self._master = subprocess.Popen(
            [*TIED_TO_PARENT, *self._ssh(), "-M", "-N", "root@127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + COMMAND_SECONDS
        while not self._control.exists():
            if self._master.poll() is not None or time.monotonic() > deadline:
                self._disconnect()
                raise HostError(f"no way into the guest: {self._qemu.log_text()}")
            time.sleep(0.01)

    def _disconnect(self) -> None:
        if self._master is None:
            return
        self._master.terminate()
        try:
            self._master.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._master.kill()
            self._master.wait()
        self._master = None
        self._control.unlink(missing_ok=True)

    def _ssh(self) -> list[str]:
        """Return ssh's command line up to the host."""
        options = [f"-o{option}" for option in _ISOLATION]
        key = ("-i", str(self._image.control_key))
        port = ("-p", str(self._host_port(CONTROL_PORT)))
        return ["ssh", "-F", "/dev/null", "-S", str(self._control), *options, *key, *port]

    def _host_port(self, guest_port: int) -> int:
        return next(
            forward.host_port for forward in self._qemu.forwards if forward.guest_port == guest_port
        )
