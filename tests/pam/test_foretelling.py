# SPDX-License-Identifier: Apache-2.0
"""``status`` beside real libpam: what is said of the next login is what then happens."""

import json
import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import Any

import pexpect
import pytest
from authenticator import Authenticator, enroll
from host_program import PROMPT, Login, Outcome, Status, run, write_service
from installed import DataRoot
from serving import DAEMON, each_way, serving
from test_device_kinds import recovery_codes

ACCOUNT = "nobody"  # this host has it
STRANGER = "no-such-account"
REPORT_ONLY_WORDS = "(report-only: nobody is refused)"
POLICIES = {
    "deny": "mode: enforce\ndefaults: {prompts: 1, unenrolled: deny}",
    "allow": "mode: enforce\ndefaults: {prompts: 1, unenrolled: allow}",
    "enroll": "mode: enforce\ndefaults: {prompts: 1, unenrolled: enroll}",
    "report-only": "mode: report-only\ndefaults: {prompts: 1, unenrolled: deny}",
    "other type": "mode: enforce\ndefaults: {prompts: 1, devices: [token]}",
}
# By kind of user: the outcome under each policy.
EXPECTED = {
    "enrolled": ("code", "code", "code", "code", "refused"),
    "not enrolled": ("refused", "not asked", "enrolls", "not refused", "refused"),
    "no account": ("refused", "not asked", "refused", "not refused", "refused"),
    "locked": ("refused", "refused", "refused", "not refused", "refused"),
    "unreadable": ("refused", "refused", "refused", "not refused", "refused"),
}


def set_policy(root: DataRoot, policy: str, failures: int = 1000) -> None:
    """Put a policy in force, in one step: a daemon may be reading."""
    draft = root.policy.with_suffix(".new")
    draft.write_text(f"version: 1\n{policy}\nlockout: {{failures: {failures}, for: 1h}}\n")
    draft.replace(root.policy)


class User:
    """A user of one kind under a root, and the codes that are right."""

    def __init__(self, root: DataRoot, kind: str) -> None:
        """Make the user."""
        self.root = root
        self.name = STRANGER if kind == "no account" else ACCOUNT
        self.codes: list[str] = []
        if kind in ("enrolled", "locked", "unreadable"):
            self.phone: Authenticator = enroll(root, self.name)
            self.codes = recovery_codes(root, self.name)
        if kind == "locked":
            set_policy(root, POLICIES["deny"], failures=1)
            assert self.log_in(self.phone.wrong_code()).status == Status.AUTH_ERR
        if kind == "unreadable":
            root.device_file(self.name).chmod(0o644)

    def status(self) -> dict[str, Any]:
        """Return the user's status."""
        (row,) = json.loads(self.root.command("status", self.name, "--json").stdout)
        assert isinstance(row, dict)
        return row

    def foretold(self) -> dict[str, str]:
        """Return what is said of the next login at the service."""
        (login,) = self.status()["next_logins"]
        assert isinstance(login, dict)
        return login

    def log_in(self, *answers: str) -> Outcome:
        """Run the service's auth and account phases."""
        return run(Login(self.root, self.name, "demo", "auth,account"), *answers)


@pytest.fixture
def host(root: DataRoot) -> DataRoot:
    """A root with an account, and a service that has the module in both phases."""
    entry = ":".join(map(str, (*pwd.getpwnam(ACCOUNT)[:6], "/bin/sh")))
    (root.path / "etc/passwd").write_text(f"{entry}\n")
    (root.path / "etc/pam.d").symlink_to(root.services)
    phases = ("auth", "account")
    lines = [(f"{phase} required {root.module}", f"{phase} required pam_permit.so")
             for phase in phases]  # fmt: skip
    write_service(root, "demo", *(line for pair in lines for line in pair))
    return root


def check(user: User, outcome: str) -> None:
    """See that a wrong code and a right one end as the outcome says."""
    wrong, right = "no code at all", (user.codes or ["no code"]).pop(0)
    ends = [user.log_in(wrong), user.log_in(right)]
    found = [(end.status == Status.SUCCESS, end.prompts[:1]) for end in ends]
    if outcome == "code":
        let_in = "report-only" in user.foretold()["text"]
        assert found == [(let_in, [PROMPT]), (True, [PROMPT])]
    elif outcome == "refused":
        assert found == [(False, [PROMPT])] * 2
    elif outcome == "enrolls":
        assert found == [(False, ["First code: "])] * 2
    elif outcome == "not asked":
        assert found == [(True, [])] * 2
    else:
        asked = [PROMPT] if user.foretold()["text"].startswith("asks") else []
        assert found == [(True, asked)] * 2


@pytest.mark.parametrize("kind", EXPECTED)
def test_what_is_said_comes_true(host: DataRoot, kind: str) -> None:
    """Under every policy, a user of each kind ends as it is said."""
    user = User(host, kind)
    with serving(host, DAEMON):
        for policy, outcome in zip(POLICIES, EXPECTED[kind], strict=True):
            set_policy(host, POLICIES[policy])
            foretold = user.foretold()["outcome"]
            # Nobody without an account is asked first where policy would enroll: refused at once.
            if (kind, policy) == ("no account", "enroll"):
                assert (foretold, user.log_in().prompts) == (outcome, [])
                continue
            assert (policy, foretold) == (policy, outcome)
            check(user, outcome)


@each_way
def test_lock_comes_and_goes(host: DataRoot, way: str) -> None:
    """A lock is said with its end and the codes left with it, and ends when it is ended."""
    user = User(host, "enrolled")
    set_policy(host, POLICIES["deny"], failures=2)
    with serving(host, way):
        assert user.log_in(user.codes.pop()).status == Status.SUCCESS
        assert "(phone, recovery codes: 9 left)" in user.foretold()["text"]
        for _ in range(2):
            user.log_in(user.phone.wrong_code())
        assert re.search(r"refused: locked until \d{4}-\d\d-\d\d \d\d:\d\d UTC",
                         user.foretold()["text"])  # fmt: skip
        assert user.log_in(user.codes[0]).status == Status.AUTH_ERR
        host.command("unlock", ACCOUNT)
        assert user.foretold()["outcome"] == "code"
        assert user.log_in(user.codes[0]).status == Status.SUCCESS


def test_report_only_is_said(host: DataRoot) -> None:
    """In report-only it is said that nobody is refused, and why somebody would be."""
    set_policy(host, POLICIES["report-only"])
    text = User(host, "not enrolled").foretold()["text"]
    assert text.startswith("not asked; it would be refused: no MFA device")
    assert text.endswith(REPORT_ONLY_WORDS)


def test_status_of_everybody(host: DataRoot) -> None:
    """The whole host's table has a line for each account and each device file, as JSON has."""
    User(host, "enrolled")
    enroll(host, STRANGER)
    lines = host.command("status").stdout.splitlines()
    rows = json.loads(host.command("status", "--json").stdout)
    assert [line.split()[0] for line in lines[1:]] == [row["user"] for row in rows]
    assert [(row["user"], row["account"]) for row in rows] == [(STRANGER, False), (ACCOUNT, True)]


@pytest.mark.parametrize("command", ["status", "status USER", "list", "report"])
@pytest.mark.parametrize("terminal", ["none", "dumb", "NO_COLOR", "color"])
def test_colors(host: DataRoot, command: str, terminal: str) -> None:
    """Colors are shown on a terminal that has them, and nowhere else."""
    User(host, "not enrolled")
    words = [word.replace("USER", ACCOUNT) for word in command.split()]
    if terminal == "none":
        shown = host.command(*words).stdout
    else:
        environment = {**os.environ, "TERM": "dumb" if terminal == "dumb" else "xterm-256color"}
        environment.pop("NO_COLOR", None)
        if terminal == "NO_COLOR":
            environment["NO_COLOR"] = "1"
        program = str(host.prefix / "bin/pam-mfa")
        child = pexpect.spawn(
            program, ["--root", str(host.path), *words], env=environment, encoding="utf-8",
            timeout=60, dimensions=(40, 200),
        )  # fmt: skip
        child.expect(pexpect.EOF)
        shown = str(child.before)
        child.close()
        assert child.exitstatus == 0
    colored = re.search(r"\x1b\[(?:\d+;)*3[0-7]m", shown)
    assert bool(colored) == (terminal == "color" and command.startswith("status"))
    assert ("\x1b" in shown) == (terminal in ("NO_COLOR", "color") and command.startswith("status"))


def test_report_to_nobody(host: DataRoot) -> None:
    """A report whose reader is gone ends with a sentence, not with a traceback."""
    for n in range(3):
        enroll(host, f"user{n}")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(
            [host.prefix / "bin/pam-mfa", "--root", host.path, "report"],
            stdout=out, stderr=subprocess.PIPE, check=False, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1, b"pam-mfa: the output is cut: its reader is gone.\n",
    )  # fmt: skip


def test_leftover_is_found(host: DataRoot) -> None:
    """A device file whose account is gone stands in the report, with the account false."""
    enroll(host, STRANGER)
    found = json.loads(host.command("report", "--format", "json").stdout)
    assert [(row["user"], row["account"], row["mfa_active"]) for row in found] == [
        (STRANGER, False, True), (ACCOUNT, True, False),
    ]  # fmt: skip


def test_nothing_is_locked_by_looking(host: DataRoot, tmp_path: Path) -> None:
    """Who looks writes nothing: no file of the root changes."""
    User(host, "enrolled")
    host.command("status")
    before = {path: path.stat().st_mtime_ns for path in host.library.rglob("*.yaml")}
    size = host.audit_log.stat().st_size
    (tmp_path / "report.csv").write_text(host.command("report").stdout)
    host.command("status", ACCOUNT)
    assert before == {path: path.stat().st_mtime_ns for path in host.library.rglob("*.yaml")}
    assert size == host.audit_log.stat().st_size
