# SPDX-License-Identifier: Apache-2.0
"""What is said of the next login, beside what the verifier then does."""

import datetime
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from doubles import SEED, STEP, Clock, code_of, make_device, make_layout, make_request

from pam_mfa.audit import Reason
from pam_mfa.devices import FidoDevice, RecoveryCodes, VirtualDevice
from pam_mfa.enrolling import enroll
from pam_mfa.lifecycle import Actor, DeviceStatus, Lifecycle, UserStatus
from pam_mfa.login_words import Outcome
from pam_mfa.next_login import (
    NextLogin,
    Situation,
    foresee_logins,
    is_relevant,
    summarize,
)
from pam_mfa.pam_services import Service, parse_service
from pam_mfa.policy import Action, Context, Mode, Policy, Rule, Unenrolled, decide, parse_policy
from pam_mfa.store import Standing
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.verification import PROMPT, Ask, Attempt, Caller, Commit, Listen, attempt
from pam_mfa.wire import Phase, Result

NOW = datetime.datetime(2026, 1, 2, 12, 0, tzinfo=datetime.UTC)
RIGHT = code_of(SEED, STEP)
TOUCH = "a touch of a security key at this machine (k)"
ASKS = "asks for a verification code (phone)"
KINDS = (
    "not enrolled", "enrolled", "locked", "unreadable", "seal", "type", "bypass", "used bypass",
    "expired bypass",
)  # fmt: skip


def service(*lines: str, name: str = "sshd") -> Service:
    """Return a service of these lines; a module's name alone is a required auth line."""
    text = "\n".join(line if " " in line else f"auth required {line}" for line in lines)
    return parse_service(name, lambda file: text if file == name else "")


BOTH = service("auth required pam_mfa.so", "account required pam_mfa.so")


def read_rules(*rules: str) -> tuple[Rule, ...]:
    """Return rules, each given by what stands behind its name."""
    lines = [f"  - {{name: r{number}, {rule}}}" for number, rule in enumerate(rules)]
    text = "\n".join(["version: 1", "rules:", *lines])
    return parse_policy(text.encode(), "p").rules


class Case(NamedTuple):
    """A user under a policy."""

    mode: Mode
    unenrolled: Unenrolled
    kind: str
    has_account: bool
    rule: str = ""

    @property
    def policy(self) -> Policy:
        """The policy; of a type that the user has not, for one kind."""
        types = ("token",) if self.kind == "type" else ("virtual", "token", "recovery")
        rules = read_rules(f"match: {{user: [alice]}}, {self.rule}") if self.rule else ()
        return Policy(self.mode, types, self.unenrolled, prompts=1, rules=rules)

    @property
    def is_enforced(self) -> bool:
        """Whether a denial is one."""
        return self.mode is Mode.ENFORCE and "report-only" not in self.rule


RULES = (
    "then: skip", "then: deny", "require: [token]", "require: [virtual]",
    "require: [virtual], mode: report-only", "then: deny, mode: report-only",
)  # fmt: skip
BOTH_WAYS = (True, False)
CASES = [
    *(Case(*values) for values in itertools.product(Mode, Unenrolled, KINDS, BOTH_WAYS)),
    *(Case(*values) for values in itertools.product(Mode, Unenrolled, KINDS[:2], BOTH_WAYS, RULES)),
]


class Host:
    """A store in a directory, where Alice is as a case has her."""

    def __init__(self, root: Path, case: Case) -> None:
        """Make it."""
        layout = make_layout(root)
        self.case = case
        self.clock = Clock()
        self.store = EmbeddedStore(layout)
        self.lifecycle = Lifecycle(self.store, self.clock, Actor(0, 1, None))
        self.right = RIGHT
        if "bypass" in case.kind:
            self.right = self.lifecycle.issue_bypass("alice", 60)
        elif case.kind != "not enrolled":
            pending = self.lifecycle.begin_virtual("alice", seed=SEED)
            pair = (code_of(SEED, STEP - 2), code_of(SEED, STEP - 1))
            self.lifecycle.enable(pending, *pair)
        self._spoil(case.kind, self.store.documents.path("alice"))

    def _spoil(self, kind: str, path: Path) -> None:
        if kind == "locked":
            for _ in range(5):
                self.run(Phase.AUTH, "000000", Policy(prompts=1))
        elif kind == "unreadable":
            path.chmod(0o644)
        elif kind == "seal":
            (device,) = self.store.documents.read("alice")
            assert isinstance(device, VirtualDevice)
            spoilt = device._replace(sealed_seed="x")
            self.store.documents.write("alice", (spoilt,))
        elif kind == "used bypass":
            self.run(Phase.AUTH, self.right, Policy(prompts=1))
        elif kind == "expired bypass":
            self.clock.now += 61

    def run(self, phase: Phase, answer: str, policy: Policy) -> tuple[list[str], Result]:
        """Run a phase as the verifier does; return what is asked, and the result."""
        request = make_request(phase=phase, uid=1000 if self.case.has_account else None)
        caller = Caller(1, 0, may_verify=True)
        running: Attempt
        context = Context(phase, "alice", request.service, request.tty, request.rhost)
        if decide(policy, context).action is Action.ENROLL:
            running = enroll(request, caller, self.store, self.clock)
        else:
            running = attempt(request, caller, policy, self.store, self.clock)
        return drive(running, self.store, answer)

    def foresee(self) -> NextLogin:
        """Return what is said of Alice's next login."""
        (status,) = self.lifecycle.user_statuses(["alice"])
        now = datetime.datetime.fromtimestamp(self.clock(), datetime.UTC)
        situation = Situation(self.case.policy, "/", now)
        has_account = self.case.has_account
        (login,) = foresee_logins([BOTH], status, situation, has_account=has_account)
        return login


def drive(running: Attempt, store: EmbeddedStore, answer: str) -> tuple[list[str], Result]:
    """Carry an attempt to its end by one answer to everything."""
    asked: list[str] = []
    reply: object = None
    while True:
        try:
            need = running.send(reply)
        except StopIteration as end:
            return asked, end.value.result
        reply = None
        if isinstance(need, Ask):
            asked.append(need.text)
        elif isinstance(need, Listen):
            reply = answer
        elif isinstance(need, Commit):
            reply = store.commit([need.claim])[0]


@pytest.fixture(params=CASES, ids=lambda case: " ".join(map(str, case)))
def host(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    """Each case in turn."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    host = Host(tmp_path, request.param)
    yield host
    host.store.close()


def log_in(host: Host, answer: str) -> tuple[list[str], list[Result]]:
    """Log in at a service that has both phases; return what is asked and each phase's result."""
    asked, result = host.run(Phase.AUTH, answer, host.case.policy)
    if result is Result.DENIED:
        return asked, [result]
    more, second = host.run(Phase.ACCOUNT, answer, host.case.policy)
    return asked + more, [result, second]


def test_what_is_said_comes_true(host: Host) -> None:
    """A wrong code and then a right one end as it is said that the next login will."""
    said = host.foresee()
    _, wrong = log_in(host, "999999")
    _, right = log_in(host, host.right)
    is_let_by = [Result.IGNORE, Result.IGNORE]
    wrong_code = [Result.DENIED] if host.case.is_enforced else is_let_by
    no_pair = [Result.IGNORE, Result.DENIED]
    expected = {
        Outcome.CODE: (wrong_code, [Result.SUCCESS, Result.IGNORE]),
        Outcome.REFUSED: ([Result.DENIED], [Result.DENIED]),
        Outcome.NOT_ASKED: (is_let_by, is_let_by),
        Outcome.NOT_REFUSED: (is_let_by, is_let_by),
        Outcome.ENROLLS: (no_pair, no_pair),
    }[said.outcome]
    assert expected == (wrong, right)


def test_question_comes_true(host: Host) -> None:
    """What is asked at the login is what it is said to be."""
    said = host.foresee()
    asked, _ = log_in(host, "999999")
    expected = {
        Outcome.CODE: PROMPT,
        Outcome.NOT_ASKED: "",
        Outcome.NOT_REFUSED: PROMPT if said.text.startswith("asks") else "",
        Outcome.ENROLLS: "First code: ",
    }
    # Who is refused may be asked or not: it must not show who has a device.
    assert expected.get(said.outcome, (asked or [""])[0]) == (asked or [""])[0]


def test_every_outcome_is_among_the_cases(tmp_path: Path) -> None:
    """The cases above lead to every outcome that a root without keys has."""
    hosts = [Host(tmp_path / str(n), case) for n, case in enumerate(CASES)]
    outcomes = {host.foresee().outcome for host in hosts}
    for host in hosts:
        host.store.close()
    assert set(Outcome) - {Outcome.UNKNOWN, Outcome.TOUCH, Outcome.SSH_KEY} == outcomes


def test_reason_is_recorded(host: Host) -> None:
    """The reason that is given for a refusal is the one that its record gives."""
    said = host.foresee()
    log_in(host, "999999")
    log = (host.store.documents.path("x").parents[3] / "log/pam_mfa/audit.jsonl").read_text()
    assert said.reason is None or f'"reason":"{said.reason.value}"' in log.splitlines()[-1]


def alice(
    standing: Standing = Standing.ENROLLED, *devices: DeviceStatus, **fields: object
) -> UserStatus:
    """Return a user's status."""
    found = devices or (DeviceStatus(make_device(), None, 0, None),)
    if standing is not Standing.ENROLLED:
        found = ()
    values = {"locked_until": None, "recent_failures": 0, **fields}
    return UserStatus("alice", standing, found, **values)  # type: ignore[arg-type]


def foresee(
    where: Service,
    status: UserStatus | None = None,
    policy: Policy | None = Policy(),  # noqa: B008 - immutable
) -> NextLogin:
    """Return what is said of a user with an account under the root /d."""
    situation = Situation(policy, "/d", NOW)
    (login,) = foresee_logins([where], status or alice(), situation, has_account=True)
    return login


def paper(left: int) -> DeviceStatus:
    """Return a set of recovery codes of which so many are left."""
    codes = RecoveryCodes("recovery/alice/1", "recovery", NOW, ("a", "b", "c"))
    return DeviceStatus(codes, None, 0, left)


def test_sentence() -> None:
    """What is asked for is said with the devices and the codes left."""
    status = alice(Standing.ENROLLED, DeviceStatus(make_device(), None, 0, None), paper(2))
    expected = NextLogin(
        "sshd", Outcome.CODE, None,
        "asks for a verification code (phone, recovery codes: 2 left)",
    )  # fmt: skip
    assert expected == foresee(BOTH, status)


def test_locked() -> None:
    """A lock is said with its end."""
    until = datetime.datetime(2026, 1, 2, 12, 40, tzinfo=datetime.UTC)
    login = foresee(BOTH, alice(locked_until=until))
    assert (Reason.LOCKED, "refused: locked until 2026-01-02 12:40 UTC") == login[2:]


@pytest.mark.parametrize(
    ("lines", "outcome", "text"),
    [
        (["pam_unix.so"], "not asked", "not asked (pam_mfa.so is not in its PAM file)"),
        (
            ["account required pam_mfa.so"], "not asked",
            "not asked (pam_mfa.so is not in its auth phase, only in: account)",
        ),
        (
            ["account required pam_mfa.so", "session required pam_mfa.so"], "not asked",
            "not asked (pam_mfa.so is not in its auth phase, only in: account, session)",
        ),
        (["/x/pam_mfa.so"], "code", ASKS),
        (
            ["auth optional pam_mfa.so"], "code",
            f"{ASKS}; but its line says 'optional', so PAM lets in all the same",
        ),
        (
            ["auth required pam_mfa.so root=/e"], "unknown", "asks by the devices under /e",
        ),
        (
            ["auth required pam_mfa.so root=/d/"], "code", "asks for a verification code (phone)",
        ),
        (
            ["pam_mfa.so", "auth frobnicate"], "code",
            f"{ASKS}; but PAM does not take its file: sshd, line 2: names no module",
        ),
    ],
    ids=["none", "account", "account and session", "path", "optional", "other root", "this root",
         "fault"],
)  # fmt: skip
def test_lines(lines: list[str], outcome: str, text: str) -> None:
    """What a service's file says of the module decides, and what is odd in it is said."""
    login = foresee(service(*lines))
    assert (outcome, text) == (login.outcome.value, login.text)


@pytest.mark.parametrize(
    ("option", "outcome"),
    [("", "code"), ("forward_pass", "code"), ("forward_pass=6", "code"),
     ("forward_pass=8", "refused")],
)  # fmt: skip
def test_forwarded_password(option: str, outcome: str) -> None:
    """Where the code is cut off a password's end, a device of another length is none."""
    assert outcome == foresee(service(f"auth required pam_mfa.so {option}")).outcome.value


def test_paper_and_forwarded_password() -> None:
    """Where the code is cut off a password's end, codes on paper cannot be typed."""
    status = alice(Standing.ENROLLED, paper(3))
    outcomes = [
        foresee(service(f"auth required pam_mfa.so {option}"), status).outcome
        for option in ("debug", "forward_pass")
    ]
    assert [Outcome.CODE, Outcome.REFUSED] == outcomes


KEY = DeviceStatus(FidoDevice("fido/alice/k", "k", NOW, b"", b"", "h", "", ""), None, 0, None)
PHONE = DeviceStatus(make_device(), None, 0, None)


@pytest.mark.parametrize(
    ("devices", "name", "outcome", "text"),
    [
        ((KEY,), "sudo", Outcome.TOUCH, f"asks for {TOUCH}"),
        ((KEY,), "sshd", Outcome.REFUSED, "refused: no MFA device that counts at this service"),
        ((KEY, PHONE), "sudo", Outcome.CODE,
         f"asks for {TOUCH}, or a verification code (phone)"),
        ((KEY, PHONE), "sshd", Outcome.CODE, ASKS),
    ],
)  # fmt: skip
def test_security_key(
    devices: tuple[DeviceStatus, ...], name: str, outcome: Outcome, text: str
) -> None:
    """A security key counts where people may be at the machine, and never for codes."""
    login = foresee(service("pam_mfa.so", name=name), alice(Standing.ENROLLED, *devices))
    assert (outcome, text) == (login.outcome, login.text)


def test_no_codes_left() -> None:
    """Who has used every recovery code and has nothing else is refused."""
    login = foresee(BOTH, alice(Standing.ENROLLED, paper(0)))
    assert (Outcome.REFUSED, "refused: no code of theirs can be right any more") == (
        login.outcome, login.text,
    )  # fmt: skip


def test_no_policy() -> None:
    """Without a policy everybody is refused where the module stands, and nobody elsewhere."""
    outcomes = [foresee(where, policy=None).outcome for where in (BOTH, service("pam_unix.so"))]
    assert [Outcome.REFUSED, Outcome.NOT_ASKED] == outcomes


def test_enroll_without_account_phase() -> None:
    """Where policy says enroll and the account phase lacks the module, nobody is asked."""
    policy = Policy(unenrolled=Unenrolled.ENROLL)
    login = foresee(service("pam_mfa.so"), alice(Standing.NOT_ENROLLED), policy)
    assert (Outcome.NOT_ASKED, True) == (login.outcome, "not in its account phase" in login.text)


def test_enroll_in_account_phase_alone() -> None:
    """Where only the account phase has the module, who has no device enrolls there."""
    policy = Policy(unenrolled=Unenrolled.ENROLL)
    where = service("account required pam_mfa.so")
    assert [Outcome.ENROLLS, Outcome.NOT_ASKED] == [
        foresee(where, alice(standing), policy).outcome
        for standing in (Standing.NOT_ENROLLED, Standing.ENROLLED)
    ]


def test_relevance() -> None:
    """A service counts if it has the module in any phase, or if people log in by it."""
    services = [
        service("pam_unix.so", name="cron"),
        service("session required pam_mfa.so", name="cron"),
        service("pam_unix.so", name="login"),
    ]
    assert [False, True, True] == [is_relevant(one) for one in services]


def test_summary() -> None:
    """Services that end alike stand together, and those that do not ask come last."""
    logins = [
        NextLogin("d", Outcome.NOT_ASKED, None, ""),
        NextLogin("a", Outcome.CODE, None, ""),
        NextLogin("b", Outcome.REFUSED, Reason.NOT_ENROLLED, ""),
        NextLogin("c", Outcome.CODE, None, ""),
    ]
    assert "code: a, c; refused (not enrolled): b; not asked: d" == summarize(logins)


def say(*rules: str, **fields: object) -> str:
    """Return what is said of a login by sshd under rules."""
    values: dict[str, object] = {"policy": Policy(rules=read_rules(*rules)), **fields}
    situation = Situation(root="/d", now=NOW, **values)  # type: ignore[arg-type]
    (login,) = foresee_logins([BOTH], alice(), situation, has_account=True)
    return login.text


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("match: {}, then: skip", "not asked (rule 'r0')"),
        ("match: {}, then: deny", "refused: a rule of policy denies it (rule 'r0')"),
        (
            "match: {}, then: deny, message: Use the gate.",
            "refused: a rule of policy denies it, with the words: Use the gate. (rule 'r0')",
        ),
        ("match: {}, require: [virtual]", f"{ASKS} (rule 'r0')"),
        ("match: {user: [bob]}, then: skip", ASKS),
    ],
)
def test_rule_is_said(rule: str, text: str) -> None:
    """The rule that decides is named."""
    assert text == say(rule)


OPEN = "; by where from, which terminal and when, it may be otherwise: pam-mfa policy explain"


@pytest.mark.parametrize(
    ("match", "is_open"),
    [
        ("{from: [192.0.2.0/24]}", True),
        ("{tty: [tty1], user: [alice]}", True),
        ("{tty: [tty1], user: [bob]}", False),
        ("{weekday: [mon], service: [login]}", False),
        ("{time: '08:00-09:00', service: [sshd]}", True),
    ],
)
def test_what_is_not_known_is_said(match: str, is_open: bool) -> None:  # noqa: FBT001
    """Where a login's source, terminal or time could make another rule decide, that is said."""
    assert is_open == say(f"match: {match}, then: skip").endswith(OPEN)


def test_known_source() -> None:
    """For a login whose source is given, what is said is of just that one."""
    rule = "match: {from: [192.0.2.0/24]}, then: skip"
    said = say(rule, rhost="192.0.2.9", is_definite=True)
    assert ("not asked (rule 'r0')", ASKS) == (said, say(rule, rhost="::1", is_definite=True))


def test_groups_of_the_next_login() -> None:
    """A user's groups are asked for where a rule depends on them; without an answer it refuses."""
    rule = "match: {group: [g]}, then: skip"
    given = say(rule, find_groups=lambda user: frozenset("g" if user == "alice" else ""))
    assert "not asked (rule 'r0')" == given
    assert say(rule).startswith("refused: the groups of the user cannot be had")


AGE = "require: [virtual], mfa_age: 15m"
NO_SESSION = "refused when its session begins"
NOT_HELD = " (pam_mfa.so is not in its account phase, so sudo's own timestamp is not held to it)"
ALL_LINES = [f"{phase} required pam_mfa.so" for phase in ("auth", "account", "session")]


@pytest.mark.parametrize(
    ("rules", "lines", "name", "text"),
    [
        ((f"match: {{}}, {AGE}",), ALL_LINES, "sudo",
         f"{ASKS}; not within 900 s of a verification in the same session (rule 'r0')"),
        ((f"match: {{}}, {AGE}, scope: host",), ALL_LINES, "sshd",
         f"{ASKS}; not within 900 s of a verification from the same address (rule 'r0')"),
        ((f"match: {{}}, {AGE}",), ALL_LINES[:1], "sudo",
         f"{ASKS}; not within 900 s of a verification in the same session{NOT_HELD} (rule 'r0')"),
        (("match: {phase: [session]}, require: [virtual]",), ALL_LINES, "sshd",
         f"{ASKS}; its session begins by phone only (rule 'r0')"),
        (("match: {phase: [session]}, require: [ssh-key]",), ALL_LINES, "sshd",
         f"{NO_SESSION}: no MFA device of a type that policy accepts (rule 'r0')"),
        (("match: {phase: [session]}, then: deny",), ALL_LINES, "sshd",
         f"{NO_SESSION}: a rule of policy denies it (rule 'r0')"),
        (("match: {phase: [session]}, require: [virtual]",), ALL_LINES[2:], "sshd",
         f"{NO_SESSION}: no MFA device of a type that policy accepts (rule 'r0')"),
        (("match: {phase: [session]}, then: deny, mode: report-only",), ALL_LINES, "sshd", ASKS),
    ],
)  # fmt: skip
def test_age_and_session_are_said(
    rules: tuple[str, ...], lines: list[str], name: str, text: str
) -> None:
    """An age is said with where it counts; what the session phase refuses is said of the login."""
    situation = Situation(Policy(rules=read_rules(*rules)), "/d", NOW, is_definite=True)
    (login,) = foresee_logins([service(*lines, name=name)], alice(), situation, has_account=True)
    assert text == login.text
