# SPDX-License-Identifier: Apache-2.0
"""The order of the steps of one attempt."""

from collections.abc import Generator
from typing import Any

from pam_mfa.audit import Reason
from pam_mfa.errors import BrokenSystemError
from pam_mfa.policy import Action, Policy, asks_everyone
from pam_mfa.store import Standing, Store
from pam_mfa.verification.codes import verify_code
from pam_mfa.verification.deciding import Charge, find_decision
from pam_mfa.verification.needs import (
    Ask,
    Attempt,
    Caller,
    Clock,
    Complain,
    Machine,
    Need,
    Tell,
    Verdict,
)
from pam_mfa.verification.rules import apply_mode, can_ask_agent, is_local, judge_unenrolled
from pam_mfa.verification.scene import Scene, record, set_scene
from pam_mfa.verification.ssh_login import find_ssh_keys, verify_ssh_login
from pam_mfa.wire import Request, Result

PROMPT = "Verification code: "


def attempt(  # noqa: PLR0913, PLR0917 - what one attempt is made of
    request: Request,
    caller: Caller,
    policy: Policy,
    store: Store,
    clock: Clock,
    machine: Machine | None = None,
) -> Attempt:
    """Verify one login.

    Args:
        request: what PAM says of it.
        caller: who asks.
        policy: in force.
        store: of devices and state.
        clock: seconds since the epoch.
        machine: where a security key can be attached; None: no key is asked for.

    Raises:
        BrokenSystemError: state or records cannot be made durable, so no success may be told.
    """
    decision = yield from find_decision(request, policy, clock)
    charge = Charge(request, caller, policy, decision)
    return (yield from carry_out(charge, store, clock, machine))


def carry_out(
    charge: Charge, store: Store, clock: Clock, machine: Machine | None = None
) -> Attempt:
    """Do what policy has decided on a login, unless that is to enroll.

    Raises:
        BrokenSystemError: as ``attempt``.
    """
    action = charge.decision.action
    # The rule's mode is this attempt's, whatever the policy says of others.
    charge = charge._replace(policy=charge.policy._replace(mode=charge.decision.mode))
    if action is Action.NOTHING:
        return Verdict(Result.IGNORE)
    if action is Action.SKIP and charge.caller.may_verify:
        return (yield from _skip(charge, store, clock))
    if action is Action.DENY and charge.caller.may_verify:
        return (yield from _deny(charge, store, clock))
    return (yield from _verify(charge, store, clock, machine))


def _verify(charge: Charge, store: Store, clock: Clock, machine: Machine | None) -> Attempt:
    request, caller, policy, decision = charge
    ssh_keys = find_ssh_keys(request, caller) if "ssh-key" in decision.devices else ()
    may_have_key = (
        machine is not None
        and "fido" in decision.devices
        and is_local(request)
        and not machine.is_remote(caller.pid)
    )
    # The prompt goes out before anything of the user is looked up: it cannot tell who is
    # enrolled, not by its time either, and the look-up costs nobody any waiting. Who is at the
    # machine, or has an ssh-agent, may have a key to be touched instead, and who came by SSH with a
    # security key has touched it already: they are asked after the look.
    may_have_agent = machine is not None and can_ask_agent(request, caller, decision.devices)
    is_asked_first = (
        caller.may_verify
        and asks_everyone(policy)
        and not (may_have_key or may_have_agent or ssh_keys)
    )
    if is_asked_first:
        yield Ask(PROMPT)
    scene = set_scene(request, caller, policy, store, decision.rule)
    if not is_asked_first and (end := _find_end(scene)):
        return (yield from record(scene, clock, *end))
    if ssh_keys:
        verdict = yield from verify_ssh_login(scene, ssh_keys, clock)
        if verdict is not None:
            return verdict
    if machine is not None and may_have_agent and scene.enrollment.ssh_keys:
        from pam_mfa.verification.agent_signature import (  # noqa: PLC0415 - as below
            verify_agent_signature,
        )

        verdict = yield from verify_agent_signature(scene, machine, clock)
        if verdict is not None:
            return verdict
    touching = verdict = None
    if machine is not None and may_have_key and scene.enrollment.security_keys:
        from pam_mfa.verification.touch import Touching  # noqa: PLC0415 - only where there is a key

        touching = Touching(scene, machine, clock)
        verdict = yield from touching.begin()
    elif not is_asked_first:
        yield Ask(PROMPT)
    if verdict is None:
        verdict = yield from verify_code(scene, decision.devices, store, clock, touching)
    return apply_mode(policy, verdict)


def _find_end(scene: Scene) -> tuple[Reason, Result] | None:
    """Return how an attempt ends before anything is asked; None where it goes on."""
    if not scene.caller.may_verify:
        return Reason.CALLER_NOT_ALLOWED, Result.DENIED
    if scene.enrollment.standing is Standing.NOT_ENROLLED and not asks_everyone(scene.policy):
        return judge_unenrolled(scene.policy, has_account=scene.request.uid is not None)
    return None


def _skip(charge: Charge, store: Store, clock: Clock) -> Attempt:
    """Let by, as a rule says, and record it.

    A rule for the first console is for the day on which all else is broken. So this end alone does
    not hang on the store: where its record cannot be made durable, the system log has to do.
    """
    try:
        return (yield from _end(charge, store, clock, Reason.SKIPPED_BY_RULE))
    except BrokenSystemError as error:
        yield Complain(error)
        return Verdict(Result.IGNORE, Reason.SKIPPED_BY_RULE)


def _deny(charge: Charge, store: Store, clock: Clock) -> Attempt:
    """Refuse, as a rule says, whoever it is and whatever they could prove."""
    verdict = yield from _end(charge, store, clock, Reason.DENIED_BY_RULE)
    if verdict.result is Result.DENIED and charge.decision.message:
        yield Tell(charge.decision.message)
    return verdict


def _end(
    charge: Charge, store: Store, clock: Clock, reason: Reason
) -> Generator[Need, Any, Verdict]:
    request, caller, policy, decision = charge
    scene = set_scene(request, caller, policy, store, decision.rule)
    result = Result.IGNORE if reason is Reason.SKIPPED_BY_RULE else Result.DENIED
    verdict = yield from record(scene, clock, reason, result)
    return apply_mode(policy, verdict)
