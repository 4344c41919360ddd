# SPDX-License-Identifier: Apache-2.0
"""Whoever asks PAM on a desktop: a screen locker, which is its user's, and polkit's setuid helper.

The locker is pamtester, run as the user on the PAM file that swaylock and i3lock have. polkit is
Debian's own: its daemon on a bus of its own, its agent for a terminal, and pkexec.
"""

import json

import pexpect
import pytest
from installed import totp, wait_for_step

from package.fresh_root import FreshRoot

USER, PASSWORD, ROOTS_PASSWORD = "carol", "correct horse", "battery staple"
LOCKER = "swaylock"
# What a locker's process does: it is the user's, and so is its terminal.
AS_USER = f"setsid --ctty --wait runuser -u {USER} --"
SOCKET = "/run/pam_mfa/verify-self.sock"
# The one before has left its socket, on which nobody listens.
DAEMON = f"rm -f {SOCKET}; pam-mfad & until [ -S {SOCKET} ]; do sleep 0.05; done"
BUS = """
mkdir -p /run/dbus /run/polkit-1
dbus-daemon --system --fork --nopidfile
/usr/lib/polkit-1/polkitd --no-debug &
until dbus-send --system --print-reply --dest=org.freedesktop.DBus / \\
    org.freedesktop.DBus.NameHasOwner string:org.freedesktop.PolicyKit1 | grep -q true
do sleep 0.05; done
"""
# The agent has to be there before pkexec asks; it closes the descriptor when it is.
ASK_POLKIT = """
mkfifo "$HOME/agent"
pkttyagent --notify-fd 9 --process $$ 9>"$HOME/agent" &
cat "$HOME/agent"
pkexec --disable-internal-agent id --user
echo "status=$?"
"""


@pytest.fixture
def desktop(machine: FreshRoot) -> FreshRoot:
    """A machine with a user who has a password."""
    machine.run("useradd", "--create-home", "--shell", "/bin/sh", USER)
    machine.run("chpasswd", stdin=f"{USER}:{PASSWORD}\nroot:{ROOTS_PASSWORD}\n")
    (machine.path / "etc/pam.d" / LOCKER).write_text("auth include login\n")
    (machine.path / "ask-polkit").write_text(ASK_POLKIT)
    return machine


def switch_on(desktop: FreshRoot, service: str) -> None:
    """Switch a service on, for good."""
    desktop.run("pam-mfa", "switch", "on", service, "--yes", "--force", "--confirm-within", "never")


def converse(started: "pexpect.spawn[str]", *answers: str) -> str:
    """Answer what is asked until the program ends; return all that it showed."""
    shown, left = "", list(answers)
    while started.expect([r"(?:[Pp]assword|Verification code[^:]*): ?", pexpect.EOF]) == 0:
        shown += started.before + started.after
        started.sendline(left.pop(0) if left else "")
    shown += started.before
    started.close()
    return str(shown)


def unlock(desktop: FreshRoot, user: str, *answers: str, daemon: str = DAEMON) -> str:
    """Have a locker of carol's ask for a user's password and code; return what it showed."""
    command = f"{daemon}; {AS_USER} pamtester {LOCKER} {user} authenticate; echo status=$?"
    return converse(desktop.start_on_terminal("sh", "-c", command), *answers)


def records(desktop: FreshRoot) -> list[tuple[str, str, int]]:
    """Return service, reason and caller of each verification."""
    lines = (desktop.path / "var/log/pam_mfa/audit.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines if '"VerifyMfa"' in line]
    return [(one["service"], one["reason"], one["caller_uid"]) for one in found]


def test_screen_locker_of_its_user(desktop: FreshRoot) -> None:
    """As its own user it asks for password and code, through the daemon, once the console does."""
    secret = desktop.enroll(USER)
    switch_on(desktop, "login")
    uid = (desktop.path / "home" / USER).stat().st_uid
    code = totp(secret)
    assert "status=0" in unlock(desktop, USER, PASSWORD, code)
    assert "status=0" not in unlock(desktop, USER, PASSWORD, code, code, code)
    assert records(desktop)[0] == (LOCKER, "code_accepted", uid)
    assert {reason for _, reason, _ in records(desktop)[1:]} == {"code_reused"}


def test_screen_locker_for_somebody_else(desktop: FreshRoot) -> None:
    """Whatever answers a user's program has, another user's second factor is not asked for."""
    secret = desktop.enroll("root")
    (desktop.path / "etc/pam.d" / LOCKER).write_text("auth required pam_mfa.so\n")
    shown = unlock(desktop, "root", totp(secret))
    assert ("status=0" in shown, "Verification" in shown) == (False, False)
    assert [reason for _, reason, _ in records(desktop)] == ["caller_not_allowed"]


def test_screen_locker_without_the_daemon(desktop: FreshRoot) -> None:
    """Where no daemon listens a user's program is refused at once, and the lock stays shut."""
    secret = desktop.enroll(USER)
    switch_on(desktop, "login")
    shown = unlock(desktop, USER, PASSWORD, totp(secret), daemon="true")
    assert "cannot retrieve authentication info" in shown
    assert ("status=0" in shown, records(desktop)) == (False, [])


def test_polkits_helper(desktop: FreshRoot) -> None:
    """By pkexec root's password and the code are asked for; a wrong one gives no root; and back."""
    before = desktop.files("etc")
    wait_for_step()
    secret = desktop.enroll("root")
    switch_on(desktop, "polkit-1")
    command = f"{BUS} {AS_USER} sh /ask-polkit; rm -f /home/{USER}/agent"
    wrong = [ROOTS_PASSWORD, "000000", "000000", "000000"]
    shown = converse(desktop.start_on_terminal("sh", "-c", command), *wrong)
    assert ("AUTHENTICATION FAILED" in shown, "status=127" in shown) == (True, True)
    shown = converse(
        desktop.start_on_terminal("sh", "-c", command), ROOTS_PASSWORD, totp(secret, 1)
    )
    assert ("AUTHENTICATION COMPLETE" in shown, "status=0" in shown) == (True, True)
    reasons = [reason for service, reason, _ in records(desktop) if service == "polkit-1"]
    assert reasons == ["wrong_code", "wrong_code", "wrong_code", "code_accepted"]
    desktop.run("pam-mfa", "switch", "off", "polkit-1")
    changed = {name for name, about in desktop.files("etc").items() if about != before.get(name)}
    assert changed <= {"pam_mfa"}, changed
