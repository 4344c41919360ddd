# SPDX-License-Identifier: Apache-2.0
"""What is odd about a policy that is sound: rules that do nothing, and consoles without a way in.

Pure: of whom and what there is, it is told. Decides nothing by itself; whether root gets in, it
asks ``decide``. No login loads this.
"""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from pam_mfa.policy.conditions import From, Groups, Names, NotFrom, Terminals, When
from pam_mfa.policy.decision import Action, Decision, UnknownGroupsError, decide, decides_in
from pam_mfa.policy.words import AgentKeys, Context, Effect, Mode, Policy, Rule, Unenrolled
from pam_mfa.wire import Phase

CONSOLES = ("tty1", "console", "ttyS0", "hvc0")
_HOURS = 7 * 24


class Facts(NamedTuple):
    """What the host says."""

    has_user: Callable[[str], bool]
    has_group: Callable[[str], bool]
    root_types: Collection[str] | None  # of devices by which root can be verified; None: unknown
    root_groups: frozenset[str] | None
    at: float  # now, in seconds since the epoch


def find_warnings(policy: Policy, facts: Facts) -> Iterator[str]:
    """Go through all that is odd, a sentence each."""
    if policy.agent.keys is AgentKeys.ANY:
        yield (
            "agent_keys: any lets keys in files approve sudo: no touch is proven by them, and "
            "whoever can use the ssh-agent approves unseen"
        )
    yield from _find_unreachable(policy.rules)
    for rule in policy.rules:
        yield from _find_oddities(rule, policy, facts)
    if not _has_console_way(policy, facts):
        why = (
            "root has no device that would do, and no rule lets root by"
            if facts.root_types is not None
            else "a rule denies root at each of them"
        )
        yield (
            f"root has no way in from any console (service login; {', '.join(CONSOLES)}): {why}. "
            "Enable a device for root, or begin with a rule: "
            "match: {service: [login], user: [root], tty: [tty1]}, then: skip"
        )


def _find_unreachable(rules: tuple[Rule, ...]) -> Iterator[str]:
    """Go through rules that an earlier one always catches."""
    keys = [frozenset(condition.key for condition in rule.conditions) for rule in rules]
    for index, rule in enumerate(rules):
        if not _can_match(rule):
            yield f"{_name(rule)} can never match: its conditions exclude each other"
            continue
        for before in range(index):
            wider = rules[before]
            if len(keys[before]) <= len(keys[index]) and _covers(wider, rule):
                yield (
                    f"{_name(rule)} is never reached: whatever it matches, {_name(wider)} "
                    "has matched before"
                )
                break


def _covers(wider: Rule, rule: Rule) -> bool:
    """Whether a rule surely matches wherever another one does."""
    return all(any(one.covers(other) for other in rule.conditions) for one in wider.conditions)


def _can_match(rule: Rule) -> bool:
    """Whether the conditions of a rule can hold together, as far as that is plain."""
    sources = next((one for one in rule.conditions if isinstance(one, From)), None)
    if sources is None:
        return True
    for one in rule.conditions:
        if isinstance(one, NotFrom) and all(
            any(network.includes(source) for network in one.networks) for source in sources.networks
        ):
            return False
        if isinstance(one, Terminals) and not (one.is_remote or one.names):
            return False  # whoever has a remote host is not at the console
    return True


def _find_oddities(rule: Rule, policy: Policy, facts: Facts) -> Iterator[str]:
    for condition in rule.conditions:
        if isinstance(condition, Names) and condition.key == "user":
            for user in sorted(condition.names):
                if not facts.has_user(user):
                    yield f"{_name(rule)} names the user '{user}', whom this host does not have"
        if isinstance(condition, Groups):
            for group in sorted(condition.names):
                if not facts.has_group(group):
                    yield f"{_name(rule)} names the group '{group}', which this host does not have"
    yield from _find_double_networks(rule)
    yield from _find_odd_modes(rule, policy)


def _find_odd_modes(rule: Rule, policy: Policy) -> Iterator[str]:
    if rule.mfa_age and not decides_in(rule, Phase.ACCOUNT):
        yield (
            f"{_name(rule)} has an mfa_age and leaves the account phase out: where sudo's own "
            "timestamp is valid, nobody looks at the age"
        )
    if rule.mode is Mode.ENFORCE and policy.mode is Mode.REPORT_ONLY:
        yield f"{_name(rule)} says enforce, but the policy's mode is report-only, and that holds"
    if rule.mode is Mode.REPORT_ONLY and rule.effect is not Effect.SKIP:
        yield (
            f"{_name(rule)} is report-only: whoever it matches is let in whatever they answer, "
            "and no later rule is asked"
        )


def _find_double_networks(rule: Rule) -> Iterator[str]:
    """Go through networks that a rule has named already, as such or by a wider one."""
    inner = {one.key: one for one in rule.conditions if isinstance(one, From | NotFrom)}
    for key, condition in inner.items():
        pairs = tuple(zip(condition.networks, condition.texts, strict=True))
        for network, text in pairs:
            wider = [name for one, name in pairs if one != network and one.includes(network)]
            if wider:
                yield f"{_name(rule)} names under {key} '{text}', which lies in '{wider[0]}'"
    if len(inner) > 1:
        out = dict(zip(inner["not_from"].networks, inner["not_from"].texts, strict=True))
        for network, text in zip(inner["from"].networks, inner["from"].texts, strict=True):
            if network in out:
                yield (
                    f"{_name(rule)} names the network '{text}' twice, under from and "
                    "under not_from: it never matches there"
                )


def _has_console_way(policy: Policy, facts: Facts) -> bool:
    """Whether root gets in at any console, at any hour of the week to come."""
    has_times = any(isinstance(one, When) for rule in policy.rules for one in rule.conditions)
    for hour in range(_HOURS if has_times else 1):
        for tty in CONSOLES:
            context = Context(
                Phase.AUTH, "root", "login", tty,
                at=facts.at + hour * 3600, groups=facts.root_groups,
            )  # fmt: skip
            if _is_way(policy, context, facts):
                return True
    return False


def _is_way(policy: Policy, context: Context, facts: Facts) -> bool:
    """Whether root gets through all phases of one login."""
    decisions: list[Decision] = []
    try:
        for phase in Phase:
            decisions.append(decide(policy, context._replace(phase=phase)))
            if not _is_passed(policy, decisions[-1], facts.root_types):
                return False
    except UnknownGroupsError:
        return False
    last = decisions[-1]
    if last.mode is Mode.REPORT_ONLY or last.action is not Action.VERIFY:
        return True
    # Nothing is asked in the session phase: what counts there was proven before.
    before = {
        device
        for one in decisions[:-1]
        if one.action is Action.VERIFY
        for device in one.devices
        if facts.root_types is None or device in facts.root_types
    }
    return bool(before & set(last.devices) - {"ssh-key"})


def _is_passed(policy: Policy, decision: Decision, types: Collection[str] | None) -> bool:
    """Whether root, with devices of these types, gets through one phase."""
    if decision.mode is Mode.REPORT_ONLY or decision.action in (Action.SKIP, Action.NOTHING):
        return True
    if decision.action in (Action.DENY, Action.ENROLL):
        return decision.action is Action.ENROLL
    if types is None:
        return True
    if not types:
        return policy.unenrolled is not Unenrolled.DENY
    return bool(set(types) & set(decision.devices) - {"ssh-key"})


def _name(rule: Rule) -> str:
    return f"the rule '{rule.name}' ({rule.place})"
