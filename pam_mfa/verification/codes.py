# SPDX-License-Identifier: Apache-2.0
"""Proof by a typed code, of a device or on paper: asked for, judged and recorded.

A guess is judged inside the store's transaction, so that neither a code nor a guess is good twice.
"""

import functools
from collections.abc import Generator
from typing import Any, NamedTuple, Protocol

from pam_mfa import lockout
from pam_mfa.audit import EventName, Outcome, Reason
from pam_mfa.devices import PaperDevice, RecoveryCodes
from pam_mfa.factors import code
from pam_mfa.factors import paper as _paper
from pam_mfa.store import Change, Claim, Known, OpenDevice, Store
from pam_mfa.verification.needs import (
    Ask,
    Attempt,
    Clock,
    Commit,
    Listen,
    Need,
    Tell,
    Verdict,
)
from pam_mfa.verification.rules import find_hindrance, is_acceptable
from pam_mfa.verification.scene import Scene, look, make_event, record, refuse
from pam_mfa.wire import Result

# What everybody is told after any code that was not right: a device that is out of step is
# resynchronized by two consecutive codes, and nobody else learns that it was.
NEXT_PROMPT = "Verification code (the next one that your device shows): "


class Instead(Protocol):
    """Something that can be done in the place of typing a code."""

    def on_enter(self) -> Generator[Need, Any, Verdict | None]:
        """Do it, when Enter alone was pressed; return the success, or None to go on."""


class _Guess(NamedTuple):
    """One answer to the prompt."""

    is_empty: bool
    is_code: bool
    matches: tuple[code.Match, ...]
    at: float
    pair: tuple[str, str] | None  # this answer and the one before it, where neither is right
    devices: tuple[OpenDevice, ...]
    can_be_right: bool  # whether the user has a device of a type that policy accepts


def verify_code(
    scene: Scene,
    types: tuple[str, ...],
    store: Store,
    clock: Clock,
    instead: Instead | None = None,
) -> Attempt:
    """Judge and record answers to the prompt, which is out already, as often as policy allows."""
    enrollment = scene.enrollment
    usable = tuple(each for each in enrollment.devices if is_acceptable(each.device, types))
    paper = [one for one in enrollment.paper if is_acceptable(one, types)]
    serial_numbers = tuple(each.device.serial_number for each in usable)
    policy, reason, before = scene.policy, Reason.NO_CONVERSATION, ""
    for prompt in range(policy.prompts):
        if prompt:
            yield Ask(NEXT_PROMPT)
        expected = code.expect_codes(usable, clock(), policy.window, policy.look_ahead)
        answer = yield Listen()
        if isinstance(answer, Reason):
            return (yield from record(scene, clock, answer, Result.DENIED))
        if instead is not None and not answer.strip():
            verdict = yield from instead.on_enter()
            if verdict is not None:
                return verdict
            continue
        now = clock()
        if code.moment_of(usable, now) != expected.moment:
            expected = code.expect_codes(usable, now, policy.window, policy.look_ahead)
        typed, typed_paper = code.parse_answer(answer), _paper.parse_answer(answer)
        matches = code.find_matches(typed, expected)
        if typed_paper:
            hash_code = functools.partial(_hash_code, store, scene.request.user)
            matches += _paper.find_matches(typed_paper, paper, now, hash_code)
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
        keys = tuple(dict.fromkeys((*serial_numbers, *(match.key for match in matches))))
        change = yield Commit(Claim(enrollment.user_key, keys, judge))
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
    used_up = yield from look(store, lambda: store.read_devices(keys))
    left = len(keys) - len(used_up)
    if left:
        yield Tell(f"A recovery code was used; {left} of {len(keys)} are left.")
    else:
        yield Tell(
            "That was your last recovery code. Ask your administrator for a new set "
            "(pam-mfa enable recovery), or enable another MFA device."
        )


def _judge(scene: Scene, guess: _Guess, known: Known) -> Change:
    """Judge one guess inside the store's transaction.

    Every refusal writes the lock's row and one record, so that none is faster than another.
    """
    is_locked = lockout.is_locked(known.lock, guess.at)
    hindrance = find_hindrance(
        scene.enrollment.standing, is_locked=is_locked, can_be_right=guess.can_be_right
    )
    if guess.pair is not None and not is_locked:
        # Thousands of codes: looked for by whoever is not locked, enrolled or not, so neither the
        # time taken tells who is, nor can guessing keep the verifier busy.
        found = code.find_pair(guess.pair, guess.devices, guess.at)
        guess = guess._replace(matches=found)
    if hindrance is None:
        return _judge_enrolled(scene, guess, known)
    lock = known.lock
    # Where no device is acceptable it is no guess, and locks nobody.
    if not is_locked and hindrance is not Reason.NO_ACCEPTABLE_DEVICE:
        lock = lockout.register_failure(known.lock, scene.policy.lockout, guess.at)
    return refuse(scene, guess.at, hindrance, lock)


def _judge_enrolled(scene: Scene, guess: _Guess, known: Known) -> Change:
    if guess.is_empty:
        return refuse(scene, guess.at, Reason.EMPTY_ANSWER, known.lock)
    if not guess.matches:
        return _count_failure(scene, guess, known)
    fresh = code.find_fresh(guess.matches, known.used_steps)
    if fresh is None:  # a right code sent twice is no guess, so it is not counted as one
        return refuse(scene, guess.at, Reason.CODE_REUSED, known.lock, guess.matches[0].device)
    if not scene.has_device(fresh.device):  # taken away while its thief was at the prompt
        return refuse(scene, guess.at, Reason.DEVICES_CHANGED, known.lock, fresh.device)
    return _accept(scene, guess, fresh, known)


def _accept(scene: Scene, guess: _Guess, fresh: code.Match, known: Known) -> Change:
    event = make_event(scene, guess.at, Outcome.SUCCESS, Reason.CODE_ACCEPTED, fresh.device)
    event = event._replace(used_step=code.noted_step(fresh))
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


def _count_failure(scene: Scene, guess: _Guess, known: Known) -> Change:
    reason = Reason.WRONG_CODE if guess.is_code else Reason.MALFORMED_CODE
    lock = lockout.register_failure(known.lock, scene.policy.lockout, guess.at)
    change = refuse(scene, guess.at, reason, lock)
    if not lockout.is_locked(lock, guess.at):
        return change
    event = make_event(scene, guess.at, Outcome.SUCCESS, Reason.TOO_MANY_FAILURES)
    return change._replace(events=(*change.events, event._replace(name=EventName.LOCK_USER)))
