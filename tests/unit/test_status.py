# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa status`` and ``report``: what is printed of a host in a directory."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from doubles import SEED, STEP, Clock, code_of, make_layout

from pam_mfa.cli.__main__ import commands
from pam_mfa.cli.session import Session
from pam_mfa.errors import RefusedError
from pam_mfa.lifecycle import Actor, Lifecycle, open_lifecycle
from pam_mfa.store.embedded import EmbeddedStore

PASSWD = "alice:x:1000:1000::/:/bin/bash\nbob:x:1001:1001::/:/bin/bash\nbin:x:2:2::/:/bin/false\n"
POLICY = "version: 1\nmode: enforce\n"
REFUSED = "refused: no MFA device, and policy denies users without one"


class Host:
    """A root with accounts, a policy, PAM services, and a store that root may act on."""

    def __init__(self, root: Path) -> None:
        """Make it."""
        self.root = root
        self.store = EmbeddedStore(make_layout(root))
        self.lifecycle = Lifecycle(self.store, Clock(), Actor(0, 1, None))
        self.write("etc/passwd", PASSWD)
        self.write("etc/pam_mfa/policy.yaml", POLICY)
        self.write("etc/pam.d/sshd", "auth required pam_mfa.so\n")
        self.write("etc/pam.d/login", "auth required pam_unix.so\n")

    def write(self, name: str, text: str) -> None:
        """Write a file under the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def enroll(self, user: str = "alice") -> None:
        """Enable an application for a user."""
        pending = self.lifecycle.begin_virtual(user, seed=SEED)
        self.lifecycle.enable(pending, code_of(SEED, STEP - 2), code_of(SEED, STEP - 1))

    def invoke(self, *arguments: str) -> Result:
        """Run a command under the root."""
        return CliRunner().invoke(commands, ["--root", str(self.root), *arguments])

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """Return a command's rows."""
        rows: list[dict[str, Any]] = json.loads(self.invoke(*arguments, "--json").stdout)
        return rows


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """What root acts on, whoever runs the tests."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    host = Host(tmp_path)
    monkeypatch.setattr(Session, "lifecycle", property(lambda _: host.lifecycle))
    monkeypatch.setattr(Session, "is_own", property(lambda _: False))
    yield host
    host.store.close()


def test_block(host: Host) -> None:
    """Of one user there is a block: the devices, and the next login by service."""
    host.enroll()
    expected = """\
alice: enrolled
  virtual/alice/phone  virtual, never used
At the next login:
  login: not asked (pam_mfa.so is not in its PAM file)
  sshd: asks for a verification code (phone)
"""
    assert expected == host.invoke("status", "alice").output


def test_block_without_device(host: Host) -> None:
    """Of a user without a device it is said what follows, of one without an account as well."""
    assert "bob: not enrolled\n  no MFA device\n" in host.invoke("status", "bob").output
    shown = host.invoke("status", "carol").output
    assert "carol: not enrolled; there is no such account\n" in shown
    assert f"  sshd: {REFUSED}\n" in shown
    assert "bin: not enrolled; the account's shell lets nobody log in\n" in (
        host.invoke("status", "bin").output
    )


def test_block_of_unreadable_file(host: Host) -> None:
    """Of a device file that cannot be read it is said why."""
    host.enroll()
    host.store.documents.path("alice").chmod(0o644)
    shown = host.invoke("status", "alice").output
    assert "alice: unreadable\n" in shown
    assert "alice.yaml" in shown
    assert "0644" in shown
    assert "sshd: refused: the MFA devices cannot be read\n" in shown


def test_long_lines_are_not_broken(host: Host) -> None:
    """A program finds a service's whole sentence in one line."""
    service = "x" * 190
    host.write(f"etc/pam.d/{service}", "auth required pam_mfa.so\n")
    assert f"  {service}: {REFUSED}\n" in host.invoke("status", "bob").output


def test_table(host: Host) -> None:
    """Of the whole host there is a line for each account to log in by."""
    host.enroll()
    header, alice, bob = host.invoke("status").output.splitlines()
    assert "USER LOGS IN BY LAST USED DRIFT CODES LEFT LOCKED UNTIL NEXT LOGIN" == (
        " ".join(header.split())
    )
    assert "alice phone never code: sshd; not asked: login" == " ".join(alice.split())
    assert "bob no device refused (not enrolled): sshd; not asked: login" == " ".join(bob.split())


def test_long_table(host: Host) -> None:
    """A table of thousands is shown in pieces, each with its head, and nobody is left out."""
    users = [f"user{n:04}" for n in range(2001)]
    host.write("etc/passwd", "".join(f"{user}:x:1:1::/:\n" for user in users))
    words = [line.split()[0] for line in host.invoke("status").output.splitlines()]
    assert ["USER", *users[:1000], "USER", *users[1000:2000], "USER", users[2000]] == words


def test_table_of_nobody(host: Host) -> None:
    """Where there is nobody, that is said."""
    host.write("etc/passwd", "")
    expected = "No account can log in here, and nobody has an MFA device.\n"
    assert (expected, []) == (host.invoke("status").output, host.rows("status"))


def test_json(host: Host) -> None:
    """For programs there is everything of each user."""
    host.enroll()
    alice, bob = host.rows("status")
    assert {
        "user": "alice", "account": True, "uid": 1000, "login_capable": True,
        "standing": "enrolled", "problem": None, "locked_until": None, "recent_failures": 0,
    } == {key: alice[key] for key in list(alice)[:8]}  # fmt: skip
    assert [
        {
            "serial_number": "virtual/alice/phone", "type": "virtual", "name": "phone",
            "enabled_at": "2023-11-14T22:14:05Z", "last_used_at": None, "drift": 0,
            "codes_left": None, "expires_at": None, "weak": False, "problem": None,
        }
    ] == alice["devices"]  # fmt: skip
    assert {
        "service": "sshd", "outcome": "refused", "reason": "not_enrolled", "text": REFUSED,
    } == bob["next_logins"][1]  # fmt: skip
    assert [bob] == host.rows("status", "bob")


def test_seed_that_does_not_open(host: Host) -> None:
    """A device whose seed does not open is said to have that problem, and is no way in."""
    host.enroll()
    path = host.store.documents.path("alice")
    path.write_text(path.read_text().replace("secret: sealed:v1:", "secret: sealed:v1:AAAA"))
    (row,) = host.rows("status", "alice")
    assert ("unreadable", True) == (
        row["standing"], "does not open with this host's seal key" in row["devices"][0]["problem"],
    )  # fmt: skip


def test_broken_policy(host: Host) -> None:
    """Where the policy cannot be read, status says so and what it means, and ends well."""
    host.write("etc/pam_mfa/policy.yaml", "mode: [")
    result = host.invoke("status", "bob")
    assert (0, True, True) == (
        result.exit_code, "Note: " in result.stderr,
        "sshd: refused: there is no usable policy\n" in result.stdout,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [("status",), ("status", "ev\x1b[31mil"), ("report",)])
def test_names_drive_no_terminal(host: Host, arguments: tuple[str, ...]) -> None:
    """No name, device, service or fault sends control characters to a terminal."""
    host.write("etc/passwd", "ev\x1b[31mil:x:1:1::/:\n")
    host.write("etc/pam.d/s\x1b[31m", "auth required pam_mfa.so\nau\x1b[31mth x y\n")
    folder = host.store.documents.path("x").parent
    (folder / "a\x1b[31m.yaml").touch(0o600)
    result = host.invoke(*arguments)
    assert "\x1b" not in result.output + str(result.exception)


def test_no_name(host: Host) -> None:
    """What cannot be an account's name is refused."""
    assert isinstance(host.invoke("status", "").exception, RefusedError)


def test_report(host: Host) -> None:
    """The report is CSV, or JSON where asked for."""
    host.enroll()
    rows = list(csv.DictReader(host.invoke("report").stdout.splitlines()))
    assert [("alice", "true"), ("bob", "false")] == [
        (row["user"], row["mfa_active"]) for row in rows
    ]
    found = json.loads(host.invoke("report", "--format", "json").stdout)
    assert [("alice", True), ("bob", False)] == [(row["user"], row["mfa_active"]) for row in found]


def test_report_is_utf_8(host: Host) -> None:
    """The report is UTF-8 whatever the locale's encoding is."""
    host.write("etc/passwd", "jürgen:x:1:1::/:\n")
    result = CliRunner(charset="latin-1").invoke(commands, ["--root", str(host.root), "report"])
    assert "jürgen".encode() in result.stdout_bytes


def test_only_root_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root is refused, and nothing is made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RefusedError, match="only root may do this"), open_lifecycle(tmp_path):
        pass
    assert [] == list(tmp_path.iterdir())


def test_no_root_to_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is not there is not made to act under."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    missing = tmp_path / "none"
    with pytest.raises(RefusedError, match="there is no directory"), open_lifecycle(missing):
        pass
    assert not missing.exists()
