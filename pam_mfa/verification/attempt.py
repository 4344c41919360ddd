# SPDX-License-Identifier: Apache-2.0
"""The order of the steps of one attempt."""

from pam_mfa.audit import Reason
from pam_mfa.policy import Action, Policy, asks_everyone, decide
from pam_mfa.store import Standing, Store
from pam_mfa.verification.codes import verify_code
from pam_mfa.verification.needs import Ask, Attempt, Caller, Clock, Machine, Verdict
from pam_mfa.verification.rules import apply_mode, is_remote, judge_unenrolled
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
    decision = decide(policy, request.phase)
    if decision.action is Action.NOTHING:
        return Verdict(Result.IGNORE)
    ssh_keys = find_ssh_keys(request, caller) if "ssh-key" in decision.devices else ()
    may_have_key = (
        machine is not None
        and "fido" in decision.devices
        and is_local(request)
        and not machine.is_remote(caller.pid)
    )
    # The prompt goes out before anything of the user is looked up: it cannot tell who is
    # enrolled, not by its time either, and the look-up costs nobody any waiting. Who is at the
    # machine may have a key to be touched instead, and who came by SSH with a security key has
    # touched it already: they are asked after the look.
    is_asked_first = (
        caller.may_verify and asks_everyone(policy) and not may_have_key and not ssh_keys
    )
    if is_asked_first:
        yield Ask(PROMPT)
    scene = set_scene(request, caller, policy, store)
    if not is_asked_first and (end := _find_end(scene)):
        return (yield from record(scene, clock, *end))
    if ssh_keys:
        verdict = yield from verify_ssh_login(scene, ssh_keys, clock)
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


def is_local(request: Request) -> bool:
    """Whether the person may be at this machine; who is not, is not asked for a key in it."""
    return not (request.rhost or request.ssh_connection or is_remote(request.service))
