# SPDX-License-Identifier: Apache-2.0
"""Every type of device at real logins: each lets in by sshd, by sudo and by login."""

import os
from collections.abc import Iterator

import pytest
from entrance import ALICE, EACH_ENTRANCE, NAME, Entrance, Opening
from host_accounts import SHELL_PROMPT
from installed import DataRoot
from otp_device import (
    accepted_devices,
    bypass_code,
    let_bypass_expire,
    new_device,
    recovery_codes,
    status_of,
)
from phone import NEXT_PROMPT, PROMPTS, typed
from private_host import PrivateHost
from service_stack import password_then_code
from ssh_client import SshClient
from sshd_server import Sshd
from token_vendor import COUNTER, TokenVendor

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of this kind need root")

# Each algorithm, length and period; the usual one, SHA1-6-30, is in most other tests.
APPLICATIONS = [("SHA1", 6, 60), ("SHA1", 8, 30), ("SHA256", 8, 60), ("SHA512", 6, 30)]
CODE_PROMPTS = ("Verification code: ", *(NEXT_PROMPT,) * (PROMPTS - 1))
LOOK_AHEAD = 10  # by the shipped policy
WARNING = "A recovery code was used; {} of 10 are left."
LAST_WORDS = (
    "That was your last recovery code. Ask your administrator for a new set "
    "(pam-mfa enable recovery), or enable another MFA device."
)


@pytest.fixture(scope="module")
def host() -> Iterator[PrivateHost]:
    """A private host with Alice's account; every test writes the PAM stacks that it uses."""
    with PrivateHost([ALICE]) as started:
        yield started


@pytest.fixture
def come(opening: Opening, root: DataRoot, host: PrivateHost) -> Iterator[Entrance]:
    """The entrance that a test is run for."""
    with opening.entrance(root, host) as entrance:
        yield entrance


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> TokenVendor:
    """A vendor of tokens."""
    return TokenVendor(tmp_path_factory.mktemp("vendor"))


@EACH_ENTRANCE
def test_virtual_device(root: DataRoot, come: Entrance) -> None:
    """Applications of every algorithm, length and period let in, the record says which one."""
    phones = [
        new_device(f"{algorithm}-{digits}-{period}".lower(), algorithm, digits, period)
        for algorithm, digits, period in APPLICATIONS
    ]
    for phone in phones:
        phone.enable_application(root, NAME)
    visits = [come(phone.code(1)) for phone in phones]
    assert [visit.is_in for visit in visits] == [True] * len(phones)
    assert {visit.prompts for visit in visits} == {CODE_PROMPTS[:1]}
    assert accepted_devices(root) == [phone.name for phone in phones]


@EACH_ENTRANCE
def test_time_token(root: DataRoot, come: Entrance, vendor: TokenVendor) -> None:
    """A hardware TOTP token from pskctool's file lets in by each of its codes once."""
    token = new_device("AC-0815")
    assert "Imported 1 tokens" in vendor.deliver(root, token)
    *pair, code = token.codes(-1, 3)
    token.enable_token(root, NAME, pair)
    assert come(code).is_in
    again = come(*[code] * PROMPTS)
    assert (again.is_in, again.prompts) == (False, CODE_PROMPTS)
    assert root.reasons() == ["code_accepted", *["code_reused"] * PROMPTS]
    assert root.audit()[0]["device"]["type"] == "token"


@EACH_ENTRANCE
def test_event_token(root: DataRoot, come: Entrance, vendor: TokenVendor) -> None:
    """An HOTP token from pskctool's file lets in within its look-ahead, and by no used code."""
    token = new_device("AC-4711", digits=8, period=0)
    vendor.deliver(root, token)
    token.enable_token(root, NAME, token.codes(COUNTER, 2))
    used = COUNTER + 2
    assert come(token.code(used)).is_in
    last = used + LOOK_AHEAD
    ahead = come(token.code(used), token.code(last + 1), token.code(last))
    assert (ahead.is_in, ahead.prompts) == (True, CODE_PROMPTS)
    passed_over = come(token.code(last - 1), token.code(last + 1))
    assert (passed_over.is_in, passed_over.prompts) == (True, CODE_PROMPTS[:2])
    wrong, right = "wrong_code", "code_accepted"
    assert root.reasons() == [right, wrong, wrong, right, wrong, right]


@EACH_ENTRANCE
def test_recovery_code(root: DataRoot, come: Entrance) -> None:
    """A recovery code lets in once, however it is typed, and whoever used it reads what is left."""
    codes = recovery_codes(root, NAME)
    first = come(codes[0].replace("-", " ").lower())
    second = come(codes[0], codes[1])
    assert [(visit.is_in, len(visit.prompts)) for visit in (first, second)] == [
        (True, 1),
        (True, 2),
    ]
    assert root.reasons() == ["code_accepted", "code_reused", "code_accepted"]
    assert [WARNING.format(left) in first.shown for left in (9, 8)] == [True, False]
    assert [WARNING.format(left) in second.shown for left in (9, 8)] == [False, True]


@EACH_ENTRANCE
def test_last_recovery_code(root: DataRoot, come: Entrance) -> None:
    """Each of ten recovery codes lets in; whoever uses the last one reads what to do now."""
    visits = [come(code) for code in recovery_codes(root, NAME)]
    assert [visit.is_in for visit in visits] == [True] * 10
    (row,) = status_of(root, NAME).values()
    assert (row["type"], row["codes_left"]) == ("recovery", 0)
    left = [WARNING.format(9 - number) in visit.shown for number, visit in enumerate(visits)]
    assert left == [True] * 9 + [False]
    assert [LAST_WORDS in visit.shown for visit in visits] == [False] * 9 + [True]


def test_recovery_warning_before_a_shell(root: DataRoot, host: PrivateHost) -> None:
    """Sshd shows how many recovery codes are left before the shell that the person came for."""
    answers = [("Password: $", ALICE.password), *typed(recovery_codes(root, NAME)[0])]
    with Sshd(host, password_then_code(root)) as sshd:
        shell = (SHELL_PROMPT, "exec id -un")
        result = SshClient(sshd.port).login(NAME, [*answers, shell], command="")
    before, _, after = result.output.partition(SHELL_PROMPT)
    assert (WARNING.format(9) in before, NAME in after.splitlines()) == (True, True)


@EACH_ENTRANCE
def test_bypass_code(root: DataRoot, come: Entrance) -> None:
    """A bypass code lets in a user who has no device, once."""
    code = bypass_code(root, NAME)
    assert come(code).is_in
    again = come(*[code] * PROMPTS)
    assert (again.is_in, again.prompts) == (False, CODE_PROMPTS)
    assert root.reasons() == ["code_accepted", *["code_reused"] * PROMPTS]
    (issued,) = root.audit("IssueBypass")
    assert (issued["user"], accepted_devices(root)) == (NAME, [issued["device"]["name"]])


@EACH_ENTRANCE
def test_expired_bypass_code(root: DataRoot, come: Entrance) -> None:
    """A bypass code past its time is a wrong code like any other, and a new one lets in."""
    expired = bypass_code(root, NAME)
    let_bypass_expire(root, NAME)
    late = come(*[expired] * PROMPTS)
    assert (late.is_in, late.prompts) == (False, CODE_PROMPTS)
    assert come(bypass_code(root, NAME)).is_in
    assert root.reasons() == [*["wrong_code"] * PROMPTS, "code_accepted"]
