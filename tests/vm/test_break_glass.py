# SPDX-License-Identifier: Apache-2.0
"""README.md's "Break glass", tried on a guest that lets nobody in any more.

Its commands are typed as they stand there: on the console, in rescue shells, and from a live system
that has the disk. The host that is mended has every service switched on, a journal of switches that
nobody can read, and a policy by which everybody is refused.
"""

import re
from pathlib import Path

import pytest
from phone import typed
from ssh_client import ssh_login

from vm.console import Console
from vm.guest import Guest
from vm.packaged import ALICE, ROOT_PASSWORD, Packaged, list_files
from vm.qemu import COPY_SUFFIX, Start
from vm.readme import Readme
from vm.root_tree import PASSWORDS
from vm.serial_console import SerialConsole

HEADING = "Break glass: nobody can log in"
SSH_PASSWORD = ("[Pp]assword: $", PASSWORDS[ALICE])
NO_CODE = "000000"
# What the ways out must bring back; the journal is moved aside, the policy is somebody else's.
STACKS = ("pam.d/", "ssh/")
SWITCH_ON = "pam-mfa switch on all --yes --confirm-within never"
SPOIL = """
echo nonsense >/etc/pam_mfa/policy.yaml
echo nonsense >/etc/pam_mfa/switch.json
systemctl stop pam-mfad.service
"""


def lets_in(guest: Guest) -> bool:
    """Whether the password lets alice in over ssh, and a code that her phone never showed."""
    answers = [SSH_PASSWORD, *typed(*[NO_CODE] * 3)]
    return ssh_login(guest.ssh_port, ALICE, answers).status == 0


@pytest.fixture(scope="module")
def installed(packaged: Packaged, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the disk of a host that has the package, and nothing switched on."""
    packaged.ready()
    disk = tmp_path_factory.mktemp("disks") / f"installed{COPY_SUFFIX}"
    packaged.guest.copy_disk(disk)
    return disk


@pytest.fixture(scope="module")
def closed(packaged: Packaged, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the disk of a host that refuses everybody."""
    packaged.ready()
    guest = packaged.guest
    guest.run(SWITCH_ON)
    guest.run(SPOIL)
    assert not lets_in(guest)
    disk = tmp_path_factory.mktemp("disks") / f"closed{COPY_SUFFIX}"
    guest.copy_disk(disk)
    return disk


def stacks(packaged: Packaged, guest: Guest, directory: str) -> dict[str, str]:
    """Return what is other than right behind the installation in what logins are decided by."""
    now = list_files(guest, directory)
    return {
        name: now.get(name, "gone")
        for name in now.keys() | packaged.after.keys()
        if name.startswith(STACKS) and now.get(name) != packaged.after.get(name)
    }


def rescue_commands() -> list[str]:
    """Return what the README has typed in a rescue shell."""
    return [line for line in Readme().commands(HEADING) if "/mnt" not in line]


def live_commands() -> list[str]:
    """Return what it has typed on a live system, with the disk that is there."""
    lines = [line for line in Readme().commands(HEADING) if "/mnt" in line]
    return [line.replace("/dev/sdX2", "/dev/vdb") for line in lines]


def test_console(packaged: Packaged) -> None:
    """Where login is not switched on, root logs in on tty1 and switches everything off."""
    packaged.ready()
    guest = packaged.guest
    guest.run("pam-mfa switch on sshd sudo --yes --confirm-within never")
    assert not lets_in(guest)
    with Console(guest) as console:
        console.send("root\n")
        console.expect(r"Password: $")
        console.send(f"{ROOT_PASSWORD}\n")
        console.expect(r"root@.*# $")
        console.send("pam-mfa switch off all\n")
        console.expect(r"Off: all\.\n.*# $")
    assert packaged.changes(packaged.after) == {}
    assert lets_in(guest)


def test_rescue_target(packaged: Packaged, closed: Path) -> None:
    """In systemd's rescue shell the commands bring every stack back, and logins work again."""
    start = Start(closed, "ro systemd.unit=rescue.target")
    with Guest(start=start) as guest, SerialConsole(guest.serial_socket) as console:
        console.send("\n")
        console.expect(r"root password for maintenance[^:]*: $")
        console.send(f"{ROOT_PASSWORD}\n")
        console.expect(r"# $")
        *lines, doctor = rescue_commands()
        assert [console.run(line)[0] for line in lines] == [0] * len(lines)
        status, shown = console.run(doctor)
        assert (status, "policy.yaml" in shown) == (3, True)  # and says what is wrong
        assert stacks(packaged, guest, "/etc") == {}
        console.send("exit\n")  # and the boot goes on
        guest.await_sshd()
        assert lets_in(guest)


def test_shell_instead_of_init(packaged: Packaged, closed: Path) -> None:
    """With `init=/bin/bash`, where nothing runs, the same commands do the same."""
    start = Start(closed, "ro init=/bin/bash", is_awaited=False)
    with Guest(start=start) as guest:
        with SerialConsole(guest.serial_socket) as console:
            console.send("\n")
            console.expect(r"# $")
            for line in rescue_commands()[:-1]:
                assert console.run(line)[0] == 0, line
            console.send("exec /sbin/init\n")
            guest.await_boot()
        assert stacks(packaged, guest, "/etc") == {}
        assert lets_in(guest)


def test_live_system(packaged: Packaged, installed: Path, closed: Path) -> None:
    """From a live system the disk is mended from outside, by its own pam-mfa and by another."""
    with Guest(start=Start(installed, "", closed)) as guest:
        mount, inside = live_commands()
        guest.run(mount)
        guest.run("cp -a /mnt/etc /root/closed")
        assert "pam.d/sshd" in stacks(packaged, guest, "/mnt/etc")
        guest.run(inside)
        assert stacks(packaged, guest, "/mnt/etc") == {}
        guest.run("cp -a /root/closed/. /mnt/etc/")
        (outside,) = re.findall(r"`(pam-mfa --root /mnt .*?)`", Readme().text)
        guest.run(outside)
        assert stacks(packaged, guest, "/mnt/etc") == {}
