# SPDX-License-Identifier: Apache-2.0
"""README.md's set-up, followed word for word in a guest that has the package.

The commands and the lines for files are taken out of README.md itself (`readme.py`); its sentences
say what has to come of them.
"""

import re
from collections.abc import Iterator

import pytest
from installed import totp
from phone import typed
from ssh_client import ssh_login

from vm.guest import Guest
from vm.packaged import ALICE, INSTALLED, Packaged, Phone
from vm.readme import Readme
from vm.root_tree import PASSWORDS
from vm.shell import Shell

PROTECT = "Protect a service"
SUDO_PASSWORD = ("password for alice: $", PASSWORDS[ALICE])
SSH_PASSWORD = ("[Pp]assword: $", PASSWORDS[ALICE])
CODE = r"Verification code.*: $"
BEHIND = "@include common-auth"


@pytest.fixture
def shell(packaged: Packaged) -> Iterator[Shell]:
    """Open a root shell on a host where the package was just installed."""
    packaged.guest.restore(INSTALLED)
    with Shell(packaged.guest) as opened:
        yield opened


def enable(shell: Shell, line: str) -> str:
    """Enable alice's phone: read the key that is shown beside the QR code, type two codes."""
    secrets: list[str] = []

    def first(shown: str) -> str:
        match = re.search(r"secret key: ([A-Z2-7 ]+)", shown)
        assert match is not None
        secrets.append(match[1].replace(" ", ""))
        return totp(secrets[0], -2)

    shown = shell.type(
        line, [(r"First code: $", first), (r"next: $", lambda _: totp(secrets[0], -1))]
    )
    assert "Enabled virtual/alice/phone for alice." in shown
    return secrets[0]


def put_behind(guest: Guest, services: tuple[str, ...], line: str) -> None:
    """Write a line into services' files, behind the password's."""
    for service in services:
        path = f"/etc/pam.d/{service}"
        lines = guest.output(["cat", path]).splitlines()
        at = lines.index(BEHIND) + 1
        guest.run(["tee", path], stdin="\n".join([*lines[:at], line.strip(), *lines[at:], ""]))


def write_lines(guest: Guest) -> None:
    """Do what step 4 says, for sudo, the console and sshd with password and code."""
    line, settings, *_ = Readme().contents("4. The PAM line")
    put_behind(guest, ("sudo", "sudo-i", "login", "sshd"), line)
    guest.run(["tee", "/etc/ssh/sshd_config.d/pam-mfa.conf"], stdin=settings)
    guest.run("sshd -t && systemctl reload ssh")


def set_up(packaged: Packaged, shell: Shell) -> Phone:
    """Follow the steps 1 to 4."""
    readme = Readme()
    for line in (*readme.commands(PROTECT), *readme.commands("1. Policy")):
        shell.type(line)
    (line,) = readme.commands("2. Your own device first", ALICE)
    phone = Phone(packaged.guest, enable(shell, line))
    for line in readme.commands("3. The daemon"):
        shell.type(line)
    write_lines(packaged.guest)
    return phone


def test_set_up_by_hand(packaged: Packaged, shell: Shell) -> None:
    """By the README's steps: report-only refuses nobody, enforced it asks, and back is back."""
    guest = packaged.guest
    phone = set_up(packaged, shell)
    with Shell(guest, ALICE) as alices:
        wrong = [(CODE, "000000")] * 3
        alices.type("sudo -k; sudo true", [SUDO_PASSWORD, *wrong])  # report-only: let in
        enforce(shell, phone)
        again = (r"Sorry, try again\..*password for alice: $", None)
        alices.type("sudo -k; sudo true", [SUDO_PASSWORD, *wrong, again])
    shell.type("pam-mfa unlock alice")
    result = ssh_login(guest.ssh_port, ALICE, [SSH_PASSWORD, *typed(phone.code())])
    assert (result.status, result.last_line, len(result.prompts)) == (0, ALICE, 2)
    go_back(packaged, shell)


def enforce(shell: Shell, phone: Phone) -> None:
    """Follow step 5."""
    *lines, last = Readme().commands("5. Enforce", ALICE)
    shown = "".join(shell.type(line) for line in lines)
    assert "alice" in shown
    assert "reason" in shown  # wrong codes of report-only are counted by it
    tried = shell.type(last, [SSH_PASSWORD, (CODE, lambda _: phone.code())])
    assert "sudo lets alice in." in tried


def go_back(packaged: Packaged, shell: Shell) -> None:
    """Take the way back that the README gives before its first step."""
    text = Readme().text
    (line,) = re.findall(r"^`(cp -a /root/pam\.d\.saved/.*)`$", text, re.MULTILINE)
    shell.type(line)
    assert packaged.changes(packaged.after) == {}  # the policy says enforce again, as shipped
