# SPDX-License-Identifier: Apache-2.0
"""Enrolling at the first login, through sshd and a plain OpenSSH client."""

import re
import time
from collections.abc import Iterator

import pytest
from host_accounts import Account
from installed import PATIENCE, DataRoot, totp, wait_for_step
from private_host import PrivateHost
from service_stack import password_then_code
from ssh_client import ssh_login
from sshd_server import Sshd
from terminal_session import Answer

CAROL = Account("carol-of-tests", "correct horse")
PASSWORD: Answer = ("Password: $", CAROL.password)


@pytest.fixture
def sshd(root: DataRoot) -> Iterator[Sshd]:
    """An sshd whose policy has users enroll at their first login."""
    text = root.policy.read_text("utf-8")
    root.policy.write_text(text.replace("unenrolled: deny", "unenrolled: enroll"))
    with PrivateHost([CAROL]) as host, Sshd(host, password_then_code(root)) as started:
        yield started


def secret_in(shown: str) -> str:
    """Return the secret key that was shown for typing."""
    found = re.search(r"secret key into it \(time based\): ([A-Z2-7 ]+)", shown)
    assert found, shown
    return found[1].replace(" ", "")


def outcomes(root: DataRoot) -> list[tuple[str, str]]:
    """Return how each enrolling ended, by the audit log."""
    return [(one["outcome"], one["reason"]) for one in root.audit("EnableMfaDevice")]


FIRST: Answer = ("First code: $", lambda shown: totp(secret_in(shown), -1))
SECOND: Answer = ("Second code, .*: $", lambda shown: totp(secret_in(shown), 0))


def test_two_codes_enroll_and_log_in(root: DataRoot, sshd: Sshd) -> None:
    """After the password the secret is shown; two codes of it enable the device and log in."""
    wait_for_step()
    result = ssh_login(sshd.port, CAROL.name, [PASSWORD, FIRST, SECOND])
    assert (result.status, result.last_line) == (0, CAROL.name)
    assert [record["user"] for record in root.audit("EnableMfaDevice")] == [CAROL.name]
    secret = secret_in(result.output)
    code: Answer = ("Verification code: $", totp(secret, 1))
    assert ssh_login(sshd.port, CAROL.name, [PASSWORD, code]).last_line == CAROL.name


def test_picture_the_other_way_round(root: DataRoot, sshd: Sshd) -> None:
    """Enter in the place of a code shows the picture inverted, once, and costs no try."""
    wait_for_step()
    enter: Answer = ("First code: $", "")
    wrong: list[Answer] = [("First code: $", "000000"), ("Second code, .*: $", "000000")]
    answers = [PASSWORD, enter, *wrong * 2, FIRST, SECOND]
    result = ssh_login(sshd.port, CAROL.name, answers)
    assert (result.status, result.last_line) == (0, CAROL.name)
    assert outcomes(root) == [("success", "requested")]
    lines = result.output.splitlines()
    for corner in (
        "\u2588\u2588 \u2584\u2584\u2584\u2584\u2584 \u2588",
        "  \u2588\u2580\u2580\u2580\u2580\u2580\u2588 ",
    ):
        assert len([line for line in lines if line.startswith(corner)]) == 2  # the left two


def test_wrong_password_never_sees_the_secret(root: DataRoot, sshd: Sshd) -> None:
    """Whoever fails the password is shown nothing and enrolls nothing."""
    wrong: Answer = ("Password: $", "wrong")
    result = ssh_login(sshd.port, CAROL.name, [wrong, wrong, wrong])
    assert result.status != 0
    assert "secret key" not in result.output
    assert not root.device_file(CAROL.name).exists()


def test_wrong_codes_enroll_nothing(root: DataRoot, sshd: Sshd) -> None:
    """Codes that are not two consecutive ones of the new device refuse the login."""
    codes: list[Answer] = [("First code: $", "000000"), ("Second code, .*: $", "000000")]
    result = ssh_login(sshd.port, CAROL.name, [PASSWORD, *codes * 3])
    assert result.last_line != CAROL.name
    assert not root.device_file(CAROL.name).exists()
    assert outcomes(root) == [("denied", "wrong_code")]


def test_hanging_up_enrolls_nothing(root: DataRoot, sshd: Sshd) -> None:
    """Whoever hangs up at the secret has no device and is asked again at the next login."""
    ssh_login(sshd.port, CAROL.name, [PASSWORD, ("First code: $", None)])
    assert not root.device_file(CAROL.name).exists()
    deadline = time.monotonic() + PATIENCE
    while not outcomes(root) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert outcomes(root) in ([("denied", "abandoned")], [("denied", "no_conversation")])
    wait_for_step()
    result = ssh_login(sshd.port, CAROL.name, [PASSWORD, FIRST, SECOND])
    assert result.last_line == CAROL.name
