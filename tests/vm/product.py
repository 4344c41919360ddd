# SPDX-License-Identifier: Apache-2.0
"""pam-mfa in a guest, as README.md has an administrator install it: /opt, units, PAM files, sshd.

Owns the way of the installed files into the guest, and the product's state between two tests.
"""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from installed import REPOSITORY, new_secret, totp, wait_for_step

from vm.guest import Guest
from vm.host_commands import HostError, run_on_host

PREFIX = "/opt/pam-mfa"  # which the units and the PAM files name
SOCKETS = ("pam-mfad.socket", "pam-mfad-self.socket")
SERVICE = "pam-mfad.service"
_PYTHON_VERSION = "/usr/bin/python3 -c 'import sys; print(*sys.version_info[:2])'"
# Runs packaging/install with its default prefix, in a mount namespace where /opt is a folder of
# ours that shows what else is in the machine's /opt; the machine's own /opt/pam-mfa stays as it is.
_INSTALL = """
set -eu
install=$1 folder=$2 prefix=$3
for other in /opt/*; do
  [ -d "$other" ] && [ "$other" != "$prefix" ] || continue
  mkdir "$folder/${other##*/}"
  mount --bind "$other" "$folder/${other##*/}"
done
mount --rbind "$folder" /opt
"$install" --prefix "$prefix"
"""
# The steps of README.md, "Protect a service", and the user that packaging/install makes.
_SET_UP = f"""
set -eu
useradd --system --user-group --no-create-home --home-dir /nonexistent \
  --shell /usr/sbin/nologin pam-mfa
mkdir -p /etc/pam_mfa
cp {PREFIX}/share/policy.yaml /etc/pam_mfa/policy.yaml
{PREFIX}/bin/pam-mfa list
cp {PREFIX}/share/systemd/pam-mfad* /etc/systemd/system/
systemctl daemon-reload
systemctl enable --now {" ".join(SOCKETS)}
cp {PREFIX}/share/udev/71-pam-mfa.rules /etc/udev/rules.d/
udevadm control --reload
for service in sshd sudo login; do
  cp {PREFIX}/share/pam.d/$service /etc/pam.d/$service
done
cp {PREFIX}/share/sshd_config.d/password-and-code.conf /etc/ssh/sshd_config.d/pam-mfa.conf
sshd -t
systemctl reload ssh
"""
_STOP = f"""
set -eu
systemctl stop {SERVICE} {" ".join(SOCKETS)}
while pgrep -x pam-mfad >/dev/null; do sleep 0.05; done  # one on demand may still be ending
"""
_SAVE = f"""{_STOP}
rm -rf /root/saved
mkdir /root/saved
cp -a /var/lib/pam_mfa /root/saved/lib
cp -a /var/log/pam_mfa /root/saved/log
rm -f /root/saved/log/*
"""
_RESTORE = f"""{_STOP}
systemctl reset-failed '{SERVICE}' {" ".join(SOCKETS)}
rm -rf /var/lib/pam_mfa /var/log/pam_mfa /run/pam_mfa
cp -a /root/saved/lib /var/lib/pam_mfa
cp -a /root/saved/log /var/log/pam_mfa
cp {PREFIX}/share/policy.yaml /etc/pam_mfa/policy.yaml
systemctl start {" ".join(SOCKETS)}
"""


class Product:
    """An installed pam-mfa in a guest."""

    def __init__(self, guest: Guest) -> None:
        """Use the one that `install_product` has put there."""
        self.guest = guest
        self._restored_at = "0"  # by the guest's clock

    def save(self) -> None:
        """Keep the devices and the state as they are, for `restore`."""
        self.guest.run(_SAVE)

    def restore(self) -> None:
        """Bring back what was saved, without a record, with sockets that wait for a first login.

        Which codes were used since is forgotten.
        """
        self.guest.run(_RESTORE)
        self._restored_at = self.guest.output("date +%s.%6N")

    def command(
        self, *arguments: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run pam-mfa as root."""
        return self.guest.run([f"{PREFIX}/bin/pam-mfa", *arguments], stdin=stdin, check=check)

    def enroll(self, user: str) -> str:
        """Enable a virtual device by codes of past time steps; return its secret.

        The current time step and the next are still good for logins.
        """
        wait_for_step()
        secret = new_secret()
        codes = [totp(secret, -2), totp(secret, -1)]
        options = ("--name", "phone", "--secret", "-", "--codes", *codes)
        self.command("enable", "virtual", user, *options, stdin=f"{secret}\n")
        return secret

    def audit(self, name: str = "VerifyMfa") -> list[dict[str, Any]]:
        """Return the records of one event name, oldest first."""
        lines = self.guest.output("cat /var/log/pam_mfa/audit.jsonl").splitlines()
        records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [record for record in records if record["event_name"] == name]

    def verifications(self) -> list[tuple[str, str]]:
        """Return service and reason of all verifications, oldest first."""
        return [(record["service"], record["reason"]) for record in self.audit()]

    def messages(self) -> str:
        """Return what verifiers have told the system log since the state was restored."""
        since = f"--since=@{self._restored_at}"
        return self.guest.output(["journalctl", "--identifier=pam-mfad", "--output=cat", since])

    def unit_state(self, unit: str) -> str:
        """Return what systemctl is-active says."""
        return self.guest.run(["systemctl", "is-active", unit], check=False).stdout.strip()


@contextlib.contextmanager
def made_for_guests() -> Iterator[Path]:
    """Install for the prefix of the units; give the folder that is to stand in its place."""
    with tempfile.TemporaryDirectory(prefix="pam-mfa-opt-", dir="/var/tmp") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        run_on_host(
            [
                *("unshare", "--mount", "--propagation", "private", "sh", "-c", _INSTALL, "sh"),
                *(REPOSITORY / "packaging/install", folder, PREFIX),
            ],
            timeout=300,
        )
        yield folder / Path(PREFIX).name


def install_product(guest: Guest, made: Path) -> Product:
    """Install into a guest that has no product yet.

    Raises:
        HostError: the guest's Python is another than this machine's, for which packages are built.
    """
    _require_same_python(guest)
    guest.put(made, PREFIX)
    guest.run(_SET_UP)
    return Product(guest)


def _require_same_python(guest: Guest) -> None:
    """Raise where the installation would not run: it has compiled modules for one Python."""
    here = run_on_host(["sh", "-c", _PYTHON_VERSION], timeout=30).split()
    there = guest.output(_PYTHON_VERSION).split()
    if here != there:
        raise HostError(
            f"the guest's Python is {'.'.join(there)}, this machine's {'.'.join(here)}: "
            "remove the guest's image, so that it is made again of this machine's release"
        )
