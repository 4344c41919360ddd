# SPDX-License-Identifier: Apache-2.0
"""What stays the same throughout one attempt, and its records."""

import re
from collections.abc import Callable, Generator
from typing import Any, Final, NamedTuple, TypedDict, TypeVar

from pam_mfa import lockout
from pam_mfa.audit import DeviceField, Event, EventName, Outcome, Reason
from pam_mfa.devices import Device
from pam_mfa.policy import Policy, UnknownUsers
from pam_mfa.store import Change, Claim, Enrollment, Known, Standing, Store
from pam_mfa.verification.needs import Attempt, Caller, Clock, Commit, Look, Need, Verdict
from pam_mfa.wire import Request, Result

_Found = TypeVar("_Found")
# Addresses of both versions, and nothing that is a name: a record asks no more of them.
_ADDRESS: Final = re.compile(
    r"[0-9]{1,3}(\.[0-9]{1,3}){3}|(?=[0-9a-f.]*:)[0-9a-f:.]{2,45}(%[0-9a-z._-]{1,16})?", re.ASCII
)
_KNOWN = (Standing.ENROLLED, Standing.UNREADABLE)  # there are devices, or a file of the name
_SKIPS = (Reason.UNENROLLED_ALLOWED, Reason.ENROLLMENT_DUE, Reason.SKIPPED_BY_RULE)


class Scene(NamedTuple):
    """Who asks for whom, under which policy."""

    request: Request
    caller: Caller
    policy: Policy  # as it is for this attempt: with the mode of the rule that decided
    enrollment: Enrollment
    shown_user: str  # "" for a name that no account has
    pseudonym: str  # "" for a name that one has
    has_device: Callable[[Device], bool]  # whether a device is the user's, at this moment
    rule: str = ""  # that decided; "": the policy's defaults
    unknown_name: str = ""  # where no account has it and policy wants it written down


def set_scene(
    request: Request, caller: Caller, policy: Policy, store: Store, rule: str = ""
) -> Generator[Need, Any, Scene]:
    """Look the user up.

    Raises:
        BrokenSystemError: the store cannot be asked.
    """
    enrollment = yield from look(store, lambda: store.read_enrollment(request.user))
    is_known = request.uid is not None or enrollment.standing in _KNOWN
    may_name = policy.audit.unknown_users is UnknownUsers.NAME
    return Scene(
        request=request,
        caller=caller,
        policy=policy,
        enrollment=enrollment,
        shown_user=request.user if is_known else "",
        pseudonym="" if is_known else store.pseudonym(request.user),
        has_device=lambda device: store.has_device(request.user, device, enrollment.version),
        rule=rule,
        unknown_name="" if is_known or not may_name else request.user,
    )


def look(store: Store, do: Callable[[], _Found]) -> Generator[Need, Any, _Found]:
    """Read something from the store; one that is far away makes nobody else wait for it."""
    if not store.patience:
        return do()
    found: _Found = yield Look(do)
    return found


class _Asked(TypedDict):
    """What a record tells of a request and of who made it."""

    service: str
    phase: str
    tty: str
    rhost: str
    ruser: str
    source_address: str
    is_claim: bool | None
    caller_uid: int
    caller_pid: int
    login_uid: int | None
    login_session: int | None
    duration_ms: int | None


def describe_request(request: Request, caller: Caller, now: float) -> _Asked:
    """Return a record's fields of a request, and of who made it."""
    asked_at = caller.asked_at
    return {
        "service": request.service,
        "phase": request.phase.name.lower(),
        "tty": request.tty,
        "rhost": request.rhost,
        "ruser": request.ruser,
        "source_address": find_source(request),
        "is_claim": None if caller.uid == 0 else True,
        "caller_uid": caller.uid,
        "caller_pid": caller.pid,
        "login_uid": caller.login_uid,
        "login_session": caller.login_session,
        # A clock that is set back meanwhile must not make it negative.
        "duration_ms": max(0, round((now - asked_at) * 1000)) if asked_at else None,
    }


def find_source(request: Request) -> str:
    """Return the address that a login comes from; "" where there is none.

    SSH_CONNECTION stands in PAM's environment, where a module may put a user's own value: it only
    has the address where the host program tells a name.
    """
    words = request.ssh_connection.split(" ", 1)
    candidates = (request.rhost, words[0])
    return next((one for one in candidates if _ADDRESS.fullmatch(one)), "")


def make_event(
    scene: Scene, now: float, outcome: Outcome, reason: Reason, device: Device | None = None
) -> Event:
    """Return the record of an end."""
    request = scene.request
    return Event(
        name=EventName.VERIFY_MFA,
        outcome=outcome,
        reason=reason,
        at=now,
        user=scene.shown_user,
        unknown_user=scene.pseudonym,
        unknown_name=scene.unknown_name,
        **describe_request(request, scene.caller, now),
        device=DeviceField(device.serial_number, device.type, device.name) if device else None,
        mode=scene.policy.mode.value,
        rule=scene.rule,
        detail=scene.enrollment.problem,
    )


def refuse(
    scene: Scene,
    now: float,
    reason: Reason,
    lock: lockout.LockState,
    device: Device | None = None,
) -> Change:
    """Return a refusal, which writes the lock's row whether it changes or not."""
    is_broken = reason is Reason.DEVICES_UNREADABLE
    outcome = Outcome.ERROR if is_broken else Outcome.DENIED
    event = make_event(scene, now, outcome, reason, device)
    return Change(accepted=False, events=(event,), lock=lock)


def refuse_key(scene: Scene, now: float, known: Known, device: Device) -> Change | None:
    """Return the refusal of a key that has signed well, by what is known now; None: it counts."""
    if lockout.is_locked(known.lock, now):
        return refuse(scene, now, Reason.LOCKED, known.lock, device)
    if not scene.has_device(device):
        return refuse(scene, now, Reason.DEVICES_CHANGED, known.lock, device)
    return None


def record(scene: Scene, clock: Clock, reason: Reason, result: Result) -> Attempt:
    """Record an end that nothing was proven at, and return its verdict."""
    is_skip = reason in _SKIPS
    event = make_event(scene, clock(), Outcome.SUCCESS if is_skip else Outcome.DENIED, reason)
    if is_skip:
        event = event._replace(name=EventName.SKIP_MFA)
    change = Change(accepted=False, events=(event,))
    yield Commit(Claim(scene.enrollment.user_key, (), lambda _: change))
    return Verdict(result, reason)
