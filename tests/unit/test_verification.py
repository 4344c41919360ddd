# SPDX-License-Identifier: Apache-2.0
"""One attempt at a login, its needs driven by hand: who is asked what, and what is recorded."""

import datetime
from collections.abc import Iterator

import pytest
from doubles import (
    NOT_ENROLLED,
    OTHER_SEED,
    SEED,
    START,
    STEP,
    UNREADABLE,
    Clock,
    MemoryStore,
    code_of,
    drive,
    enrolled,
    make_request,
    open_device,
)

from pam_mfa.audit import DeviceField, Event, EventName, Outcome, Reason
from pam_mfa.devices import RecoveryCodes
from pam_mfa.errors import StateError
from pam_mfa.lockout import LockoutRule, LockState
from pam_mfa.oath import Parameters
from pam_mfa.policy import Mode, Policy, Unenrolled
from pam_mfa.store import Enrollment
from pam_mfa.verification import Ask, Caller, Commit, Listen, Verdict, attempt
from pam_mfa.wire import Phase, Request, Result

ROOT = Caller(pid=4321, uid=0, may_verify=True)
STRANGER = Caller(pid=4322, uid=1001, may_verify=False)
ONE_PROMPT = Policy(prompts=1)
REPORT_ONLY = Policy(mode=Mode.REPORT_ONLY)
ALLOW = Policy(unenrolled=Unenrolled.ALLOW)
NOW_CODE = code_of(SEED, STEP)
WRONG = "000000"
LOCKED = LockState((), START + 1.0)
PHONE_FIELD = DeviceField("virtual/alice/phone", "virtual", "phone")
UNKNOWN = make_request("hunter2", uid=None)


def run(
    store: MemoryStore,
    *answers: str | Reason,
    request: Request | None = None,
    policy: Policy = ONE_PROMPT,
    caller: Caller = ROOT,
) -> tuple[list[str], Verdict]:
    """Run one attempt of Alice, or of another request, to its verdict."""
    running = attempt(request or make_request(), caller, policy, store, Clock())
    return drive(running, store, answers)


def test_success() -> None:
    """A right code is asked for, judged, made durable, and only then told as success."""
    store = MemoryStore(alice=enrolled())
    expected = (["Ask", "Listen", "Commit"], Verdict(Result.SUCCESS, Reason.CODE_ACCEPTED))
    assert expected == run(store, NOW_CODE)


def test_success_is_kept() -> None:
    """A success uses its time step up and is recorded with everything known of it."""
    store = MemoryStore(alice=enrolled())
    run(store, NOW_CODE)
    event = Event(
        EventName.VERIFY_MFA, Outcome.SUCCESS, Reason.CODE_ACCEPTED, START, user="alice",
        service="sshd", phase="auth", tty="ssh", rhost="192.0.2.7", ruser="bob",
        device=PHONE_FIELD, mode="enforce", caller_uid=0, caller_pid=4321,
        source_address="192.0.2.7", used_step=STEP,
    )  # fmt: skip
    assert ([event], {PHONE_FIELD.serial_number: STEP}) == (store.events, store.used_steps)


def test_no_success_without_commit() -> None:
    """Where the claim cannot be made durable, the error ends the attempt: there is no verdict."""
    store = MemoryStore(alice=enrolled())
    store.failure = StateError("the disk is full")
    with pytest.raises(StateError, match="the disk is full"):
        run(store, NOW_CODE)


def needs_of(store: MemoryStore, request: Request) -> list[str]:
    """Return the needs of one attempt with a wrong code."""
    return run(store, WRONG, request=request)[0]


@pytest.mark.parametrize("typed", [WRONG, NOW_CODE, "", "password", Reason.ABANDONED])
@pytest.mark.parametrize(
    ("enrollment", "request_"),
    [
        (NOT_ENROLLED, make_request()),
        (NOT_ENROLLED, UNKNOWN),
        (UNREADABLE, make_request()),
        (NOT_ENROLLED, make_request("", uid=None)),
    ],
    ids=["unenrolled", "unknown", "unreadable", "nameless"],
)
def test_users_cannot_be_told_apart(
    enrollment: Enrollment, request_: Request, typed: str | Reason
) -> None:
    """Whoever has no usable device needs the same and ends the same as a locked user."""
    locked = MemoryStore(alice=enrolled())
    locked.locks["alice"] = LOCKED
    expected_needs, expected = run(locked, typed)
    needs, verdict = run(MemoryStore(alice=enrollment), typed, request=request_)
    assert (expected_needs, expected.result) == (needs, verdict.result)


def test_same_needs_as_enrolled() -> None:
    """A wrong code needs the same of an enrolled, unenrolled, unknown and locked user."""
    locked = MemoryStore(alice=enrolled())
    locked.locks["alice"] = LOCKED
    cases = [
        needs_of(MemoryStore(alice=enrolled()), make_request()),
        needs_of(MemoryStore(alice=NOT_ENROLLED), make_request()),
        needs_of(MemoryStore(), UNKNOWN),
        needs_of(locked, make_request()),
    ]
    assert [["Ask", "Listen", "Commit"]] * 4 == cases


def test_prompt_before_look_up() -> None:
    """The prompt is asked for before anything of the user is looked up."""
    store = MemoryStore(alice=enrolled())
    running = attempt(make_request(), ROOT, ONE_PROMPT, store, Clock())
    need = next(running)
    assert (Ask("Verification code: "), []) == (need, store.looked_up)


@pytest.mark.parametrize("enrollment", [enrolled(), NOT_ENROLLED, UNREADABLE])
def test_every_refusal_writes_the_same(enrollment: Enrollment) -> None:
    """A wrong code writes one row of the lock and one record, whoever's it is."""
    store = MemoryStore(alice=enrollment)
    run(store, WRONG)
    assert (1, [enrollment.user_key]) == (len(store.events), list(store.locks))


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (WRONG, Reason.WRONG_CODE),
        ("1234567", Reason.WRONG_CODE),
        (code_of(SEED, STEP + 2), Reason.WRONG_CODE),
        (code_of(SEED, STEP - 2), Reason.WRONG_CODE),
        (code_of(OTHER_SEED, STEP), Reason.WRONG_CODE),
        ("password", Reason.MALFORMED_CODE),
        (NOW_CODE[:5], Reason.MALFORMED_CODE),
        ("", Reason.EMPTY_ANSWER),
        ("  \t", Reason.EMPTY_ANSWER),
        (Reason.NO_CONVERSATION, Reason.NO_CONVERSATION),
        (Reason.ABANDONED, Reason.ABANDONED),
        (Reason.TIMED_OUT, Reason.TIMED_OUT),
    ],
)
def test_refusals(typed: str | Reason, reason: Reason) -> None:
    """What is no right code is refused, and the record says why."""
    store = MemoryStore(alice=enrolled())
    _, verdict = run(store, typed)
    recorded = [(event.outcome, event.reason, event.user) for event in store.events]
    expected = (Verdict(Result.DENIED, reason), [(Outcome.DENIED, reason, "alice")])
    assert expected == (verdict, recorded)


@pytest.mark.parametrize(
    ("typed", "failures"),
    [
        (WRONG, 1),
        ("password", 1),
        ("", 0),
        (Reason.NO_CONVERSATION, 0),
        (Reason.ABANDONED, 0),
        (Reason.TIMED_OUT, 0),
    ],
)
def test_what_counts_as_a_guess(typed: str | Reason, failures: int) -> None:
    """Only an answer that somebody typed counts as a wrong code."""
    store = MemoryStore(alice=enrolled())
    run(store, typed)
    assert failures == len(store.locks.get("alice", LockState()).failures)


def test_reuse() -> None:
    """A code that was accepted once is refused the second time, and counts as no guess."""
    store = MemoryStore(alice=enrolled())
    run(store, NOW_CODE)
    _, verdict = run(store, NOW_CODE)
    last = store.events[-1]
    assert (Verdict(Result.DENIED, Reason.CODE_REUSED), PHONE_FIELD, ()) == (
        verdict, last.device, store.locks["alice"].failures,
    )  # fmt: skip


def test_older_code_after_newer() -> None:
    """A code older than the last accepted one is refused although nobody has used it."""
    store = MemoryStore(alice=enrolled())
    run(store, NOW_CODE)
    assert Verdict(Result.DENIED, Reason.CODE_REUSED) == run(store, code_of(SEED, STEP - 1))[1]


def test_newer_code_after_older() -> None:
    """The next code is accepted in the same time step."""
    store = MemoryStore(alice=enrolled())
    run(store, NOW_CODE)
    assert Result.SUCCESS is run(store, code_of(SEED, STEP + 1))[1].result


def test_second_device() -> None:
    """Any of the user's devices will do, and the record names the one that did."""
    store = MemoryStore(alice=enrolled(open_device(), open_device("tablet", OTHER_SEED)))
    run(store, code_of(OTHER_SEED, STEP))
    assert DeviceField("virtual/alice/tablet", "virtual", "tablet") == store.events[0].device


def test_lock() -> None:
    """The wrong code that is one too many locks, which is a record of its own."""
    store = MemoryStore(alice=enrolled())
    policy = Policy(prompts=1, lockout=LockoutRule(3, 300.0, 900.0))
    for _ in range(3):
        run(store, WRONG, policy=policy)
    wrong = (EventName.VERIFY_MFA, Outcome.DENIED, Reason.WRONG_CODE)
    lock = (EventName.LOCK_USER, Outcome.SUCCESS, Reason.TOO_MANY_FAILURES)
    recorded = [(event.name, event.outcome, event.reason) for event in store.events]
    assert ([wrong, wrong, wrong, lock], START + 900.0) == (
        recorded, store.locks["alice"].locked_until,
    )  # fmt: skip


def test_locked() -> None:
    """While a user is locked the right code is refused, and it is not used up."""
    store = MemoryStore(alice=enrolled())
    store.locks["alice"] = LOCKED
    _, verdict = run(store, NOW_CODE)
    assert (Verdict(Result.DENIED, Reason.LOCKED), {}, LOCKED) == (
        verdict, store.used_steps, store.locks["alice"],
    )  # fmt: skip


@pytest.mark.parametrize("typed", [WRONG, "password", ""])
def test_locked_is_not_prolonged(typed: str) -> None:
    """What is typed while a user is locked does not prolong the lock."""
    store = MemoryStore(alice=enrolled())
    store.locks["alice"] = LOCKED
    run(store, typed)
    assert LOCKED == store.locks["alice"]


def test_lock_ends() -> None:
    """At the end of the lock the right code is accepted and the lock forgotten."""
    store = MemoryStore(alice=enrolled())
    store.locks["alice"] = LockState((), START)
    _, verdict = run(store, NOW_CODE)
    assert (Result.SUCCESS, LockState()) == (verdict.result, store.locks["alice"])


def test_success_forgets_failures() -> None:
    """A success forgets the wrong codes before it."""
    store = MemoryStore(alice=enrolled())
    run(store, WRONG)
    run(store, NOW_CODE)
    assert LockState() == store.locks["alice"]


def test_others_are_never_locked() -> None:
    """Wrong codes for a name without devices lock the row that it shares with others, no user."""
    store = MemoryStore(alice=enrolled())
    for _ in range(20):
        run(store, WRONG, request=UNKNOWN)
    assert {"?7"} == set(store.locks)
    assert {Reason.NOT_ENROLLED} == {event.reason for event in store.events}
    assert Result.SUCCESS is run(store, NOW_CODE)[1].result


@pytest.mark.parametrize("prompts", [1, 2, 3])
def test_prompts(prompts: int) -> None:
    """A code is asked for as often as policy says, each answer judged and recorded."""
    store = MemoryStore(alice=enrolled())
    needs, verdict = run(store, *[WRONG] * prompts, policy=Policy(prompts=prompts))
    assert (["Ask", "Listen", "Commit"] * prompts, prompts, Result.DENIED) == (
        needs, len(store.events), verdict.result,
    )  # fmt: skip


def test_code_at_second_prompt() -> None:
    """A right code at the second prompt is a success."""
    store = MemoryStore(alice=enrolled())
    needs, verdict = run(store, WRONG, NOW_CODE, policy=Policy(prompts=3))
    assert (["Ask", "Listen", "Commit"] * 2, Result.SUCCESS) == (needs, verdict.result)


@pytest.mark.parametrize(
    "answer", [Reason.ABANDONED, Reason.NO_CONVERSATION, Reason.TIMED_OUT], ids=str
)
def test_gone_at_second_prompt(answer: Reason) -> None:
    """Whoever does not answer the second prompt is not asked a third time."""
    store = MemoryStore(alice=enrolled())
    needs, verdict = run(store, WRONG, answer, policy=Policy(prompts=3))
    assert (["Ask", "Listen", "Commit"] * 2, Verdict(Result.DENIED, answer)) == (needs, verdict)


@pytest.mark.parametrize(
    ("typed", "result", "reason"),
    [
        (WRONG, Result.IGNORE, Reason.WRONG_CODE),
        (Reason.ABANDONED, Result.IGNORE, Reason.ABANDONED),
        (NOW_CODE, Result.SUCCESS, Reason.CODE_ACCEPTED),
    ],
)
def test_report_only(typed: str | Reason, result: Result, reason: Reason) -> None:
    """Where policy only reports, a denial is recorded as one and ignored."""
    store = MemoryStore(alice=enrolled())
    _, verdict = run(store, typed, policy=REPORT_ONLY._replace(prompts=1))
    assert (Verdict(result, reason), "report-only", reason) == (
        verdict, store.events[0].mode, store.events[0].reason,
    )  # fmt: skip


def test_report_only_unenrolled() -> None:
    """Where policy only reports, who has no device is not asked, but recorded as denied."""
    store = MemoryStore()
    needs, verdict = run(store, policy=REPORT_ONLY)
    recorded = [(event.name, event.outcome, event.reason) for event in store.events]
    denied = (EventName.VERIFY_MFA, Outcome.DENIED, Reason.NOT_ENROLLED)
    assert (["Commit"], Verdict(Result.IGNORE, Reason.NOT_ENROLLED), [denied]) == (
        needs, verdict, recorded,
    )  # fmt: skip


@pytest.mark.parametrize("mode", Mode)
def test_unenrolled_allowed(mode: Mode) -> None:
    """Where policy allows it, who has no device passes unasked, recorded as skipped."""
    store = MemoryStore()
    needs, verdict = run(store, policy=ALLOW._replace(mode=mode))
    recorded = [(event.name, event.outcome, event.reason, event.mode) for event in store.events]
    skipped = (EventName.SKIP_MFA, Outcome.SUCCESS, Reason.UNENROLLED_ALLOWED, mode.value)
    assert (["Commit"], Verdict(Result.IGNORE, Reason.UNENROLLED_ALLOWED), [skipped]) == (
        needs, verdict, recorded,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("enrollment", "reason"),
    [(enrolled(), Reason.WRONG_CODE), (UNREADABLE, Reason.DEVICES_UNREADABLE)],
)
def test_unenrolled_allowed_is_for_nobody_else(enrollment: Enrollment, reason: Reason) -> None:
    """Who has devices, readable or not, is asked and denied even where the unenrolled pass."""
    store = MemoryStore(alice=enrollment)
    needs, verdict = run(store, WRONG, policy=ALLOW._replace(prompts=1))
    assert (["Ask", "Listen", "Commit"], Verdict(Result.DENIED, reason)) == (needs, verdict)


def test_unreadable_devices() -> None:
    """Devices that cannot be read are recorded as an error of the system, with what is wrong."""
    store = MemoryStore(alice=UNREADABLE)
    run(store, NOW_CODE)
    event = store.events[0]
    assert (Outcome.ERROR, Reason.DEVICES_UNREADABLE, "alice", "the file is torn") == (
        event.outcome, event.reason, event.user, event.detail,
    )  # fmt: skip


def test_some_unreadable_devices() -> None:
    """The devices that can be read serve, and the record tells of the others."""
    store = MemoryStore(alice=enrolled(problem="the tablet's secret does not open"))
    _, verdict = run(store, NOW_CODE)
    assert (Result.SUCCESS, "the tablet's secret does not open") == (
        verdict.result, store.events[0].detail,
    )  # fmt: skip


def test_device_type_that_does_not_count() -> None:
    """A device of a type that policy leaves out does not serve, and its codes lock nobody."""
    store = MemoryStore(alice=enrolled())
    policy = Policy(devices=("fido",), prompts=1)
    for _ in range(10):
        assert Result.DENIED is run(store, NOW_CODE, policy=policy)[1].result
    assert {Reason.NO_ACCEPTABLE_DEVICE} == {event.reason for event in store.events}
    assert Result.SUCCESS is run(store, NOW_CODE)[1].result


@pytest.mark.parametrize("policy", [Policy(), ALLOW, REPORT_ONLY])
@pytest.mark.parametrize("enrollment", [enrolled(), NOT_ENROLLED])
def test_caller_not_allowed(enrollment: Enrollment, policy: Policy) -> None:
    """Who may not verify this user is denied unasked, whatever policy says, and recorded."""
    store = MemoryStore(alice=enrollment)
    needs, verdict = run(store, policy=policy, caller=STRANGER)
    recorded = [(event.reason, event.caller_uid, event.caller_pid) for event in store.events]
    assert (
        ["Commit"], Verdict(Result.DENIED, Reason.CALLER_NOT_ALLOWED),
        [(Reason.CALLER_NOT_ALLOWED, 1001, 4322)],
    ) == (needs, verdict, recorded)  # fmt: skip


@pytest.mark.parametrize("policy", [Policy(prompts=1), ALLOW, REPORT_ONLY])
@pytest.mark.parametrize("caller", [ROOT, STRANGER])
def test_unknown_name_is_not_recorded(policy: Policy, caller: Caller) -> None:
    """A name that no account has stands in no record: it may be a password."""
    store = MemoryStore()
    run(store, WRONG, request=UNKNOWN, policy=policy, caller=caller)
    assert ["pseudonym-7"] == [event.unknown_user for event in store.events]
    assert "hunter2" not in repr(store.events)


@pytest.mark.parametrize(
    ("enrollment", "request_"),
    [
        (NOT_ENROLLED, make_request()),
        (enrolled(), make_request(uid=None)),
        (UNREADABLE, make_request(uid=None)),
    ],
    ids=["an account", "devices", "devices that cannot be read"],
)
def test_known_name_is_recorded(enrollment: Enrollment, request_: Request) -> None:
    """A name with an account or devices stands in the record as it is."""
    store = MemoryStore(alice=enrollment)
    run(store, WRONG, request=request_)
    assert [("alice", "")] == [(event.user, event.unknown_user) for event in store.events]


@pytest.mark.parametrize("phase", [Phase.ACCOUNT, Phase.SESSION])
def test_other_phases(phase: Phase) -> None:
    """In other phases nothing is needed, looked up or recorded."""
    store = MemoryStore(alice=enrolled())
    assert ([], Verdict(Result.IGNORE)) == run(store, request=make_request(phase=phase))
    assert ([], []) == (store.looked_up, store.events)


def rolling(clock: Clock, seconds: float, answer: str) -> Iterator[str]:
    """Answer after so many seconds."""
    clock.now += seconds
    yield answer


@pytest.mark.parametrize(
    ("seconds", "step", "result"),
    [
        (25.0, STEP + 2, Result.SUCCESS),
        (25.0, STEP, Result.SUCCESS),
        (25.0, STEP - 1, Result.DENIED),
        (24.9, STEP + 2, Result.DENIED),
        (24.9, STEP - 1, Result.SUCCESS),
        (-5.1, STEP - 2, Result.SUCCESS),
        (-5.1, STEP + 1, Result.DENIED),
    ],
)
def test_time_step_rolls_over(seconds: float, step: int, result: Result) -> None:
    """What counts is the moment of the answer, not that of the prompt."""
    store, clock = MemoryStore(alice=enrolled()), Clock()
    running = attempt(make_request(), ROOT, ONE_PROMPT, store, clock)
    _, verdict = drive(running, store, rolling(clock, seconds, code_of(SEED, step)))
    assert result is verdict.result


def test_moment_of_the_record() -> None:
    """A record tells the moment of the answer."""
    store, clock = MemoryStore(alice=enrolled()), Clock()
    running = attempt(make_request(), ROOT, ONE_PROMPT, store, clock)
    drive(running, store, rolling(clock, 7.5, WRONG))
    assert [START + 7.5] == [event.at for event in store.events]


def test_lock_between_prompt_and_answer() -> None:
    """A lock that another session sets while the person types counts."""
    store = MemoryStore(alice=enrolled())
    running = attempt(make_request(), ROOT, ONE_PROMPT, store, Clock())
    assert [Ask, Listen] == [type(next(running)), type(next(running))]
    store.locks["alice"] = LOCKED
    need = running.send(NOW_CODE)
    assert isinstance(need, Commit)
    change = store.commit([need.claim])[0]
    assert (False, Reason.LOCKED) == (change.accepted, change.events[0].reason)


def test_same_code_in_two_sessions() -> None:
    """Of two sessions with the same code, one alone gets in."""
    store = MemoryStore(alice=enrolled())
    sessions = [attempt(make_request(), ROOT, ONE_PROMPT, store, Clock()) for _ in range(2)]
    claims = []
    for session in sessions:
        next(session)
        next(session)
        need = session.send(NOW_CODE)
        assert isinstance(need, Commit)
        claims.append(need.claim)
    assert [True, False] == [change.accepted for change in store.commit(claims)]


EIGHT = Parameters(digits=8)
EIGHT_CODE = code_of(SEED, STEP, EIGHT)
SCRATCH = "61024008"


def with_paper(*codes: str) -> Enrollment:
    """Return the enrollment of Alice: a device with eight digits, and codes on paper."""
    serial_number = "recovery/alice/1"
    moment = datetime.datetime.fromtimestamp(START, datetime.UTC)
    hashes = tuple(f"alice/{serial_number}/{code}" for code in codes)
    paper = RecoveryCodes(serial_number, "recovery", moment, hashes)
    return enrolled(open_device(parameters=EIGHT))._replace(paper=(paper,))


@pytest.mark.parametrize(("typed", "kind"), [(EIGHT_CODE, "virtual"), (SCRATCH, "recovery")])
def test_eight_digits(typed: str, kind: str) -> None:
    """Eight digits are a device's code or one on paper, whichever is right, and good once."""
    store = MemoryStore(alice=with_paper(SCRATCH))
    ends = [run_past_telling(store, typed) for _ in range(2)]
    assert [(Result.SUCCESS, Reason.CODE_ACCEPTED), (Result.DENIED, Reason.CODE_REUSED)] == ends
    device = store.events[0].device
    assert device is not None
    assert kind == device.type


def test_eight_digits_of_both() -> None:
    """Where a device's code is one on paper too, the login uses the device's, then the other."""
    store = MemoryStore(alice=with_paper(EIGHT_CODE))
    results = [run_past_telling(store, EIGHT_CODE)[0] for _ in range(3)]
    kinds = [event.device.type for event in store.events if event.device]
    assert [Result.SUCCESS, Result.SUCCESS, Result.DENIED] == results
    assert ["virtual", "recovery"] == kinds[:2]


def test_wrong_eight_digits() -> None:
    """Eight wrong digits are one wrong code, needed, recorded and counted like any other."""
    plain, paper = MemoryStore(alice=enrolled()), MemoryStore(alice=with_paper(SCRATCH))
    assert run(plain, "00000000") == run(paper, "00000000")
    assert plain.events == paper.events
    assert plain.locks == paper.locks
    assert 1 == len(paper.locks["alice"].failures)


def run_past_telling(store: MemoryStore, typed: str) -> tuple[Result, Reason | None]:
    """Run one attempt of Alice to its verdict, past what is told of codes that are left."""
    running = attempt(make_request(), ROOT, ONE_PROMPT, store, Clock())
    reply: object = None
    while True:
        try:
            need = running.send(reply)
        except StopIteration as end:
            return end.value.result, end.value.reason
        if isinstance(need, Commit):
            reply = store.commit([need.claim])[0]
        else:
            reply = typed if isinstance(need, Listen) else None
