# SPDX-License-Identifier: Apache-2.0
"""sudo with a verification code: the real sudo on a terminal, the installed module."""

import os
from collections.abc import Iterator

import pytest
from console_login import DEFAULT_SUDOERS, Console
from host_accounts import Account
from installed import DataRoot
from phone import FAILURES, NEXT_PROMPT, PROMPTS, Phone, typed
from private_host import PrivateHost
from service_stack import code_alone, joined, password_then_code, shipped
from verifier_process import (
    EITHER_VERIFIER,
    Verifier,
    await_no_process,
    await_records,
    set_policy,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of this kind need root")

ALICE = Account("alice-of-tests", "correct horse")
CAROL = Account("carol-of-tests", "fresh paint")  # never enrolled
NAME = ALICE.name
PASSWORD = ("password for .*: $", "correct horse")
WRONG_PASSWORD = ("password for .*: $", "battery staple")
PROMPTS_SHOWN = (f"[sudo] password for {NAME}: ", "Verification code: ")
JOINED_PROMPT = r"Password and verification code.*: $"
REFUSAL = "sudo: 1 incorrect password attempt"


@pytest.fixture
def host() -> Iterator[PrivateHost]:
    """A private host with Alice's and Carol's accounts."""
    with PrivateHost([ALICE, CAROL]) as started:
        yield started


@pytest.fixture
def phone(root: DataRoot) -> Phone:
    """Alice's phone."""
    return Phone(root, NAME)


@pytest.fixture
def console(host: PrivateHost, root: DataRoot) -> Console:
    """A console whose sudo asks for the password, then for a code."""
    return Console(host, sudo=password_then_code(root))


@EITHER_VERIFIER
def test_right_code(root: DataRoot, phone: Phone, console: Console, verifier: Verifier) -> None:
    """The password and then the code let sudo run a command as root."""
    with verifier(root):
        result = console.sudo(NAME, [PASSWORD, *typed(phone.code())])
    assert (result.status, result.last_line, result.prompts) == (0, "root", PROMPTS_SHOWN)
    assert root.reasons() == ["code_accepted"]


@EITHER_VERIFIER
def test_wrong_code(root: DataRoot, phone: Phone, console: Console, verifier: Verifier) -> None:
    """A wrong code is asked for again, three times in all, and then refused."""
    with verifier(root):
        result = console.sudo(NAME, [PASSWORD, *typed(*[phone.wrong_code()] * PROMPTS)])
    assert (result.status, result.last_line) == (1, REFUSAL)
    assert result.prompts == (*PROMPTS_SHOWN, *[NEXT_PROMPT] * (PROMPTS - 1))
    assert root.reasons() == ["wrong_code"] * PROMPTS


@EITHER_VERIFIER
def test_code_reused(root: DataRoot, phone: Phone, console: Console, verifier: Verifier) -> None:
    """A code that was accepted is refused by the next sudo, and the following one counts."""
    code = phone.code()
    with verifier(root):
        assert console.sudo(NAME, [PASSWORD, *typed(code)]).last_line == "root"
        again = console.sudo(NAME, [PASSWORD, *typed(*[code] * PROMPTS)])
        fresh = console.sudo(NAME, [PASSWORD, *typed(phone.code(1))])
    assert (again.last_line, fresh.last_line) == (REFUSAL, "root")
    assert root.reasons() == ["code_accepted", *["code_reused"] * PROMPTS, "code_accepted"]


def test_locked(root: DataRoot, phone: Phone, console: Console) -> None:
    """Five wrong codes over two sudos lock the user: the right code is refused as well."""
    for _ in range(2):
        console.sudo(NAME, [PASSWORD, *typed(*[phone.wrong_code()] * PROMPTS)])
    result = console.sudo(NAME, [PASSWORD, *typed(*[phone.code()] * PROMPTS)])
    assert (result.status, result.last_line) == (1, REFUSAL)
    assert root.reasons() == [*["wrong_code"] * FAILURES, *["locked"] * 4]


def test_wrong_password(root: DataRoot, phone: Phone, console: Console) -> None:
    """A wrong password is refused though the code is right."""
    result = console.sudo(NAME, [WRONG_PASSWORD, *typed(phone.code())])
    assert (result.status, result.last_line, result.prompts) == (1, REFUSAL, PROMPTS_SHOWN)
    assert root.reasons() == ["code_accepted"]


def test_sudo_n(root: DataRoot, phone: Phone, console: Console) -> None:
    """Sudo -n, where nobody can be asked, is refused without a question."""
    del phone
    result = console.sudo_n(NAME)
    assert (result.status, result.output) == (1, "sudo: a password is required\n")
    assert root.reasons() == []


@EITHER_VERIFIER
def test_sudo_n_through_pam(
    root: DataRoot, host: PrivateHost, phone: Phone, verifier: Verifier
) -> None:
    """Sudo -n that asks PAM without a conversation is refused at once, on the record."""
    del phone
    sudoers = f"Defaults noninteractive_auth\n{DEFAULT_SUDOERS}"
    console = Console(host, sudo=code_alone(root), sudoers=sudoers)
    with verifier(root):
        result = console.sudo_n(NAME)
    assert (result.status, result.prompts) == (1, ())
    assert root.reasons() == ["no_conversation"]


@EITHER_VERIFIER
def test_everyone_is_asked_alike(
    root: DataRoot, phone: Phone, console: Console, verifier: Verifier
) -> None:
    """Enrolled and unenrolled users see the same prompts and the same refusal."""
    codes = typed(*[phone.wrong_code()] * PROMPTS)
    with verifier(root):
        alice = console.sudo(NAME, [PASSWORD, *codes])
        carol = console.sudo(CAROL.name, [("password for .*: $", CAROL.password), *codes])
    assert alice.output.replace(NAME, "NAME") == carol.output.replace(CAROL.name, "NAME")
    assert (alice.status, len(alice.prompts)) == (carol.status, len(carol.prompts))
    assert root.reasons() == ["wrong_code"] * PROMPTS + ["not_enrolled"] * PROMPTS


@EITHER_VERIFIER
def test_joined_password_and_code(
    root: DataRoot, host: PrivateHost, phone: Phone, verifier: Verifier
) -> None:
    """With forward_pass one prompt takes the password with the code behind it."""
    console = Console(host, sudo=joined(root))
    with verifier(root):
        result = console.sudo(NAME, [(JOINED_PROMPT, f"{ALICE.password}{phone.code()}")])
    prompts = ("Password and verification code: ",)
    assert (result.status, result.last_line, result.prompts) == (0, "root", prompts)


def test_joined_wrong_password(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """With forward_pass a wrong password is refused though the code behind it is right."""
    console = Console(host, sudo=joined(root))
    result = console.sudo(NAME, [(JOINED_PROMPT, f"battery staple{phone.code()}")])
    assert (result.status, result.last_line, len(result.prompts)) == (1, REFUSAL, 1)
    assert root.reasons() == ["code_accepted"]


def test_joined_wrong_code(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """With forward_pass the right password is refused with a wrong code or none behind it."""
    console = Console(host, sudo=joined(root))
    answers = [f"{ALICE.password}{end}" for end in (phone.wrong_code(), "", phone.code()[:5])]
    result = console.sudo(NAME, [(JOINED_PROMPT, answer) for answer in answers])
    assert (result.status, result.last_line, len(result.prompts)) == (1, REFUSAL, PROMPTS)


@EITHER_VERIFIER
def test_audit_record(root: DataRoot, phone: Phone, console: Console, verifier: Verifier) -> None:
    """A sudo leaves one record that says who asked, on which terminal."""
    with verifier(root):
        result = console.sudo(NAME, [PASSWORD, *typed(phone.code())], command=["tty"])
    (record,) = root.audit()
    expected = {
        "outcome": "success",
        "user": NAME,
        "ruser": NAME,
        "service": "sudo",
        "phase": "auth",
        "mode": "enforce",
        "caller_uid": 0,
    }
    assert (result.status, expected.items() <= record.items()) == (0, True)
    assert record["tty"].startswith("/dev/pts/")
    assert "rhost" not in record


def test_nothing_typed_is_written(
    root: DataRoot, host: PrivateHost, phone: Phone, console: Console
) -> None:
    """Neither the audit log nor the system log holds a code or the password."""
    wrong, right = phone.wrong_code(), phone.code()
    console.sudo(NAME, [PASSWORD, *typed(wrong, right)])
    assert root.reasons() == ["wrong_code", "code_accepted"]
    written = root.audit_log.read_text() + host.syslog_text()
    assert [word for word in (wrong, right, ALICE.password) if str(word) in written] == []


@EITHER_VERIFIER
def test_hang_up(root: DataRoot, phone: Phone, console: Console, verifier: Verifier) -> None:
    """A person whose terminal hangs up leaves a denied record, and the next sudo works."""
    with verifier(root):
        assert console.sudo(NAME, [PASSWORD, *typed(None)]).status != 0
        (record,) = await_records(root, 1)
        assert console.sudo(NAME, [PASSWORD, *typed(phone.code())]).last_line == "root"
    assert record["reason"] in {"abandoned", "no_conversation"}
    assert (record["outcome"], record["user"]) == ("denied", NAME)


def test_no_verifier_is_left(root: DataRoot, phone: Phone, console: Console) -> None:
    """The verifier that was started for sudo is no child of sudo, and ends by itself."""
    answers = [PASSWORD, *typed(phone.code())]
    result = console.sudo(NAME, answers, command=["ps", "-eo", "ppid=,comm="])
    lines = [line.split() for line in result.output.splitlines() if "pam-mfad" in line]
    assert (result.status, {parent for parent, *_ in lines} <= {"1"}) == (0, True)
    assert await_no_process(root) == []


def test_report_only(root: DataRoot, phone: Phone, console: Console) -> None:
    """In report-only mode wrong codes after the password suffice, recorded as denied."""
    set_policy(root, "mode: enforce", "mode: report-only")
    wrong = typed(*[phone.wrong_code()] * PROMPTS)
    assert console.sudo(NAME, [PASSWORD, *wrong]).last_line == "root"
    assert console.sudo(NAME, [WRONG_PASSWORD, *wrong]).last_line == REFUSAL
    assert {(one["outcome"], one["mode"]) for one in root.audit()} == {("denied", "report-only")}


def test_unenrolled_allowed(root: DataRoot, phone: Phone, console: Console) -> None:
    """Where policy allows it, a user without a device needs the password only, on the record."""
    del phone
    set_policy(root, "unenrolled: deny", "unenrolled: allow")
    result = console.sudo(CAROL.name, [("password for .*: $", CAROL.password)])
    assert (result.last_line, len(result.prompts)) == ("root", 1)
    (record,) = root.audit("SkipMfa")
    assert (record["user"], record["reason"]) == (CAROL.name, "unenrolled_allowed")


def test_shipped_sudo(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """The shipped sudo file lets in by password and code, and refuses a wrong code."""
    console = Console(host, sudo=shipped("sudo", root))
    right = console.sudo(NAME, [PASSWORD, *typed(phone.code())])
    wrong = console.sudo(NAME, [PASSWORD, *typed(*[phone.wrong_code()] * PROMPTS)])
    assert (right.status, right.last_line, right.prompts) == (0, "root", PROMPTS_SHOWN)
    assert (wrong.status, wrong.last_line) == (1, REFUSAL)
