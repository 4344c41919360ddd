# SPDX-License-Identifier: Apache-2.0
"""Lockout: guesses cannot outrun the limit, whatever the clock does."""

import pytest
from doubles import START
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.lockout import LockoutRule, LockState, is_locked, register_failure

NOW = START
RULE = LockoutRule(failures=3, within=100.0, lock_for=1000.0)
RULES = st.builds(
    LockoutRule,
    failures=st.integers(1, 8),
    within=st.integers(1, 600).map(float),
    lock_for=st.integers(1, 600).map(float),
)
PAUSES = st.lists(st.integers(0, 400).map(float), max_size=60)


def guess(rule: LockoutRule, moments: list[float]) -> list[list[float]]:
    """Guess wrongly at every moment; return the guesses that were judged, a list a lock.

    The last list is of those after the last lock.
    """
    judged: list[list[float]] = [[]]
    state = LockState()
    for now in moments:
        if is_locked(state, now):
            continue
        judged[-1].append(now)
        state = register_failure(state, rule, now)
        if is_locked(state, now):
            judged.append([])
    return judged


def add_up(pauses: list[float]) -> list[float]:
    """Return the moments between which these pauses lie."""
    moments = [NOW]
    for pause in pauses:
        moments.append(moments[-1] + pause)
    return moments


@given(RULES, PAUSES)
def test_limit(rule: LockoutRule, pauses: list[float]) -> None:
    """No window of time sees more wrong guesses judged than the rule allows before a lock."""
    for run in guess(rule, add_up(pauses)):
        for start in run:
            inside = [at for at in run if start <= at < start + rule.within]
            assert len(inside) <= rule.failures


@given(RULES, PAUSES)
def test_lock_comes(rule: LockoutRule, pauses: list[float]) -> None:
    """The guess that fills a window locks: no run goes on after it."""
    for run in guess(rule, add_up(pauses)):
        full = [
            end
            for end in run
            if len([at for at in run if end - rule.within < at <= end]) >= rule.failures
        ]
        # Guesses of one moment are told apart by their number, not by their time.
        assert not full or full[0] == run[-1]


@given(RULES, PAUSES)
def test_clock_going_back(rule: LockoutRule, pauses: list[float]) -> None:
    """A clock that only goes back hands out no guess beyond the limit, and ends no lock."""
    moments = [NOW - (moment - NOW) for moment in add_up(pauses)]
    judged = guess(rule, moments)
    assert sum(map(len, judged)) == min(len(moments), rule.failures)


@given(st.lists(st.integers(-900, 99).map(float), min_size=10, max_size=30))
def test_clock_set_anywhere_in_the_past(offsets: list[float]) -> None:
    """After two failures, a clock set back and forth gives one guess at most before the lock."""
    state = LockState((NOW, NOW))
    judged = 0
    for offset in offsets:
        if not is_locked(state, NOW + offset):
            judged += 1
            state = register_failure(state, RULE, NOW + offset)
    assert 1 == judged


def test_lock_ends() -> None:
    """A lock holds up to its last moment and ends with it."""
    state = LockState()
    for _ in range(3):
        state = register_failure(state, RULE, NOW)
    locked = [is_locked(state, NOW + after) for after in (0.0, 999.999, 1000.0, 2000.0)]
    assert [True, True, False, False] == locked


def test_count_after_lock() -> None:
    """After a lock the count starts anew."""
    state = register_failure(LockState((), NOW), RULE, NOW + 1)
    assert LockState((NOW + 1,), NOW) == state


@pytest.mark.parametrize(
    ("failures", "kept"),
    [
        ((), (NOW,)),
        ((NOW - 100.0,), (NOW,)),
        ((NOW - 99.9,), (NOW - 99.9, NOW)),
        ((NOW + 50.0,), (NOW + 50.0, NOW)),
        ((NOW - 500.0, NOW - 400.0, NOW - 1.0), (NOW - 1.0, NOW)),
    ],
)
def test_recent_failures(failures: tuple[float, ...], kept: tuple[float, ...]) -> None:
    """Failures older than the window are forgotten; those from the future are not."""
    assert LockState(kept) == register_failure(LockState(failures), RULE, NOW)


def test_stricter_rule() -> None:
    """A rule that became stricter locks by the failures that were counted before."""
    state = register_failure(LockState((NOW - 3, NOW - 2, NOW - 1)), LockoutRule(2), NOW)
    assert is_locked(state, NOW)


def test_nobody_is_locked_at_first() -> None:
    """A user of whom nothing is remembered is not locked."""
    assert not is_locked(LockState(), 0.0)
