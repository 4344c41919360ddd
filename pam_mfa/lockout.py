# SPDX-License-Identifier: Apache-2.0
"""How many wrong codes a user has, and what follows.

Pure: times are seconds since the epoch and come as arguments. The rule that guesses cannot
outrun the limit is kept by ``store``, which reads, judges and writes inside one transaction.
"""

from typing import NamedTuple


class LockoutRule(NamedTuple):
    """``failures`` wrong codes ``within`` seconds lock a user ``lock_for`` seconds."""

    failures: int = 5
    within: float = 300.0
    lock_for: float = 900.0


class LockState(NamedTuple):
    """What is remembered of one user: the recent failures' times, oldest first, and the lock."""

    failures: tuple[float, ...] = ()
    locked_until: float = 0.0


def is_locked(state: LockState, now: float) -> bool:
    """Whether every attempt is refused now, a right code too."""
    return now < state.locked_until


def register_failure(state: LockState, rule: LockoutRule, now: float) -> LockState:
    """Count one wrong code; the last one allowed sets the lock and starts the count anew.

    A failure from the future (the clock was set back) still counts: setting a clock back must
    not hand out guesses.
    """
    recent = tuple(at for at in state.failures if at > now - rule.within)
    failures = (*recent, now)[-rule.failures :]
    if len(failures) >= rule.failures:
        # From the latest time that was seen, so that a clock set back does not shorten the lock.
        return LockState((), max(failures) + rule.lock_for)
    return LockState(failures, state.locked_until)
