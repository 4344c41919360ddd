# SPDX-License-Identifier: Apache-2.0
"""Claims as they go to the engine or to this host's own state. Pure."""

import functools
from collections.abc import Callable, Mapping

from pam_mfa.audit import EventName, Outcome
from pam_mfa.lockout import LockState
from pam_mfa.store.claims import Change, Claim, Known
from pam_mfa.store.enrollment import DeviceState
from pam_mfa.store.user_keys import encode_user

HERE = "!"  # before the key of a user who was looked up without the engine


def own_key(user: str) -> str:
    """Return the key of a user in this host's own state."""
    return HERE + encode_user(user)


def is_own(claim: Claim) -> bool:
    """Whether a claim is of a user who was looked up without the engine."""
    return claim.user_key.startswith(HERE)


class Watch:
    """A claim that tells what its judge was told."""

    def __init__(self, claim: Claim) -> None:
        """Take the claim."""
        self.known = Known(LockState(), {})
        self.claim = claim._replace(judge=functools.partial(self._judge, claim.judge))

    def _judge(self, judge: Callable[[Known], Change], known: Known) -> Change:
        self.known = known
        return judge(known)


def is_verified(change: Change) -> bool:
    """Whether a change is a user's verification that counted."""
    return change.accepted and any(
        event.name is EventName.VERIFY_MFA and event.outcome is Outcome.SUCCESS
        for event in change.events
    )


def hand_over(claim: Claim) -> Claim:
    """Return a claim as the engine has it, which judges by what it knows now."""
    key = claim.user_key.removeprefix(HERE)

    def judge(known: Known) -> Change:
        change = claim.judge(known)
        if change.memory is None:
            return change
        verified = change.memory.verified._replace(user_key=key)
        return change._replace(memory=change.memory._replace(verified=verified))

    return claim._replace(user_key=key, judge=judge)


def mark_offline(claim: Claim) -> Claim:
    """Return a claim whose records say that the engine was not there."""

    def judge(known: Known) -> Change:
        change = claim.judge(known)
        events = tuple(event._replace(offline=True) for event in change.events)
        return change._replace(events=events)

    return claim._replace(judge=judge)


def raise_to(lock: LockState, states: Mapping[str, DeviceState], known: Known) -> Change:
    """Return what raises the engine's knowledge to this host's, and lowers none of it."""
    failures = tuple(sorted({*known.lock.failures, *lock.failures}))
    merged = LockState(failures, max(known.lock.locked_until, lock.locked_until))
    return Change(
        accepted=True,
        events=(),
        lock=merged if merged != known.lock else None,
        used_steps={name: state.step for name, state in states.items()},
        used_at=max((state.last_used_at for state in states.values()), default=0.0),
    )
