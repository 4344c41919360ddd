# SPDX-License-Identifier: Apache-2.0
"""What rules make of an attempt: skipped, denied, required, recorded; groups that do not come."""

import grp
import os
import pwd
import threading
from typing import Any

import pytest
from doubles import SEED as RIGHT_SEED
from doubles import START, Clock, MemoryStore, code_of, drive, enrolled, make_request
from doubles import STEP as RIGHT_STEP

from pam_mfa import host_groups
from pam_mfa.audit import EventName, Outcome, Reason
from pam_mfa.errors import StateError
from pam_mfa.host_groups import SilentNameServiceError, find_groups, has_account, has_group
from pam_mfa.policy import Mode, Policy, UnknownGroupsError, parse_policy
from pam_mfa.verification import (
    Ask,
    Attempt,
    Caller,
    Commit,
    Complain,
    Listen,
    Need,
    Tell,
    Verdict,
    Work,
    attempt,
)
from pam_mfa.wire import Result

ROOT = Caller(1, 0, may_verify=True)
STRANGER = Caller(2, 1001, may_verify=False)
CODE = code_of(RIGHT_SEED, RIGHT_STEP)


def policy_of(rule: str) -> Policy:
    """Return a policy of one rule."""
    text = f"version: 1\ndefaults: {{prompts: 1}}\nrules:\n  - {{name: the rule, {rule}}}\n"
    return parse_policy(text.encode(), "p")


def start(rule: str, store: MemoryStore, caller: Caller = ROOT, **items: Any) -> Attempt:  # noqa: ANN401
    """Begin an attempt of Alice under one rule."""
    return attempt(make_request(**items), caller, policy_of(rule), store, Clock())


def finish(running: Attempt, store: MemoryStore, answer: str = CODE) -> tuple[list[Need], Verdict]:
    """Carry an attempt to its end, groups being those of no host; return its needs."""
    needs: list[Need] = []
    reply: object = None
    while True:
        try:
            need = running.throw(reply) if isinstance(reply, StateError) else running.send(reply)
        except StopIteration as end:
            verdict: Verdict = end.value
            return needs, verdict
        needs.append(need)
        reply = None
        if isinstance(need, Listen):
            reply = answer
        elif isinstance(need, Commit):
            try:
                reply = store.commit([need.claim])[0]
            except StateError as error:
                reply = error
        elif isinstance(need, Work):
            reply = frozenset({"admins"})


def test_skip() -> None:
    """A rule that skips lets by without a question, and is recorded with its name."""
    store = MemoryStore(alice=enrolled())
    needs, verdict = finish(start("match: {}, then: skip", store), store)
    (event,) = store.events
    assert ([Commit], Result.IGNORE) == ([type(need) for need in needs], verdict.result)
    expected = (EventName.SKIP_MFA, Outcome.SUCCESS, Reason.SKIPPED_BY_RULE, "the rule")
    assert expected == (event.name, event.outcome, event.reason, event.rule)


def test_skip_with_a_broken_store() -> None:
    """A rule that skips holds though its record cannot be written; the system log is told."""
    store = MemoryStore(alice=enrolled())
    store.failure = StateError("the disk is full")
    needs, verdict = finish(start("match: {}, then: skip", store), store)
    assert Verdict(Result.IGNORE, Reason.SKIPPED_BY_RULE) == verdict
    assert [store.failure] == [need.error for need in needs if isinstance(need, Complain)]


@pytest.mark.parametrize("rule", ["then: skip", "then: deny, message: No.", "require: [virtual]"])
def test_stranger(rule: str) -> None:
    """Whoever may not verify the user is denied and recorded as such, whatever the rule says."""
    store = MemoryStore(alice=enrolled())
    needs, verdict = finish(start(f"match: {{}}, {rule}", store, STRANGER), store)
    assert ([Commit], Result.DENIED) == ([type(need) for need in needs], verdict.result)
    assert [Reason.CALLER_NOT_ALLOWED] == [event.reason for event in store.events]


def test_deny() -> None:
    """A rule that denies asks nothing, is recorded, and then tells its message."""
    store = MemoryStore(alice=enrolled())
    needs, verdict = finish(start("match: {}, then: deny, message: Use the gate.", store), store)
    assert [Tell("Use the gate.")] == needs[1:]
    assert Verdict(Result.DENIED, Reason.DENIED_BY_RULE) == verdict
    (event,) = store.events
    assert (Outcome.DENIED, "the rule", START) == (event.outcome, event.rule, event.at)


def test_denied_alike() -> None:
    """Enrolled, unenrolled and unknown users are denied by the same steps."""
    seen = []
    for user, uid in (("alice", 1000), ("bob", 1001), ("nobody-at-all", None)):
        store = MemoryStore(alice=enrolled())
        rule = "match: {}, then: deny, message: No."
        needs, verdict = finish(start(rule, store, user=user, uid=uid), store)
        seen.append(([type(need) for need in needs], verdict))
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("effect", ["then: deny, message: No.", "require: [token]"])
def test_report_only_rule(effect: str) -> None:
    """A rule that only reports is recorded as it would end, and lets by without a word."""
    store = MemoryStore(alice=enrolled())
    rule = f"match: {{}}, {effect}, mode: report-only"
    needs, verdict = finish(start(rule, store), store)
    assert Result.IGNORE is verdict.result
    assert not [need for need in needs if isinstance(need, Tell)]
    (event,) = store.events
    assert (Outcome.DENIED, Mode.REPORT_ONLY, "the rule") == (event.outcome, event.mode, event.rule)


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ("virtual", (Result.SUCCESS, Reason.CODE_ACCEPTED)),
        ("token, fido", (Result.DENIED, Reason.NO_ACCEPTABLE_DEVICE)),
    ],
)
def test_require(types: str, expected: tuple[Result, Reason]) -> None:
    """A rule that requires types accepts the right code of such a device only, and is recorded."""
    store = MemoryStore(alice=enrolled())
    _, verdict = finish(start(f"match: {{}}, require: [{types}]", store), store)
    assert expected == verdict
    assert ["the rule"] == [event.rule for event in store.events]


def test_no_rule_is_recorded_where_none_decides() -> None:
    """Where the defaults decide, the record names no rule."""
    store = MemoryStore(alice=enrolled())
    finish(start("match: {user: [bob]}, then: deny", store), store)
    assert [""] == [event.rule for event in store.events]


def test_prompt_first() -> None:
    """Rules on what the request says leave the prompt the first step, before any look-up."""
    store = MemoryStore(alice=enrolled())
    rule = "match: {user: [alice], service: [sshd], from: [192.0.2.0/24]}, require: [virtual]"
    assert isinstance(next(start(rule, store)), Ask)
    assert [] == store.looked_up


@pytest.mark.parametrize(
    ("match", "is_needed"),
    [("group: [admins]", True), ("group: [admins], service: [sudo]", False)],
)
def test_groups_are_looked_up_only_where_needed(match: str, is_needed: bool) -> None:  # noqa: FBT001
    """Groups are looked up where all else of a rule matches, and then before the prompt."""
    store = MemoryStore(alice=enrolled())
    needs, verdict = finish(start(f"match: {{{match}}}, require: [token]", store), store)
    assert (is_needed, not is_needed) == (isinstance(needs[0], Work), isinstance(needs[0], Ask))
    assert (Result.DENIED if is_needed else Result.SUCCESS) is verdict.result


def test_unknown_groups() -> None:
    """Where the name service does not say, there is no verdict: a rule may require more or less."""
    running = start("match: {group: [admins]}, then: skip", MemoryStore(alice=enrolled()))
    assert isinstance(next(running), Work)
    with pytest.raises(UnknownGroupsError):
        running.send(None)


def test_plain_driver() -> None:
    """An attempt without groups needs nothing that drivers did not know before rules."""
    store = MemoryStore(alice=enrolled())
    running = start("match: {}, require: [virtual]", store)
    assert ["Ask", "Listen", "Commit"] == drive(running, store, [CODE])[0]


def look(user: str = "root", *names: str, is_known: bool = True) -> frozenset[str] | None:
    """Look a user's groups up, and give a name service that hangs little time."""
    return find_groups(user, names, is_known=is_known, patience=0.2)


def test_real_groups() -> None:
    """The host's own name service tells which of the named groups a user is in."""
    mine = pwd.getpwuid(0)
    name = grp.getgrgid(mine.pw_gid).gr_name
    assert frozenset({name}) == look(mine.pw_name, name, "no-such-group", "nul\0")


@pytest.mark.parametrize(
    ("user", "is_known", "expected"),
    [
        ("no-such-account", False, frozenset()),
        ("no-such-account", True, None),
        ("nul\0", True, None),
    ],
)
def test_no_account(user: str, is_known: bool, expected: frozenset[str] | None) -> None:  # noqa: FBT001
    """A name without account is in no group; an account that is not found is a failure."""
    assert expected == look(user, "x", is_known=is_known)


def test_name_service_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name service that hangs is not waited for; so many calls hang at most; then it recovers."""
    real, go_on, begun = os.getgrouplist, threading.Event(), threading.Semaphore(0)

    def hang(user: str, group: int) -> list[int]:
        begun.release()
        go_on.wait(60)
        return real(user, group)

    monkeypatch.setattr(os, "getgrouplist", hang)
    before = threading.active_count()
    found = [find_groups("root", ("x",), is_known=True, patience=0.01) for _ in range(20)]
    for _ in range(16):
        assert begun.acquire(timeout=30)
    assert ([None] * 20, 16) == (found, threading.active_count() - before)
    go_on.set()
    for thread in threading.enumerate():
        if thread.name.endswith("(look)"):
            thread.join(30)
    monkeypatch.undo()
    assert frozenset() == look("root", "no-such-group")


def test_names_are_looked_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the host has an account or group is told, or that its name service is silent."""
    assert [True, False] == [has_account("root"), has_account("no-such-account")]
    assert [False, False] == [has_group("no-such-group"), has_group("nul\0")]
    go_on = threading.Event()
    monkeypatch.setattr(host_groups, "PATIENCE", 0.05)
    monkeypatch.setattr(pwd, "getpwnam", lambda _: go_on.wait(60))
    with pytest.raises(SilentNameServiceError, match="does not answer"):
        has_account("root")
    go_on.set()
