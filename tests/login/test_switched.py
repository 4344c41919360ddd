# SPDX-License-Identifier: Apache-2.0
"""Services as ``pam-mfa switch`` leaves them: real sudo and sshd on its very files."""

import os
import time
from pathlib import Path

import pytest
from alice import NAME
from console_login import Console
from host_tree import FILES, SSHD_CONFIG
from installed import DataRoot
from phone import Phone, typed
from private_host import PATIENCE_SECONDS, PrivateHost
from service_stack import COMMON
from ssh_client import SshClient, ssh_login
from sshd_server import Sshd, make_key

pytest_plugins = ["alice_fixtures"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of this kind need root")

SUDO_PASSWORD = ("password for .*: $", "correct horse")
SSH_PASSWORD = ("Password: $", "correct horse")
REFUSED = 255


@pytest.fixture
def etc(root: DataRoot) -> Path:
    """The files that are switched, with Alice as the administrator."""
    etc = root.path / "etc"
    for directory in ("pam.d", "ssh/sshd_config.d"):
        (etc / directory).mkdir(parents=True)
    for name, text in FILES.items():
        (etc / "pam.d" / name).write_text(text)
    (etc / "ssh/sshd_config").write_text(SSHD_CONFIG)
    (etc / "passwd").write_text(f"{NAME}:x:4000:4000::/:/bin/sh\n")
    (etc / "group").write_text(f"sudo:x:27:{NAME}\n")
    return etc


def switch_on(root: DataRoot, *words: str) -> str:
    """Switch a service on; return its file, with what the includes bring in."""
    module, argument = root.module.split()
    root.command("switch", "on", *words, "--yes", "--module", module, "--argument", argument)
    text = (root.path / "etc/pam.d" / words[0]).read_text()
    lines = [COMMON.get(line.strip(), line) for line in text.splitlines()]
    kept = [line for line in lines if not line.startswith("@include common-password")]
    return "\n".join([*kept, ""])


def drop_in(etc: Path) -> list[str]:
    """Return the settings that sshd was given."""
    text = (etc / "ssh/sshd_config.d/00-pam-mfa.conf").read_text()
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_sudo(root: DataRoot, host: PrivateHost, phone: Phone, etc: Path) -> None:
    """Sudo asks for password and code; a login through it confirms the switch; off is off."""
    console = Console(host, sudo=switch_on(root, "sudo"))
    early = root.command("switch", "confirm", check=False)
    assert "nobody has got in by sudo since" in early.stderr
    result = console.sudo(NAME, [SUDO_PASSWORD, *typed(phone.code())])
    assert (result.status, result.last_line) == (0, "root")
    assert root.command("switch", "confirm").stdout == "Confirmed: sudo.\n"
    root.command("switch", "off", "sudo")
    assert (etc / "pam.d/sudo").read_text() == FILES["sudo"]


def test_sshd_by_password(root: DataRoot, host: PrivateHost, phone: Phone, etc: Path) -> None:
    """Password and code log in over SSH; the right password with a wrong code does not."""
    stack = switch_on(root, "sshd", "--sshd-login", "password")
    with Sshd(host, stack, config=drop_in(etc)) as sshd:
        result = ssh_login(sshd.port, NAME, [SSH_PASSWORD, *typed(phone.code())])
        wrong = ssh_login(sshd.port, NAME, [SSH_PASSWORD, *typed(*[phone.wrong_code()] * 3)])
    assert (result.status, result.last_line, len(result.prompts)) == (0, NAME, 2)
    assert wrong.status == REFUSED


def test_sshd_by_key(
    root: DataRoot, host: PrivateHost, phone: Phone, etc: Path, tmp_path: Path
) -> None:
    """A key and the code log in, without the password; no key is no way in."""
    key = make_key(tmp_path / "key")
    stack = switch_on(root, "sshd", "--sshd-login", "key")
    with Sshd(host, stack, config=drop_in(etc)) as sshd:
        sshd.authorize(NAME, key)
        result = SshClient(sshd.port, key=key).login(NAME, typed(phone.code()))
        keyless = ssh_login(sshd.port, NAME, [SSH_PASSWORD, *typed(phone.code(1))])
    assert (result.status, result.last_line, len(result.prompts)) == (0, NAME, 1)
    assert (keyless.status, keyless.prompts) == (REFUSED, ())


def test_the_host_itself(root: DataRoot, host: PrivateHost) -> None:
    """On a host's own files: switched by force, told, undone by itself, and out by force."""
    sudo = host.etc / "pam.d/sudo"
    for name, text in FILES.items():
        (host.etc / "pam.d" / name).write_text(text)
    program = root.prefix / "bin/pam-mfa"
    module = root.module.split()[0]
    on: list[str | Path] = [program, "switch", "on", "sudo", "--yes", "--force", "--module", module]
    host.run([*on, "--confirm-within", "2s"])
    assert "pam_mfa.so" in sudo.read_text()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while sudo.read_text() != FILES["sudo"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sudo.read_text() == FILES["sudo"]
    host.run([*on, "--confirm-within", "never"])
    (host.etc / "pam_mfa/switch.json").write_text("{")
    host.run([program, "switch", "off", "all", "--force"])
    assert sudo.read_text() == FILES["sudo"]
    assert not Path("/etc/pam_mfa/switch.json").exists()
