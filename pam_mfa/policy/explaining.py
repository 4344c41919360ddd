# SPDX-License-Identifier: Apache-2.0
"""Why policy decides as it does: each rule, each condition, in words.

Asks the very conditions that ``decide`` asks, and has no rules of its own. No login loads this.
"""

from typing import NamedTuple

from pam_mfa.policy.conditions import From, NotFrom, Terminals, When
from pam_mfa.policy.decision import Decision, UnknownGroupsError, decide
from pam_mfa.policy.words import Condition, Context, Policy, Rule

# What differs from one login of a user by a service to the next.
_CIRCUMSTANCES = (Terminals, From, NotFrom, When)


class Finding(NamedTuple):
    """One condition of a rule, in one context."""

    key: str
    holds: bool | None  # None: not known
    text: str


class RuleFinding(NamedTuple):
    """One rule in one context."""

    rule: Rule
    matches: bool | None  # None: not known
    is_deciding: bool  # whether it is the first that matches
    findings: tuple[Finding, ...]


class Explanation(NamedTuple):
    """What is decided, and why."""

    decision: Decision | None  # None: it depends on groups that are not known
    rules: tuple[RuleFinding, ...]


def explain(policy: Policy, context: Context) -> Explanation:
    """Explain what policy decides."""
    try:
        decision = decide(policy, context)
    except UnknownGroupsError:
        decision = None
    rules = []
    is_decided = decision is None
    for rule in policy.rules:
        findings = tuple(_find(condition, context) for condition in rule.conditions)
        matches = _matches(findings)
        is_deciding = matches is True and not is_decided
        is_decided = is_decided or is_deciding
        rules.append(RuleFinding(rule, matches, is_deciding, findings))
    return Explanation(decision, tuple(rules))


def is_open(policy: Policy, context: Context) -> bool:
    """Whether another source, terminal or time could make another rule decide."""
    for rule in policy.rules:
        fixed = [one for one in rule.conditions if not isinstance(one, _CIRCUMSTANCES)]
        if all(_find(one, context).holds for one in fixed):
            return len(fixed) < len(rule.conditions)
    return False


def _find(condition: Condition, context: Context) -> Finding:
    try:
        holds: bool | None = condition.holds(context)
    except UnknownGroupsError:
        holds = None
    return Finding(condition.key, holds, condition.describe(context))


def _matches(findings: tuple[Finding, ...]) -> bool | None:
    if any(finding.holds is False for finding in findings):
        return False
    return None if any(finding.holds is None for finding in findings) else True
