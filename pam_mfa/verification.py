# SPDX-License-Identifier: Apache-2.0
"""One attempt at a login, from the request to the verdict.

Free of I/O style: an attempt is a generator that yields what it needs (``Ask``, ``Tell``,
``Listen``, ``Commit``) and is sent the answer, so the same steps are driven by asyncio in the
daemon and by blocking calls on demand. What has to be verified, ``policy`` decides; when a user
is locked, ``lockout`` does.
"""

import functools
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from pam_mfa import lockout
from pam_mfa.audit import DeviceField, Event, EventName, Outcome, Reason
from pam_mfa.devices import Device, PaperDevice, RecoveryCodes
from pam_mfa.factors import code
from pam_mfa.factors import paper as _paper
from pam_mfa.policy import Action, Mode, Policy, Unenrolled, asks_everyone, decide
from pam_mfa.store import Change, Claim, Enrollment, Known, OpenDevice, Standing, Store
from pam_mfa.wire import Request, Result

PROMPT = "Verification code: "
# What everybody is told after any code that was not right: a device that is out of step is
# resynchronized by two consecutive codes, and nobody else learns that it was.
NEXT_PROMPT = "Verification code (the next one that your device shows): "


class Caller(NamedTuple):
    """The process that asks, by the kernel's word (SO_PEERCRED)."""

    pid: int
    uid: int
    may_verify: bool  # root may verify anyone; another user only itself


class Ask(NamedTuple):
    """Needs a code asked for; the attempt goes on at once, while the person types."""

    text: str
    may_follow_password: bool = True  # whether forward_pass may split the answer


class Tell(NamedTuple):
    """Needs a message shown; the attempt goes on at once."""

    text: str


class Listen(NamedTuple):
    """Needs the answer; sent the text, or the Reason why there is none."""


class Commit(NamedTuple):
    """Needs a claim judged and made durable; sent the Change."""

    claim: Claim


class Verdict(NamedTuple):
    """How an attempt ended."""

    result: Result
    reason: Reason | None = None


Need = Ask | Tell | Listen | Commit
Attempt = Generator[Need, Any, Verdict]
Clock = Callable[[], float]  # seconds since the epoch


class _Scene(NamedTuple):
    """What stays the same throughout one attempt."""

    request: Request
    caller: Caller
    policy: Policy
    enrollment: Enrollment
    shown_user: str  # "" for a name that no account has
    pseudonym: str  # "" for a name that one has


class _Guess(NamedTuple):
    """One answer to the prompt."""

    is_empty: bool
    is_code: bool
    matches: tuple[code.Match, ...]
    at: float
    pair: tuple[str, str] | None  # this answer and the one before it, where neither is right
    devices: tuple[OpenDevice, ...]
    can_be_right: bool  # whether the user has a device of a type that policy accepts


def attempt(
    request: Request, caller: Caller, policy: Policy, store: Store, clock: Clock
) -> Attempt:
    """Verify one login.

    Raises:
        BrokenSystemError: state or records cannot be made durable, so no success may be told.
    """
    decision = decide(policy, request.phase)
    if decision.action is Action.NOTHING:
        return Verdict(Result.IGNORE)
    # The prompt goes out before anything of the user is looked up: it cannot tell who is
    # enrolled, not by its time either, and the look-up costs nobody any waiting.
    is_asked_first = caller.may_verify and asks_everyone(policy)
    if is_asked_first:
        yield Ask(PROMPT)
    scene = _set_scene(request, caller, policy, store)
    if not is_asked_first:
        if not caller.may_verify:
            return (yield from _record(scene, clock, Reason.CALLER_NOT_ALLOWED, Result.DENIED))
        if scene.enrollment.standing is Standing.NOT_ENROLLED:
            return (yield from _pass_unenrolled(scene, clock))
        yield Ask(PROMPT)
    verdict = yield from _verify_code(scene, decision.devices, store, clock)
    if verdict.result is Result.DENIED and policy.mode is Mode.REPORT_ONLY:
        return Verdict(Result.IGNORE, verdict.reason)
    return verdict


def _pass_unenrolled(scene: _Scene, clock: Clock) -> Attempt:
    """Let a user without devices by, where policy says so in so many words."""
    if scene.policy.unenrolled is Unenrolled.ALLOW:
        return (yield from _record(scene, clock, Reason.UNENROLLED_ALLOWED, Result.IGNORE))
    if scene.policy.unenrolled is Unenrolled.ENROLL and scene.policy.mode is Mode.ENFORCE:
        # Whoever has an account enrolls in the account phase; nobody else gets that far.
        result = Result.DENIED if scene.request.uid is None else Result.IGNORE
        return (yield from _record(scene, clock, Reason.ENROLLMENT_DUE, result))
    return (yield from _record(scene, clock, Reason.NOT_ENROLLED, Result.IGNORE))


def _set_scene(request: Request, caller: Caller, policy: Policy, store: Store) -> _Scene:
    enrollment = store.read_enrollment(request.user)
    is_known = request.uid is not None or enrollment.standing is not Standing.NOT_ENROLLED
    return _Scene(
        request=request,
        caller=caller,
        policy=policy,
        enrollment=enrollment,
        shown_user=request.user if is_known else "",
        pseudonym="" if is_known else store.pseudonym(request.user),
    )


def _verify_code(scene: _Scene, types: tuple[str, ...], store: Store, clock: Clock) -> Attempt:
    """Judge and record answers to the prompt, which is out already, as often as policy allows."""
    usable = tuple(each for each in scene.enrollment.devices if each.device.type in types)
    paper = [one for one in scene.enrollment.paper if one.type in (*types, "bypass")]
    serial_numbers = tuple(each.device.serial_number for each in usable)
    policy, reason, before = scene.policy, Reason.NO_CONVERSATION, ""
    for prompt in range(policy.prompts):
        if prompt:
            yield Ask(NEXT_PROMPT)
        expected = code.expect_codes(usable, clock(), policy.window, policy.look_ahead)
        answer = yield Listen()
        if isinstance(answer, Reason):
            return (yield from _record(scene, clock, answer, Result.DENIED))
        now = clock()
        if code.moment_of(usable, now) != expected.moment:
            expected = code.expect_codes(usable, now, policy.window, policy.look_ahead)
        typed, typed_paper = code.parse_answer(answer), _paper.parse_answer(answer)
        matches = code.find_matches(typed, expected)
        if typed_paper:
            hash_code = functools.partial(_hash_code, store, scene.request.user)
            matches = _paper.find_matches(typed_paper, paper, now, hash_code)
        pair = (before, typed) if before and typed and not matches else None
        before = typed
        guess = _Guess(
            not answer.strip(),
            bool(typed or typed_paper),
            matches,
            now,
            pair,
            usable,
            bool(usable or paper),
        )
        judge = functools.partial(_judge, scene, guess)
        keys = (*serial_numbers, *(match.key for match in matches))
        change = yield Commit(Claim(scene.enrollment.user_key, keys, judge))
        reason = change.events[0].reason
        if change.accepted:
            yield from _tell_what_is_left(change, paper, store)
            return Verdict(Result.SUCCESS, reason)
    return Verdict(Result.DENIED, reason)


def _hash_code(store: Store, user: str, typed: str, serial_number: str) -> str:
    return store.code_hash(typed, user, serial_number)


def _tell_what_is_left(
    change: Change, paper: list[PaperDevice], store: Store
) -> Generator[Need, Any, None]:
    """Warn who has used a recovery code, and say what to do after the last one."""
    used = change.events[0].device
    codes = next((one for one in paper if used and one.serial_number == used.serial_number), None)
    if not isinstance(codes, RecoveryCodes):
        return
    keys = _paper.used_keys(codes)
    left = len(keys) - len(store.read_devices(keys))
    if left:
        yield Tell(f"A recovery code was used; {left} of {len(keys)} are left.")
    else:
        yield Tell(
            "That was your last recovery code. Ask your administrator for a new set "
            "(pam-mfa enable recovery), or enable another MFA device."
        )


def _judge(scene: _Scene, guess: _Guess, known: Known) -> Change:
    """Judge one guess inside the store's transaction.

    Every refusal writes the lock's row and one record, so that none is faster than another.
    """
    if lockout.is_locked(known.lock, guess.at):
        reason = _not_enrolled(scene) or Reason.LOCKED
        return _refuse(scene, guess, reason, known.lock)
    if guess.pair is not None:
        # Thousands of codes: looked for by whoever is not locked, enrolled or not, so neither the
        # time taken tells who is, nor can guessing keep the verifier busy.
        found = code.find_pair(guess.pair, guess.devices, guess.at)
        guess = guess._replace(matches=found)
    reason_against = _not_enrolled(scene)
    if reason_against is not None:
        lock = lockout.register_failure(known.lock, scene.policy.lockout, guess.at)
        return _refuse(scene, guess, reason_against, lock)
    return _judge_enrolled(scene, guess, known)


def _judge_enrolled(scene: _Scene, guess: _Guess, known: Known) -> Change:
    if not guess.can_be_right:  # so it is no guess, and locks nobody
        return _refuse(scene, guess, Reason.NO_ACCEPTABLE_DEVICE, known.lock)
    if guess.is_empty:
        return _refuse(scene, guess, Reason.EMPTY_ANSWER, known.lock)
    if not guess.matches:
        return _count_failure(scene, guess, known)
    fresh = code.find_fresh(guess.matches, known.used_steps)
    if fresh is None:  # a right code sent twice is no guess, so it is not counted as one
        return _refuse(scene, guess, Reason.CODE_REUSED, known.lock, guess.matches[0].device)
    return _accept(scene, guess, fresh, known)


def _not_enrolled(scene: _Scene) -> Reason | None:
    if scene.enrollment.standing is Standing.NOT_ENROLLED:
        return Reason.NOT_ENROLLED
    if scene.enrollment.standing is Standing.UNREADABLE:
        return Reason.DEVICES_UNREADABLE
    return None


def _accept(scene: _Scene, guess: _Guess, fresh: code.Match, known: Known) -> Change:
    event = _event(scene, guess.at, Outcome.SUCCESS, Reason.CODE_ACCEPTED, fresh.device)
    forgiven = None if known.lock == lockout.LockState() else lockout.LockState()
    change = Change(
        accepted=True,
        events=(event,),
        lock=forgiven,
        used_steps={fresh.key: fresh.step},
        used_at=guess.at,
    )
    if guess.pair is None:
        return change
    mended = event._replace(name=EventName.RESYNC_MFA_DEVICE, reason=Reason.RESYNCHRONIZED)
    drifts = {} if fresh.drift is None else {fresh.key: fresh.drift}
    return change._replace(events=(event, mended), drifts=drifts)


def _count_failure(scene: _Scene, guess: _Guess, known: Known) -> Change:
    reason = Reason.WRONG_CODE if guess.is_code else Reason.MALFORMED_CODE
    lock = lockout.register_failure(known.lock, scene.policy.lockout, guess.at)
    change = _refuse(scene, guess, reason, lock)
    if not lockout.is_locked(lock, guess.at):
        return change
    event = _event(scene, guess.at, Outcome.SUCCESS, Reason.TOO_MANY_FAILURES)
    return change._replace(events=(*change.events, event._replace(name=EventName.LOCK_USER)))


def _refuse(
    scene: _Scene,
    guess: _Guess,
    reason: Reason,
    lock: lockout.LockState,
    device: Device | None = None,
) -> Change:
    is_broken = reason is Reason.DEVICES_UNREADABLE
    outcome = Outcome.ERROR if is_broken else Outcome.DENIED
    event = _event(scene, guess.at, outcome, reason, device)
    return Change(accepted=False, events=(event,), lock=lock)


def _record(scene: _Scene, clock: Clock, reason: Reason, result: Result) -> Attempt:
    """Record an end that no code led to, and return its verdict."""
    is_skip = reason in (Reason.UNENROLLED_ALLOWED, Reason.ENROLLMENT_DUE)
    event = _event(scene, clock(), Outcome.SUCCESS if is_skip else Outcome.DENIED, reason)
    if is_skip:
        event = event._replace(name=EventName.SKIP_MFA)
    change = Change(accepted=False, events=(event,))
    yield Commit(Claim(scene.enrollment.user_key, (), lambda _: change))
    return Verdict(result, reason)


def _event(
    scene: _Scene, now: float, outcome: Outcome, reason: Reason, device: Device | None = None
) -> Event:
    request = scene.request
    return Event(
        name=EventName.VERIFY_MFA,
        outcome=outcome,
        reason=reason,
        at=now,
        user=scene.shown_user,
        unknown_user=scene.pseudonym,
        service=request.service,
        phase=request.phase.name.lower(),
        tty=request.tty,
        rhost=request.rhost,
        ruser=request.ruser,
        device=DeviceField(device.serial_number, device.type, device.name) if device else None,
        mode=scene.policy.mode.value,
        caller_uid=scene.caller.uid,
        caller_pid=scene.caller.pid,
        detail=scene.enrollment.problem,
    )
