# SPDX-License-Identifier: Apache-2.0
"""A private host: namespaces in which real login programs run on files of their own.

Owns the mount, UTS and process namespaces, and private copies of what a login reads or writes:
/etc (so also pam.d, passwd, shadow, sudoers), /run (utmp, sudo's time stamps), /var/log (wtmp,
btmp, lastlog), /var/lib/sudo and /dev. The network, /tmp, /var/tmp and the rest are the machine's.
Nothing that happens inside may change the machine, and every process in it dies with it.
"""

import contextlib
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from host_accounts import Account, add_accounts, set_root
from host_syslog import SyslogSocket

# How long anything may take before it counts as hung; a loaded machine is slow, never this slow.
PATIENCE_SECONDS = 30.0
HOST_NAME = "private-host"
PRIVATE_FOLDERS = ("/etc", "/run", "/var/log", "/var/lib/sudo", "/dev")
BASE_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "dumb",
}

# The first process of the namespaces. It lives until its standard input closes, which also happens
# when the test dies in whatever way. /dev is made of binds since a sandbox may forbid mknod;
# a bound ptmx finds no pts, so it alone is a node or a link.
_INIT = r"""
set -eu
root=$1; shift
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 755 /run/sshd
mkdir -m 1777 /run/lock
: > /run/utmp
mount -t tmpfs -o mode=755 tmpfs /var/log
for log in wtmp btmp lastlog faillog; do
  : > "/var/log/$log"; chgrp utmp "/var/log/$log"; chmod 660 "/var/log/$log"
done
if [ -d /var/lib/sudo ]; then mount -t tmpfs -o mode=700 tmpfs /var/lib/sudo; fi
mount --bind "$root/etc" /etc
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
  : > "$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"
done
for folder in pts shm; do
  mkdir "$root/dev/$folder"; mount --bind "/dev/$folder" "$root/dev/$folder"
done
mknod -m 666 "$root/dev/ptmx" c 5 2 2>/dev/null || ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
ln -s "$root/syslog" "$root/dev/log"
mount --rbind "$root/dev" /dev
echo "$HOST_NAME" > /proc/sys/kernel/hostname
while [ "$#" -gt 0 ]; do
  if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "${2%/*}"; [ -e "$2" ] || : > "$2"; fi
  mount --bind "$1" "$2"; shift 2
done
echo ready
read -r _ || exit 0
"""


@dataclass(frozen=True)
class Bind:
    """A file or folder of the machine that a private host shows at another path."""

    source: Path
    target: Path


class PrivateHost:
    """Namespaces with accounts of their own; enter it as a context manager.

    `etc` is the folder that the inside sees as /etc; a test may edit it at any time.
    """

    def __init__(
        self,
        accounts: Sequence[Account] = (),
        *,
        root_password: str | None = None,
        binds: Sequence[Bind] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the host; `environment` is added to that of every program started inside.

        Raises:
            ValueError: a bind's target would have to be made on the machine itself.
        """
        for bind in binds:
            _require_private_target(bind)
        self._accounts = tuple(accounts)
        self._root_password = root_password
        self._binds = tuple(binds)
        self._pid = 0
        self._cleanup = contextlib.ExitStack()
        self.environment = BASE_ENVIRONMENT | dict(environment or {})

    def __enter__(self) -> Self:
        """Copy the files and start the namespaces."""
        with contextlib.ExitStack() as cleanup:
            self.root = Path(tempfile.mkdtemp(prefix="private-host-", dir=_memory_folder()))
            cleanup.callback(shutil.rmtree, self.root)
            self._write_files()
            self._syslog = cleanup.enter_context(SyslogSocket(self.root / "syslog"))
            self._start(cleanup)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every process inside, then remove the files."""
        self._cleanup.close()

    @property
    def etc(self) -> Path:
        """The folder that the inside sees as /etc."""
        return self.root / "etc"

    def home(self, name: str) -> Path:
        """Return an account's home: the same path inside and outside."""
        return self.root / "home" / name

    def write_pam_service(self, service: str, text: str) -> None:
        """Make `text` the PAM stack of a service, in place of the machine's or as a new one."""
        (self.etc / "pam.d" / service).write_text(text)

    def syslog_text(self) -> str:
        """Return what programs and PAM modules inside have logged so far."""
        return self._syslog.text()

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """Return the command line that runs `argv` inside, as root, in the folder /.

        Start it with `environment`; it takes its descriptors and terminal from its caller.
        """
        namespaces = f"/proc/{self._pid}/ns"
        return [
            "nsenter",
            f"--mount={namespaces}/mnt",
            f"--uts={namespaces}/uts",
            f"--pid={namespaces}/pid_for_children",
            "--",
            *map(str, argv),
        ]

    def terminal_command(self, argv: Sequence[str | Path]) -> list[str]:
        """Return the command line that runs `argv` inside as the owner of the caller's terminal.

        When the terminal hangs up, that reaches `argv` and not nsenter: the latter has to stay to
        collect it, else the namespaces cannot end on a machine whose init is slow to.
        """
        return self.command(["setsid", "--ctty", "--wait", *argv])

    def run(
        self, argv: Sequence[str | Path], *, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside, as root, and return what it printed.

        Raises:
            subprocess.CalledProcessError: it failed, and `check` is true.
        """
        return subprocess.run(
            self.command(argv),
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            check=check,
            timeout=PATIENCE_SECONDS,
        )

    def _write_files(self) -> None:
        """Copy /etc and add the accounts to the copy."""
        # Accounts reach their homes through the folder but cannot list it.
        os.chmod(self.root, 0o711)  # noqa: PTH101,S103 - a search bit shows nothing
        for name in ("dev", "home"):
            (self.root / name).mkdir(mode=0o755)
        subprocess.run(["cp", "-a", "/etc", self.etc], check=True, timeout=PATIENCE_SECONDS)
        with (self.etc / "hosts").open("a") as hosts:
            hosts.write(f"127.0.1.1 {HOST_NAME}\n")
        set_root(self.etc, self.root / "home", self._root_password)
        add_accounts(self.etc, self.root / "home", self._accounts)

    def _start(self, cleanup: contextlib.ExitStack) -> None:
        """Start the first process and wait until every mount stands."""
        pairs = [str(path) for bind in self._binds for path in (bind.source, bind.target)]
        flags = ["--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
        process = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", _INIT, "init", self.root, *pairs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=BASE_ENVIRONMENT | {"HOST_NAME": HOST_NAME},
            start_new_session=True,
        )
        cleanup.callback(_stop, process)
        self._pid = process.pid
        if process.stdout is not None:
            _await_ready(process.stdout)


def _memory_folder() -> Path | None:
    """Return where files cost no disk access, or None for the usual temporary folder."""
    shared_memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder of its own in it
    return shared_memory if os.access(shared_memory, os.W_OK) else None


def _require_private_target(bind: Bind) -> None:
    """Refuse a target that does not exist and would be made on the machine."""
    private = any(bind.target.is_relative_to(folder) for folder in PRIVATE_FOLDERS)
    if not private and not bind.target.exists():
        raise ValueError(f"{bind.target} is not there: make it, or bind below {PRIVATE_FOLDERS}")


def _await_ready(output: IO[bytes]) -> None:
    """Wait for the first process's word.

    Raises:
        RuntimeError: it ended, or took too long, before it was ready; with what it said.
    """
    said = b""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while b"ready\n" not in said:
        readable, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(output.fileno(), 4096) if readable else b""
        if not chunk:
            raise RuntimeError(f"the private host did not start (root is needed): {said!r}")
        said += chunk


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the namespaces: the first process leaves, and the kernel kills the others."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
