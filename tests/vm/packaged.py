# SPDX-License-Identifier: Apache-2.0
"""pam-mfa in a guest as the Debian package brings it, installed there by apt under its systemd.

Owns the way of the package into the guest, the guest's saved states, and what /etc was before.
"""

import time
from pathlib import Path
from typing import NamedTuple, Self

from installed import PERIOD, new_secret, totp, wait_for_step

from vm.guest import Guest
from vm.readme import Readme
from vm.shell import Shell

ROOT_PASSWORD = "well water"
ALICE = "alice"
INSTALLED, READY = "installed", "ready"  # saved states
BUILD = "build"  # where README.md has the package put, under root's home
# Written by whoever makes or deletes any account.
ACCOUNT_FILES = {"passwd", "group", "shadow", "gshadow"}
ACCOUNT_BACKUPS = {"passwd-", "group-", "shadow-", "gshadow-", ".pwd.lock"}
# Name, kind and mode, owners, a link's target; then the content of each file.
_LISTING = r"""
cd "$1"
find . -mindepth 1 -printf '%P\t%M %U %G %l\n'
find . -type f -exec sha256sum {} + | sed -e 's|^\([0-9a-f]*\)  \./\(.*\)$|\2\t\1|'
"""
Files = dict[str, str]


class Phone:
    """A user's authenticator application, in a guest whose clock goes on as codes are needed."""

    def __init__(self, guest: Guest, secret: str) -> None:
        """Use an enabled device."""
        self._guest = guest
        self._secret = secret
        self._steps = 0  # that the guest's clock is ahead

    def code(self) -> str:
        """Return a code that was not used yet: the guest's clock moves to its time step."""
        wait_for_step()
        self._guest.set_clock(time.time() + self._steps * PERIOD)
        code = totp(self._secret, self._steps)
        self._steps += 1
        return code


class Packaged(NamedTuple):
    """A guest with the package."""

    guest: Guest
    before: Files  # /etc before the package was there
    after: Files  # and right behind it
    secret: str  # of alice's device, in the state `READY`

    def ready(self) -> Phone:
        """Bring the host back to: package installed, alice enrolled, nothing switched on."""
        self.guest.restore(READY)
        return Phone(self.guest, self.secret)

    def changes(self, since: Files) -> Files:
        """Return what is other in /etc than `since`, but for backups of accounts."""
        now = list_files(self.guest)
        names = (now.keys() | since.keys()) - ACCOUNT_BACKUPS
        return {
            name: now.get(name, "gone")
            for name in sorted(names)
            if since.get(name) != now.get(name)
        }

    @classmethod
    def install(cls, guest: Guest, package: Path) -> Self:
        """Install a package as README.md has it, and enroll alice."""
        guest.run(["chpasswd"], stdin=f"root:{ROOT_PASSWORD}\n")
        before = list_files(guest)
        guest.put(package, f"/root/{BUILD}/{package.name}")
        _, install = Readme().commands("Installing")
        with Shell(guest) as shell:
            shell.type("cd /root")
            shell.type(install)
        guest.save(INSTALLED)
        after = list_files(guest)
        secret = enroll(guest, ALICE)
        guest.save(READY)
        return cls(guest, before, after, secret)


def enroll(guest: Guest, user: str) -> str:
    """Enable a virtual device by codes of past time steps; return its secret."""
    wait_for_step(PERIOD / 3)
    secret = new_secret()
    codes = [totp(secret, -2), totp(secret, -1)]
    options = ("--secret", "-", "--codes", *codes)
    guest.run(["pam-mfa", "enable", "virtual", user, *options], stdin=f"{secret}\n")
    return secret


def list_files(guest: Guest, directory: str = "/etc") -> Files:
    """Return everything in a directory: mode, owners and content by name."""
    listed = guest.output(["sh", "-c", _LISTING, "sh", directory])
    files: Files = {}
    for line in listed.splitlines():
        name, about = line.split("\t")
        files[name] = f"{files.get(name, '')}{about} "
    return files
