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

from pam_mfa.audit import Reason
from pam_mfa.errors import (
    BrokenSystemError,
    PamMfaError,
    RefusedError,
    WireError,
)
from pam_mfa.lifecycle import (
    Actor,
    Lifecycle,
    serial_numbers,
)
from pam_mfa.listing import list_row, status_row
from pam_mfa.policy import Effect, Mode, Policy, Unenrolled
from pam_mfa.self_service.changes import (
    CHANGES,
    PAM_SERVICE,
    Case,
    Proof,
    UnservedError,
    attached_keys,
    carry_out,
    record,
)
from pam_mfa.self_service.dialogue import Dialogue
from pam_mfa.self_service.protocol import (
    Operation,
    Petition,
    build_end,
    build_rows,
    parse_petition,
)
from pam_mfa.store.layout import Layout, drop_privileges
from pam_mfa.store.opening import open_administrators_store
from pam_mfa.store.policies import read_policy
from pam_mfa.verification import Caller, Machine, attempt
from pam_mfa.verifier.login_session import Presence, find_presence
from pam_mfa.verifier.packets import Peer, peer_of
from pam_mfa.wire import FRAME_MAX, Phase, Request, Result

LONGEST = 600.0  # seconds that a conversation may take
_FIRST_FRAME = 10.0  # seconds
_VERIFY = "Verify with a device that you have, to go on."


class _Refusal(NamedTuple):
    """Why a petition goes no further."""

    reason: Reason
    error: RefusedError


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
    if refusal is None and petition.operation in CHANGES:
        refusal = _check_password(petition.user, layout, dialogue)
    drop_privileges()
    store = open_administrators_store(layout)
    try:
        if refusal is not None:
            record(store, petition, peer, refusal.reason)
            raise refusal.error
        lifecycle = Lifecycle(store, time.time, Actor(peer.uid, peer.pid, None))
        try:
            return _act(Case(petition, peer, policy, presence, store, lifecycle, dialogue))
        except RefusedError as error:
            reason = error.reason if isinstance(error, UnservedError) else Reason.NOT_POSSIBLE
            if reason is not None:
                record(store, petition, peer, reason)
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
    permission, _ = CHANGES.get(petition.operation, ("", None))
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


def _act(case: Case) -> list[dict[str, object]]:
    operation, user = case.petition.operation, case.petition.user
    if operation is Operation.LIST:
        return [list_row(user, device) for device in case.lifecycle.list_devices(user)]
    if operation is Operation.STATUS:
        return [status_row(one) for one in case.lifecycle.user_statuses([user])]
    proof = _verify(case)
    carry_out(case, proof)
    return []


def _verify(case: Case) -> Proof:
    """Have the user verify with a device, where there is one.

    A bypass that has expired is one, here as at a login: it verifies nobody, and whoever has the
    password only must not begin anew.

    Raises:
        RefusedError: that failed; it is recorded and counted like a login's.
    """
    devices = serial_numbers(case.lifecycle.list_devices(case.petition.user))
    if not devices:
        return Proof(devices, [])
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
    machine = Machine(os.uname().nodename, os.urandom, attached_keys) if is_here else None
    running = attempt(request, caller, policy, case.store, time.time, machine)
    verdict, changes = case.dialogue.drive(running, case.store)
    if verdict.result is not Result.SUCCESS:
        raise UnservedError(
            "you were not verified, so nothing was changed",
            None,
            hint="Use another of your devices or a recovery code. If you have lost them all, "
            "ask your administrator for a bypass code.",
        )
    return Proof(devices, changes)
