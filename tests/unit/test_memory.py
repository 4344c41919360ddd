# SPDX-License-Identifier: Apache-2.0
"""MFA age and phases in an attempt, driven by hand: what is remembered, counted and refused."""

import datetime
from typing import Any

import pytest
from doubles import (
    SEED,
    START,
    STEP,
    Clock,
    MemoryStore,
    code_of,
    drive,
    enrolled,
    make_request,
    open_device,
)

from pam_mfa.audit import EventName, Outcome, Reason
from pam_mfa.devices import SshKeyDevice
from pam_mfa.errors import BrokenSystemError, StateError
from pam_mfa.lockout import LockState
from pam_mfa.mfa_age import Spot
from pam_mfa.policy import parse_policy
from pam_mfa.ssh_keys import ED25519, SshKey, format_key
from pam_mfa.verification import Caller, Commit, Listen, Machine, Need, Tell, Verdict, attempt
from pam_mfa.wire import Phase, Result

ROOT = Caller(30, 0, may_verify=True)
AGE_RULE = "match: {}, require: [virtual, ssh-key], mfa_age: 15m"
SESSION_RULE = "match: {phase: [session]}, require: [ssh-key, virtual]"
SUDO = {"service": "sudo", "rhost": "", "tty": "pts/0"}
SPOT = Spot("30:300", "", "7", 1000, "20:200", 1000, "boot", is_personal=True)
SSHD = Spot("30:300", "20:200", "", None, "30:300", 0, "boot")
OPENED = SSHD._replace(process="20:200", leader="20:200", audit_session="9", login_uid=1000)
KEY = SshKey(ED25519, bytes(32), "ssh:")
LAPTOP = SshKeyDevice(
    "ssh-key/alice/laptop", "laptop", datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), KEY
)
SIGNED = f"publickey {format_key(KEY)}\n"
CODE = code_of(SEED, STEP)
FRESH = Verdict(Result.SUCCESS, Reason.MFA_AGE_FRESH)
EARLIER = Verdict(Result.SUCCESS, Reason.VERIFIED_EARLIER)


class Logins:
    """Alice's logins, one PAM call after the other, on a host whose processes are told."""

    def __init__(self, *rules: str, more: str = "defaults: {prompts: 1}") -> None:
        """Take the rules."""
        self.rules, self.more = rules, more
        self.store = MemoryStore(alice=enrolled(open_device())._replace(ssh_keys=(LAPTOP,)))
        self.clock = Clock()
        self.spot = SPOT
        self.told: list[str] = []

    def call(
        self,
        phase: Phase = Phase.AUTH,
        answer: str | Reason = Reason.NO_CONVERSATION,
        caller: Caller = ROOT,
        **items: Any,  # noqa: ANN401 - any field of a request
    ) -> Verdict:
        """Make one PAM call."""
        lines = [f"  - {{name: r{number}, {rule}}}" for number, rule in enumerate(self.rules)]
        text = "\n".join(["version: 1", self.more, "rules:", *lines])
        machine = Machine("host", lambda _: b"", list, locate=lambda _: self.spot)  # type: ignore[arg-type]
        request = make_request(phase=phase, **(SUDO | items))
        policy = parse_policy(text.encode(), "p")
        running = attempt(request, caller, policy, self.store, self.clock, machine)
        reply: object = None
        while True:
            try:
                if isinstance(reply, BrokenSystemError):
                    need: Need = running.throw(reply)
                else:
                    need = running.send(reply)
            except StopIteration as end:
                verdict: Verdict = end.value
                return verdict
            reply = None
            if isinstance(need, Listen):
                reply = answer
            elif isinstance(need, Commit):
                try:
                    reply = self.store.commit([need.claim])[0]
                except BrokenSystemError as error:  # thrown in, as drivers do
                    reply = error
            elif isinstance(need, Tell):
                self.told.append(need.text)

    def verify(self, **items: Any) -> None:  # noqa: ANN401 - any field of a request
        """Have Alice verified by a code."""
        self.store.used_steps.clear()
        assert (
            Result.SUCCESS
            is self.call(answer=code_of(SEED, int(self.clock.now) // 30), **items).result
        )

    def reasons(self) -> list[Reason]:
        """Return the reasons of the records."""
        return [event.reason for event in self.store.events]


@pytest.fixture
def logins() -> Logins:
    """Logins under a rule with an age."""
    return Logins(AGE_RULE)


def test_remembered(logins: Logins) -> None:
    """A success is remembered with its device, service, session, source and time."""
    logins.verify()
    (one,) = logins.store.remembered
    assert ("alice", "virtual", "virtual/alice/phone", "sudo", START) == (
        one.user_key, one.type, one.serial_number, one.service, one.at,
    )  # fmt: skip
    assert ("30:300", "", "audit:7", "boot", "") == one.place


def test_fresh(logins: Logins) -> None:
    """Within the age nothing is asked, and the record has the age and the device."""
    logins.verify()
    logins.clock.now += 60.5
    assert FRESH == logins.call()
    event = logins.store.events[-1]
    assert (EventName.VERIFY_MFA, Outcome.SUCCESS, 60, "r0") == (
        event.name, event.outcome, event.mfa_age, event.rule,
    )  # fmt: skip
    assert event.device is not None
    assert ("virtual/alice/phone", 1) == (event.device.serial_number, len(logins.store.remembered))


@pytest.mark.parametrize("seconds", [900.0, -1.0])
def test_stale(logins: Logins, seconds: float) -> None:
    """Past the age, or before it by a clock that was set back, a code is asked for."""
    logins.verify()
    logins.clock.now += seconds
    assert Verdict(Result.DENIED, Reason.NO_CONVERSATION) == logins.call()


def test_age_does_not_slide(logins: Logins) -> None:
    """An age that counted makes nothing younger."""
    logins.verify()
    for _ in range(2):
        logins.clock.now += 450.0
        logins.call()
    assert Reason.NO_CONVERSATION is logins.reasons()[-1]


@pytest.mark.parametrize("text", ["", "mode: report-only"])
def test_success_in_report_only(text: str) -> None:
    """A rule that is satisfied is a success, in report-only too."""
    logins = Logins(AGE_RULE, more=f"defaults: {{prompts: 1}}\n{text}")
    logins.verify()
    assert FRESH == logins.call()


@pytest.mark.parametrize(("uid", "is_own"), [(1000, True), (1001, False)])
def test_callers_that_are_not_root(logins: Logins, uid: int, *, is_own: bool) -> None:
    """Who is not root leaves nothing behind, and is answered from nothing."""
    logins.call(answer=CODE, caller=Caller(30, uid, may_verify=is_own))
    assert [] == logins.store.remembered
    logins.verify()
    verdict = logins.call(caller=Caller(30, uid, may_verify=is_own))
    assert Result.DENIED is verdict.result


@pytest.mark.parametrize(
    "spot",
    [
        SPOT._replace(audit_session="8"),
        SPOT._replace(boot="next"),
        SPOT._replace(leader_uid=0),
        SPOT._replace(audit_session="", leader="21:1"),
        SPOT._replace(is_personal=False),
        Spot(),
    ],
)
def test_another_session(logins: Logins, spot: Spot) -> None:
    """In another session, boot, or one that is no person's, a code is asked for."""
    logins.verify()
    logins.spot = spot
    assert Result.DENIED is logins.call().result


def test_process_replaced_while_it_is_verified(logins: Logins) -> None:
    """A process that is another one when the code is judged leaves nothing behind."""
    spots = [SPOT, SPOT._replace(process="30:301", audit_session="8")]
    machine = Machine("host", lambda _: b"", list, locate=lambda _: spots.pop(0))  # type: ignore[arg-type]
    policy = parse_policy(f"version: 1\nrules: [{{name: r, {AGE_RULE}}}]".encode(), "p")
    running = attempt(make_request(**SUDO), ROOT, policy, logins.store, logins.clock, machine)
    _, verdict = drive(running, logins.store, [CODE])
    assert (Result.SUCCESS, []) == (verdict.result, logins.store.remembered)


def test_nothing_is_remembered_without_a_rule() -> None:
    """Where no rule could want it, nothing is remembered."""
    logins = Logins("match: {}, require: [virtual]")
    logins.verify()
    assert [] == logins.store.remembered


def test_weaker_type(logins: Logins) -> None:
    """What was verified by one type is no answer to a rule that asks for another."""
    logins.verify()
    logins.rules = ("match: {}, require: [fido], mfa_age: 15m",)
    assert Reason.NO_ACCEPTABLE_DEVICE is logins.call(answer=CODE).reason


@pytest.mark.parametrize("change", ["replaced", "taken away", "all gone"])
def test_device_that_is_gone(logins: Logins, change: str) -> None:
    """A device that is gone, or has a namesake, has verified nothing; nor at the last moment."""
    logins.verify()
    device = open_device()
    if change == "replaced":
        later = device.device.enabled_at + datetime.timedelta(seconds=1)
        new = device.device._replace(sealed_seed="sealed:v1:BBBB", enabled_at=later)
        logins.store.enrollments["alice"] = enrolled(device._replace(device=new))
    elif change == "taken away":
        logins.store.taken_away.append(device.device)
    else:
        del logins.store.enrollments["alice"]
    assert Result.DENIED is logins.call().result


def test_locked(logins: Logins) -> None:
    """Who is locked has nothing fresh."""
    logins.verify()
    logins.store.locks["alice"] = LockState((), START + 100.0)
    assert Reason.LOCKED is logins.call(answer=CODE).reason


def test_guesses_end_it() -> None:
    """Wrong codes that lock end all of a user's sessions; unlocking brings none back."""
    logins = Logins(AGE_RULE, more="defaults: {prompts: 1}\nlockout: {failures: 1}")
    logins.verify()
    logins.spot = SPOT._replace(audit_session="8")
    logins.call(answer="000000")
    logins.spot = SPOT
    logins.store.locks.clear()
    assert Result.DENIED is logins.call().result


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("gate.example.com", "gate.example.com", False),
        ("192.0.2.7", "", False),
    ],
)
def test_host(first: str, second: str, expected: bool) -> None:  # noqa: FBT001
    """By host the same address counts, and a name, which anybody can give themselves, does not."""
    logins = Logins(f"{AGE_RULE}, scope: host")
    logins.spot = SSHD
    logins.verify(service="sshd", rhost=first)
    logins.spot = SSHD._replace(process="31:1", leader="31:1", parent="21:2")
    assert expected == (FRESH == logins.call(service="sshd", rhost=second))


def test_console() -> None:
    """By host logins at the machine's own consoles are of one place; no terminal else is."""
    logins = Logins(f"{AGE_RULE}, scope: host")
    logins.spot = SSHD
    logins.verify(service="login", tty="tty1")
    logins.spot = SSHD._replace(process="31:1", leader="31:1")
    assert FRESH == logins.call(service="login", tty="tty2")
    assert Result.DENIED is logins.call(service="login", tty="pts/0").result


def test_console_by_standard_input() -> None:
    """A terminal that su names proves no console: its standard input can be opened elsewhere."""
    logins = Logins(f"{AGE_RULE}, scope: host")
    logins.spot = SSHD
    logins.verify(service="login", tty="tty1")
    logins.spot = SPOT
    assert Result.DENIED is logins.call(service="su", tty="/dev/tty1").result


def test_ssh_connection_of_the_user() -> None:
    """SSH_CONNECTION names no source: in later phases a user may have set it."""
    logins = Logins(f"{AGE_RULE}, scope: host")
    logins.verify(service="sshd", rhost="192.0.2.7")
    logins.spot = SSHD
    connection = "192.0.2.7 1 192.0.2.1 22"
    assert Result.DENIED is logins.call(rhost="", tty="tty1", ssh_connection=connection).result


def test_account_phase(logins: Logins) -> None:
    """What auth verified the account phase sees, once and not in the next login's auth."""
    logins.spot = SSHD
    logins.verify(service="sshd", rhost="192.0.2.7")
    assert EARLIER == logins.call(Phase.ACCOUNT, service="sshd", rhost="192.0.2.7")
    assert Result.DENIED is logins.call(service="sshd", rhost="192.0.2.7").result


def test_account_phase_asks(logins: Logins) -> None:
    """Where auth was skipped and nothing is fresh, the account phase asks."""
    assert Verdict(Result.SUCCESS, Reason.CODE_ACCEPTED) == logins.call(Phase.ACCOUNT, CODE)


def test_session_phase_sees_the_child(logins: Logins) -> None:
    """What sshd's child verified, its parent sees when the session begins; no other process."""
    logins.rules = (SESSION_RULE,)
    logins.spot = SSHD
    logins.verify(service="sshd", rhost="192.0.2.7")
    logins.spot = OPENED
    assert EARLIER == logins.call(Phase.SESSION, service="sshd", rhost="192.0.2.7")
    logins.spot = OPENED._replace(process="22:1")
    assert Result.DENIED is logins.call(Phase.SESSION, service="sshd", rhost="192.0.2.7").result


def test_session_phase_by_a_signature() -> None:
    """An enrolled key that signed the login lets its session begin, and nothing is asked."""
    logins = Logins(SESSION_RULE)
    logins.spot = OPENED
    verdict = logins.call(Phase.SESSION, service="sshd", rhost="192.0.2.7", ssh_auth_info=SIGNED)
    assert Verdict(Result.SUCCESS, Reason.SSH_KEY_ACCEPTED) == verdict
    assert ["audit:9"] == [one.place.session for one in logins.store.remembered]


@pytest.mark.parametrize("service", ["sudo", "login", "sshd-other"])
def test_signature_told_by_another_service(service: str) -> None:
    """What another service says of a signature is not believed in the session phase either."""
    logins = Logins(SESSION_RULE)
    verdict = logins.call(Phase.SESSION, service=service, ssh_auth_info=SIGNED)
    assert Verdict(Result.DENIED, Reason.NOT_VERIFIED) == verdict


@pytest.mark.parametrize(
    ("kind", "unenrolled", "expected"),
    [
        ("alice", "deny", (Result.DENIED, Reason.NOT_VERIFIED)),
        ("bob", "deny", (Result.DENIED, Reason.NOT_ENROLLED)),
        ("bob", "enroll", (Result.DENIED, Reason.NOT_ENROLLED)),
        ("bob", "allow", (Result.IGNORE, Reason.UNENROLLED_ALLOWED)),
    ],
)
def test_session_phase_refuses(kind: str, unenrolled: str, expected: tuple[Result, Reason]) -> None:
    """Without a proof no session begins, nobody is asked, and the same sentence says why."""
    logins = Logins(SESSION_RULE, more=f"defaults: {{unenrolled: {unenrolled}}}")
    verdict = logins.call(Phase.SESSION, "x", service="sshd", user=kind)
    assert expected == verdict
    is_told = ["Refused: this login needs an MFA device" in one for one in logins.told]
    assert ([True] if expected[0] is Result.DENIED else []) == is_told
    assert [expected[1]] == logins.reasons()


def test_session_phase_in_report_only() -> None:
    """In report-only the refusal is recorded, and neither told nor enforced."""
    logins = Logins(f"{SESSION_RULE}, mode: report-only")
    assert Verdict(Result.IGNORE, Reason.NOT_VERIFIED) == logins.call(Phase.SESSION)
    assert ([], [Outcome.DENIED]) == (logins.told, [one.outcome for one in logins.store.events])


@pytest.mark.parametrize(
    ("opened", "expected"),
    [
        (OPENED, FRESH),
        (OPENED._replace(login_uid=0), Verdict(Result.DENIED, Reason.NO_CONVERSATION)),
        (OPENED._replace(audit_session=""), Verdict(Result.DENIED, Reason.NO_CONVERSATION)),
    ],
)
def test_sudo_in_the_session_of_a_login(logins: Logins, opened: Spot, expected: Verdict) -> None:
    """What an SSH login verified counts for sudo in the session that pam_loginuid has begun."""
    logins.spot = SSHD
    logins.verify(service="sshd", rhost="192.0.2.7")
    logins.spot = opened
    verdict = logins.call(Phase.SESSION, service="sshd", rhost="192.0.2.7")
    assert Verdict(Result.IGNORE) == verdict
    logins.spot = SPOT._replace(audit_session="9", process="40:1")
    assert expected == logins.call()


def test_session_that_a_daemon_was_started_in(logins: Logins) -> None:
    """A session that sshd was started in, and that no pam_loginuid has left, takes nothing over."""
    inherited = SSHD._replace(audit_session="9", login_uid=1000)
    logins.spot = inherited
    logins.verify(service="sshd", rhost="192.0.2.7")
    logins.spot = OPENED
    logins.call(Phase.SESSION, service="sshd", rhost="192.0.2.7")
    logins.spot = SPOT._replace(audit_session="9", process="40:1")
    assert Result.DENIED is logins.call().result


def test_deny_in_the_session_phase() -> None:
    """A rule that denies and names the session is heard there."""
    logins = Logins("match: {phase: [session]}, then: deny, message: Not today.")
    assert Reason.DENIED_BY_RULE is logins.call(Phase.SESSION).reason
    assert ["Not today."] == logins.told


def test_console_by_a_job_that_root_started() -> None:
    """A terminal that su names is no console in a job of atd's either, whose leader is root."""
    logins = Logins(f"{AGE_RULE}, scope: host")
    logins.spot = SSHD
    logins.verify(service="login", tty="tty1")
    assert Result.DENIED is logins.call(service="su", tty="/dev/tty1").result


def test_link_local_address_of_another_link() -> None:
    """The same link-local address on another link is another machine."""
    logins = Logins(f"{AGE_RULE}, scope: host")
    logins.verify(service="sshd", rhost="fe80::aa%eth0")
    logins.spot = SSHD
    assert Result.DENIED is logins.call(service="sshd", rhost="fe80::aa%eth1").result


def test_roots_verification_is_not_a_daemons() -> None:
    """What root was verified by counts for nobody else who reaches root through one daemon."""
    logins = Logins(AGE_RULE)
    logins.spot = SSHD
    logins.verify(service="imap", tty="", uid=0)
    logins.spot = SSHD._replace(process="31:1")
    assert Result.DENIED is logins.call(service="imap", tty="", uid=0).result


@pytest.mark.parametrize("wanted", ["discouraged", "required"])
def test_touch_where_a_pin_is_asked(wanted: str) -> None:
    """A login that sshd saw signed by touch alone spares no code where policy wants a PIN."""
    more = f"defaults: {{prompts: 1}}\nfido: {{user_verification: {wanted}}}"
    logins = Logins(AGE_RULE, more=more)
    logins.spot = SSHD
    logins.call(service="sshd", rhost="192.0.2.7", ssh_auth_info=SIGNED)
    logins.spot = OPENED
    logins.call(Phase.SESSION, service="sshd", rhost="192.0.2.7", ssh_auth_info=SIGNED)
    logins.spot = SPOT._replace(audit_session="9", process="40:1")
    expected = Result.DENIED if wanted == "required" else Result.SUCCESS
    assert expected is logins.call().result


def test_broken_store_ends_no_session_that_is_asked_nothing() -> None:
    """Where policy asks nothing of a session, as behind a rule that skips, no store is needed."""
    logins = Logins("match: {user: [root]}, then: skip", AGE_RULE)
    logins.spot = OPENED
    logins.store.failure = StateError("broken")
    assert Verdict(Result.IGNORE) == logins.call(Phase.SESSION, service="login", tty="tty1")
