# SPDX-License-Identifier: Apache-2.0
"""Why one login would end as it would: each rule, the verdict, the devices, the next question.

Pure. Has no rules of its own: the words are ``policy.explaining``'s and ``next_login``'s, which ask
what decides logins.
"""

import datetime
from typing import Any, NamedTuple

from pam_mfa.audit import Reason
from pam_mfa.devices import FidoDevice, SshKeyDevice
from pam_mfa.lifecycle import DeviceStatus, UserStatus
from pam_mfa.listing import utc
from pam_mfa.login_words import Outcome
from pam_mfa.mfa_age import Place, Verified, Wish, find_fresh
from pam_mfa.mfa_sessions import describe_source
from pam_mfa.next_login import NextLogin, Situation, foresee_logins
from pam_mfa.pam_services import Service
from pam_mfa.policy import Context, Decision, Policy
from pam_mfa.policy.explaining import RuleFinding, explain
from pam_mfa.verification.memory import find_source
from pam_mfa.verification.rules import (
    counts_in_agent,
    is_acceptable,
    is_remote,
    may_have_agent,
)
from pam_mfa.wire import Phase, Request

Row = dict[str, Any]


class Login(NamedTuple):
    """The login to be explained."""

    user: str
    service: Service
    rhost: str
    tty: str
    at: datetime.datetime  # UTC
    groups: frozenset[str] | None  # those of the policy's that the user is in
    phase: Phase = Phase.AUTH
    remembered: tuple[Verified, ...] = ()  # of the user


def explain_login(
    policy: Policy, login: Login, status: UserStatus, root: str, *, has_account: bool
) -> Row:
    """Return everything of one login, as JSON has it."""
    context = Context(
        login.phase, login.user, login.service.name, login.tty, login.rhost,
        at=login.at.timestamp(), groups=login.groups,
    )  # fmt: skip
    explanation = explain(policy, context)
    situation = Situation(
        policy, root, login.at, login.tty, login.rhost, lambda _: login.groups, is_definite=True
    )
    (foreseen,) = foresee_logins([login.service], status, situation, has_account=has_account)
    counting = [_verified_row(one, explanation.decision, login) for one in login.remembered]
    fresh = [one for one in counting if one["counts"]]
    if fresh and foreseen.outcome in (Outcome.CODE, Outcome.TOUCH, Outcome.SSH_KEY):
        text = f"not asked: verified {fresh[-1]['age']} s before by {fresh[-1]['device']}"
        foreseen = NextLogin(foreseen.service, Outcome.NOT_ASKED, Reason.MFA_AGE_FRESH, text)
    return {
        "user": login.user,
        "service": login.service.name,
        "rhost": login.rhost,
        "tty": login.tty,
        "at": utc(login.at),
        "phase": login.phase.name.lower(),
        "groups": None if login.groups is None else sorted(login.groups),
        "rules": [_rule_row(finding) for finding in explanation.rules],
        "verdict": _verdict_row(explanation.decision),
        "devices": [
            _device_row(one, explanation.decision, login, policy) for one in status.devices
        ],
        "remembered": counting,
        "next_login": foreseen._asdict(),
    }


def _rule_row(finding: RuleFinding) -> Row:
    return {
        "name": finding.rule.name,
        "place": finding.rule.place,
        "matches": finding.matches,
        "decides": finding.is_deciding,
        "conditions": [one._asdict() for one in finding.findings],
    }


def _verdict_row(decision: Decision | None) -> Row | None:
    if decision is None:
        return None
    return {
        "action": decision.action.value,
        "rule": decision.rule or None,
        "mode": decision.mode.value,
        "devices": list(decision.devices),
        "message": decision.message,
        "mfa_age": decision.mfa_age or None,
        "scope": decision.scope.value if decision.mfa_age else None,
    }


def _verified_row(one: Verified, decision: Decision | None, login: Login) -> Row:
    """Return a verification, and whether it counts; None: in the same session alone."""
    request = Request(
        b"", login.phase, login.user, login.service.name, tty=login.tty, rhost=login.rhost
    )
    source = find_source(request, is_of_daemon=login.service.name == "login")
    at = login.at.timestamp()
    counts: bool | None = False
    if decision is not None and decision.mfa_age:
        wish = Wish(
            Place(source=source), login.service.name, decision.devices,
            decision.mfa_age, decision.scope, is_first=True,
            is_arrival=bool(login.rhost) or is_remote(login.service.name),
        )  # fmt: skip
        # In its own session it would be fresh; whether this is one, only the kernel says.
        there = wish._replace(place=one.place, is_arrival=False)
        counts = bool(find_fresh((one,), wish, at))
        if not counts and find_fresh((one,), there, at) and not wish.is_arrival:
            counts = None
    return {
        "device": one.serial_number,
        "type": one.type,
        "service": one.service,
        "source": describe_source(one.place.source),
        "age": round(at - one.at),
        "counts": counts,
    }


def _device_row(one: DeviceStatus, decision: Decision | None, login: Login, policy: Policy) -> Row:
    """Return a device and whether it would do."""
    device, is_ssh = one.device, is_remote(login.service.name)
    types = decision.devices if decision else ()
    would_do = bool(types) and is_acceptable(device, types) and not one.problem
    if isinstance(device, FidoDevice):
        would_do = would_do and not is_ssh and not login.rhost
    if isinstance(device, SshKeyDevice):
        has_agent = may_have_agent(login.service.name) and counts_in_agent(device, policy)
        would_do = would_do and (device.key.is_on_security_key if is_ssh else has_agent)
    return {
        "serial_number": device.serial_number,
        "type": device.type,
        "name": device.name,
        "would_do": would_do and one.codes_left != 0,
    }
