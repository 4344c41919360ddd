# SPDX-License-Identifier: Apache-2.0
"""MFA age by the real sudo: what its own timestamp would spare, the account phase looks at."""

import os
from collections.abc import Iterator

import pytest
from console_login import Console
from host_accounts import Account
from installed import DataRoot
from otp_device import new_device
from person_session import PAUSE, counts_sessions, later, run_session
from phone import FAILURES, Phone, typed
from private_host import PrivateHost
from service_stack import password_then_code
from terminal_session import Answer, LoginResult
from verifier_process import EITHER_VERIFIER, Verifier

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of this kind need root")

ALICE = Account("alice-of-tests", "correct horse")
BOB = Account("bob-of-tests", "battery staple")
NAME = ALICE.name
PASSWORD: Answer = ("password for .*: $", "correct horse")
ASKED_PASSWORD, ASKED_CODE = f"[sudo] password for {NAME}: ", "Verification code: "
NEXT = r"next\? $"
SUDO = "sudo id -un"
CODE, FRESH, EARLIER = "code_accepted", "mfa_age_fresh", "verified_earlier"
AGE = 900  # seconds


@pytest.fixture
def host(root: DataRoot) -> Iterator[PrivateHost]:
    """A private host whose sudo asks for the password, then for a code that counts 15 minutes."""
    with PrivateHost([ALICE, BOB]) as started:
        Console(started, sudo=password_then_code(root))
        set_rule(root, "match: {service: [sudo]}, require: [virtual], mfa_age: 15m")
        yield started


@pytest.fixture
def phone(root: DataRoot) -> Phone:
    """Alice's phone."""
    return Phone(root, NAME)


def set_rule(root: DataRoot, *rules: str) -> None:
    """Replace the policy by one of these rules."""
    lines = [f"  - {{name: rule {number}, {rule}}}" for number, rule in enumerate(rules)]
    root.policy.write_text("\n".join(["version: 1", "rules:", *lines, ""]))


def end_sudo_timestamp(host: PrivateHost) -> None:
    """Make sudo ask for the password again."""
    host.run(["sh", "-c", "rm -rf /run/sudo/ts /var/lib/sudo/ts"])


def asked(result: LoginResult) -> list[str]:
    """Return what the person was asked, without the pauses."""
    return [prompt for prompt in result.prompts if prompt.strip() != "next?"]


def answers_of(result: LoginResult) -> list[str]:
    """Return what the commands printed."""
    return [line for line in result.output.splitlines() if line in {"root", NAME, "no"}]


@EITHER_VERIFIER
def test_fresh(root: DataRoot, host: PrivateHost, phone: Phone, verifier: Verifier) -> None:
    """Within the age the second sudo asks nothing, and its record says how old the first is."""
    with verifier(root):
        result = run_session(
            host, NAME, f"{SUDO}; {PAUSE}{SUDO}",
            [PASSWORD, *typed(phone.code()), (NEXT, later(root, 60))],
        )  # fmt: skip
    assert (answers_of(result), asked(result)) == (["root"] * 2, [ASKED_PASSWORD, ASKED_CODE])
    assert root.reasons() == [CODE, EARLIER, FRESH]
    first, same_login, second = root.audit()
    assert tuple(one["phase"] for one in (first, same_login, second)) == (
        "auth",
        "account",
        "account",
    )
    assert 60 <= second["mfa_age"] < 90 and second["device"] == first["device"]  # noqa: PT018


@EITHER_VERIFIER
def test_stale_though_the_timestamp_is_valid(
    root: DataRoot, host: PrivateHost, phone: Phone, verifier: Verifier
) -> None:
    """Past the age sudo asks for a code alone: its own timestamp spares the password only."""
    with verifier(root):
        result = run_session(
            host, NAME, f"{SUDO}; {PAUSE}{SUDO}",
            [PASSWORD, *typed(phone.code()), (NEXT, later(root, AGE)),
             *typed(phone.code(1))],
        )  # fmt: skip
    assert answers_of(result) == ["root"] * 2
    assert asked(result) == [ASKED_PASSWORD, ASKED_CODE, ASKED_CODE]
    assert root.reasons() == [CODE, EARLIER, CODE]
    assert [one["phase"] for one in root.audit()] == ["auth", "account", "account"]


def test_wrong_code_past_the_age(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """Past the age, and without a right code, sudo runs nothing though its timestamp is valid."""
    result = run_session(
        host, NAME, f"{SUDO}; {PAUSE}{SUDO} || echo no",
        [PASSWORD, *typed(phone.code()), (NEXT, later(root, AGE)),
         *typed(*[phone.wrong_code()] * 3)],
    )  # fmt: skip
    assert answers_of(result) == ["root", "no"]
    assert root.reasons() == [CODE, EARLIER, *["wrong_code"] * 3]


def test_auth_phase(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """Where sudo asks for the password again, a fresh verification still spares the code."""
    result = run_session(
        host, NAME, f"{SUDO}; sudo -k; {SUDO}", [PASSWORD, *typed(phone.code()), PASSWORD]
    )
    assert answers_of(result) == ["root"] * 2
    assert asked(result) == [ASKED_PASSWORD, ASKED_CODE, ASKED_PASSWORD]
    assert root.reasons() == [CODE, EARLIER, FRESH, FRESH]


@EITHER_VERIFIER
@pytest.mark.parametrize("scope", ["session", "host"])
def test_another_session(
    root: DataRoot, host: PrivateHost, phone: Phone, verifier: Verifier, scope: str
) -> None:
    """In another session the code is asked for, whatever the scope: sudo knows no address."""
    set_rule(root, f"match: {{}}, require: [virtual], mfa_age: 15m, scope: {scope}")
    with verifier(root):
        first = run_session(host, NAME, SUDO, [PASSWORD, *typed(phone.code())])
        second = run_session(host, NAME, SUDO, [PASSWORD, *typed(phone.code(1))])
    assert [answers_of(first), answers_of(second)] == [["root"]] * 2
    assert [asked(first)] == [asked(second)]
    assert root.reasons() == [CODE, EARLIER] * 2


def test_another_terminal(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """Another terminal counts in the same audit session; without those it is another session."""
    is_same = counts_sessions()
    other = f"script -qec '{SUDO}' /dev/null"
    codes = [] if is_same else typed(phone.code(1))
    result = run_session(
        host, NAME, f"{SUDO}; {other}", [PASSWORD, *typed(phone.code()), PASSWORD, *codes]
    )
    assert answers_of(result) == ["root"] * 2
    assert root.reasons()[2:] == ([FRESH, FRESH] if is_same else [CODE, EARLIER])


def test_another_user(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """What Alice verified counts for nobody else, though it is in the very same session."""
    other = Phone(root, BOB.name)
    as_bob = f"sudo -u {BOB.name} sudo id -un || echo no"
    password: Answer = ("password for bob.*: $", BOB.password)
    result = run_session(
        host, NAME, f"{SUDO}; {as_bob}",
        [PASSWORD, *typed(phone.code()), password, *typed(*[other.wrong_code()] * 3)],
    )  # fmt: skip
    assert answers_of(result) == ["root", "no"]
    assert [one["user"] for one in root.audit() if one["reason"] == FRESH] == [NAME]


def test_weaker_type(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """A code by an application is no answer to a rule that asks for a token."""
    run_session(host, NAME, SUDO, [PASSWORD, *typed(phone.code())])
    set_rule(root, "match: {}, require: [token], mfa_age: 15m")
    result = run_session(
        host, NAME, f"{SUDO} || echo no", [PASSWORD, *typed(*[phone.wrong_code()] * 3)]
    )
    assert (answers_of(result), root.reasons()[-1]) == (["no"], "no_acceptable_device")


@EITHER_VERIFIER
def test_device_taken_away(
    root: DataRoot, host: PrivateHost, phone: Phone, verifier: Verifier
) -> None:
    """What a device has verified ends with it: the next sudo asks for another device's code."""
    tablet = new_device("tablet").enable_application(root, NAME)

    def take_away(_: str) -> str:
        root.command("deactivate", NAME, f"virtual/{NAME}/phone")
        return ""

    with verifier(root):
        result = run_session(
            host, NAME, f"{SUDO}; {PAUSE}{SUDO}",
            [PASSWORD, *typed(phone.code()), (NEXT, take_away), *typed(tablet.code(1))],
        )  # fmt: skip
    assert answers_of(result) == ["root"] * 2
    assert root.reasons() == [CODE, EARLIER, CODE]


def test_namesake_of_a_device(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """A device that was replaced by one of the same name has verified nothing."""
    run_in = f"{SUDO}; {PAUSE}{SUDO} || echo no"

    def replace(_: str) -> str:
        root.command("deactivate", NAME, f"virtual/{NAME}/phone", "--leave-none")
        root.enroll(NAME)
        return ""

    result = run_session(
        host, NAME, run_in, [PASSWORD, *typed(phone.code()), (NEXT, replace), *typed(*["1"] * 3)]
    )
    assert (answers_of(result), root.reasons()[2]) == (["root", "no"], "malformed_code")


def test_lockout(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """A lock ends what was fresh, for good: unlocking brings it back for nobody."""

    def lock(_: str) -> str:
        for _number in range(2):
            console = Console(host, sudo=None)
            console.sudo(NAME, [PASSWORD, *typed(*[phone.wrong_code()] * 3)])
        root.command("unlock", NAME)
        return ""

    result = run_session(
        host, NAME, f"{SUDO}; {PAUSE}{SUDO}",
        [PASSWORD, *typed(phone.code()), (NEXT, lock), *typed(phone.code(1))],
    )  # fmt: skip
    assert answers_of(result) == ["root"] * 2
    assert root.reasons().count("wrong_code") == FAILURES
    assert root.reasons()[-1] == CODE


def test_locked(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """While the lock holds, nothing is fresh and no code is right."""

    def lock(_: str) -> str:
        for _number in range(2):
            Console(host, sudo=None).sudo(NAME, [PASSWORD, *typed(*[phone.wrong_code()] * 3)])
        return ""

    result = run_session(
        host, NAME, f"{SUDO}; {PAUSE}{SUDO} || echo no",
        [PASSWORD, *typed(phone.code()), (NEXT, lock), *typed(*[phone.code(1)] * 3)],
    )  # fmt: skip
    assert (answers_of(result), root.reasons()[-1]) == (["root", "no"], "locked")


@EITHER_VERIFIER
def test_sudo_n(root: DataRoot, host: PrivateHost, phone: Phone, verifier: Verifier) -> None:
    """Sudo -n runs within the age, and past it is refused at once without a question."""
    with verifier(root):
        result = run_session(
            host, NAME, f"{SUDO}; sudo -n id -un; {PAUSE}sudo -n id -un || echo no",
            [PASSWORD, *typed(phone.code()), (NEXT, later(root, AGE))],
        )  # fmt: skip
    assert answers_of(result) == ["root", "root", "no"]
    assert asked(result) == [ASKED_PASSWORD, ASKED_CODE]
    assert root.reasons() == [CODE, EARLIER, FRESH, "no_conversation"]


def test_ended_by_the_administrator(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """Once the administrator has ended the sessions, the next sudo asks for a code."""

    def end(_: str) -> str:
        assert "remembered: 1" in root.command("sessions", "end", NAME).stdout
        return ""

    result = run_session(
        host, NAME, f"{SUDO}; {PAUSE}{SUDO}",
        [PASSWORD, *typed(phone.code()), (NEXT, end), *typed(phone.code(1))],
    )  # fmt: skip
    assert (answers_of(result), root.reasons()) == (["root"] * 2, [CODE, EARLIER, CODE])
    (record,) = root.audit("EndMfaSessions")
    assert (record["user"], record["outcome"]) == (NAME, "success")


def test_clock_set_back(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """A verification of the future is none: a clock that was set back makes nothing younger."""
    result = run_session(
        host, NAME, f"{SUDO}; {PAUSE}{SUDO}",
        [PASSWORD, *typed(phone.code()), (NEXT, later(root, -60)),
         *typed(phone.code(1))],
    )  # fmt: skip
    assert (answers_of(result), root.reasons()) == (["root"] * 2, [CODE, EARLIER, CODE])


def test_rule_without_age(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """Without an age the account phase does nothing, and sudo's timestamp decides."""
    set_rule(root, "match: {}, require: [virtual]")
    result = run_session(host, NAME, f"{SUDO}; {SUDO}", [PASSWORD, *typed(phone.code())])
    assert (answers_of(result), root.reasons()) == (["root"] * 2, [CODE])


def test_report_only(root: DataRoot, host: PrivateHost, phone: Phone) -> None:
    """Report-only asks past the age, and lets in whatever the answer."""
    set_rule(root, "match: {}, require: [virtual], mfa_age: 15m, mode: report-only")
    result = run_session(
        host, NAME, f"{SUDO}; {PAUSE}{SUDO}; {PAUSE}sudo -n id -un",
        [PASSWORD, *typed(phone.code()), (NEXT, later(root, AGE)),
         *typed(*[phone.wrong_code()] * 3), (NEXT, "")],
    )  # fmt: skip
    assert answers_of(result) == ["root"] * 3
    assert root.reasons() == [CODE, EARLIER, *["wrong_code"] * 3, "no_conversation"]
