# SPDX-License-Identifier: Apache-2.0
"""The product on a whole system: real units, a login on every kind of terminal, keys by udev."""

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installed import totp
from phone import CODE_PROMPT, typed
from ssh_client import ssh_login
from terminal_session import Answer, LoginResult, TerminalSession

from vm.console import Console
from vm.guest import Guest
from vm.product import SERVICE, SOCKETS, Product
from vm.root_tree import PASSWORDS

ALICE, BOB = "alice", "bob"
PASSWORD = ("[Pp]assword.*: $", PASSWORDS[ALICE])
REFUSED = 255  # ssh's own status
INSIDE = Path(__file__).resolve().parent / "inside"
PATIENCE = 30.0  # seconds
MOST_EXPOSED = 1.5  # as systemd-analyze counts
NODE = "/dev/hidraw0"  # of the only key there is
# What a program under the settings of the daemon's unit tries, and systemctl's status then.
REACHED = {
    "a local socket": ("socket.socket(socket.AF_UNIX)", 0),
    "netlink": ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", 0),
    "the internet": ("socket.socket(socket.AF_INET)", 1),
    "a disk": ("open('/dev/vda', 'rb')", 1),
    "no device": ("open('/dev/null', 'rb')", 0),
}
PROBE = rf"""
sed -e "s|^ExecStart=.*|Type=oneshot\nExecStart=/usr/bin/python3 -c \"$1\"|" \
  -e '/^\(Requires\|After\|Sockets\|User\|Group\|Restart\)/d' \
  /etc/systemd/system/{SERVICE} >/run/systemd/system/probe.service
systemctl daemon-reload
"""
USB_MODULES = ("dummy_hcd", "usb_f_hid", "libcomposite")
NODES = {"uhid": INSIDE / "uhid_node.py", "usb": INSIDE / "usb_node.py"}


def on_terminal(guest: Guest, command: list[str], answers: list[Answer]) -> LoginResult:
    """Run a command as root on a terminal of the guest."""
    session = TerminalSession(guest.remote_command(command, "-tt"), {"TERM": "dumb"})
    session.converse(answers)
    return session.result()


def sudo(guest: Guest, user: str, answers: list[Answer]) -> LoginResult:
    """Run `id -un` by sudo as this user."""
    return on_terminal(guest, ["runuser", "-u", user, "--", "sudo", "-k", "id", "-un"], answers)


def wrong_code(secret: str) -> str:
    """Return a code that alice's device shows at no time near to now."""
    shown = totp(secret, -4, "--window", "16").split()
    return next(code for code in map("{:06}".format, itertools.count(1)) if code not in shown)


def console_login(console: Console, code: str) -> None:
    """Type alice's name, her password and a code at tty1."""
    console.send(f"{ALICE}\n")
    console.expect(r"Password: $")
    console.send(f"{PASSWORDS[ALICE]}\n")
    console.expect(r"Verification code: $")
    console.send(f"{code}\n")


def await_true(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds, and return whether it does."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


@contextlib.contextmanager
def key_node(guest: Guest, kind: str, serial_number: str) -> Iterator[dict[str, str]]:
    """Make a key of a kind, and give the udev properties of its hidraw node."""
    program = guest.start(NODES[kind], serial_number)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == b"made\n"
        guest.run(["udevadm", "wait", "--settle", "--timeout=30", NODE])
        listed = guest.output(["udevadm", "info", "--query=property", NODE])
        yield dict(line.split("=", 1) for line in listed.splitlines())
    finally:
        program.communicate(timeout=PATIENCE)
        guest.run(["udevadm", "wait", "--removed", "--timeout=30", NODE])


def test_sockets_listen(product: Product) -> None:
    """Both sockets are listening before any verifier runs, root's for root alone."""
    states = [product.unit_state(unit) for unit in (*SOCKETS, SERVICE)]
    modes = product.guest.output("stat --format '%A %U' /run/pam_mfa/verify*.sock")
    assert states == ["active", "active", "inactive"]
    assert modes.splitlines() == ["srw-rw-rw- root", "srw------- root"]


def test_ssh_login_starts_the_verifier(product: Product, secret: str) -> None:
    """A login over ssh with password and code starts the daemon by its socket, and gets in."""
    result = ssh_login(product.guest.ssh_port, ALICE, [PASSWORD, *typed(totp(secret))])
    assert (result.status, result.last_line) == (0, ALICE)
    assert product.unit_state(SERVICE) == "active"
    assert product.verifications() == [("sshd", "code_accepted")]


def test_ssh_wrong_code(product: Product, secret: str) -> None:
    """Three wrong codes over ssh are refused, and each is on record."""
    codes = typed(*[wrong_code(secret)] * 3)
    result = ssh_login(product.guest.ssh_port, ALICE, [PASSWORD, *codes])
    assert (result.status, len(result.prompts)) == (REFUSED, 4)
    assert product.verifications() == [("sshd", "wrong_code")] * 3


def test_sudo(product: Product, secret: str) -> None:
    """By sudo, a user is asked for the password and the code, and then is root."""
    result = sudo(product.guest, ALICE, [PASSWORD, *typed(totp(secret))])
    assert (result.status, result.last_line, len(result.prompts)) == (0, "root", 2)
    assert product.verifications() == [("sudo", "code_accepted")]


def test_console(product: Product, secret: str, console: Console) -> None:
    """A login on tty1 with password and code is a session of seat0 in the foreground."""
    console_login(console, totp(secret))
    console.expect(rf"{ALICE}@.*\$ $")
    console.send("tty\n")
    assert "/dev/tty1" in console.expect(r"/dev/\S+\n.*\$ $")
    active = product.guest.output("loginctl show-seat seat0 --property=ActiveSession --value")
    about = ("--property=Name", "--property=TTY", "--property=Remote", "--value")
    session = product.guest.output(["loginctl", "show-session", active, *about])
    assert session.split() == [ALICE, "tty1", "no"]
    assert product.verifications() == [("login", "code_accepted")]


def test_console_wrong_code(product: Product, secret: str, console: Console) -> None:
    """Wrong codes on tty1 are refused."""
    code = wrong_code(secret)
    console_login(console, code)
    for _ in range(2):
        console.expect(r"Verification code .*: $")
        console.send(f"{code}\n")
    console.expect(r"Login incorrect")
    assert product.verifications() == [("login", "wrong_code")] * 3


def test_user_verifies_itself(product: Product, secret: str) -> None:
    """A host program that is not root verifies its own user by the second socket, nobody else's."""
    guest = product.guest
    guest.run("printf 'auth required /opt/pam-mfa/lib/security/pam_mfa.so\n' >/etc/pam.d/own")
    command = ["runuser", "-u", ALICE, "--", "pamtester", "own"]
    own = on_terminal(guest, [*command, ALICE, "authenticate"], typed(totp(secret)))
    other = on_terminal(guest, [*command, BOB, "authenticate"], [])
    assert (own.status, other.status) == (0, 1)
    assert product.verifications()[0] == ("own", "code_accepted")


def test_confinement(product: Product, secret: str) -> None:
    """Both processes of the daemon run without root, capabilities, homes or readable memory."""
    ssh_login(product.guest.ssh_port, ALICE, [PASSWORD, *typed(totp(secret))])
    guest = product.guest
    service_user = guest.output("id -u pam-mfa")
    pids = guest.output(f"cat /sys/fs/cgroup/system.slice/{SERVICE}/cgroup.procs").split()
    assert len(pids) == 2
    for pid in pids:
        process = f"/proc/{pid}"
        fields = dict(
            line.split(":", 1) for line in guest.output(f"cat {process}/status").splitlines()
        )
        assert fields["Uid"].split() == [service_user] * 4
        assert {int(fields[name], 16) for name in ("CapBnd", "CapEff", "CapPrm")} == {0}
        assert (fields["NoNewPrivs"].strip(), fields["Seccomp"].strip()) == ("1", "2")
        assert guest.output(f"ls -A {process}/root/home") == ""
        assert await_true(lambda: guest.output(f"stat -c %U {process}/mem") == "root")  # noqa: B023
        read = guest.run(["runuser", "-u", "pam-mfa", "head", f"{process}/maps"], check=False)
        assert (read.returncode, "Permission denied" in read.stderr) == (1, True)


def test_exposure(product: Product) -> None:
    """systemd-analyze finds the running unit no more exposed than is promised."""
    command = ["systemd-analyze", "security", "--no-pager", SERVICE]
    found = re.search(r"exposure level for \S+: ([0-9.]+)", product.guest.output(command))
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSED


def test_crash_leaves_no_core(product: Product) -> None:
    """A daemon that crashes leaves its memory nowhere, wherever the kernel is told to put cores."""
    guest = product.guest
    before = guest.output("sysctl -n kernel.core_pattern")
    guest.run("mkdir -m 777 /cores; sysctl -qw kernel.core_pattern=/cores/%p")
    try:
        guest.run(["systemctl", "start", SERVICE])
        guest.run(["systemctl", "kill", "--signal=SEGV", SERVICE])
        assert await_true(lambda: product.unit_state(SERVICE) == "active")
        guest.run("ulimit -c unlimited; kill -SEGV $$", check=False)
        assert len(guest.output("ls /cores").split()) == 1, "the shell's, and no other"
    finally:
        guest.run(f"rm -rf /cores; sysctl -qw kernel.core_pattern='{before}'")


@pytest.mark.parametrize("what", REACHED)
def test_reach(guest: Guest, what: str) -> None:
    """The daemon's unit reaches no network and no disk, not even for root."""
    code, expected = REACHED[what]
    guest.run(["sh", "-c", PROBE, "sh", f"import socket; {code}"])
    started = guest.run(["systemctl", "start", "probe.service"], check=False)
    assert started.returncode == expected


def test_mistake_in_the_policy_is_in_the_journal(product: Product, secret: str) -> None:
    """A verifier that finds a mistake in the policy refuses, and says so in the system log."""
    guest = product.guest
    guest.run("echo 'mode: [' >>/etc/pam_mfa/policy.yaml")
    result = ssh_login(guest.ssh_port, ALICE, [PASSWORD, *typed(totp(secret))])
    assert result.status == REFUSED
    assert await_true(lambda: "/etc/pam_mfa/policy.yaml" in product.messages())


def test_restart_keeps_used_codes(product: Product, secret: str) -> None:
    """A code that was accepted stays used over a restart of the daemon."""
    code = totp(secret)
    first = ssh_login(product.guest.ssh_port, ALICE, [PASSWORD, *typed(code)])
    product.guest.run(["systemctl", "restart", SERVICE])
    again = ssh_login(product.guest.ssh_port, ALICE, [PASSWORD, *typed(code, code, code)])
    assert (first.status, again.status) == (0, REFUSED)


def test_killed_daemon(product: Product, secret: str) -> None:
    """A daemon that is killed is back for the next login."""
    guest = product.guest
    guest.run(["systemctl", "start", SERVICE])
    guest.run(["systemctl", "kill", "--signal=KILL", SERVICE])
    assert await_true(lambda: product.unit_state(SERVICE) == "active")
    result = ssh_login(guest.ssh_port, ALICE, [PASSWORD, *typed(totp(secret))])
    assert (result.status, result.last_line) == (0, ALICE)


def test_login_without_the_daemon(product: Product, secret: str) -> None:
    """With the units stopped, a login starts a verifier of its own, outside sshd's cgroup."""
    groups = []

    def look_and_answer(_shown: str) -> str:
        groups.append(product.guest.output("cat /proc/$(pgrep -x pam-mfad)/cgroup"))
        return totp(secret)

    product.guest.run(["systemctl", "stop", SERVICE, *SOCKETS])
    result = ssh_login(product.guest.ssh_port, ALICE, [PASSWORD, (CODE_PROMPT, look_and_answer)])
    assert (result.status, result.last_line, groups) == (0, ALICE, ["0::/"])
    assert product.unit_state(SERVICE) == "inactive"
    assert product.verifications() == [("sshd", "code_accepted")]


def test_missing_store(product: Product, secret: str) -> None:
    """Where the store is gone, a login is refused soon, and works again when the store is back."""
    guest = product.guest
    guest.run("mv /var/lib/pam_mfa /var/lib/away")
    refused = ssh_login(guest.ssh_port, ALICE, [PASSWORD, *typed(totp(secret))])
    assert (refused.status, guest.run("test -e /var/lib/pam_mfa", check=False).returncode) == (
        REFUSED,
        1,  # no empty store was made, in which nobody is enrolled
    )
    assert await_true(lambda: "there is no directory /var/lib/pam_mfa" in product.messages())
    guest.run("mv /var/lib/away /var/lib/pam_mfa")
    back = ssh_login(guest.ssh_port, ALICE, [PASSWORD, *typed(totp(secret))])
    assert (back.status, back.last_line) == (0, ALICE)


def test_boot(product: Product, secret: str) -> None:
    """After a reboot the sockets listen by themselves, no unit has failed, and a login works."""
    guest = product.guest
    guest.reboot()
    assert guest.run("systemctl is-system-running", check=False).stdout == "running\n"
    assert [product.unit_state(unit) for unit in SOCKETS] == ["active", "active"]
    result = ssh_login(guest.ssh_port, ALICE, [PASSWORD, *typed(totp(secret))])
    assert (result.status, result.last_line) == (0, ALICE)


@pytest.fixture
def usb(guest: Guest) -> None:
    """Load what makes USB devices by software."""
    guest.run(["modprobe", "--all", "uhid", *USB_MODULES])


@pytest.mark.parametrize("kind", NODES)
def test_key_is_known_to_udev(guest: Guest, usb: None, kind: str) -> None:
    """A device with a key's report descriptor becomes a hidraw node marked as a FIDO token."""
    del usb
    with key_node(guest, kind, "1") as properties:
        assert (properties["ID_FIDO_TOKEN"], properties["ID_SECURITY_TOKEN"]) == ("1", "1")
        assert NODE in guest.output("fido2-token -L")
        assert ("ID_PATH" in properties) == (kind == "usb")


def test_key_belongs_to_whoever_is_at_the_console(
    product: Product, secret: str, usb: None, console: Console
) -> None:
    """A user logged in on tty1 may open a key's node, and nobody else."""
    del usb
    console_login(console, totp(secret))
    console.expect(rf"{ALICE}@.*\$ $")
    with key_node(product.guest, "usb", "2"):
        allowed = [
            product.guest.run(["runuser", "-u", user, "--", "test", "-w", NODE], check=False)
            for user in (ALICE, BOB)
        ]
    assert [done.returncode for done in allowed] == [0, 1]
