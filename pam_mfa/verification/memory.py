# SPDX-License-Identifier: Apache-2.0
"""What was verified before, in the place of a proof: MFA age, and earlier phases of one login.

A verification is remembered in the transaction of its own state and record, whatever way it was
made by, and judged inside the transaction that uses it: so neither a lock, nor a device taken away,
nor ``pam-mfa sessions end`` comes too late. Only host programs of root leave anything behind, and
only they are answered from memory: what others say of service and place is their own claim.
"""

import functools
import hashlib
from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

from pam_mfa import lockout
from pam_mfa.audit import Outcome, Reason
from pam_mfa.devices import CodeDevice, Device, SshKeyDevice
from pam_mfa.errors import BrokenSystemError
from pam_mfa.mfa_age import (
    Place,
    Scope,
    Spot,
    Verified,
    Wish,
    find_fresh,
    find_same_login,
    is_same_session,
)
from pam_mfa.policy import UserVerification
from pam_mfa.store import Change, Claim, Enrollment, Known, Memory
from pam_mfa.verification.deciding import Charge, make_context
from pam_mfa.verification.needs import Attempt, Clock, Commit, Machine, Need, Verdict
from pam_mfa.verification.rules import counts_in_agent, is_acceptable, is_remote, may_have_agent
from pam_mfa.verification.scene import Scene, make_event
from pam_mfa.wire import Phase, Request, Result

_Proof = TypeVar("_Proof", Verdict, Verdict | None)


class Witness(NamedTuple):
    """Where one PAM call comes from, as it was seen when the call came in."""

    machine: Machine
    pid: int
    spot: Spot
    place: Place

    def is_there(self) -> bool:
        """Whether the process is still the one that called, in its session: not a pid reused."""
        return bool(self.spot.process) and self.machine.locate(self.pid) == self.spot


def find_witness(charge: Charge, machine: Machine | None) -> Witness | None:
    """Look where a call comes from; None where nothing is to be remembered or counted of it."""
    if machine is None or charge.caller.uid != 0 or not charge.policy.memory:
        return None
    spot = machine.locate(charge.caller.pid)
    return Witness(machine, charge.caller.pid, spot, place_of(spot, charge.request))


def place_of(spot: Spot, request: Request) -> Place:
    """Return the place of a call."""
    return Place(
        login=spot.process,
        parent=spot.parent if is_remote(request.service) else "",
        session=_session_of(spot, request),
        boot=spot.boot,
        source=find_source(request, is_of_daemon=spot.leader_uid == 0),
    )


def find_source(request: Request, *, is_of_daemon: bool) -> str:
    """Return from where the person comes, by PAM: an address, "console", or "" for not known.

    A host's name is no address: whoever owns its zone writes it. SSH_CONNECTION is left alone; who
    has it has PAM_RHOST, too, and in later phases a user's own file may have set it. The console is
    believed of what root started there: su names the terminal that its standard input is, and who
    is at home on a console can open that from elsewhere.
    """
    # Loaded already where there are rules, and without rules nothing is remembered.
    from pam_mfa.policy.conditions import is_at_console  # noqa: PLC0415
    from pam_mfa.policy.networks import find_address  # noqa: PLC0415

    # A link-local address is another one on each link, which its zone names.
    address = find_address(request.rhost) if "%" not in request.rhost else None
    if address is not None:
        return f"{address.version}:{address.number:x}"
    is_started = is_of_daemon and not may_have_agent(request.service)
    is_console = is_started and is_at_console(make_context(request, 0.0))
    return "console" if is_console else ""


def _session_of(spot: Spot, request: Request) -> str:
    """Return the session that a call is made in; "" where it is nobody's.

    Root leads the sessions of daemons, whose logins are everybody's; only root's own calls from a
    terminal may be in one: whoever knows root's password may reach a daemon from anywhere.
    """
    if spot.leader_uid == 0 and (request.uid != 0 or not request.tty):
        return ""
    if spot.leader_uid and spot.audit_session and spot.is_personal:
        return f"audit:{spot.audit_session}"
    return f"leader:{spot.leader}" if spot.leader else ""


def find_wish(charge: Charge, place: Place) -> Wish | None:
    """Return what the call could be answered by; None where it has to be proven anew."""
    request, decision = charge.request, charge.decision
    is_first = request.phase is Phase.AUTH
    if is_first and not decision.mfa_age:
        return None
    return Wish(
        place,
        request.service,
        decision.devices,
        decision.mfa_age,
        decision.scope,
        is_first,
        is_arrival=bool(request.rhost) or is_remote(request.service),
    )


def hash_device(device: Device) -> str:
    """Return what tells a device from every other one, and from one of the same name since.

    Not how its seed is sealed: keys are rotated between two phases of a login, too.
    """
    if isinstance(device, CodeDevice):
        device = device._replace(sealed_seed="")
    return hashlib.sha256(repr(device).encode("utf-8", "surrogateescape")).hexdigest()


def verify_by_memory(
    scene: Scene, wish: Wish, witness: Witness, clock: Clock
) -> Generator[Need, Any, Verdict | None]:
    """Accept what was verified before, and record its age; return None where nothing counts."""
    judge = functools.partial(_judge, scene, wish, witness, clock)
    change: Change = yield Commit(Claim(scene.enrollment.user_key, (), judge, asks_memory=True))
    if change.accepted:
        return Verdict(Result.SUCCESS, change.events[0].reason)
    return None


def _judge(scene: Scene, wish: Wish, witness: Witness, clock: Clock, known: Known) -> Change:
    now, nothing = clock(), Change(accepted=False, events=())
    if lockout.is_locked(known.lock, now):
        return nothing
    earlier = find_same_login(known.remembered, wish, now)
    for one in (*earlier, *find_fresh(known.remembered, wish, now)):
        device = _find_device(scene.enrollment, one)
        if device is None or not is_acceptable(device, wish.types):
            continue
        if not _is_strong_enough(scene, one, device):
            continue
        if scene.has_device(device) and witness.is_there():
            reason = Reason.VERIFIED_EARLIER if one in earlier else Reason.MFA_AGE_FRESH
            event = make_event(scene, now, Outcome.SUCCESS, reason, device)
            return Change(
                accepted=True,
                events=(event._replace(mfa_age=int(now - one.at)),),
                memory=_carry_over(scene, witness, known, now),
            )
    return nothing


def _is_strong_enough(scene: Scene, verified: Verified, device: Device) -> bool:
    """Whether an SSH key would do by today's policy, too.

    sshd says nothing of a PIN, so what it has seen signed does not do where policy asks for one.
    """
    if not isinstance(device, SshKeyDevice):
        return True
    wants_pin = scene.policy.fido.user_verification is UserVerification.REQUIRED
    is_of_sshd = is_remote(verified.service) and not is_remote(scene.request.service)
    return counts_in_agent(device, scene.policy) and not (wants_pin and is_of_sshd)


def _find_device(enrollment: Enrollment, verified: Verified) -> Device | None:
    """Return the device by which something was verified, where its user still has that very one."""
    for device in enrollment.all_devices():
        if (
            device.serial_number == verified.serial_number
            and hash_device(device) == verified.device_hash
        ):
            return device
    return None


def remember(
    proving: Generator[Need, Any, _Proof], scene: Scene, witness: Witness | None
) -> Generator[Need, Any, _Proof]:
    """Carry a proof on, and have its success remembered in the success's own transaction.

    Around every way to prove, so that none can leave it out.
    """
    if witness is None:
        return (yield from proving)
    reply: object = None
    try:
        while True:
            if isinstance(reply, BrokenSystemError):
                need = proving.throw(reply)
            else:
                need = proving.send(reply)
            if isinstance(need, Commit):
                need = Commit(_remembering(need.claim, scene, witness))
            try:
                reply = yield need
            except BrokenSystemError as error:
                reply = error
    except StopIteration as end:
        proof: _Proof = end.value
        return proof
    finally:
        proving.close()


def _remembering(claim: Claim, scene: Scene, witness: Witness) -> Claim:
    def judge(known: Known) -> Change:
        change = claim.judge(known)
        if not (change.accepted and change.events and witness.is_there()):
            return change
        event = change.events[0]
        used = event.device.serial_number if event.device else ""
        devices = scene.enrollment.all_devices()
        device = next((one for one in devices if one.serial_number == used), None)
        if device is None:
            return change
        verified = _verified(scene, device, witness, event.at)
        return change._replace(memory=Memory(verified, scene.policy.memory, event.at))

    return claim._replace(judge=judge)


def _verified(scene: Scene, device: Device, witness: Witness, at: float) -> Verified:
    request, place = scene.request, witness.place
    if not place.session:
        # For ``bind_session`` to see whether the session that begins is another one.
        session = _opened_session(scene, witness) or _outer(witness.spot)
        place = place._replace(session=session)
    return Verified(
        scene.enrollment.user_key, device.type, device.serial_number, hash_device(device),
        request.service, request.tty, place, at,
    )  # fmt: skip


def _outer(spot: Spot) -> str:
    """Name the audit session of a daemon: no call is made in a session of this name."""
    return f"outer:{spot.audit_session}"


def bind_session(scene: Scene, witness: Witness, clock: Clock) -> Attempt:
    """Let what a login has verified count in the session that it opens, as for sudo in it."""

    def judge(known: Known) -> Change:
        now = clock()
        is_there = not lockout.is_locked(known.lock, now) and witness.is_there()
        memory = _carry_over(scene, witness, known, now) if is_there else None
        return Change(accepted=False, events=(), memory=memory)

    if _opened_session(scene, witness):
        yield Commit(Claim(scene.enrollment.user_key, (), judge, asks_memory=True))
    return Verdict(Result.IGNORE)


def _carry_over(scene: Scene, witness: Witness, known: Known, now: float) -> Memory | None:
    """Return this login's own verification as one of the session that it opens; None: neither."""
    session = _opened_session(scene, witness)
    if not session:
        return None
    wish = Wish(
        witness.place, scene.request.service, (), 0.0, Scope.SESSION,
        is_first=False, is_arrival=True,
    )  # fmt: skip
    for one in find_same_login(known.remembered, wish, now):
        opened = one.place._replace(session=session)
        is_known = any(is_same_session(other.place, opened) for other in known.remembered)
        # The number that a daemon was started with, where no pam_loginuid has begun a session.
        if one.place.session != _outer(witness.spot) and not is_known:
            return Memory(one._replace(place=opened), scene.policy.memory, now)
    return None


def _opened_session(scene: Scene, witness: Witness) -> str:
    """Return the session that a call opens for its user, as pam_loginuid has begun it; or ""."""
    request, spot = scene.request, witness.spot
    if request.phase is not Phase.SESSION or request.uid is None:
        return ""
    is_begun = bool(spot.audit_session) and spot.login_uid == request.uid
    return f"audit:{spot.audit_session}" if is_begun else ""
