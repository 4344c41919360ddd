# SPDX-License-Identifier: Apache-2.0
"""Proof by an attached security key: found, touched, its PIN asked for, its answer judged.

Whatever a key does, a login goes on to a code: a key that hangs, lies or is pulled out must not
keep its owner out. Each end is recorded.
"""

import functools
import threading
from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

from pam_mfa import lockout
from pam_mfa.audit import Event, Outcome, Reason
from pam_mfa.devices import FidoDevice
from pam_mfa.factors.security_key import (
    CHALLENGE_BYTES,
    Ceremony,
    Proof,
    UnprovenError,
    client_data_hash,
    is_possible_clone,
    is_shown,
    verify_assertion,
)
from pam_mfa.hardware.keys import (
    Credential,
    End,
    Holder,
    Keys,
    Method,
    Sight,
    Touch,
    Touched,
    Untouched,
)
from pam_mfa.policy import SignCount, UserVerification
from pam_mfa.store import Change, Claim, Known
from pam_mfa.verification.key_words import describe_attempts, describe_end
from pam_mfa.verification.needs import (
    Ask,
    Clock,
    Commit,
    Listen,
    Machine,
    Need,
    Tell,
    Verdict,
    Work,
)
from pam_mfa.verification.scene import Scene, make_event, refuse, refuse_key
from pam_mfa.wire import Result

KEY_OR_CODE_PROMPT: Final = "Verification code, or attach your security key and press Enter: "
CODE_PROMPT: Final = "Verification code: "
_PIN_TRIES: Final = 3
_PIN_SHORTEST, _PIN_LONGEST = 4, 63  # characters, bytes: CTAP 2.1, section 6.5.1
_Result = TypeVar("_Result")
_Steps = Generator[Need, Any, Verdict | None]
_REASONS: Final = {
    End.TIMED_OUT: Reason.KEY_TIMED_OUT,
    End.CANCELED: Reason.ABANDONED,
    End.WRONG_PIN: Reason.KEY_PIN_REFUSED,
    End.PIN_LOCKED_UNTIL_REPLUGGED: Reason.KEY_PIN_REFUSED,
    End.PIN_BLOCKED: Reason.KEY_PIN_REFUSED,
    End.NO_PIN: Reason.KEY_PIN_REFUSED,
    End.NOT_VERIFIED: Reason.KEY_PIN_REFUSED,
}


class Touching:
    """One attempt's security keys."""

    def __init__(self, scene: Scene, machine: Machine, clock: Clock) -> None:
        """Take who is to be verified, and where."""
        self._scene = scene
        self._machine = machine
        self._clock = clock
        self._devices = {
            Credential(one.credential_id, one.rp_id): one for one in scene.enrollment.security_keys
        }

    def begin(self) -> _Steps:
        """Have an attached key touched; where none is, wait for one or ask for a code.

        Returns:
            The success; or None when the prompt for a code is out.
        """
        sight = yield from self._look()
        has_code = bool(self._scene.enrollment.devices or self._scene.enrollment.paper)
        if not sight.holders:
            yield from self._tell_problems(sight)
            if has_code:
                yield Ask(KEY_OR_CODE_PROMPT)
                return None
            sight = yield from self._wait()
        verdict = yield from self._touch(sight)
        if verdict is None:
            yield Ask(CODE_PROMPT)
        return verdict

    def on_enter(self) -> _Steps:
        """Look again, when Enter was pressed in the place of a code."""
        sight = yield from self._look()
        if not sight.holders:
            sight = yield from self._wait()
        return (yield from self._touch(sight))

    def _work(
        self, do: Callable[[Keys, threading.Event], _Result], failed: Callable[[str], _Result]
    ) -> Generator[Need, Any, _Result]:
        """Have something done with the keys; a fault in it keeps nobody from a code.

        The libraries are loaded there, too: one that is missing is such a fault.
        """

        def run(canceled: threading.Event) -> _Result:
            try:
                return do(self._machine.keys(), canceled)
            except Exception as error:  # noqa: BLE001 - whatever it is; its text may quote a PIN
                return failed(f"security keys cannot be used now ({type(error).__name__})")

        result: _Result = yield Work(run)
        return result

    def _look(self) -> Generator[Need, Any, Sight]:
        credentials = tuple(self._devices)
        sight = yield from self._work(lambda keys, stop: keys.look(credentials, stop), _no_sight)
        return self._believe(sight)

    def _wait(self) -> Generator[Need, Any, Sight]:
        names = ", ".join(one.name for one in self._devices.values())
        credentials, seconds = tuple(self._devices), self._scene.policy.fido.insert
        yield Tell(f"Attach your security key ({names}) within {seconds:.0f} seconds.")
        sight = yield from self._work(
            lambda keys, stop: keys.wait(credentials, seconds, stop), _no_sight
        )
        return self._believe(sight)

    def _believe(self, sight: Sight) -> Sight:
        """Leave out what says that it holds a credential and does not show it."""
        holders, problems = [], list(sight.problems)
        for one in sight.holders:
            if one.showing is None or is_shown(self._device(one), one.showing):
                holders.append(one)
            else:
                name = one.key.name or one.key.path
                problems.append(f"{name} does not show that it is {self._names((one,))}")
        return Sight(tuple(holders), sight.attached, tuple(problems))

    def _touch(self, sight: Sight) -> _Steps:
        """Have one of the keys in sight touched; return the success or None."""
        if not sight.holders:
            yield from self._tell_problems(sight)
            if not sight.problems:
                yield from self._record(Reason.KEY_ABSENT)
                yield Tell("None of your security keys is attached to this machine.")
            return None
        holders, requirement = sight.holders, self._requirement(sight.holders)
        if requirement is not UserVerification.DISCOURAGED and len(holders) > 1:
            yield Tell(f"Touch the security key to use ({self._names(holders)}).")
            chosen = yield from self._select(holders)
            if isinstance(chosen, Untouched):
                return (yield from self._end(holders, chosen))
            holders, requirement = (chosen,), self._requirement((chosen,))
        if requirement is UserVerification.DISCOURAGED:
            return (yield from self._sign(holders, Method.NONE))
        return (yield from self._verify_user(holders[0], requirement))

    def _select(self, holders: tuple[Holder, ...]) -> Generator[Need, Any, Holder | Untouched]:
        seconds = self._scene.policy.fido.touch

        def select(keys: Keys, canceled: threading.Event) -> Holder | Untouched:
            chosen = keys.select(holders, seconds, canceled)
            return chosen or Untouched(End.CANCELED if canceled.is_set() else End.TIMED_OUT)

        return (yield from self._work(select, _untouched))

    def _tell_problems(self, sight: Sight) -> Generator[Need, Any, None]:
        """Record and say what kept attached keys from being asked."""
        for problem in sight.problems:
            yield from self._record(Reason.KEY_UNUSABLE, detail=problem)
            yield Tell(f"{problem[:1].upper()}{problem[1:]}.")

    def _verify_user(self, holder: Holder, requirement: UserVerification) -> _Steps:
        """Have a key verify who touches it: by itself where it can, else by its PIN."""
        name = self._names((holder,))
        if holder.has_built_in_uv:
            ceremony, outcome = yield from self._ask_key((holder,), Method.BUILT_IN)
            if isinstance(outcome, Touched):
                return (yield from self._judge(ceremony, outcome, must_verify_user=True))
            if outcome.end is not End.NOT_VERIFIED or not holder.has_pin:
                return (yield from self._end((holder,), outcome))
            yield Tell(f"Your security key ({name}) did not recognize you.")
        if holder.has_pin:
            return (yield from self._ask_pin(holder))
        if requirement is UserVerification.REQUIRED:
            yield from self._record(Reason.KEY_PIN_REFUSED, self._device(holder), End.NO_PIN)
            yield Tell(
                f"Your security key ({name}) has no PIN, and one is required here. "
                "Set one with: fido2-token -S DEVICE"
            )
            return None
        return (yield from self._sign((holder,), Method.NONE))

    def _ask_pin(self, holder: Holder) -> _Steps:
        name = self._names((holder,))
        for _ in range(_PIN_TRIES):
            yield Ask(f"PIN of your security key ({name}): ", may_follow_password=False)
            pin = yield Listen()
            if isinstance(pin, Reason):
                yield from self._record(pin, self._device(holder))
                return Verdict(Result.DENIED, pin)
            if not pin:  # CVE-2021-31924: nothing typed is no PIN, and never goes without one
                yield Tell("The PIN is empty, so it was not tried.")
                continue
            if not _can_be_pin(pin):
                yield Tell("That cannot be a PIN, so it was not tried.")
                continue
            ceremony, outcome = yield from self._ask_key((holder,), Method.PIN, pin)
            if isinstance(outcome, Touched):
                return (yield from self._judge(ceremony, outcome, must_verify_user=True))
            if outcome.end is not End.WRONG_PIN:
                return (yield from self._end((holder,), outcome))
            yield Tell(f"Wrong PIN of your security key ({name}); {describe_attempts(outcome)}.")
        yield from self._record(Reason.KEY_PIN_REFUSED, self._device(holder), End.WRONG_PIN)
        return None

    def _sign(self, holders: tuple[Holder, ...], method: Method) -> _Steps:
        ceremony, outcome = yield from self._ask_key(holders, method)
        if isinstance(outcome, Untouched):
            return (yield from self._end(holders, outcome))
        return (yield from self._judge(ceremony, outcome, must_verify_user=False))

    def _ask_key(
        self, holders: tuple[Holder, ...], method: Method, pin: str = ""
    ) -> Generator[Need, Any, tuple[Ceremony, Touched | Untouched]]:
        """Ask for a touch over a fresh challenge."""
        yield Tell(f"Touch your security key ({self._names(holders)}).")
        request = self._scene.request
        ceremony = Ceremony(
            self._machine.random(CHALLENGE_BYTES), self._machine.host, request.service, request.user
        )
        seconds = self._scene.policy.fido.touch
        touch = Touch(holders, client_data_hash(ceremony), method, pin, seconds)
        outcome = yield from self._work(lambda keys, stop: keys.touch(touch, stop), _untouched)
        return ceremony, outcome

    def _judge(self, ceremony: Ceremony, touched: Touched, *, must_verify_user: bool) -> _Steps:
        """Judge what a key signed, and make that durable."""
        device = self._device(touched.holder)
        try:
            proof = verify_assertion(
                device, touched.assertion, ceremony, must_verify_user=must_verify_user
            )
        except UnprovenError as error:
            # Before it is told: who hangs up at once is recorded, too.
            yield from self._record(Reason.UNPROVEN_ASSERTION, device, str(error))
            yield Tell(f"The answer of your security key ({device.name}) was refused.")
            return None
        judge = functools.partial(self._weigh, device, proof)
        claim = Claim(self._scene.enrollment.user_key, (device.serial_number,), judge)
        change: Change = yield Commit(claim)
        if change.accepted:
            return Verdict(Result.SUCCESS, Reason.TOUCH_ACCEPTED)
        if change.events[0].reason is Reason.POSSIBLE_CLONE:
            yield Tell(
                f"Your security key ({device.name}) was refused: its counter went back, so there "
                "may be a copy of it. Tell your administrator."
            )
        return None

    def _weigh(self, device: FidoDevice, proof: Proof, known: Known) -> Change:
        """Judge inside the store's transaction: the lock, and the sign count."""
        now, serial_number = self._clock(), device.serial_number
        if (refusal := refuse_key(self._scene, now, known, device)) is not None:
            return refusal
        went_back = is_possible_clone(known.used_steps.get(serial_number, -1), proof.sign_count)
        if went_back and self._scene.policy.fido.sign_count is SignCount.REFUSE:
            change = refuse(self._scene, now, Reason.POSSIBLE_CLONE, known.lock, device)
            return change._replace(events=(_counted(change.events[0], proof),))
        event = make_event(self._scene, now, Outcome.SUCCESS, Reason.TOUCH_ACCEPTED, device)
        events: tuple[Event, ...] = (_counted(event, proof),)
        if went_back:
            events = (*events, events[0]._replace(reason=Reason.POSSIBLE_CLONE))
        return Change(
            accepted=True,
            events=events,
            lock=None if known.lock == lockout.LockState() else lockout.LockState(),
            used_steps={serial_number: proof.sign_count},
            used_at=now,
        )

    def _end(self, holders: tuple[Holder, ...], outcome: Untouched) -> _Steps:
        """Record and say why there is no assertion."""
        device = self._device(holders[0]) if len(holders) == 1 else None
        detail = f"{outcome.end}: {outcome.detail}" if outcome.detail else str(outcome.end)
        reason = _REASONS.get(outcome.end, Reason.KEY_UNUSABLE)
        yield from self._record(reason, device, detail)
        yield Tell(describe_end(self._names(holders), outcome))
        return None

    def _record(
        self, reason: Reason, device: FidoDevice | None = None, detail: str = ""
    ) -> Generator[Need, Any, None]:
        event = make_event(self._scene, self._clock(), Outcome.DENIED, reason, device)
        change = Change(accepted=False, events=(event._replace(detail=detail or event.detail),))
        yield Commit(Claim(self._scene.enrollment.user_key, (), lambda _: change))

    def _requirement(self, holders: tuple[Holder, ...]) -> UserVerification:
        required = UserVerification.REQUIRED
        if any(holder.is_always_uv or self._device(holder).user_verification for holder in holders):
            return required
        return self._scene.policy.fido.user_verification

    def _device(self, holder: Holder) -> FidoDevice:
        return self._devices[holder.credential]

    def _names(self, holders: tuple[Holder, ...]) -> str:
        return " or ".join(dict.fromkeys(self._device(holder).name for holder in holders))


def _no_sight(problem: str) -> Sight:
    return Sight(problems=(problem,))


def _untouched(problem: str) -> Untouched:
    return Untouched(End.FAULTY, detail=problem)


def _can_be_pin(text: str) -> bool:
    """Whether a key could have this PIN (CTAP 2.1, section 6.5.1); else it costs no try."""
    is_utf8 = not any("\ud800" <= character <= "\udfff" for character in text)
    return is_utf8 and len(text) >= _PIN_SHORTEST and len(text.encode()) <= _PIN_LONGEST


def _counted(event: Event, proof: Proof) -> Event:
    detail = "user verified by the key" if proof.is_user_verified else event.detail
    return event._replace(sign_count=proof.sign_count, detail=detail)
