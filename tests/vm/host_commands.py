# SPDX-License-Identifier: Apache-2.0
"""Programs of the host that the layer runs: each has a time limit, and its failure says why.

Runs nothing inside a guest.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# The program, and Debian's package that has it.
PROGRAMS = {
    "cpio": "cpio",
    "dpkg-deb": "dpkg",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "modprobe": "kmod",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
}
# In front of a command: if this process dies, in whatever way, the command is killed.
TIED_TO_PARENT = ("setpriv", "--pdeathsig", "KILL")
# Where Debian keeps root's programs, which a PATH may lack.
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class HostError(RuntimeError):
    """This machine cannot make or run the guest; the text says why, and what to do."""


def require_programs() -> None:
    """Raise for what is not installed.

    Raises:
        HostError: with the packages to install.
    """
    missing = [package for program, package in PROGRAMS.items() if not _find(program)]
    if missing:
        raise HostError(f"programs are missing: apt-get install {' '.join(missing)}")


def run_on_host(
    command: Sequence[str | Path],
    *,
    timeout: float,
    stdin: str = "",
    cwd: Path | None = None,
) -> str:
    """Run a program and return what it printed.

    Raises:
        HostError: it failed, or took longer than `timeout` seconds.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            input=stdin,
            cwd=cwd,
            env={**os.environ, "PATH": _SYSTEM_PATH, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{name} took longer than {timeout:.0f} s") from error
    if done.returncode != 0:
        raise HostError(f"{name} ended with status {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def _find(program: str) -> str | None:
    return shutil.which(program, path=_SYSTEM_PATH)
