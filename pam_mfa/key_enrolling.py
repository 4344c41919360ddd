# SPDX-License-Identifier: Apache-2.0
"""Enabling a security key in a dialogue: found, chosen, its PIN asked for, touched twice.

Written like an attempt, a generator that yields what it needs, so that root's terminal and
self-service share it. What a key answers, ``lifecycle`` judges.
"""

import functools
from collections.abc import Generator
from typing import Any, Final

from pam_mfa.audit import Reason
from pam_mfa.devices import FidoDevice
from pam_mfa.errors import PamMfaError, RefusedError
from pam_mfa.factors.attestation import NEW_ALGORITHMS
from pam_mfa.factors.security_key import RP_ID, client_data_hash, user_handle
from pam_mfa.hardware.keys import (
    Credential,
    End,
    Holder,
    KeyReport,
    Keys,
    Made,
    Method,
    NewCredential,
    Registrar,
    Touch,
    Touched,
    Untouched,
)
from pam_mfa.lifecycle import Lifecycle, PendingKey
from pam_mfa.policy import UserVerification
from pam_mfa.verification import Ask, Listen, Need, Tell, Work
from pam_mfa.verification.key_words import describe_attempts, describe_end

_PIN_TRIES: Final = 3
_NOTHING: Final = "nothing was enabled"
_Steps = Generator[Need, Any, FidoDevice]


def enable_key(
    lifecycle: Lifecycle, pending: PendingKey, registrar: Registrar, keys: Keys
) -> _Steps:
    """Enable an attached key for a user; return the device.

    Raises:
        RefusedError: there is no key, nobody touched it, or it is not acceptable.
        SecurityKeyError: the keys that are here cannot be used.
        BrokenSystemError: the device could not be stored.
    """
    return (yield from _Enrolling(lifecycle, pending, registrar, keys).run())


class _Enrolling:
    """One key on its way to one user."""

    def __init__(
        self, lifecycle: Lifecycle, pending: PendingKey, registrar: Registrar, keys: Keys
    ) -> None:
        self._lifecycle = lifecycle
        self._pending = pending
        self._registrar = registrar
        self._keys = keys
        self._pin = ""

    def run(self) -> _Steps:
        report = yield from self._find()
        made = yield from self._make(report)
        pending = self._lifecycle.accept_registration(self._pending, made, report.key.name)
        assert pending.device is not None  # noqa: S101 - it was accepted
        yield Tell("Touch it once more, to prove that it works.")
        method = self._method(report, is_new=False)
        touch = Touch(
            holders=(_holder(report, pending.device),),
            client_data_hash=client_data_hash(pending.proof),
            method=Method.PIN if self._pin and method is not Method.NONE else method,
            pin=self._pin,
            seconds=pending.fido.touch,
        )
        outcome = yield Work(functools.partial(self._keys.touch, touch))
        if not isinstance(outcome, Touched):
            raise self._error(report, outcome)
        return self._lifecycle.enable_fido(pending, outcome.assertion)

    def _find(self) -> Generator[Need, Any, KeyReport]:
        """Return the one key that is here, or the one of several that is touched."""
        reports = yield Work(functools.partial(self._registrar.examine, ()))
        if not reports:
            seconds = self._pending.fido.insert
            yield Tell(f"Attach the security key within {seconds:.0f} seconds.")
            reports = yield Work(lambda canceled: self._registrar.wait(seconds, canceled))
        usable: list[KeyReport] = [one for one in reports if not one.problem]
        if not usable:
            raise _unusable_error(reports)
        for one in reports:
            if one.problem:
                yield Tell(f"{_capital(str(one.problem))}. {one.problem.hint}".rstrip())
        if len(usable) == 1:
            return usable[0]
        yield Tell("Several security keys are attached: touch the one to enable.")
        touch = self._pending.fido.touch
        chosen = yield Work(lambda canceled: self._registrar.choose(usable, touch, canceled))
        if not isinstance(chosen, KeyReport):
            raise RefusedError(f"no security key was touched in time; {_NOTHING}")
        return chosen

    def _make(self, report: KeyReport) -> Generator[Need, Any, Made]:
        """Have the key make a credential, its user verified where that is wanted."""
        method = self._method(report, is_new=True)
        if method is Method.PIN:
            return (yield from self._make_by_pin(report))
        outcome = yield from self._ask_key(report, method)
        if isinstance(outcome, Made):
            return outcome
        if outcome.end is End.NOT_VERIFIED and method is Method.BUILT_IN and report.has_pin:
            yield Tell(describe_end(_name(report), outcome))
            return (yield from self._make_by_pin(report))
        raise self._error(report, outcome)

    def _make_by_pin(self, report: KeyReport) -> Generator[Need, Any, Made]:
        name, outcome = _name(report), Untouched(End.WRONG_PIN)
        for _ in range(_PIN_TRIES):
            yield Ask(f"PIN of the security key ({name}): ", may_follow_password=False)
            pin = yield Listen()
            if isinstance(pin, Reason):
                raise RefusedError(f"there was no answer; {_NOTHING}")
            if not pin:  # CVE-2021-31924: nothing typed is no PIN, and never goes without one
                yield Tell("The PIN is empty, so it was not tried.")
                continue
            answer = yield from self._ask_key(report, Method.PIN, pin)
            if isinstance(answer, Made):
                self._pin = pin
                return answer
            outcome = answer
            if outcome.end is not End.WRONG_PIN:
                break
            yield Tell(f"Wrong PIN of the security key ({name}); {describe_attempts(outcome)}.")
        raise self._error(report, outcome)

    def _ask_key(
        self, report: KeyReport, method: Method, pin: str = ""
    ) -> Generator[Need, Any, Made | Untouched]:
        pending = self._pending
        yield Tell(f"Touch the security key ({_name(report)}) to enable it for {pending.user}.")
        wanted = NewCredential(
            report=report,
            client_data_hash=client_data_hash(pending.creation, "webauthn.create"),
            rp_id=RP_ID,
            user_handle=user_handle(pending.user),
            user=pending.user,
            algorithms=NEW_ALGORITHMS,
            excluded=pending.own,
            method=method,
            pin=pin,
            is_discoverable=pending.wish.is_discoverable,
            seconds=pending.fido.touch,
        )
        outcome: Made | Untouched = yield Work(functools.partial(self._registrar.make, wanted))
        return outcome

    def _method(self, report: KeyReport, *, is_new: bool) -> Method:
        """Return how the key is to verify its user.

        Raises:
            RefusedError: it must and cannot.
        """
        can = report.has_pin or report.has_built_in_uv
        pending = self._pending
        must = pending.must_verify_user or report.is_always_uv
        if is_new:
            must |= report.must_verify_user or (can and pending.wish.is_discoverable)
        if is_new and pending.wish.is_discoverable and not report.can_be_discoverable:
            raise RefusedError(
                f"the security key ({_name(report)}) cannot keep discoverable credentials",
                hint="Leave --discoverable out; pam-mfa needs none.",
            )
        if must and not can:
            raise RefusedError(
                f"the security key ({_name(report)}) has no PIN, and one is required; {_NOTHING}",
                hint=f"Set one with: fido2-token -S {report.key.path}"
                if report.is_ctap2
                else "It is a U2F key, which can have none: use another one.",
            )
        is_preferred = pending.fido.user_verification is UserVerification.PREFERRED
        if not (must or (can and is_preferred)):
            return Method.NONE
        return Method.BUILT_IN if report.has_built_in_uv else Method.PIN

    def _error(self, report: KeyReport, outcome: Untouched) -> RefusedError:
        name, user = _name(report), self._pending.user
        told = {
            End.EXCLUDED: (
                f"this security key ({name}) is enabled for {user} already",
                f"See: pam-mfa list {user}",
            ),
            End.FULL: (
                f"the security key ({name}) has no room for another discoverable credential",
                "Leave --discoverable out; pam-mfa needs none.",
            ),
            End.UNSUPPORTED: (
                f"the security key ({name}) can make neither an ES256 nor an EdDSA credential",
                "Use another key.",
            ),
        }
        text, hint = told.get(outcome.end, (describe_end(name, outcome).rstrip("."), ""))
        if outcome.end is End.WRONG_PIN:
            text = f"the PIN of the security key ({name}) was not accepted"
        detail = f" ({outcome.detail})" if outcome.detail else ""
        return RefusedError(f"{text[:1].lower()}{text[1:]}{detail}; {_NOTHING}", hint=hint)


def _unusable_error(reports: tuple[KeyReport, ...]) -> PamMfaError:
    problems = [one.problem for one in reports if one.problem]
    return (
        problems[0]
        if problems
        else RefusedError(
            f"no security key is attached to this machine; {_NOTHING}",
            hint="Attach it to this machine, not to the one that you connect from.",
        )
    )


def _holder(report: KeyReport, device: FidoDevice) -> Holder:
    return Holder(
        key=report.key,
        credential=Credential(device.credential_id, device.rp_id),
        has_pin=report.has_pin,
        has_built_in_uv=report.has_built_in_uv,
        is_always_uv=report.is_always_uv,
        is_ctap2=report.is_ctap2,
    )


def _name(report: KeyReport) -> str:
    return report.key.name or report.key.path


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
