# SPDX-License-Identifier: Apache-2.0
"""The order of the steps of one attempt."""

from collections.abc import Generator
from typing import Any, NamedTuple

from pam_mfa.audit import Reason
from pam_mfa.errors import BrokenSystemError
from pam_mfa.mfa_age import Wish
from pam_mfa.policy import Action, Policy, asks_everyone
from pam_mfa.ssh_keys import SshKey
from pam_mfa.store import Standing, Store
from pam_mfa.verification.codes import verify_code
from pam_mfa.verification.deciding import Charge, find_decision
from pam_mfa.verification.memory import (
    Witness,
    bind_session,
    find_wish,
    find_witness,
    remember,
    verify_by_memory,
)
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
from pam_mfa.verification.session import refuse_session
from pam_mfa.verification.ssh_login import find_ssh_keys, verify_ssh_login
from pam_mfa.wire import Phase, Request, Result

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
    if charge.decision.mode is not charge.policy.mode:
        charge = charge._replace(policy=charge.policy._replace(mode=charge.decision.mode))
    if action is Action.NOTHING:
        return (yield from _do_nothing(charge, store, clock, machine))
    if action is Action.SKIP and charge.caller.may_verify:
        return (yield from _skip(charge, store, clock))
    if action is Action.DENY and charge.caller.may_verify:
        return (yield from _deny(charge, store, clock))
    return (yield from _verify(charge, store, clock, machine))


def _do_nothing(charge: Charge, store: Store, clock: Clock, machine: Machine | None) -> Attempt:
    """Ask nothing; where a session begins, what its login has verified counts in it.

    That is a comfort: a store that is broken keeps nobody out whom policy has nothing to ask of.
    """
    witness = None
    if charge.request.phase is Phase.SESSION:
        witness = find_witness(charge, machine)
    if witness is None:
        return Verdict(Result.IGNORE)
    try:
        scene = yield from set_scene(charge.request, charge.caller, charge.policy, store)
        return (yield from bind_session(scene, witness, clock))
    except BrokenSystemError as error:
        yield Complain(error)
        return Verdict(Result.IGNORE)


class _Ways(NamedTuple):
    """How a login might be verified without a code, as far as it can be told without a look."""

    witness: Witness | None
    wish: Wish | None  # what was verified before
    ssh_keys: tuple[SshKey, ...]  # that have signed for sshd
    may_have_key: bool  # attached to the machine
    may_have_agent: bool

    def has_any(self) -> bool:
        """Whether there is one of them."""
        return bool(
            self.wish is not None or self.ssh_keys or self.may_have_key or self.may_have_agent
        )


def _find_ways(charge: Charge, machine: Machine | None) -> _Ways:
    request, caller, _, decision = charge
    witness = find_witness(charge, machine)
    return _Ways(
        witness=witness,
        wish=find_wish(charge, witness.place) if witness is not None else None,
        ssh_keys=find_ssh_keys(request, caller) if "ssh-key" in decision.devices else (),
        may_have_key=machine is not None
        and "fido" in decision.devices
        and is_local(request)
        and not machine.is_remote(caller.login_uid, caller.login_session),
        may_have_agent=machine is not None and can_ask_agent(request, caller, decision.devices),
    )


def _verify(charge: Charge, store: Store, clock: Clock, machine: Machine | None) -> Attempt:
    request, caller, policy, decision = charge
    ways = _find_ways(charge, machine)
    is_asking = request.phase is not Phase.SESSION  # sshd answers no question there
    # The prompt goes out before anything of the user is looked up: it cannot tell who is
    # enrolled, not by its time either, and the look-up costs nobody any waiting. Who may have
    # another way than a code is asked after the look.
    is_asked_first = (
        caller.may_verify and asks_everyone(policy) and is_asking and not ways.has_any()
    )
    if is_asked_first:
        yield Ask(PROMPT)
    scene = yield from set_scene(request, caller, policy, store, decision.rule)
    if not is_asked_first and (end := _find_end(scene)):
        return (yield from record(scene, clock, *end))
    verdict = yield from _verify_unasked(scene, ways, clock)
    if verdict is not None:
        return verdict
    if not is_asking:
        return (yield from refuse_session(scene, decision.devices, clock))
    if machine is not None and ways.may_have_agent and scene.enrollment.ssh_keys:
        verdict = yield from remember(_sign(scene, machine, clock), scene, ways.witness)
        if verdict is not None:
            return verdict
    proving = _prove(scene, charge, store, clock, machine if ways.may_have_key else None)
    if not is_asked_first and not (ways.may_have_key and scene.enrollment.security_keys):
        yield Ask(PROMPT)
    return apply_mode(policy, (yield from remember(proving, scene, ways.witness)))


def _verify_unasked(
    scene: Scene, ways: _Ways, clock: Clock
) -> Generator[Need, Any, Verdict | None]:
    """Accept what was verified before, or signed by the SSH login; None where neither was."""
    if ways.wish is not None and ways.witness is not None:
        verdict = yield from verify_by_memory(scene, ways.wish, ways.witness, clock)
        if verdict is not None:
            return verdict
    if ways.ssh_keys:
        signing = verify_ssh_login(scene, ways.ssh_keys, clock)
        return (yield from remember(signing, scene, ways.witness))
    return None


def _sign(scene: Scene, machine: Machine, clock: Clock) -> Generator[Need, Any, Verdict | None]:
    """Have a key behind the caller's ssh-agent touched; return None where a code is due."""
    from pam_mfa.verification.agent_signature import (  # noqa: PLC0415 - only where there is one
        verify_agent_signature,
    )

    return (yield from verify_agent_signature(scene, machine, clock))


def _prove(
    scene: Scene, charge: Charge, store: Store, clock: Clock, machine: Machine | None
) -> Attempt:
    """Have a key touched that is attached to the machine, or a code typed."""
    touching = verdict = None
    if machine is not None and scene.enrollment.security_keys:
        from pam_mfa.verification.touch import Touching  # noqa: PLC0415 - only where there is a key

        touching = Touching(scene, machine, clock)
        verdict = yield from touching.begin()
    if verdict is None:
        verdict = yield from verify_code(scene, charge.decision.devices, store, clock, touching)
    return verdict


def _find_end(scene: Scene) -> tuple[Reason, Result] | None:
    """Return how an attempt ends before anything is asked; None where it goes on."""
    if not scene.caller.may_verify:
        return Reason.CALLER_NOT_ALLOWED, Result.DENIED
    if scene.enrollment.standing is Standing.NOT_ENROLLED and not asks_everyone(scene.policy):
        phase = scene.request.phase
        end = judge_unenrolled(scene.policy, has_account=scene.request.uid is not None, phase=phase)
        # A session's refusal is told, like the others'.
        return None if phase is Phase.SESSION and end[1] is Result.DENIED else end
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
    scene = yield from set_scene(request, caller, policy, store, decision.rule)
    result = Result.IGNORE if reason is Reason.SKIPPED_BY_RULE else Result.DENIED
    verdict = yield from record(scene, clock, reason, result)
    return apply_mode(policy, verdict)
