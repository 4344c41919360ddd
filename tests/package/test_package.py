# SPDX-License-Identifier: Apache-2.0
"""The Debian package in a fresh root: what it brings, what it leaves alone, and how it goes."""

import stat
import subprocess
from pathlib import Path

import pytest
from installed import totp

from package.fresh_root import PATIENCE, FreshRoot

MODULES = "usr/lib/*/security/pam_mfa.so"
PLACES = (
    "usr/bin/pam-mfa", "usr/sbin/pam-mfad", "usr/sbin/pam-mfa-selfd", "etc/pam_mfa/policy.yaml",
    "etc/pam.d/pam-mfa", "etc/apparmor.d/usr.lib.pam-mfa.pam-mfad",
    "lib/systemd/system/pam-mfad.socket", "lib/systemd/system/pam-mfad-self.socket",
    "lib/systemd/system/pam-mfad.service", "lib/systemd/system/pam-mfa-switch.service",
    "lib/systemd/system/pam-mfa-selfd.socket", "lib/systemd/system/pam-mfa-audit-ship.service",
    "lib/systemd/system/pam-mfa-audit-fleet.service",
    "lib/systemd/system/pam-mfa-audit-fleet.timer",
    "lib/systemd/system/pam-mfa-selfd.service", "lib/udev/rules.d/71-pam-mfa.rules",
    "usr/lib/sysusers.d/pam-mfa.conf", "usr/lib/tmpfiles.d/pam-mfa.conf",
    "usr/share/pam-configs/mfa", "usr/share/man/man1/pam-mfa.1.gz",
    "usr/share/man/man5/pam_mfa.devices.5.gz", "usr/share/man/man5/pam_mfa.policy.5.gz",
    "usr/share/man/man8/pam-mfad.8.gz", "usr/share/man/man8/pam-mfa-selfd.8.gz",
    "usr/share/man/man8/pam_mfa.8.gz", "usr/share/bash-completion/completions/pam-mfa",
    "usr/share/zsh/vendor-completions/_pam-mfa", "usr/share/fish/vendor_completions.d/pam-mfa.fish",
    "usr/share/doc/pam-mfa/copyright", "usr/share/doc/pam-mfa/CHANGELOG.md",
    "usr/share/doc/pam-mfa/README.md", "usr/share/doc/pam-mfa/examples/pam.d/sshd",
)  # fmt: skip
# Written by whoever makes or deletes any account.
ACCOUNT_BACKUPS = {"passwd-", "group-", "shadow-", "gshadow-", ".pwd.lock"}
DELETE = "pam-mfa pam-mfa/delete_devices boolean true\n"


def test_lintian_finds_no_error(package: Path) -> None:
    """Debian's own checks find neither an error nor a warning beyond the reasoned overrides."""
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", package],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_everything_is_in_its_place(installed: FreshRoot) -> None:
    """The module, programs, units, rules, pages and completion are where the system looks."""
    assert [place for place in PLACES if not (installed.path / place).exists()] == []
    assert len(list(installed.path.glob(MODULES))) == 1
    installed.run("dpkg", "--verify", "pam-mfa")


def test_nobody_else_can_change_what_root_runs(installed: FreshRoot) -> None:
    """What the package brings is root's, and writable by root alone."""
    listed = installed.run("dpkg-query", "--listfiles", "pam-mfa").stdout.split()
    abouts = {name: (installed.path / name[1:]).lstat() for name in listed}
    assert [
        name for name, about in abouts.items()
        if about.st_uid != 0 or about.st_gid != 0
        or (not stat.S_ISLNK(about.st_mode) and about.st_mode & 0o7022)
    ] == []  # fmt: skip


def test_devices_are_the_verifiers_alone(installed: FreshRoot) -> None:
    """The store is the system user's and closed, the log readable by adm; no login, no home."""
    shown = installed.run(
        "stat", "-c", "%U:%G %a", "/var/lib/pam_mfa", "/var/lib/pam_mfa/devices", "/var/log/pam_mfa"
    )
    assert shown.stdout.split("\n")[:3] == [
        "pam-mfa:pam-mfa 700", "pam-mfa:pam-mfa 700", "pam-mfa:adm 2750",
    ]  # fmt: skip
    account = installed.run("getent", "passwd", "pam-mfa").stdout.strip().split(":")
    assert account[6] == "/usr/sbin/nologin"
    assert not (installed.path / account[5][1:]).exists() or account[5] == "/"


def test_no_service_is_changed(base: Path, installed: FreshRoot) -> None:
    """Installing it changes no PAM file, and no other file of /etc but by accounts and units."""
    before, after = FreshRoot.files_of(base / "etc"), installed.files("etc")
    changed = {name for name in before if before[name] != after.get(name)} - ACCOUNT_BACKUPS
    assert changed <= {"passwd", "group", "shadow", "gshadow"}


def test_only_the_verifiers_sockets_are_enabled(installed: FreshRoot) -> None:
    """The verifier waits for logins after a boot; self-service waits for an administrator."""
    wanted = installed.path / "etc/systemd/system/sockets.target.wants"
    names = {path.name for path in wanted.iterdir() if path.name.startswith("pam-mfa")}
    assert names == {"pam-mfad.socket", "pam-mfad-self.socket"}


def test_pam_auth_update_knows_the_profile(machine: FreshRoot) -> None:
    """The profile is off; chosen, it asks every service that asks for a password; and back."""
    before = machine.files("etc/pam.d")
    secret = machine.enroll("root")
    machine.run("pam-auth-update", "--enable", "mfa")
    common = (machine.path / "etc/pam.d/common-auth").read_text()
    assert "pam_mfa.so" in common
    (machine.path / "etc/pam.d/any").write_text(
        "auth [success=2 default=ignore] pam_permit.so\n@include common-auth\n"
        "account required pam_permit.so\n"
    )
    assert machine.try_login("root", "000000", "any") == 1
    assert machine.try_login("root", totp(secret), "any") == 0
    (machine.path / "etc/pam.d/any").unlink()
    machine.run("pam-auth-update", "--disable", "mfa")
    assert machine.files("etc/pam.d") == before


def test_login_through_the_installed_module(machine: FreshRoot) -> None:
    """A code lets in once, by the module's plain name and a verifier that it starts on demand."""
    machine.write_service()
    secret = machine.enroll("root")
    code = totp(secret)
    assert machine.try_login("root", code) == 0
    assert machine.try_login("root", code) == 1
    log = (machine.path / "var/log/pam_mfa/audit.jsonl").read_text()
    assert '"reason":"code_reused"' in log


@pytest.mark.parametrize("way", ["daemon", "on-demand"])
def test_upgrade_keeps_an_open_prompt_alive(machine: FreshRoot, newer: Path, way: str) -> None:
    """Whoever is at a prompt while the package is upgraded gets in, and devices stay."""
    machine.write_service()
    secret = machine.enroll("root")
    command = "pam-mfa try root --service demo"
    if way == "daemon":
        command = f"pam-mfad & until [ -S /run/pam_mfa/verify.sock ]; do sleep 0.1; done; {command}"
    login = machine.start("sh", "-c", command)
    try:
        assert login.stdout is not None
        assert login.stdout.readline() == "Verification code:\n"
        machine.install(newer)
        out, err = login.communicate(f"{totp(secret)}\n", PATIENCE)
    finally:
        login.kill()
    assert (login.returncode, out) == (0, "demo lets root in.\n"), err
    version = machine.run("dpkg-query", "-W", "-f", "${Version}", "pam-mfa").stdout
    assert version.endswith(".1")


def test_edited_policy_survives_an_upgrade(machine: FreshRoot, newer: Path) -> None:
    """An administrator's policy is a configuration file, which no upgrade replaces."""
    policy = machine.path / "etc/pam_mfa/policy.yaml"
    policy.write_text("version: 1\nmode: report-only\n")
    machine.install(newer)
    assert policy.read_text() == "version: 1\nmode: report-only\n"


def test_removal_is_refused_while_a_service_names_the_module(machine: FreshRoot) -> None:
    """A PAM file that names a module which is gone would let nobody in, so it is not let go."""
    service = machine.write_service("sudo")
    done = machine.run("dpkg", "--remove", "pam-mfa", check=False)
    assert done.returncode != 0
    assert "/etc/pam.d/sudo" in done.stdout + done.stderr
    assert len(list(machine.path.glob(MODULES))) == 1
    service.unlink()
    machine.run("dpkg", "--remove", "pam-mfa")
    assert list(machine.path.glob(MODULES)) == []


def test_removal_takes_its_profile_out(machine: FreshRoot) -> None:
    """With the profile chosen, removing the package ends with a PAM stack without the module."""
    machine.run("pam-auth-update", "--enable", "mfa")
    machine.run("dpkg", "--remove", "pam-mfa")
    assert "pam_mfa" not in (machine.path / "etc/pam.d/common-auth").read_text()


def test_purge_asks_before_it_deletes_devices(machine: FreshRoot) -> None:
    """With nobody to ask, devices, log and their owner are kept."""
    machine.enroll("root")
    machine.run("dpkg", "--purge", "pam-mfa")
    assert (machine.path / "var/lib/pam_mfa/devices/root.yaml").exists()
    assert (machine.path / "var/log/pam_mfa/audit.jsonl").exists()
    machine.run("getent", "passwd", "pam-mfa")


def test_purge_with_yes_leaves_nothing(base: Path, machine: FreshRoot) -> None:
    """Asked for, everything goes: /etc is byte for byte what it was before the installation."""
    machine.enroll("root")
    machine.run("debconf-set-selections", stdin=DELETE)
    machine.run("dpkg", "--purge", "pam-mfa")
    before, after = FreshRoot.files_of(base / "etc"), machine.files("etc")
    assert {
        name: (before.get(name), after.get(name))
        for name in (before.keys() | after.keys()) - ACCOUNT_BACKUPS
        if before.get(name) != after.get(name)
    } == {}
    left = machine.run(
        "find", "/", "-xdev", "(", "-name", "*pam_mfa*", "-o", "-name", "*pam-mfa*", ")"
    ).stdout.split()
    assert [path for path in left if not path.startswith(("/proc/", "/dev/"))] == []
