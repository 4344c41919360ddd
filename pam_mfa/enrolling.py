# SPDX-License-Identifier: Apache-2.0
"""Enrolling at the first login: a user without a device enables one, and the login goes on.

In PAM's account phase only, which a host program runs when the first factor has been accepted:
whoever failed the password must never see the secret. Written like an attempt, a generator that
yields what it needs.
"""

import os
from collections.abc import Callable, Generator, Iterator
from typing import Any

from pam_mfa import oath
from pam_mfa.audit import Event, EventName, Outcome, Reason
from pam_mfa.errors import RefusedError
from pam_mfa.lifecycle import Actor, DevicesChangedError, Lifecycle, PendingDevice
from pam_mfa.qr_code import draw_lines
from pam_mfa.store import AdministratorsStore, Change, Claim, Standing
from pam_mfa.verification import Ask, Attempt, Caller, Commit, Listen, Need, Tell, Verdict
from pam_mfa.verification.scene import describe_request
from pam_mfa.wire import TEXT_MAX, Request, Result

_TRIES = 3  # pairs of codes
_BORDER = 2  # half the standard's, which cameras take: a console has 25 lines
_NO_CODES = ("", "")  # somebody pressed Enter
_INTRODUCTION = (
    "You need a second factor to log in here. Scan this with an authenticator application, "
    "such as the one on your phone:"
)
_OTHER_WAY = (
    "If the picture is not read (a light screen), press Enter below to see it the other way round."
)
_AGAIN = "These were not two consecutive codes of the new device. Wait for a new code."


def enroll(
    request: Request, caller: Caller, store: AdministratorsStore, clock: Callable[[], float]
) -> Attempt:
    """Let a user who has no device enable one; whoever has one has nothing to do here.

    Raises:
        BrokenSystemError: the device could not be stored.
    """
    enrollment = store.read_enrollment(request.user)
    if enrollment.standing is Standing.ENROLLED:
        return Verdict(Result.IGNORE)
    # Only a host program, which is root, knows that the first factor was accepted.
    may_enroll = caller.uid == 0 and request.uid is not None
    reason = find_refusal(enrollment.standing, may_enroll=may_enroll)
    if reason is None:
        lifecycle = Lifecycle(store, clock, Actor(caller.uid, caller.pid, caller.login_uid))
        # The first, or none: nobody who has only the password enables another beside it.
        pending = lifecycle.begin_virtual(request.user)._replace(beside=frozenset())
        reason = yield from enable_device(lifecycle, pending, _INTRODUCTION)
    if reason is Reason.REQUESTED:
        return Verdict(Result.SUCCESS, reason)
    change = Change(accepted=False, events=(_refusal(request, caller, reason, clock()),))
    yield Commit(Claim(enrollment.user_key, (), lambda _: change))
    return Verdict(Result.DENIED, reason)


def find_refusal(standing: Standing, *, may_enroll: bool) -> Reason | None:
    """Return why a user who has no device that works is refused, or None: they enable one now."""
    if standing is Standing.UNREADABLE:
        return Reason.DEVICES_UNREADABLE
    return None if may_enroll else Reason.NOT_ENROLLED


def enable_device(
    lifecycle: Lifecycle, pending: PendingDevice, introduction: str
) -> Generator[Need, Any, Reason]:
    """Show an application's secret and ask for two codes; return how that ended.

    Reason.REQUESTED: the device is enabled. A hardware token has no secret to be shown.
    """
    if not pending.token:
        yield Tell(introduction)
        yield from map(Tell, _picture_messages(pending, is_inverted=False))
        yield Tell(_OTHER_WAY)
        yield Tell(_key_message(pending))
    is_inverted = bool(pending.token)  # or was shown already
    tries = _TRIES
    while tries:
        codes = yield from ask_codes()
        if isinstance(codes, Reason):
            return codes
        if codes == _NO_CODES and not is_inverted:
            is_inverted = True
            yield from map(Tell, _picture_messages(pending, is_inverted=True))
            continue
        tries -= 1
        try:
            device = lifecycle.enable(pending, *codes)
        except DevicesChangedError:
            return Reason.DEVICES_CHANGED
        except RefusedError:
            yield Tell(_AGAIN)
            continue
        yield Tell(f"Enabled {device.serial_number}. From now on you are asked for its code.")
        return Reason.REQUESTED
    return Reason.WRONG_CODE


def ask_codes() -> Generator[Need, Any, tuple[str, str] | Reason]:
    """Ask for two consecutive codes; return the Reason where there is no answer.

    Two empty ones: somebody pressed Enter at one of them.
    """
    answers = []
    for text in ("First code: ", "Second code, the one that the device shows next: "):
        yield Ask(text, may_follow_password=False)
        answer = yield Listen()
        if isinstance(answer, Reason):
            return answer
        if not answer:
            return _NO_CODES
        answers.append(answer)
    return answers[0], answers[1]


def _refusal(request: Request, caller: Caller, reason: Reason, at: float) -> Event:
    """Return the record of a login that ends without a device; a refusal is not lost either."""
    is_broken = reason is Reason.DEVICES_UNREADABLE
    return Event(
        name=EventName.ENABLE_MFA_DEVICE,
        outcome=Outcome.ERROR if is_broken else Outcome.DENIED,
        reason=reason,
        at=at,
        user=request.user if request.uid is not None else "",
        **describe_request(request, caller, at),
    )


def _picture_messages(pending: PendingDevice, *, is_inverted: bool) -> Iterator[str]:
    """Return the QR code in pieces that fit a PAM message."""
    uri = pending.uri(issuer=os.uname().nodename)
    piece = ""
    for line in draw_lines(uri, border=_BORDER, is_inverted=is_inverted):
        if len(f"{piece}\n{line}".encode()) > TEXT_MAX:
            yield piece
            piece = ""
        piece = f"{piece}\n{line}" if piece else line
    yield piece


def _key_message(pending: PendingDevice) -> str:
    """Return the secret key for typing."""
    key = oath.encode_seed(pending.seed)
    grouped = " ".join(key[at : at + 4] for at in range(0, len(key), 4))
    return f"Or type this secret key into it (time based): {grouped}"
