# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa doctor`` as installed, on a host that is well, on sick ones, and after a repair."""

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from authenticator import Authenticator, enroll
from host_program import Login, Status, run
from installed import DataRoot
from switched_host import Host

ACCOUNT = "nobody"  # this host has it
NOTHING_WRONG, WARNINGS, FAULTS = 0, 1, 3


@pytest.fixture
def host(root: DataRoot) -> Host:
    """A host whose sudo asks for a code."""
    return Host(root)


@pytest.fixture
def phone(host: Host) -> Authenticator:
    """The device of its one account."""
    made = enroll(host.root, ACCOUNT)
    host.switch_on("sudo", "--confirm-within", "never")
    return made


def examine(host: Host, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the doctor; return its exit status and the findings that are not ok."""
    done = host.root.command("doctor", "--json", *options, check=False)
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    return done.returncode, [one for one in findings if one["level"] != "ok"]


def subjects(findings: list[dict[str, Any]], level: str) -> set[str]:
    """Return the subjects of the findings of a level."""
    return {one["subject"] for one in findings if one["level"] == level}


def test_host_that_is_well(host: Host, phone: Authenticator) -> None:
    """Where nothing is wrong the exit status says so, and the last line."""
    assert phone.secret
    done = host.root.command("doctor", check=False)
    assert (
        done.returncode, done.stdout.splitlines()[-1],
    ) == (NOTHING_WRONG, "Nothing is wrong."), done.stdout  # fmt: skip


def test_every_finding_says_what_to_do(host: Host) -> None:
    """A warning and a fault have an advice; a new host without the module has a fault."""
    status, findings = examine(host)
    assert status == FAULTS
    assert {"module"} <= subjects(findings, "fault")
    assert [one for one in findings if one["level"] in ("warning", "fault")
                  and not one["advice"]] == []  # fmt: skip


def test_user_who_could_not_log_in(host: Host, phone: Authenticator) -> None:
    """Somebody without a device is counted and named, as a warning."""
    assert phone.secret
    with (host.root.path / "etc/passwd").open("a") as file:
        file.write("carol:x:4000:4000::/:/bin/sh\n")
    status, findings = examine(host)
    assert status == WARNINGS
    (found,) = [one for one in findings if one["subject"] == "users"]
    assert found["what"] == "1 would be refused: carol (sudo)"


def test_rights_are_mended(host: Host, phone: Authenticator) -> None:
    """Owner and mode that let others in are found, and mended where that is asked for."""
    seal_key = host.root.library / "seal.key"
    seal_key.chmod(0o644)
    device = host.root.device_file(ACCOUNT)
    os.chown(device, 0, 0)
    status, findings = examine(host)
    assert (FAULTS, {"rights"}) == (status, subjects(findings, "fault") & {"rights"})
    host.root.command("doctor", "--repair", check=False)
    assert (0o600, device.stat().st_uid) == (seal_key.stat().st_mode & 0o777,
                                             seal_key.stat().st_uid)  # fmt: skip
    assert examine(host)[0] == NOTHING_WRONG
    assert run(Login(host.root, ACCOUNT, "sudo"), phone.code()).status == Status.SUCCESS


def test_no_other_file_is_mended(host: Host, phone: Authenticator, tmp_path: Path) -> None:
    """A link or a second name in the place of a file of ours has root change nobody's file."""
    assert phone.secret
    victim = tmp_path / "victim"
    victim.write_text("secret")
    victim.chmod(0o600)
    link, twin = (host.root.library / "devices" / name for name in ("a.yaml", "b.yaml"))
    link.symlink_to(victim)
    other = host.root.library / "twin"
    other.write_text("secret")
    os.link(other, twin)
    host.root.command("doctor", "--repair", check=False)
    assert (victim.stat().st_uid, victim.stat().st_mode & 0o777) == (0, 0o600)
    assert other.stat().st_uid == 0


def test_damaged_state(host: Host, phone: Authenticator) -> None:
    """A state that SQLite does not take refuses logins, is found, and is rebuilt by the repair."""
    used = phone.code()
    assert run(Login(host.root, ACCOUNT, "sudo"), used).status == Status.SUCCESS
    state = host.root.library / "state.db"
    with sqlite3.connect(state) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    about = state.stat()
    data = state.read_bytes()
    state.write_bytes(data[:100] + b"\xa5" * (len(data) - 100))
    for path in host.root.library.glob("state.db*"):
        os.chown(path, about.st_uid, about.st_gid)
    assert run(Login(host.root, ACCOUNT, "sudo"), phone.code(1)).status != Status.SUCCESS
    status, findings = examine(host)
    assert (status, "state" in subjects(findings, "fault")) == (FAULTS, True)
    said = host.root.command("doctor", "--repair", check=False).stdout
    assert "It is rebuilt" in said
    for code in (used, phone.code(), phone.code(1)):
        assert run(Login(host.root, ACCOUNT, "sudo"), code).status != Status.SUCCESS
    assert "state" not in subjects(examine(host)[1], "fault")
    host.root.command("resync", ACCOUNT, phone.serial_number, "--codes",
                      phone.code(20), phone.code(21))  # fmt: skip


def test_hole_in_the_stack(host: Host, phone: Authenticator) -> None:
    """A line that somebody has made sufficient is found; real libpam goes past us by it."""
    assert phone.secret
    service = host.root.services / "sudo"
    service.write_text("auth sufficient pam_permit.so\n" + service.read_text())
    status, findings = examine(host)
    (found,) = [one for one in findings if one["level"] == "fault"]
    assert (status, found["subject"]) == (FAULTS, "PAM")
    assert run(Login(host.root, ACCOUNT, "sudo")).prompts == []


def test_substack_really_holds(host: Host, phone: Authenticator) -> None:
    """What is made a substack cannot skip us: real libpam asks for the code behind it."""
    (host.root.services / "system-auth").write_text("auth sufficient pam_permit.so\n")
    inner = host.root.services / "system-auth"
    (host.root.services / "demo-su").write_text("")
    (host.root.services / "su").write_text(
        f"auth include {inner}\naccount required pam_permit.so\n"
    )
    done = host.switch_on("su", "--confirm-within", "never")
    assert "substack" in done.stdout
    ended = run(Login(host.root, ACCOUNT, "su"), phone.code())
    assert (ended.status, len(ended.prompts)) == (Status.SUCCESS, 1)
    host.switch("off", "su")
    assert run(Login(host.root, ACCOUNT, "su")).prompts == []


def test_nothing_but_the_state_of_this_host(host: Host, phone: Authenticator) -> None:
    """Without a command a few lines tell how far the host is, and one thing to do next."""
    assert phone.secret
    shown = host.root.command().stdout
    assert "Services: sudo\n" in shown
    assert "Next:     see whether all is well: pam-mfa doctor\n" in shown


def test_not_root(prefix: Path) -> None:
    """Who is not root is told so."""
    done = subprocess.run([prefix / "bin/pam-mfa", "doctor"], user=65534, group=65534,
                          capture_output=True, text=True, check=False, timeout=60,
                          extra_groups=[], cwd="/")  # fmt: skip
    assert (done.returncode, "only root" in done.stderr) == (1, True)
    assert shutil.which("sudo")
