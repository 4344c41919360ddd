# SPDX-License-Identifier: Apache-2.0
"""Carrying out what a user has petitioned for, when all that stands before it is passed.

Owns what each operation asks of the user and of ``lifecycle``, and the record of what came to
nothing. Who may ask, ``desk`` has settled before.
"""

import time
from typing import NamedTuple

from pam_mfa import oath
from pam_mfa.audit import Event, EventName, Outcome, Reason
from pam_mfa.enrolling import ask_codes, enable_device
from pam_mfa.errors import (
    RefusedError,
    SecurityKeyError,
)
from pam_mfa.hardware.keys import Keys
from pam_mfa.key_enrolling import enable_key
from pam_mfa.lifecycle import (
    DevicesChangedError,
    Evidence,
    KeyRefusedError,
    KeyWish,
    Lifecycle,
    PendingDevice,
    SshKeyWish,
    TokenNotFreeError,
)
from pam_mfa.oath import DIGITS, PERIODS, Algorithm, Parameters
from pam_mfa.policy import AgentKeys, Policy
from pam_mfa.self_service.dialogue import Dialogue
from pam_mfa.self_service.protocol import (
    Operation,
    Petition,
)
from pam_mfa.store import AdministratorsStore, Change, Claim
from pam_mfa.verifier.login_session import Presence
from pam_mfa.verifier.packets import Peer

PAM_SERVICE = "pam-mfa"
_SCAN = "Scan this with an authenticator application, such as the one on your phone:"
# Which of policy's permissions an operation needs, and the event that it is recorded as.
CHANGES = {
    Operation.ENABLE_VIRTUAL: ("enable", EventName.ENABLE_MFA_DEVICE),
    Operation.ENABLE_TOKEN: ("enable", EventName.ENABLE_MFA_DEVICE),
    Operation.ENABLE_RECOVERY: ("enable", EventName.ENABLE_MFA_DEVICE),
    Operation.ENABLE_FIDO: ("enable", EventName.ENABLE_MFA_DEVICE),
    Operation.ENABLE_SSH_KEY: ("enable", EventName.ENABLE_MFA_DEVICE),
    Operation.RESYNC: ("resync", EventName.RESYNC_MFA_DEVICE),
    Operation.DEACTIVATE: ("deactivate", EventName.DEACTIVATE_MFA_DEVICE),
}


class UnservedError(RefusedError):
    """A petition that was let through and all the same came to nothing."""

    def __init__(self, message: str, reason: Reason | None, *, hint: str = "") -> None:
        """Keep the reason for the record; None: there is one already."""
        super().__init__(message, hint=hint)
        self.reason = reason


class Proof(NamedTuple):
    """What a petition is built on, once its user was verified."""

    devices: frozenset[str]  # serial numbers of those that the user had then
    changes: list[Change]  # by the verification


class Case(NamedTuple):
    """A petition that policy and the password let through."""

    petition: Petition
    peer: Peer
    policy: Policy
    presence: Presence
    store: AdministratorsStore
    lifecycle: Lifecycle
    dialogue: Dialogue


def record(store: AdministratorsStore, petition: Petition, peer: Peer, reason: Reason) -> None:
    """Record a refusal; it is no guess, so it locks nobody."""
    if petition.operation not in CHANGES:
        return
    event = Event(
        name=CHANGES[petition.operation][1],
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


def carry_out(case: Case, proof: Proof) -> None:
    """Make the change that a petition asks for.

    Raises:
        RefusedError: it is not allowed, or came to nothing.
        BrokenSystemError: it could not be stored.
    """
    operation, user = case.petition.operation, case.petition.user
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
    elif operation is Operation.ENABLE_SSH_KEY:
        _enable_ssh_key(case, proof)
    else:
        _enable(case, proof)


def attached_keys() -> Keys:
    """Return what asks the keys in this machine."""
    from pam_mfa.hardware.attached_keys import AttachedKeys  # noqa: PLC0415 - fido2 and pyudev

    return AttachedKeys()


def _resync(case: Case, changes: list[Change]) -> None:
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


def _enable_recovery(case: Case, proof: Proof) -> None:
    codes = case.lifecycle.enable_recovery(case.petition.user, beside=proof.devices)
    case.dialogue.tell("Recovery codes, each good once. Print them; they are not shown again.")
    for code in codes:
        case.dialogue.tell(f"  {code}")


def _enable_fido(case: Case, proof: Proof) -> None:
    # Loaded here: fido2 and pyudev are for this petition only.
    from pam_mfa.hardware.registration import AttachedKeyRegistrar  # noqa: PLC0415

    wishes = case.petition.wishes.split()
    wish = KeyWish(case.petition.name, "discoverable" in wishes, "verification" in wishes)
    pending = case.lifecycle.begin_fido(case.petition.user, case.policy.fido, wish)
    pending = pending._replace(beside=proof.devices)
    running = enable_key(case.lifecycle, pending, AttachedKeyRegistrar(), attached_keys())
    try:
        device, _ = case.dialogue.drive(running, case.store)
    except KeyRefusedError as error:
        raise UnservedError(str(error), None, hint=error.hint) from error
    except DevicesChangedError as error:
        raise UnservedError(str(error), Reason.DEVICES_CHANGED, hint=error.hint) from error
    except SecurityKeyError:
        record(case.store, case.petition, case.peer, Reason.KEY_UNUSABLE)
        raise
    case.dialogue.tell(f"Enabled {device.serial_number} for {pending.user}.")


def _enable_ssh_key(case: Case, proof: Proof) -> None:
    """Enable an SSH key by its signature; nobody vouches for a key of one's own."""
    petition, lifecycle = case.petition, case.lifecycle
    evidence = Evidence(
        petition.attestation.encode("utf-8", "surrogateescape"),
        petition.challenge.encode("utf-8", "surrogateescape"),
    )
    is_any = case.policy.agent.keys is AgentKeys.ANY
    wish = SshKeyWish(petition.name, case.policy.fido, evidence, may_be_in_file=is_any)
    try:
        pending = lifecycle.begin_ssh_key(petition.user, petition.public_key, wish)
        signature = case.dialogue.ask_signature(pending.challenge)
        if isinstance(signature, Reason):
            raise UnservedError(
                "there was no signature of the key; nothing was enabled",
                signature,
                hint="Run the command again; have the key sign what it says.",
            )
        beside = pending._replace(beside=proof.devices)
        device = lifecycle.enable_proven_ssh_key(beside, signature)
    except KeyRefusedError as error:
        raise UnservedError(str(error), None, hint=error.hint) from error
    except DevicesChangedError as error:
        raise UnservedError(str(error), Reason.DEVICES_CHANGED, hint=error.hint) from error
    case.dialogue.tell(f"Enabled {device.serial_number} for {petition.user}.")


def _enable(case: Case, proof: Proof) -> None:
    pending = _begin(case)._replace(beside=proof.devices)
    if case.petition.first_code:
        device = case.lifecycle.enable(pending, *_codes(case))
        case.dialogue.tell(f"Enabled {device.serial_number} for {pending.user}.")
        return
    running = enable_device(case.lifecycle, pending, _SCAN)
    reason, _ = case.dialogue.drive(running, case.store)
    if reason is Reason.DEVICES_CHANGED:
        sentence = "your devices were changed meanwhile; nothing was enabled"
        raise UnservedError(sentence, reason, hint="Run the command again.")
    if reason is not Reason.REQUESTED:
        raise UnservedError(
            "there were no two consecutive codes of the new device; nothing was enabled",
            reason,
            hint="Run the command again. If it fails again, compare clocks: date -u",
        )


def _begin(case: Case) -> PendingDevice:
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


def _codes(case: Case) -> tuple[str, str]:
    """Return the two codes of the petition, or those that are asked for now.

    Raises:
        RefusedError: there is no answer.
    """
    if case.petition.first_code:
        return case.petition.first_code, case.petition.second_code
    answers, _ = case.dialogue.drive(ask_codes(), case.store)
    if isinstance(answers, Reason):
        raise UnservedError(
            "there was no answer; nothing was changed", answers, hint="Run the command again."
        )
    return answers
