# SPDX-License-Identifier: Apache-2.0
"""The words for how a login would end: which outcome it is called, and what is said of it. Pure."""

import enum
from collections.abc import Iterable
from typing import NamedTuple

from pam_mfa.audit import Reason
from pam_mfa.devices import Bypass, Device, FidoDevice, RecoveryCodes, SshKeyDevice
from pam_mfa.lifecycle import DeviceStatus
from pam_mfa.mfa_age import Scope
from pam_mfa.module_line import MODULE
from pam_mfa.policy import Decision, Mode, Policy
from pam_mfa.verification.rules import is_remote


class Outcome(enum.StrEnum):
    """What becomes of a user at a service."""

    CODE = "code"  # a code is asked for, and the user's devices can make it
    TOUCH = "touch"  # a security key has to be touched, and nothing else lets in
    SSH_KEY = "ssh key"  # an enrolled SSH key has to sign, and nothing else lets in
    REFUSED = "refused"
    NOT_ASKED = "not asked"
    NOT_REFUSED = "not refused"  # report-only: whatever is answered, if anything is asked
    ENROLLS = "enrolls"
    UNKNOWN = "unknown"  # the line is about another root's devices


class End(NamedTuple):
    """How a phase ends."""

    outcome: Outcome
    reason: Reason | None
    text: str


OPEN = "; by where from, which terminal and when, it may be otherwise: pam-mfa policy explain"
NOBODY = "report-only: nobody is refused"
_KEY_FIRST = "if sshd asks for keys before PAM"  # what it is configured to do is not looked at
WORDS = {
    Reason.NOT_ENROLLED: "no MFA device, and policy denies users without one",
    Reason.DEVICES_UNREADABLE: "the MFA devices cannot be read",
    Reason.NO_ACCEPTABLE_DEVICE: "no MFA device of a type that policy accepts",
    Reason.DENIED_BY_RULE: "a rule of policy denies it",
    Reason.ENROLLMENT_DUE: "no MFA device, and no account that could enroll one",
}


def describe_age(decision: Decision, service: str, *, has_account_line: bool) -> str:
    """Say where an earlier verification counts, and where nobody looks at its age."""
    place = "in the same session" if decision.scope is Scope.SESSION else "from the same address"
    text = f"; not within {decision.mfa_age:.0f} s of a verification {place}"
    if not has_account_line and service.startswith("sudo"):
        text += (
            f" ({MODULE} is not in its account phase, so sudo's own timestamp is not held to it)"
        )
    return text


def describe_question(
    policy: Policy, service: str, keys: list[DeviceStatus], ways: list[DeviceStatus]
) -> End:
    """Say what a user can do at a service; at least one of keys and ways is there."""
    code = f"asks for a verification code ({name_ways(ways)})"
    outcome, text = Outcome.CODE, code
    if keys and is_remote(service):
        signed = f"where the login is signed by an enrolled SSH key ({name_ways(keys)})"
        text = (
            f"{code}; no code {signed}, {_KEY_FIRST}" if ways else f"lets in {signed}, {_KEY_FIRST}"
        )
        outcome = outcome if ways else Outcome.SSH_KEY
    elif keys:
        touch, is_here = _name_touch(keys)
        text = f"{touch}, or {code.removeprefix('asks for ')}" if ways else touch
        outcome = outcome if ways else Outcome.TOUCH if is_here else Outcome.SSH_KEY
    if policy.mode is Mode.REPORT_ONLY:
        text += f"; whatever comes lets in ({NOBODY})"
    return End(outcome, None, text)


def _name_touch(keys: list[DeviceStatus]) -> tuple[str, bool]:
    """Say which keys have to be touched, and whether one of them can be at this machine."""
    here = [one for one in keys if isinstance(one.device, FidoDevice)]
    behind = [one for one in keys if _is_on_security_key(one.device)]
    in_files = [one for one in keys if one not in here and one not in behind]
    places = (("behind their ssh-agent", behind), ("at this machine", here))
    named = [f"{where} ({name_ways(some)})" for where, some in places if some]
    wanted = [f"a touch of a security key {', or '.join(named)}"] if named else []
    if in_files:
        wanted.append(f"a signature by a key in their ssh-agent ({name_ways(in_files)})")
    return f"asks for {', or '.join(wanted)}", bool(here)


def _is_on_security_key(device: Device) -> bool:
    return isinstance(device, SshKeyDevice) and device.key.is_on_security_key


def name_ways(devices: Iterable[DeviceStatus]) -> str:
    """Return devices by name, and how many codes are left on paper."""
    return ", ".join(_name_way(one.device, one.codes_left) for one in devices)


def _name_way(device: Device, codes_left: int | None) -> str:
    if isinstance(device, RecoveryCodes):
        return f"recovery codes: {codes_left} left"
    return "bypass code" if isinstance(device, Bypass) else device.name
