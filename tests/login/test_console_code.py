# SPDX-License-Identifier: Apache-2.0
"""Logins on the console with a verification code: the real login, the installed module."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from console_login import Console
from host_accounts import Account
from installed import DataRoot
from phone import FAILURES, NEXT_PROMPT, PROMPTS, Phone, typed
from private_host import PrivateHost
from service_stack import joined, password_then_code, shipped
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
PASSWORD = ("Password: $", "correct horse")
WRONG_PASSWORD = ("Password: $", "battery staple")
PROMPTS_SHOWN = ("Password: ", "Verification code: ")
REFUSAL = "Login incorrect"


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
    """A console whose login asks for the password, then for a code."""
    return Console(host, login=password_then_code(root))


@EITHER_VERIFIER
def test_right_code(root: DataRoot, phone: Phone, console: Console, verifier: Verifier) -> None:
    """The password and then the code open a shell on the console."""
    with verifier(root):
        result = console.login(NAME, [PASSWORD, *typed(phone.code())])
    assert (result.status, result.last_line, result.prompts) == (0, NAME, PROMPTS_SHOWN)
    assert root.reasons() == ["code_accepted"]


@EITHER_VERIFIER
def test_wrong_code(root: DataRoot, phone: Phone, console: Console, verifier: Verifier) -> None:
    """A wrong code is asked for again, three times in all, and then refused."""
    with verifier(root):
        result = console.login(NAME, [PASSWORD, *typed(*[phone.wrong_code()] * PROMPTS)])
    assert (REFUSAL in result.output, result.last_line != NAME) == (True, True)
    assert result.prompts == (*PROMPTS_SHOWN, *[NEXT_PROMPT] * (PROMPTS - 1))
    assert root.reasons() == ["wrong_code"] * PROMPTS


@EITHER_VERIFIER
def test_code_reused(root: DataRoot, phone: Phone, console: Console, verifier: Verifier) -> None:
    """A code that was accepted is refused in the next login, and the following one counts."""
    code = phone.code()
    with verifier(root):
        assert console.login(NAME, [PASSWORD, *typed(code)]).last_line == NAME
        again = console.login(NAME, [PASSWORD, *typed(*[code] * PROMPTS)])
        fresh = console.login(NAME, [PASSWORD, *typed(phone.code(1))])
    assert (REFUSAL in again.output, fresh.last_line) == (True, NAME)
    assert root.reasons() == ["code_accepted", *["code_reused"] * PROMPTS, "code_accepted"]


def test_locked(root: DataRoot, phone: Phone, console: Console) -> None:
    """Five wrong codes over two logins lock the user: the right code is refused as well."""
    for _ in range(2):
        console.login(NAME, [PASSWORD, *typed(*[phone.wrong_code()] * PROMPTS)])
    result = console.login(NAME, [PASSWORD, *typed(*[phone.code()] * PROMPTS)])
    assert (REFUSAL in result.output, result.last_line != NAME) == (True, True)
    assert root.reasons() == [*["wrong_code"] * FAILURES, *["locked"] * 4]


def test_wrong_password(root: DataRoot, phone: Phone, console: Console) -> None:
    """A wrong password is refused though the code is right, which is asked for all the same."""
    result = console.login(NAME, [WRONG_PASSWORD, *typed(phone.code())])
    assert (REFUSAL in result.output, result.prompts) == (True, PROMPTS_SHOWN)
    assert root.reasons() == ["code_accepted"]


@EITHER_VERIFIER
def test_everyone_is_asked_alike(
    root: DataRoot, phone: Phone, console: Console, verifier: Verifier
) -> None:
    """Enrolled, unenrolled and unknown users see the same prompts and the same refusal."""
    codes = typed(*[phone.wrong_code()] * PROMPTS)
    passwords = {NAME: ALICE.password, CAROL.name: CAROL.password, "nobody-of-tests": "x"}
    with verifier(root):
        results = [
            console.login(name, [("Password: $", password), *codes])
            for name, password in passwords.items()
        ]
    assert len({(result.status, result.prompts, result.output) for result in results}) == 1
    assert len(results[0].prompts) == 1 + PROMPTS
    assert root.reasons() == ["wrong_code"] * PROMPTS + ["not_enrolled"] * 2 * PROMPTS


def test_joined_password_and_code(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """With forward_pass one prompt takes the password with the code behind it."""
    console = Console(host, login=joined(root))
    prompt = "Password and verification code: "
    code = phone.code()
    wrong = console.login(NAME, [(f"{prompt}$", f"battery staple{code}")])
    right = console.login(NAME, [(f"{prompt}$", f"{ALICE.password}{phone.code(1)}")])
    assert (REFUSAL in wrong.output, wrong.prompts) == (True, (prompt,))
    assert (right.last_line, right.prompts) == (NAME, (prompt,))


@EITHER_VERIFIER
def test_audit_record(root: DataRoot, phone: Phone, console: Console, verifier: Verifier) -> None:
    """A login leaves one record that says who it was, on which terminal."""
    with verifier(root):
        result = console.login(NAME, [PASSWORD, *typed(phone.code())], command="tty")
    (record,) = root.audit()
    expected = {
        "outcome": "success",
        "user": NAME,
        "service": "login",
        "phase": "auth",
        "mode": "enforce",
        "caller_uid": 0,
    }
    assert {name: record.get(name) for name in expected} == expected
    assert Path("/dev", record["tty"]) == Path(result.last_line)
    assert (record["device"]["name"], "rhost" in record) == ("phone", False)


def test_nothing_typed_is_written(
    root: DataRoot, host: PrivateHost, phone: Phone, console: Console
) -> None:
    """Neither the audit log nor the system log holds a code or the password."""
    wrong, right = phone.wrong_code(), phone.code()
    console.login(NAME, [PASSWORD, *typed(wrong, right)])
    assert root.reasons() == ["wrong_code", "code_accepted"]
    written = root.audit_log.read_text() + host.syslog_text()
    assert [word for word in (wrong, right, ALICE.password) if str(word) in written] == []


@EITHER_VERIFIER
def test_hang_up(root: DataRoot, phone: Phone, console: Console, verifier: Verifier) -> None:
    """A person whose terminal hangs up leaves a denied record, and the next login works."""
    with verifier(root):
        assert console.login(NAME, [PASSWORD, *typed(None)]).status != 0
        (record,) = await_records(root, 1)
        assert console.login(NAME, [PASSWORD, *typed(phone.code())]).last_line == NAME
    assert record["reason"] in {"abandoned", "no_conversation"}
    assert (record["outcome"], record["user"]) == ("denied", NAME)


def test_no_verifier_is_left(root: DataRoot, phone: Phone, console: Console) -> None:
    """The verifier that was started for a login is no child of login, and ends by itself."""
    command = "ps -eo ppid=,comm="
    result = console.login(NAME, [PASSWORD, *typed(phone.code())], command=command)
    lines = [line.split() for line in result.output.splitlines() if "pam-mfad" in line]
    assert (result.status, {parent for parent, *_ in lines} <= {"1"}) == (0, True)
    assert await_no_process(root) == []


def test_report_only(root: DataRoot, phone: Phone, console: Console) -> None:
    """In report-only mode wrong codes after the password log in, recorded as denied."""
    set_policy(root, "mode: enforce", "mode: report-only")
    wrong = typed(*[phone.wrong_code()] * PROMPTS)
    assert console.login(NAME, [PASSWORD, *wrong]).last_line == NAME
    assert REFUSAL in console.login(NAME, [WRONG_PASSWORD, *wrong]).output
    assert {(one["outcome"], one["mode"]) for one in root.audit()} == {("denied", "report-only")}


def test_unenrolled_allowed(root: DataRoot, phone: Phone, console: Console) -> None:
    """Where policy allows it, a user without a device logs in by the password, on the record."""
    del phone
    set_policy(root, "unenrolled: deny", "unenrolled: allow")
    result = console.login(CAROL.name, [("Password: $", CAROL.password)])
    assert (result.last_line, len(result.prompts)) == (CAROL.name, 1)
    (record,) = root.audit("SkipMfa")
    assert (record["user"], record["reason"]) == (CAROL.name, "unenrolled_allowed")


def test_shipped_login(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """The shipped login file lets in by password and code, and refuses a wrong code."""
    console = Console(host, login=shipped("login", root))
    right = console.login(NAME, [PASSWORD, *typed(phone.code())])
    wrong = console.login(NAME, [PASSWORD, *typed(*[phone.wrong_code()] * PROMPTS)])
    assert (right.status, right.last_line, right.prompts) == (0, NAME, PROMPTS_SHOWN)
    assert (REFUSAL in wrong.output, wrong.last_line != NAME) == (True, True)
