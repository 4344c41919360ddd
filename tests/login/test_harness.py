# SPDX-License-Identifier: Apache-2.0
"""The login harness itself: real sshd, sudo and login, with PAM modules that every Linux has.

What fails here is a fault of the harness or of the machine, never of the module under test.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from console_login import Console
from host_accounts import Account, password_hash
from private_host import PRIVATE_FOLDERS, Bind, PrivateHost
from ssh_client import SshClient, ssh_login
from sshd_server import Sshd, make_key
from terminal_session import UnansweredPromptError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of this kind need root")

# nodelay: pam_unix otherwise sleeps for two seconds after a wrong password.
PASSWORD_STACK = """\
auth required pam_unix.so nodelay
account required pam_unix.so
password required pam_unix.so sha512
session required pam_permit.so
"""
ALICE = Account("alice-of-tests", "correct horse")
NAME = ALICE.name
RIGHT = [("Password: $", "correct horse")]
WRONG = [("Password: $", "battery staple")]
SUDO_RIGHT = [("password for .*: $", "correct horse")]
SUDO_WRONG = [("password for .*: $", "battery staple")]
SSH_PROMPT = f"({NAME}@127.0.0.1) Password: "
KEY_THEN_PAM = "AuthenticationMethods publickey,keyboard-interactive:pam"
WATCHED = ("passwd", "shadow", "group", "gshadow", "hosts", "login.defs", "sudoers")
RECORDS = ("/run/utmp", "/var/log/wtmp", "/var/log/btmp", "/var/log/lastlog")


@pytest.fixture
def host() -> Iterator[PrivateHost]:
    """A private host where Alice has an account."""
    with PrivateHost([ALICE], root_password="root of tests") as started:
        yield started


@pytest.fixture
def sshd(host: PrivateHost) -> Iterator[Sshd]:
    """An sshd that asks for the password through PAM."""
    with Sshd(host, PASSWORD_STACK) as started:
        yield started


@pytest.fixture
def console(host: PrivateHost) -> Console:
    """A console whose sudo and login ask for the password."""
    return Console(host, sudo=PASSWORD_STACK, login=PASSWORD_STACK)


def snapshot() -> dict[str, bytes | None]:
    """Return the bytes of the machine's files that a login reads or writes."""
    paths = [*Path("/etc/pam.d").iterdir(), *(Path("/etc", name) for name in WATCHED)]
    paths += [Path(record) for record in RECORDS]
    return {str(path): path.read_bytes() if path.exists() else None for path in paths}


def test_ssh_password(sshd: Sshd) -> None:
    """The right password, asked once, logs in over ssh."""
    result = ssh_login(sshd.port, NAME, RIGHT)
    assert (result.status, result.last_line, result.prompts) == (0, NAME, (SSH_PROMPT,))


def test_ssh_command_status(sshd: Sshd) -> None:
    """The result's status is that of the command run over ssh."""
    assert ssh_login(sshd.port, NAME, RIGHT, command="exit 7").status == 7


def test_ssh_root(sshd: Sshd) -> None:
    """Root's private password logs root in."""
    assert ssh_login(sshd.port, "root", [("Password: $", "root of tests")]).last_line == "root"


def test_ssh_wrong_password(sshd: Sshd, host: PrivateHost) -> None:
    """A wrong password is refused, and the host's syslog has PAM's word for it."""
    result = ssh_login(sshd.port, NAME, WRONG)
    assert (result.status, result.prompts) == (255, (SSH_PROMPT,))
    assert "Permission denied" in result.last_line
    assert f"pam_unix({sshd.service}:auth): authentication failure" in host.syslog_text()


def test_ssh_batch_mode(sshd: Sshd) -> None:
    """BatchMode is refused without a question."""
    result = SshClient(sshd.port, options=("BatchMode=yes",)).login(NAME)
    assert (result.status, result.prompts) == (255, ())
    assert "Permission denied" in result.last_line


def test_ssh_hang_up(sshd: Sshd) -> None:
    """A person who hangs up at the prompt leaves an ssh that ends and a server that serves."""
    assert ssh_login(sshd.port, NAME, [("Password: $", None)]).status != 0
    assert ssh_login(sshd.port, NAME, RIGHT).last_line == NAME


def test_ssh_key_then_password(host: PrivateHost, tmp_path: Path) -> None:
    """With both methods required, the key and then the password log in."""
    key = make_key(tmp_path / "key")
    with Sshd(host, PASSWORD_STACK, config=[KEY_THEN_PAM]) as sshd:
        sshd.authorize(NAME, key)
        result = SshClient(sshd.port, key=key).login(NAME, RIGHT)
        assert "Partial publickey for" in sshd.log_text()
    assert (result.last_line, result.prompts) == (NAME, (SSH_PROMPT,))


def test_ssh_key_alone(host: PrivateHost, tmp_path: Path) -> None:
    """With both methods required, the key and a wrong password are refused."""
    key = make_key(tmp_path / "key")
    with Sshd(host, PASSWORD_STACK, config=[KEY_THEN_PAM]) as sshd:
        sshd.authorize(NAME, key)
        result = SshClient(sshd.port, key=key).login(NAME, WRONG)
    assert (result.status, result.prompts) == (255, (SSH_PROMPT,))


def test_ssh_password_without_key(host: PrivateHost) -> None:
    """With both methods required, nobody without a key is asked for a password."""
    with Sshd(host, PASSWORD_STACK, config=[KEY_THEN_PAM]) as sshd:
        result = ssh_login(sshd.port, NAME, RIGHT)
    assert (result.status, result.prompts) == (255, ())


def test_sshd_bad_configuration(host: PrivateHost) -> None:
    """An sshd that cannot start says why, at once."""
    bad = Sshd(host, PASSWORD_STACK, config=["NoSuchKeyword yes"])
    with pytest.raises(RuntimeError, match="NoSuchKeyword"), bad:
        pass


def test_sudo_password(console: Console) -> None:
    """The right password lets sudo run a command as root."""
    result = console.sudo(NAME, SUDO_RIGHT)
    expected = (f"[sudo] password for {NAME}: ",)
    assert (result.status, result.last_line, result.prompts) == (0, "root", expected)


def test_sudo_wrong_password(console: Console) -> None:
    """A wrong password ends sudo with a refusal."""
    result = console.sudo(NAME, SUDO_WRONG)
    assert (result.status, result.last_line) == (1, "sudo: 1 incorrect password attempt")


def test_sudo_remembers_in_private(host: PrivateHost) -> None:
    """A password that sudo remembers is remembered in the private host, and -k ignores it."""
    sudoers = "Defaults timestamp_type=global, lecture=never, passwd_tries=1\nALL ALL=(ALL) ALL\n"
    console = Console(host, sudo=PASSWORD_STACK, sudoers=sudoers)
    assert console.sudo(NAME, SUDO_RIGHT, args=()).last_line == "root"
    assert console.sudo(NAME, args=("-n",)).last_line == "root"
    assert console.sudo_n(NAME).last_line == "sudo: a password is required"


def test_sudo_n(console: Console) -> None:
    """Sudo -n is refused without a question."""
    result = console.sudo_n(NAME)
    assert (result.status, result.output, result.prompts) == (
        1,
        "sudo: a password is required\n",
        (),
    )


def test_login_password(console: Console) -> None:
    """The right password, asked once, opens a shell on the console."""
    result = console.login(NAME, RIGHT)
    assert (result.last_line, result.prompts) == (NAME, ("Password: ",))


def test_login_wrong_password(console: Console) -> None:
    """A wrong password on the console is refused and login ends."""
    result = console.login(NAME, WRONG)
    assert "Login incorrect" in result.output
    assert (result.last_line != NAME, result.prompts) == (True, ("Password: ",))


def test_login_many_prompts(console: Console, host: PrivateHost) -> None:
    """Several prompts are answered in order: here those for an expired password."""
    host.run(["chage", "-d", "0", NAME])
    change = [(f"{what}: $", "staple 9 battery") for what in ("New password", "Retype .*")]
    result = console.login(NAME, [*RIGHT, ("Current password: $", "correct horse"), *change])
    assert (result.last_line, len(result.prompts)) == (NAME, 4)
    assert console.login(NAME, [("Password: $", "staple 9 battery")]).last_line == NAME


def test_unanswered_prompt(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that no answer is for fails the test within bounds and shows what was asked."""
    monkeypatch.setattr("terminal_session.PATIENCE_SECONDS", 0.3)
    with pytest.raises(UnansweredPromptError, match="password for"):
        console.sudo(NAME, [("Verification code: ", "123456")])


def test_machine_unchanged() -> None:
    """Logins, refusals and a changed password leave every file of the machine as it was."""
    before = snapshot()
    with PrivateHost([ALICE]) as host, Sshd(host, PASSWORD_STACK) as sshd:
        console = Console(host, sudo=PASSWORD_STACK, login=PASSWORD_STACK)
        SshClient(sshd.port, options=("RequestTTY=force",)).login(NAME, RIGHT)
        ssh_login(sshd.port, NAME, WRONG)
        for answers in (RIGHT, WRONG):
            console.login(NAME, answers)
        console.sudo(NAME, SUDO_RIGHT)
        host.run(["chpasswd"], stdin=f"{NAME}:another\n")
        assert host.run(["stat", "-c", "%s", "/var/log/wtmp"]).stdout != "0\n"
    assert snapshot() == before


def test_processes_end() -> None:
    """Leaving the host kills what still runs inside, at once, and removes its files."""
    with PrivateHost() as host:
        host.run(["sh", "-c", "sleep 600 >/dev/null 2>&1 &"])
        left = subprocess.Popen(host.command(["sleep", "600"]), env=host.environment)
        root = host.root
        start = time.monotonic()
    assert left.wait(30) != 0
    assert (root.exists(), time.monotonic() - start < 20) == (False, True)


def test_binds_and_environment(tmp_path: Path) -> None:
    """Programs inside see the temporary folders, the binds and the environment they are given."""
    (tmp_path / "state").write_text("kept\n")
    bind = Bind(tmp_path, Path("/etc/bound/here"))
    with PrivateHost(binds=[bind], environment={"SEEN": "yes"}) as host:
        script = f"cat {tmp_path}/state /etc/bound/here/state; echo $SEEN; hostname"
        assert host.run(["sh", "-c", script]).stdout == "kept\nkept\nyes\nprivate-host\n"


def test_bind_outside_private_folders() -> None:
    """A bind whose target would be made on the machine is refused, and nothing is made."""
    target = Path("/usr/no-such-folder-of-tests")
    with pytest.raises(ValueError, match="no-such-folder-of-tests"):
        PrivateHost(binds=[Bind(Path("/etc"), target)])
    assert (target.exists(), str(target).startswith(PRIVATE_FOLDERS)) == (False, False)


def test_existing_account() -> None:
    """An account with the name of a real user is refused, and no files are left."""
    host = PrivateHost([Account("daemon", "secret")])
    with pytest.raises(ValueError, match="already has a user or group daemon"), host:
        pass
    assert not host.root.exists()


def test_locked_account(host: PrivateHost) -> None:
    """An account without a password has a hash that no password matches."""
    assert password_hash(None) == "!"
    assert "correct horse" not in repr(ALICE)
    assert f"{NAME}:$6$" in (host.etc / "shadow").read_text()
