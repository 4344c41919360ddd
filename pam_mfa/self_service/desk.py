# SPDX-License-Identifier: Apache-2.0
"""One petition, from the frame that asks to the end that answers; a process of its own.

The steps, and what each stops: the kernel's word on who asks (nobody acts for somebody else);
policy; the login password, checked by PAM as root (a terminal left open); then this process is the
verifier's user for good, and the user verifies with a device where there is one (a stolen
password). Every refusal but a malformed frame leaves a record.
"""

import os
import pwd
import socket
import time
from typing import NamedTuple

from pam_mfa import oath
from pam_mfa.audit import Event, EventName, Outcome, Reason
from pam_mfa.enrolling import ask_codes, enable_device
from pam_mfa.errors import (
    BrokenSystemError,
    PamMfaError,
    RefusedError,
    SecurityKeyError,
    WireError,
)
from pam_mfa.hardware.keys import Keys
from pam_mfa.key_enabling import KeyRefusedError
from pam_mfa.key_enrolling import enable_key
from pam_mfa.lifecycle import (
    Actor,
    DevicesChangedError,
    KeyWish,
    Lifecycle,
    PendingDevice,
    TokenNotFreeError,
    serial_numbers,
)
from pam_mfa.listing import list_row, status_row
from pam_mfa.oath import DIGITS, PERIODS, Algorithm, Parameters
from pam_mfa.policy import Effect, Mode, Policy, Unenrolled
from pam_mfa.self_service.dialogue import Dialogue
from pam_mfa.self_service.protocol import (
    Operation,
    Petition,
    build_end,
    build_rows,
    parse_petition,
)
from pam_mfa.store import Change, Claim
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout, drop_privileges
from pam_mfa.store.policies import read_policy
from pam_mfa.verification import Caller, Machine, attempt
from pam_mfa.verifier.login_session import Presence, find_presence
from pam_mfa.verifier.packets import Peer, peer_of
from pam_mfa.wire import FRAME_MAX, Phase, Request, Result

PAM_SERVICE = "pam-mfa"
LONGEST = 600.0  # seconds that a conversation may take
_FIRST_FRAME = 10.0  # seconds
_VERIFY = "Verify with a device that you have, to go on."
_SCAN = "Scan this with an authenticator application, such as the one on your phone:"
# Which of policy's permissions an operation needs, and the event that it is recorded as.
_CHANGES = {
    Operation.ENABLE_VIRTUAL: ("enable", EventName.ENABLE_MFA_DEVICE),
    Operation.ENABLE_TOKEN: ("enable", EventName.ENABLE_MFA_DEVICE),
    Operation.ENABLE_RECOVERY: ("enable", EventName.ENABLE_MFA_DEVICE),
    Operation.ENABLE_FIDO: ("enable", EventName.ENABLE_MFA_DEVICE),
    Operation.RESYNC: ("resync", EventName.RESYNC_MFA_DEVICE),
    Operation.DEACTIVATE: ("deactivate", EventName.DEACTIVATE_MFA_DEVICE),
}


class _Refusal(NamedTuple):
    """Why a petition goes no further."""

    reason: Reason
    error: RefusedError


class _UnservedError(RefusedError):
    """A petition that was let through and all the same came to nothing."""

    def __init__(self, message: str, reason: Reason | None, *, hint: str = "") -> None:
        """Keep the reason for the record; None: there is one already."""
        super().__init__(message, hint=hint)
        self.reason = reason


class _Proof(NamedTuple):
    """What a petition is built on, once its user was verified."""

    devices: frozenset[str]  # serial numbers of those that the user had then
    changes: list[Change]  # by the verification


class _Case(NamedTuple):
    """A petition that policy and the password let through."""

    petition: Petition
    peer: Peer
    policy: Policy
    presence: Presence
    store: EmbeddedStore
    lifecycle: Lifecycle
    dialogue: Dialogue


def serve_petition(connection: socket.socket, layout: Layout) -> None:
    """Carry one petition to its end.

    Raises:
        WireError: what was sent is no petition; nothing was answered.
        OSError: the user is gone.
    """
    connection.settimeout(_FIRST_FRAME)
    packet = connection.recv(FRAME_MAX + 1)
    if not packet:
        return
    nonce, petition = parse_petition(packet)
    dialogue = Dialogue(connection, nonce, time.monotonic() + LONGEST)
    error: PamMfaError | None = None
    try:
        rows = _serve(petition, peer_of(connection), layout, dialogue)
        for frame in build_rows(nonce, rows):
            dialogue.send(frame)
    except WireError:
        raise
    except PamMfaError as ended:
        error = ended
    dialogue.send(build_end(nonce, error))


def _serve(
    petition: Petition, peer: Peer, layout: Layout, dialogue: Dialogue
) -> list[dict[str, object]]:
    policy, presence = read_policy(layout.policy), find_presence(peer)
    refusal = _find_refusal(petition, peer, policy, presence)
    if refusal is None and petition.operation in _CHANGES:
        refusal = _check_password(petition.user, layout, dialogue)
    drop_privileges()
    store = EmbeddedStore(layout)
    try:
        if refusal is not None:
            _record(store, petition, peer, refusal.reason)
            raise refusal.error
        lifecycle = Lifecycle(store, time.time, Actor(peer.uid, peer.pid, None))
        try:
            return _act(_Case(petition, peer, policy, presence, store, lifecycle, dialogue))
        except RefusedError as error:
            reason = error.reason if isinstance(error, _UnservedError) else Reason.NOT_POSSIBLE
            if reason is not None:
                _record(store, petition, peer, reason)
            raise
    finally:
        store.close()


def _find_refusal(
    petition: Petition, peer: Peer, policy: Policy, presence: Presence
) -> _Refusal | None:
    try:
        own_name = pwd.getpwuid(peer.uid).pw_name
    except (KeyError, OverflowError):
        own_name = ""
    if not own_name or petition.user != own_name:
        error = RefusedError(
            f"you may see and change your own devices only, those of {own_name or 'nobody'}",
            hint="An administrator acts for others: sudo pam-mfa ...",
        )
        return _Refusal(Reason.CALLER_NOT_ALLOWED, error)
    permission, _ = _CHANGES.get(petition.operation, ("", None))
    if permission and not getattr(policy.self_service, permission):
        error = RefusedError(
            f"this host's policy does not let users {permission} their devices themselves",
            hint="Ask your administrator. The policy's word for it is "
            f"'self_service: {{{permission}: true}}'.",
        )
        return _Refusal(Reason.NOT_ALLOWED, error)
    if petition.operation is Operation.ENABLE_FIDO and presence is Presence.REMOTE:
        error = RefusedError(
            "you are logged in from another machine, and a security key is enabled on the one "
            "that it is attached to; nothing was changed",
            hint="Log in at this machine itself, or ask your administrator.",
        )
        return _Refusal(Reason.NOT_ALLOWED, error)
    return None


def _check_password(user: str, layout: Layout, dialogue: Dialogue) -> _Refusal | None:
    """Have PAM check the login password, as root: nobody else may see its hash.

    Raises:
        BrokenSystemError: there is no such PAM service, or no right to check.
    """
    from pam_mfa.pam import Login, run_stack  # noqa: PLC0415 - only where there is a password

    if os.geteuid() != 0:
        raise BrokenSystemError(
            "passwords can be checked by root only, and pam-mfa-selfd was not started as root",
            hint="Use the shipped unit pam-mfa-selfd.service.",
        )
    if not (layout.pam_services / PAM_SERVICE).is_file():
        raise BrokenSystemError(
            f"there is no PAM service {layout.pam_services / PAM_SERVICE} to check passwords by",
            hint="The installation has one in share/pam.d; copy it there.",
        )
    items = {"ruser": user}
    outcome = run_stack(
        Login(PAM_SERVICE, user, str(layout.pam_services), items), dialogue.answer_pam
    )
    if outcome.is_success:
        return None
    error = RefusedError(
        f"the password was not accepted: {outcome.message}; nothing was changed",
        hint="Try again. An account that has no password needs an administrator's help.",
    )
    return _Refusal(Reason.PASSWORD_REFUSED, error)


def _record(store: EmbeddedStore, petition: Petition, peer: Peer, reason: Reason) -> None:
    """Record a refusal; it is no guess, so it locks nobody."""
    if petition.operation not in _CHANGES:
        return
    event = Event(
        name=_CHANGES[petition.operation][1],
        outcome=Outcome.DENIED,
        reason=reason,
        at=time.time(),
        # A name that was typed for somebody else's may be anything, a password too.
        user="" if reason is Reason.CALLER_NOT_ALLOWED else petition.user,
        service=PAM_SERVICE,
        caller_uid=peer.uid,
        caller_pid=peer.pid,
    )
    change = Change(accepted=False, events=(event,))
    store.commit([Claim("", (), lambda _: change)])


def _act(case: _Case) -> list[dict[str, object]]:
    operation, user = case.petition.operation, case.petition.user
    if operation is Operation.LIST:
        return [list_row(user, device) for device in case.lifecycle.list_devices(user)]
    if operation is Operation.STATUS:
        return [status_row(one) for one in case.lifecycle.user_statuses([user])]
    proof = _verify(case)
    if operation is Operation.RESYNC:
        _resync(case, proof.changes)
    elif operation is Operation.DEACTIVATE:
        # Never the last one: that would be to switch the second factor off.
        gone = case.lifecycle.deactivate(user, case.petition.serial_number)
        case.dialogue.tell(f"Deactivated {gone.serial_number} of {user}.")
    elif operation is Operation.ENABLE_RECOVERY:
        _enable_recovery(case, proof)
    elif operation is Operation.ENABLE_FIDO:
        _enable_fido(case, proof)
    else:
        _enable(case, proof)
    return []


def _verify(case: _Case) -> _Proof:
    """Have the user verify with a device, where there is one.

    A bypass that has expired is one, here as at a login: it verifies nobody, and whoever has the
    password only must not begin anew.

    Raises:
        RefusedError: that failed; it is recorded and counted like a login's.
    """
    devices = serial_numbers(case.lifecycle.list_devices(case.petition.user))
    if not devices:
        return _Proof(devices, [])
    case.dialogue.tell(_VERIFY)
    request = Request(
        nonce=b"",
        phase=Phase.AUTH,
        user=case.petition.user,
        service=PAM_SERVICE,
        uid=case.peer.uid,
    )
    # Whatever logins may do: an attempt that policy would only report is no verification here.
    # Nor does a rule that lets them by; those that deny or require more hold here too.
    rules = tuple(
        rule._replace(mode=None) for rule in case.policy.rules if rule.effect is not Effect.SKIP
    )
    policy = case.policy._replace(mode=Mode.ENFORCE, unenrolled=Unenrolled.DENY, rules=rules)
    caller = Caller(case.peer.pid, case.peer.uid, may_verify=True)
    # A key in this machine proves nothing of who comes from another one, and is not offered there.
    is_here = case.presence is Presence.LOCAL
    machine = Machine(os.uname().nodename, os.urandom, _attached_keys) if is_here else None
    running = attempt(request, caller, policy, case.store, time.time, machine)
    verdict, changes = case.dialogue.drive(running, case.store)
    if verdict.result is not Result.SUCCESS:
        raise _UnservedError(
            "you were not verified, so nothing was changed",
            None,
            hint="Use another of your devices or a recovery code. If you have lost them all, "
            "ask your administrator for a bypass code.",
        )
    return _Proof(devices, changes)


def _attached_keys() -> Keys:
    from pam_mfa.hardware.attached_keys import AttachedKeys  # noqa: PLC0415 - fido2 and pyudev

    return AttachedKeys()


def _resync(case: _Case, changes: list[Change]) -> None:
    user, serial_number = case.petition.user, case.petition.serial_number
    done = any(
        event.name is EventName.RESYNC_MFA_DEVICE
        and event.device is not None
        and event.device.serial_number == serial_number
        for change in changes
        for event in change.events
    )
    if not done:  # by the two codes that verified the user just now
        first, second = _codes(case)
        case.lifecycle.resync(user, serial_number, first, second)
    case.dialogue.tell(f"Resynchronized {serial_number} of {user}.")


def _enable_recovery(case: _Case, proof: _Proof) -> None:
    codes = case.lifecycle.enable_recovery(case.petition.user, beside=proof.devices)
    case.dialogue.tell("Recovery codes, each good once. Print them; they are not shown again.")
    for code in codes:
        case.dialogue.tell(f"  {code}")


def _enable_fido(case: _Case, proof: _Proof) -> None:
    # Loaded here: fido2 and pyudev are for this petition only.
    from pam_mfa.hardware.registration import AttachedKeyRegistrar  # noqa: PLC0415

    wishes = case.petition.wishes.split()
    wish = KeyWish(case.petition.name, "discoverable" in wishes, "verification" in wishes)
    pending = case.lifecycle.begin_fido(case.petition.user, case.policy.fido, wish)
    pending = pending._replace(beside=proof.devices)
    running = enable_key(case.lifecycle, pending, AttachedKeyRegistrar(), _attached_keys())
    try:
        device, _ = case.dialogue.drive(running, case.store)
    except KeyRefusedError as error:
        raise _UnservedError(str(error), None, hint=error.hint) from error
    except DevicesChangedError as error:
        raise _UnservedError(str(error), Reason.DEVICES_CHANGED, hint=error.hint) from error
    except SecurityKeyError:
        _record(case.store, case.petition, case.peer, Reason.KEY_UNUSABLE)
        raise
    case.dialogue.tell(f"Enabled {device.serial_number} for {pending.user}.")


def _enable(case: _Case, proof: _Proof) -> None:
    pending = _begin(case)._replace(beside=proof.devices)
    if case.petition.first_code:
        device = case.lifecycle.enable(pending, *_codes(case))
        case.dialogue.tell(f"Enabled {device.serial_number} for {pending.user}.")
        return
    running = enable_device(case.lifecycle, pending, _SCAN)
    reason, _ = case.dialogue.drive(running, case.store)
    if reason is Reason.DEVICES_CHANGED:
        sentence = "your devices were changed meanwhile; nothing was enabled"
        raise _UnservedError(sentence, reason, hint="Run the command again.")
    if reason is not Reason.REQUESTED:
        raise _UnservedError(
            "there were no two consecutive codes of the new device; nothing was enabled",
            reason,
            hint="Run the command again. If it fails again, compare clocks: date -u",
        )


def _begin(case: _Case) -> PendingDevice:
    petition, name = case.petition, case.petition.name or None
    if petition.operation is Operation.ENABLE_TOKEN:
        try:
            return case.lifecycle.begin_token(petition.user, petition.serial_number, name)
        except TokenNotFreeError:
            # Whether there is one, and whose it is, is nothing for other users.
            raise RefusedError(
                f"there is no token {petition.serial_number} that is free",
                hint="Compare the number on its back. If it is right, ask your administrator.",
            ) from None
    seed = oath.parse_seed(petition.secret) if petition.secret else None
    parameters = _parse_parameters(petition)
    return case.lifecycle.begin_virtual(petition.user, name, seed=seed, parameters=parameters)


def _parse_parameters(petition: Petition) -> Parameters:
    algorithm, digits = petition.algorithm or "SHA1", petition.digits or "6"
    period = petition.period or "30"
    if algorithm not in set(Algorithm):
        raise RefusedError(f"the algorithm is not one of {', '.join(Algorithm)}")
    if digits not in map(str, DIGITS):
        raise RefusedError(f"the number of digits is not one of {DIGITS}")
    if period not in map(str, PERIODS):
        raise RefusedError(f"the period is not one of {PERIODS} seconds")
    return Parameters(Algorithm(algorithm), int(digits), int(period))


def _codes(case: _Case) -> tuple[str, str]:
    """Return the two codes of the petition, or those that are asked for now.

    Raises:
        RefusedError: there is no answer.
    """
    if case.petition.first_code:
        return case.petition.first_code, case.petition.second_code
    answers, _ = case.dialogue.drive(ask_codes(), case.store)
    if isinstance(answers, Reason):
        raise _UnservedError("there was no answer; nothing was changed", answers)
    return answers
