# SPDX-License-Identifier: Apache-2.0
"""The Debian package on a whole system: switched on and off, upgraded under a login, purged."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from phone import CODE_PROMPT, typed
from ssh_client import SshClient, ssh_login
from terminal_session import Answer

from vm.console import Console
from vm.guest import Guest
from vm.packaged import ACCOUNT_BACKUPS, ACCOUNT_FILES, ALICE, Packaged, Phone
from vm.readme import Readme
from vm.root_tree import PASSWORDS
from vm.shell import Shell
from vm.terminal import await_true

FEARLESS = "Switching on without fear"
SSH_PASSWORD = ("[Pp]assword: $", PASSWORDS[ALICE])
SUDO_PASSWORD = ("password for alice: $", PASSWORDS[ALICE])
PASSWORD = r"Password: $"
CODE = r"Verification code.*: $"
UNDO_SECONDS = 120.0
NAMED = r"""
find / /run -xdev \( -name '*pam_mfa*' -o -name '*pam-mfa*' \) -not -path '/root/build/*'
systemctl list-units --all --plain --no-legend 'pam-mfa*'
systemctl list-unit-files --no-legend 'pam-mfa*'
getent passwd pam-mfa; getent group pam-mfa; pgrep -l pam-mfa; dpkg-query --show pam-mfa 2>/dev/null
"""


@pytest.fixture
def phone(packaged: Packaged) -> Phone:
    """Bring the host back to: package installed, alice enrolled with this phone."""
    return packaged.ready()


@pytest.fixture
def guest(packaged: Packaged, phone: Phone) -> Guest:
    """Give the guest with the package, as `phone` has left it."""
    del phone
    return packaged.guest


@pytest.fixture
def shell(guest: Guest) -> Iterator[Shell]:
    """Open a root shell there."""
    with Shell(guest) as opened:
        yield opened


def states(guest: Guest) -> dict[str, str]:
    """Return each service's state by `pam-mfa switch status`."""
    rows = json.loads(guest.output("pam-mfa switch status --json"))
    return {row["service"]: row["state"] for row in rows}


def by_ssh(guest: Guest, *answers: Answer) -> bool:
    """Log in as alice over ssh, by password and what else is asked; return whether that is enough.

    More or fewer prompts are not.
    """
    result = ssh_login(guest.ssh_port, ALICE, [SSH_PASSWORD, *answers])
    return (result.status, result.last_line, len(result.prompts)) == (0, ALICE, 1 + len(answers))


def by_console(guest: Guest, code: str) -> None:
    """Log in as alice on tty1."""
    with Console(guest) as console:
        console.send(f"{ALICE}\n")
        console.expect(r"Password: $")
        console.send(f"{PASSWORDS[ALICE]}\n")
        console.expect(CODE)
        console.send(f"{code}\n")
        console.expect(rf"{ALICE}@.*\$ $")


def test_installing_changes_no_login(packaged: Packaged) -> None:
    """Installing it adds files and an account, and changes nothing else in /etc."""
    changed = {name for name, about in packaged.before.items() if packaged.after.get(name) != about}
    assert changed - ACCOUNT_BACKUPS <= ACCOUNT_FILES | {
        *(".", "", "pam.d", "apparmor.d", "logrotate.d", "systemd/system/sockets.target.wants"),
        "systemd/system/multi-user.target.wants",  # folders that have a file more
    }
    assert packaged.after["pam.d/sshd"] == packaged.before["pam.d/sshd"]


def test_switch_by_the_readme(packaged: Packaged, phone: Phone, shell: Shell) -> None:
    """The commands of the README switch sudo on; another terminal's sudo confirms it."""
    dry_run, on, confirm, at_boot = Readme().commands(FEARLESS)
    with Shell(packaged.guest, ALICE) as other:
        assert "Nothing was changed" in shell.type(dry_run)
        assert "This undoes itself at" in shell.type(on, [(r"\[y/N\]: $", "y")])
        other.type("sudo -k; sudo true", [SUDO_PASSWORD, (CODE, phone.code())])
        assert "Confirmed: sudo.\n" in other.type(confirm)
    shell.type(at_boot)
    assert states(packaged.guest)["sudo"] == "on"
    shell.type("pam-mfa switch off sudo")
    assert packaged.changes(packaged.after) == {}


def test_each_service_asks(packaged: Packaged, phone: Phone, guest: Guest) -> None:
    """Switched on, every service asks for the code and lets in by it; off, /etc is as before."""
    shown = guest.output("pam-mfa switch on all --yes --confirm-within 1h")
    assert "On: sshd, sudo, sudo-i, login, su" in shown
    assert by_ssh(guest, *typed(phone.code()))
    by_console(guest, phone.code())
    with Shell(guest, "bob") as bobs:
        for how in ("su", "su -"):
            answers = [(PASSWORD, PASSWORDS[ALICE]), (CODE, phone.code())]
            assert ALICE in bobs.type(f"{how} {ALICE} -c 'id -un'", answers)
    with Shell(guest, ALICE) as alices:
        answers = [SUDO_PASSWORD, (CODE, phone.code())]
        assert "root" in alices.type("sudo -k; sudo -i id -un", answers)
    assert "Confirmed: sshd, sudo, sudo-i, login, su.\n" in confirm(guest, phone)
    assert {states(guest)[name] for name in ("sshd", "sudo", "sudo-i", "login", "su")} == {"on"}
    guest.run("pam-mfa switch off all")
    assert packaged.changes(packaged.after) == {}


def confirm(guest: Guest, phone: Phone) -> str:
    """Confirm in a session over ssh that the new stack has let in; return what showed."""
    answers = [SSH_PASSWORD, *typed(phone.code()), SUDO_PASSWORD, *typed(phone.code())]
    client = SshClient(guest.ssh_port, options=("RequestTTY=force",))
    return client.login(ALICE, answers, command="sudo pam-mfa switch confirm").output


def test_nobody_confirms(packaged: Packaged, guest: Guest) -> None:
    """When the time is over systemd undoes it byte for byte, and sshd asks for no code again."""
    guest.run("pam-mfa switch on all --yes --confirm-within 10s")
    timers = guest.output("systemctl list-timers --all --no-pager")
    assert "pam-mfa-switch-undo" in timers
    assert await_true(lambda: guest.run("test -e /etc/pam_mfa/switch.json", check=False).returncode
                      == 1, UNDO_SECONDS)  # fmt: skip
    assert packaged.changes(packaged.after) == {}
    assert await_true(lambda: by_ssh(guest))
    told = guest.output("journalctl --identifier=pam-mfa --output=cat --no-pager")
    assert "The switch of sshd was not confirmed in time and has been undone." in told


def test_power_cut(packaged: Packaged, guest: Guest) -> None:
    """Where the power goes before anybody has confirmed, the machine boots with the old files."""
    guest.run("pam-mfa switch on all --yes --confirm-within 1h")
    guest.cut_power()
    assert packaged.changes(packaged.after) == {}
    assert by_ssh(guest)


def test_upgrade_while_somebody_is_at_a_prompt(
    packaged: Packaged, phone: Phone, guest: Guest, newer: Path
) -> None:
    """Whoever is at a prompt while dpkg upgrades the package gets in, and so does the next one."""
    guest.run("pam-mfa switch on sshd --yes --confirm-within never --argument timeout=600")
    guest.run("echo LoginGraceTime 600 >/etc/ssh/sshd_config.d/grace.conf; systemctl reload ssh")
    guest.put(newer, "/root/newer.deb")

    def upgrade_and_answer(_shown: str) -> str:
        guest.run("dpkg --install /root/newer.deb", timeout=300)
        return phone.code()

    assert by_ssh(guest, (CODE_PROMPT, upgrade_and_answer))
    assert guest.output("dpkg-query -W -f '${Version}' pam-mfa").endswith(".1")
    assert by_ssh(guest, *typed(phone.code()))
    assert guest.output("systemctl is-active pam-mfad.socket pam-mfad-self.socket") == (
        "active\nactive"
    )
    guest.run("pam-mfa switch off all; rm /etc/ssh/sshd_config.d/grace.conf")
    assert packaged.changes(packaged.after) == {}


def test_purge_with_nobody_to_ask(packaged: Packaged, guest: Guest) -> None:
    """Purged without a terminal, devices, log and their owner stay, and /etc is as it was."""
    guest.run("DEBIAN_FRONTEND=noninteractive apt-get purge -y pam-mfa", timeout=300)
    assert guest.output("ls /var/lib/pam_mfa/devices /var/log/pam_mfa").split() == [
        *("/var/lib/pam_mfa/devices:", "alice.yaml", "/var/log/pam_mfa:", "audit.jsonl"),
    ]
    assert packaged.changes(packaged.before).keys() == ACCOUNT_FILES
    assert by_ssh(guest)


def test_purge_that_is_told_to_delete(packaged: Packaged, shell: Shell) -> None:
    """Purged by somebody who says yes, nothing is left: no file, unit, user, process."""
    guest = packaged.guest
    guest.run("pam-mfa switch on all --yes --confirm-within never; pam-mfa switch off all --force")
    answers = [(r"\[Y/n\] $", "y"), (r"Delete the users' MFA devices, too\? \[yes/no\] $", "yes")]
    shell.type("DEBIAN_FRONTEND=readline apt purge pam-mfa", answers)
    assert packaged.changes(packaged.before) == {}
    assert guest.output(f"{NAMED}:") == ""
    assert by_ssh(guest)
