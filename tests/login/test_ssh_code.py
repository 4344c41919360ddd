# SPDX-License-Identifier: Apache-2.0
"""Logins over ssh with a verification code: the real sshd and client, the installed module."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_accounts import Account
from installed import DataRoot
from phone import FAILURES, NEXT_PROMPT, PROMPTS, Phone, typed
from private_host import PrivateHost
from service_stack import code_alone, joined, password_then_code, shipped, shipped_sshd_config
from ssh_client import SshClient, ssh_login
from sshd_server import Sshd, make_key
from terminal_session import LoginResult
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
PASSWORD_ALONE_PROMPT = f"({NAME}@127.0.0.1) Password: "
SSH_CODE_PROMPT = f"({NAME}@127.0.0.1) Verification code: "
SSH_CODE_PROMPTS = (SSH_CODE_PROMPT, *(f"({NAME}@127.0.0.1) {NEXT_PROMPT}",) * (PROMPTS - 1))
JOINED_PROMPT = r"Password and verification code.*: $"
KEY_THEN_PAM = "AuthenticationMethods publickey,keyboard-interactive:pam"
REFUSED = 255


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
def sshd(host: PrivateHost, root: DataRoot) -> Iterator[Sshd]:
    """An sshd that asks for the password, then for a code."""
    with Sshd(host, password_then_code(root)) as started:
        yield started


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key of Alice's."""
    return make_key(tmp_path / "key")


@EITHER_VERIFIER
def test_right_code(root: DataRoot, phone: Phone, sshd: Sshd, verifier: Verifier) -> None:
    """The password and then the code log in, each asked for once."""
    with verifier(root):
        result = ssh_login(sshd.port, NAME, [PASSWORD, *typed(phone.code())])
    assert (result.status, result.last_line) == (0, NAME)
    assert result.prompts == (PASSWORD_ALONE_PROMPT, SSH_CODE_PROMPT)
    assert root.reasons() == ["code_accepted"]


@EITHER_VERIFIER
def test_wrong_code(root: DataRoot, phone: Phone, sshd: Sshd, verifier: Verifier) -> None:
    """A wrong code is asked for again, three times in all, and then refused."""
    wrong = [phone.wrong_code()] * PROMPTS
    with verifier(root):
        result = ssh_login(sshd.port, NAME, [PASSWORD, *typed(*wrong)])
    assert (result.status, result.prompts[1:]) == (REFUSED, SSH_CODE_PROMPTS)
    assert "Permission denied" in result.last_line
    assert root.reasons() == ["wrong_code"] * PROMPTS


@EITHER_VERIFIER
def test_code_at_second_prompt(
    root: DataRoot, phone: Phone, sshd: Sshd, verifier: Verifier
) -> None:
    """A mistyped code is forgiven when the right one follows in the same login."""
    codes = typed(phone.wrong_code(), phone.code())
    with verifier(root):
        assert ssh_login(sshd.port, NAME, [PASSWORD, *codes]).last_line == NAME
    assert root.reasons() == ["wrong_code", "code_accepted"]


@EITHER_VERIFIER
def test_code_reused(root: DataRoot, phone: Phone, sshd: Sshd, verifier: Verifier) -> None:
    """A code that was accepted is refused in the next login, and the following one counts."""
    code = phone.code()
    with verifier(root):
        assert ssh_login(sshd.port, NAME, [PASSWORD, *typed(code)]).last_line == NAME
        again = ssh_login(sshd.port, NAME, [PASSWORD, *typed(*[code] * PROMPTS)])
        fresh = ssh_login(sshd.port, NAME, [PASSWORD, *typed(phone.code(1))])
    assert (again.status, fresh.last_line) == (REFUSED, NAME)
    assert root.reasons() == ["code_accepted", *["code_reused"] * PROMPTS, "code_accepted"]


@EITHER_VERIFIER
def test_locked(root: DataRoot, phone: Phone, sshd: Sshd, verifier: Verifier) -> None:
    """Five wrong codes over two logins lock the user: a right code is refused until unlocked."""
    wrong = [phone.wrong_code()] * PROMPTS
    with verifier(root):
        for _ in range(2):
            ssh_login(sshd.port, NAME, [PASSWORD, *typed(*wrong)])
        right = [PASSWORD, *typed(*[phone.code()] * PROMPTS)]
        locked = ssh_login(sshd.port, NAME, right)
        root.command("unlock", NAME)
        unlocked = ssh_login(sshd.port, NAME, right)
    assert (locked.status, len(locked.prompts)) == (REFUSED, 1 + PROMPTS)
    assert unlocked.last_line == NAME
    assert root.reasons() == [*["wrong_code"] * FAILURES, *["locked"] * 4, "code_accepted"]
    assert [record["user"] for record in root.audit("LockUser")] == [NAME]


def test_wrong_password(root: DataRoot, phone: Phone, sshd: Sshd) -> None:
    """A wrong password is refused though the code is right, which is asked for all the same."""
    result = ssh_login(sshd.port, NAME, [WRONG_PASSWORD, *typed(phone.code())])
    assert (result.status, result.prompts[1:]) == (REFUSED, (SSH_CODE_PROMPT,))
    assert root.reasons() == ["code_accepted"]


def test_batch_mode(root: DataRoot, phone: Phone, sshd: Sshd) -> None:
    """BatchMode, where nobody can be asked, is refused without a question."""
    del phone
    result = SshClient(sshd.port, options=("BatchMode=yes",)).login(NAME)
    assert (result.status, result.prompts, root.reasons()) == (REFUSED, (), [])


@EITHER_VERIFIER
def test_everyone_is_asked_alike(
    root: DataRoot, phone: Phone, sshd: Sshd, verifier: Verifier
) -> None:
    """Enrolled, unenrolled and unknown users see the same prompts and the same refusal."""
    codes = typed(*[phone.wrong_code()] * PROMPTS)
    passwords = {NAME: ALICE.password, CAROL.name: CAROL.password, "nobody-of-tests": "x"}
    with verifier(root):
        enrolled, unenrolled, unknown = (
            shown(ssh_login(sshd.port, name, [("Password: $", password), *codes]), name)
            for name, password in passwords.items()
        )
    assert enrolled == unenrolled == unknown
    assert len(enrolled[1]) == 1 + PROMPTS
    assert root.reasons() == ["wrong_code"] * PROMPTS + ["not_enrolled"] * 2 * PROMPTS


def shown(result: LoginResult, name: str) -> tuple[int, tuple[str, ...], str]:
    """Return all that a person can see of a login, without the name in it."""
    prompts = tuple(prompt.replace(name, "NAME") for prompt in result.prompts)
    return result.status, prompts, result.output.replace(name, "NAME")


def test_unknown_name_is_not_recorded(root: DataRoot, phone: Phone, sshd: Sshd) -> None:
    """A name that no account has, perhaps a password typed too early, stays out of the audit."""
    codes = typed(*[phone.wrong_code()] * PROMPTS)
    ssh_login(sshd.port, "correct-horse-staple", [PASSWORD, *codes])
    assert "correct-horse-staple" not in root.audit_log.read_text()
    assert ["user" in record for record in root.audit()] == [False] * PROMPTS
    assert len({record["unknown_user"] for record in root.audit()}) == 1


@EITHER_VERIFIER
def test_key_and_code(
    root: DataRoot, host: PrivateHost, phone: Phone, key: Path, verifier: Verifier
) -> None:
    """The key and then the code log in, without a password; with a wrong code they do not."""
    with verifier(root), Sshd(host, code_alone(root), config=[KEY_THEN_PAM]) as sshd:
        sshd.authorize(NAME, key)
        client = SshClient(sshd.port, key=key)
        right = client.login(NAME, typed(phone.code()))
        wrong = client.login(NAME, typed(*[phone.wrong_code()] * PROMPTS))
    assert (right.last_line, right.prompts) == (NAME, (SSH_CODE_PROMPT,))
    assert (wrong.status, wrong.prompts) == (REFUSED, SSH_CODE_PROMPTS)


def test_code_without_key(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """Where key and code are required, nobody without the key is asked for a code."""
    with Sshd(host, code_alone(root), config=[KEY_THEN_PAM]) as sshd:
        result = ssh_login(sshd.port, NAME, typed(phone.code()))
    assert (result.status, result.prompts, root.reasons()) == (REFUSED, (), [])


@EITHER_VERIFIER
def test_joined_password_and_code(
    root: DataRoot, host: PrivateHost, phone: Phone, verifier: Verifier
) -> None:
    """With forward_pass one prompt takes the password with the code behind it."""
    answer = (JOINED_PROMPT, f"{ALICE.password}{phone.code()}")
    with verifier(root), Sshd(host, joined(root)) as sshd:
        result = ssh_login(sshd.port, NAME, [answer])
    prompt = f"({NAME}@127.0.0.1) Password and verification code: "
    assert (result.last_line, result.prompts) == (NAME, (prompt,))


def test_joined_wrong_password(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """With forward_pass a wrong password is refused though the code behind it is right."""
    with Sshd(host, joined(root)) as sshd:
        result = ssh_login(sshd.port, NAME, [(JOINED_PROMPT, f"battery staple{phone.code()}")])
    assert (result.status, len(result.prompts)) == (REFUSED, 1)
    assert root.reasons() == ["code_accepted"]


def test_joined_wrong_code(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """With forward_pass the right password is refused with a wrong code or none behind it."""
    answers = [f"{ALICE.password}{end}" for end in (phone.wrong_code(), "", phone.code()[:5])]
    with Sshd(host, joined(root)) as sshd:
        result = ssh_login(sshd.port, NAME, [(JOINED_PROMPT, answer) for answer in answers])
    assert (result.status, len(result.prompts)) == (REFUSED, PROMPTS)
    assert root.reasons() == ["wrong_code", "empty_answer", "empty_answer"]


def test_joined_by_password_method(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """With forward_pass a client that knows only passwords sends both as one password."""
    options = ("PreferredAuthentications=password",)
    answer = ("password: $", f"{ALICE.password}{phone.code()}")
    with Sshd(host, joined(root), config=["PasswordAuthentication yes"]) as sshd:
        result = SshClient(sshd.port, options).login(NAME, [answer])
    assert result.last_line == NAME


def test_password_method(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """By sshd's password method, which answers every prompt alike, the password is no code."""
    del phone
    options = ("PreferredAuthentications=password",)
    stack = password_then_code(root)
    with Sshd(host, stack, config=["PasswordAuthentication yes"]) as sshd:
        result = SshClient(sshd.port, options).login(NAME, [("password: $", ALICE.password)])
    assert (result.status, set(root.reasons())) == (REFUSED, {"malformed_code"})
    assert str(ALICE.password) not in root.audit_log.read_text()


@EITHER_VERIFIER
def test_audit_record(root: DataRoot, phone: Phone, sshd: Sshd, verifier: Verifier) -> None:
    """A login leaves one record that says who came from where, to what, by which device."""
    with verifier(root):
        ssh_login(sshd.port, NAME, [PASSWORD, *typed(phone.code())])
    (record,) = root.audit()
    expected = {
        "outcome": "success",
        "user": NAME,
        "service": sshd.service,
        "phase": "auth",
        "tty": "ssh",
        "rhost": "127.0.0.1",
        "mode": "enforce",
        "caller_uid": 0,
    }
    assert {name: record.get(name) for name in expected} == expected
    assert (record["device"]["name"], "ruser" in record) == ("phone", False)


def test_nothing_typed_is_written(
    root: DataRoot, host: PrivateHost, phone: Phone, sshd: Sshd
) -> None:
    """Neither the audit log nor the system log nor sshd's holds a code or the password."""
    wrong, right = phone.wrong_code(), phone.code()
    ssh_login(sshd.port, NAME, [PASSWORD, *typed(wrong, "not a code", right)])
    assert root.reasons() == ["wrong_code", "malformed_code", "code_accepted"]
    for text in (root.audit_log.read_text(), host.syslog_text(), sshd.log_text()):
        words = (wrong, right, "not a code", str(ALICE.password))
        assert [word for word in words if word in text] == []


@EITHER_VERIFIER
def test_hang_up(root: DataRoot, phone: Phone, sshd: Sshd, verifier: Verifier) -> None:
    """A person who hangs up at the prompt leaves a denied record, and the next login works."""
    with verifier(root):
        assert ssh_login(sshd.port, NAME, [PASSWORD, *typed(None)]).status != 0
        (record,) = await_records(root, 1)
        assert ssh_login(sshd.port, NAME, [PASSWORD, *typed(phone.code())]).last_line == NAME
    assert record["reason"] in {"abandoned", "no_conversation"}
    assert (record["outcome"], record["user"]) == ("denied", NAME)


def test_no_verifier_is_left(root: DataRoot, phone: Phone, sshd: Sshd) -> None:
    """The verifier that was started for a login is no child of sshd, and ends by itself."""
    command = "ps -eo ppid=,comm="
    result = ssh_login(sshd.port, NAME, [PASSWORD, *typed(phone.code())], command=command)
    lines = [line.split() for line in result.output.splitlines() if "pam-mfad" in line]
    assert (result.status, {parent for parent, *_ in lines} <= {"1"}) == (0, True)
    assert await_no_process(root) == []


def test_no_verifier_is_left_by_hang_up(root: DataRoot, phone: Phone, sshd: Sshd) -> None:
    """The verifier of a login that was hung up ends by itself."""
    del phone
    ssh_login(sshd.port, NAME, [PASSWORD, *typed(None)])
    assert await_no_process(root) == []


@EITHER_VERIFIER
def test_report_only(root: DataRoot, phone: Phone, sshd: Sshd, verifier: Verifier) -> None:
    """In report-only mode wrong codes after the password log in, and are recorded as denied."""
    set_policy(root, "mode: enforce", "mode: report-only")
    wrong = typed(*[phone.wrong_code()] * PROMPTS)
    with verifier(root):
        assert ssh_login(sshd.port, NAME, [PASSWORD, *wrong]).last_line == NAME
        assert ssh_login(sshd.port, NAME, [WRONG_PASSWORD, *wrong]).status == REFUSED
    denied = ("denied", "wrong_code", "report-only")
    seen = [(one["outcome"], one["reason"], one["mode"]) for one in root.audit()]
    assert seen[:PROMPTS] == [denied] * PROMPTS


@EITHER_VERIFIER
def test_unenrolled_allowed(root: DataRoot, phone: Phone, sshd: Sshd, verifier: Verifier) -> None:
    """Where policy allows it, a user without a device logs in by the password, on the record."""
    set_policy(root, "unenrolled: deny", "unenrolled: allow")
    with verifier(root):
        carol = ssh_login(sshd.port, CAROL.name, [("Password: $", CAROL.password)])
        alice = ssh_login(sshd.port, NAME, [PASSWORD, *typed(*[phone.wrong_code()] * PROMPTS)])
    assert (carol.last_line, len(carol.prompts), alice.status) == (CAROL.name, 1, REFUSED)
    (record,) = root.audit("SkipMfa")
    assert (record["user"], record["outcome"]) == (CAROL.name, "success")
    assert record["reason"] == "unenrolled_allowed"


def test_shipped_password_and_code(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """The shipped sshd files let in by password and code, and refuse when either is wrong."""
    config = shipped_sshd_config("password-and-code.conf")
    with Sshd(host, shipped("sshd", root), config=config) as sshd:
        right = ssh_login(sshd.port, NAME, [PASSWORD, *typed(phone.code())])
        wrong = ssh_login(sshd.port, NAME, [PASSWORD, *typed(*[phone.wrong_code()] * PROMPTS)])
        passwordless = ssh_login(sshd.port, NAME, [WRONG_PASSWORD, *typed(phone.code(1))])
    assert (right.status, right.last_line, wrong.status) == (0, NAME, REFUSED)
    assert (passwordless.status, len(passwordless.prompts)) == (REFUSED, 1)


def test_shipped_password_and_code_refuses_a_key(
    root: DataRoot, host: PrivateHost, phone: Phone, key: Path
) -> None:
    """By the shipped sshd files for password and code a key lets nobody in without them."""
    del phone
    config = shipped_sshd_config("password-and-code.conf")
    with Sshd(host, shipped("sshd", root), config=config) as sshd:
        sshd.authorize(NAME, key)
        options = ("PreferredAuthentications=publickey",)
        result = SshClient(sshd.port, options, key).login(NAME)
    assert (result.status, result.prompts) == (REFUSED, ())


def test_shipped_key_and_code(root: DataRoot, host: PrivateHost, phone: Phone, key: Path) -> None:
    """The shipped sshd files for key and code let in by these two, and refuse a wrong code."""
    config = shipped_sshd_config("key-and-code.conf")
    with Sshd(host, shipped("sshd-key-and-code", root), config=config) as sshd:
        sshd.authorize(NAME, key)
        client = SshClient(sshd.port, key=key)
        right = client.login(NAME, typed(phone.code()))
        wrong = client.login(NAME, typed(*[phone.wrong_code()] * PROMPTS))
        keyless = ssh_login(sshd.port, NAME, typed(phone.code(1)))
    assert (right.status, right.last_line, right.prompts) == (0, NAME, (SSH_CODE_PROMPT,))
    assert (wrong.status, keyless.status, keyless.prompts) == (REFUSED, REFUSED, ())


def test_shipped_key_and_code_report_only(
    root: DataRoot, host: PrivateHost, phone: Phone, key: Path
) -> None:
    """In report-only mode the shipped files for key and code refuse nobody who has the key."""
    set_policy(root, "mode: enforce", "mode: report-only")
    config = shipped_sshd_config("key-and-code.conf")
    with Sshd(host, shipped("sshd-key-and-code", root), config=config) as sshd:
        sshd.authorize(NAME, key)
        codes = typed(*[phone.wrong_code()] * PROMPTS)
        assert SshClient(sshd.port, key=key).login(NAME, codes).last_line == NAME


def test_shipped_key_and_code_unenrolled_allowed(
    root: DataRoot, host: PrivateHost, phone: Phone, key: Path
) -> None:
    """Where policy allows it, the shipped files for key and code let a key in without a code."""
    del phone
    set_policy(root, "unenrolled: deny", "unenrolled: allow")
    config = shipped_sshd_config("key-and-code.conf")
    with Sshd(host, shipped("sshd-key-and-code", root), config=config) as sshd:
        sshd.authorize(CAROL.name, key)
        assert SshClient(sshd.port, key=key).login(CAROL.name).last_line == CAROL.name


def test_missing_store_refuses_even_where_the_unenrolled_are_allowed(
    root: DataRoot, sshd: Sshd
) -> None:
    """A store that is not mounted is not one in which nobody is enrolled."""
    shutil.rmtree(root.library)
    set_policy(root, "unenrolled: deny", "unenrolled: allow")
    result = ssh_login(sshd.port, CAROL.name, [("Password: $", CAROL.password)])
    assert result.last_line != CAROL.name
    assert not root.library.exists()
