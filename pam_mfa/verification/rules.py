# SPDX-License-Identifier: Apache-2.0
"""The rules of an attempt that hold before any proof: what becomes of whom.

Pure predicates, without an attempt around them: ``next_login`` foretells by them what an attempt
then does. Policy's own decision is ``policy.decide``'s.
"""

from collections.abc import Collection

from pam_mfa.audit import Reason
from pam_mfa.devices import Bypass, Device, SshKeyDevice
from pam_mfa.policy import AgentKeys, Mode, Policy, Unenrolled
from pam_mfa.store import Standing
from pam_mfa.verification.needs import Caller, Verdict
from pam_mfa.wire import Phase, Request, Result

_REMOTE_SERVICES = ("sshd",)
# Setuid programs, which run in the surroundings of whoever calls them; others have no agent.
_AGENT_SERVICES = ("doas", "su", "su-l", "sudo", "sudo-i")


def is_remote(service: str) -> bool:
    """Whether whoever logs in by a service is never at this machine."""
    return service in _REMOTE_SERVICES


def is_local(request: Request) -> bool:
    """Whether the person may be at this machine; who is not, is not asked for a key in it."""
    return not (request.rhost or request.ssh_connection or is_remote(request.service))


def may_have_agent(service: str) -> bool:
    """Whether whoever uses a service can bring an ssh-agent; told beforehand, by its name."""
    return service in _AGENT_SERVICES


def counts_in_agent(device: SshKeyDevice, policy: Policy) -> bool:
    """Whether a key approves anything by an agent: one in a file only where policy says any."""
    return device.key.is_on_security_key or policy.agent.keys is AgentKeys.ANY


def can_ask_agent(request: Request, caller: Caller, types: Collection[str]) -> bool:
    """Whether the ssh-agent of whoever invoked the host program may be asked, near or far."""
    is_there = caller.agent is not None and caller.uid == 0 and not is_remote(request.service)
    return is_there and "ssh-key" in types


def is_acceptable(device: Device, types: Collection[str]) -> bool:
    """Whether a device counts where policy accepts these types; a bypass always does."""
    return device.type in types or isinstance(device, Bypass)


def find_hindrance(standing: Standing, *, is_locked: bool, can_be_right: bool) -> Reason | None:
    """Return why every code is refused, a right one too; None where codes are judged.

    Args:
        standing: whether the user has devices that can be used.
        is_locked: whether wrong codes have locked the user.
        can_be_right: whether one of the devices that make codes is acceptable.
    """
    if standing is Standing.NOT_ENROLLED:
        return Reason.NOT_ENROLLED
    if standing in (Standing.UNREADABLE, Standing.OUT_OF_REACH):
        return Reason.DEVICES_UNREADABLE
    if is_locked:
        return Reason.LOCKED
    return None if can_be_right else Reason.NO_ACCEPTABLE_DEVICE


def judge_unenrolled(
    policy: Policy, *, has_account: bool, phase: Phase = Phase.AUTH
) -> tuple[Reason, Result]:
    """Return how a user without devices ends where policy does not have everybody asked.

    Let by only where policy says so in so many words.
    """
    if policy.unenrolled is Unenrolled.ALLOW:
        return Reason.UNENROLLED_ALLOWED, Result.IGNORE
    if policy.unenrolled is Unenrolled.ENROLL and policy.mode is Mode.ENFORCE:
        if phase is not Phase.AUTH:  # it is too late to enroll
            return Reason.NOT_ENROLLED, Result.DENIED
        # Whoever has an account enrolls in the account phase; nobody else gets that far.
        return Reason.ENROLLMENT_DUE, Result.IGNORE if has_account else Result.DENIED
    return Reason.NOT_ENROLLED, Result.IGNORE


def apply_mode(policy: Policy, verdict: Verdict) -> Verdict:
    """Return a verdict as the policy's mode tells it: in report-only nobody is refused."""
    if verdict.result is Result.DENIED and policy.mode is Mode.REPORT_ONLY:
        return Verdict(Result.IGNORE, verdict.reason)
    return verdict
