# SPDX-License-Identifier: Apache-2.0
"""The decision: what policy asks of one PAM call. The only place that decides.

Pure. ``explaining`` and ``next_login`` say by these same functions what would be decided.
"""

import enum
from typing import NamedTuple

from pam_mfa.errors import PolicyError
from pam_mfa.mfa_age import Scope
from pam_mfa.policy.words import Context, Effect, Mode, Policy, Rule, Unenrolled
from pam_mfa.wire import Phase


class UnknownGroupsError(PolicyError):
    """A rule depends on the user's groups, and nobody knows them."""


class Action(enum.Enum):
    """What an attempt has to do."""

    NOTHING = "nothing"  # this phase has nothing to verify
    VERIFY = "verify"
    ENROLL = "enroll"
    SKIP = "skip"  # a rule lets by without a question
    DENY = "deny"  # a rule refuses whatever could be proven


class Decision(NamedTuple):
    """What policy asks of one attempt."""

    action: Action
    devices: tuple[str, ...] = ()
    rule: str = ""  # the rule that decided; "": the defaults
    mode: Mode = Mode.ENFORCE
    message: str = ""  # for whoever is denied
    mfa_age: float = 0.0  # seconds for which an earlier verification counts; 0: none does
    scope: Scope = Scope.SESSION  # where it counts
    may_enroll: bool = False  # whoever has no device enables one first: account phase only


_ACTIONS = {Effect.SKIP: Action.SKIP, Effect.DENY: Action.DENY, Effect.REQUIRE: Action.VERIFY}
_NO_RULE = Rule("", (), Effect.REQUIRE)


def decide(policy: Policy, context: Context) -> Decision:
    """Decide what an attempt has to do.

    Raises:
        UnknownGroupsError: it depends on the user's groups, which the context does not have.
    """
    phase = context.phase
    enrolls = phase is Phase.ACCOUNT and policy.unenrolled is Unenrolled.ENROLL
    if not (enrolls or phase is Phase.AUTH or any(decides_in(one, phase) for one in policy.rules)):
        return Decision(Action.NOTHING)
    rule = find_rule(policy, context)
    mode = policy.mode
    if rule is None:
        rule = _NO_RULE._replace(devices=policy.devices)
    elif rule.mode is Mode.REPORT_ONLY:  # the policy's own mode is never made stricter
        mode = rule.mode
    # Whoever is skipped or denied by a rule has nothing to enroll for.
    enrolls = enrolls and mode is Mode.ENFORCE and rule.effect is Effect.REQUIRE
    if not decides_in(rule, phase):
        return Decision(Action.ENROLL, (), rule.name, mode) if enrolls else Decision(Action.NOTHING)
    return Decision(
        _ACTIONS[rule.effect],
        rule.devices,
        rule.name,
        mode,
        rule.message,
        rule.mfa_age,
        rule.scope,
        enrolls,
    )


def decides_in(rule: Rule, phase: Phase) -> bool:
    """Whether a rule that matches has a say in a phase.

    In those that it names; else in auth, and where it asks for an age in account, too: sudo skips
    auth while its own timestamp is valid. In the others it only keeps later rules from matching.
    """
    if rule.phases:
        return phase in rule.phases
    if phase is Phase.ACCOUNT:
        return rule.effect is Effect.REQUIRE and rule.mfa_age > 0
    return phase is Phase.AUTH


def find_rule(policy: Policy, context: Context) -> Rule | None:
    """Return the first rule that matches, or None: the defaults decide.

    Raises:
        UnknownGroupsError: it depends on the user's groups, which the context does not have.
    """
    for rule in policy.rules:
        for condition in rule.conditions:
            if not condition.holds(context):
                break
        else:
            return rule
    return None


def asks_everyone(policy: Policy) -> bool:
    """Whether users without a device are asked for a code like the others, so as not to show."""
    return policy.mode is Mode.ENFORCE and policy.unenrolled is Unenrolled.DENY
