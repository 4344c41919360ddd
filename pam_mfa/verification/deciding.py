# SPDX-License-Identifier: Apache-2.0
"""What policy has to say to a request: the context that it needs, then its decision.

Nothing of the user is looked up for it, except where a rule that everything else fits asks for
groups: those are the name service's, which may hang, so they have a limit of time.
"""

from collections.abc import Generator
from typing import Any, NamedTuple

from pam_mfa.policy import Context, Decision, Policy, UnknownGroupsError, decide
from pam_mfa.verification.needs import Caller, Clock, Need, Work
from pam_mfa.wire import Request


class Charge(NamedTuple):
    """Who asks for whom, and what policy has decided on it."""

    request: Request
    caller: Caller
    policy: Policy
    decision: Decision


def find_decision(request: Request, policy: Policy, clock: Clock) -> Generator[Need, Any, Decision]:
    """Decide what a request asks for.

    Raises:
        UnknownGroupsError: it depends on groups that the name service does not give in time; no
            other answer is safe, for the rule may require more as well as less.
    """
    context = make_context(request, clock())
    try:
        return decide(policy, context)
    except UnknownGroupsError:
        groups = yield Work(lambda _: _find_groups(request, policy))
    return decide(policy, context._replace(groups=groups))


def make_context(request: Request, at: float) -> Context:
    """Return what rules can match on of a request."""
    return Context(
        request.phase,
        request.user,
        request.service,
        request.tty,
        request.rhost,
        request.ssh_connection,
        at,
    )


def _find_groups(request: Request, policy: Policy) -> frozenset[str] | None:
    from pam_mfa.host_groups import find_groups  # noqa: PLC0415 - only where rules ask for groups

    return find_groups(request.user, policy.groups, is_known=request.uid is not None)
