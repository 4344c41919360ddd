# SPDX-License-Identifier: Apache-2.0
"""The record of a login that is refused because a store that is far away cannot be used.

This host's own log needs no database, so that an outage, or somebody who makes one, shows in the
audit log, too. A record that cannot be made changes nothing: the refusal stays one.
"""

import contextlib

from pam_mfa.audit import Event, EventName, Outcome, Reason
from pam_mfa.errors import AuditError, BrokenSystemError
from pam_mfa.store import Change, Claim, ServingStore
from pam_mfa.verification import Charge, Clock
from pam_mfa.verification.scene import describe_request


def record_store_failure(
    charge: Charge, store: ServingStore, clock: Clock, error: BrokenSystemError
) -> None:
    """Make the record of an attempt that ends by a failure of its store durable on this host."""
    if isinstance(error, AuditError):  # this host's log is what has failed
        return
    with contextlib.suppress(BrokenSystemError):
        if not store.patience:  # what is broken on this host's disk has no other place
            return
        event = _make_event(charge, store, clock(), str(error))
        change = Change(accepted=False, events=(event,))
        # A claim of nobody: it is judged without the database, and waits for no thread.
        store.commit([Claim("", (), lambda _: change)])
        store.follow_up()


def _make_event(charge: Charge, store: ServingStore, now: float, detail: str) -> Event:
    request, caller, _, decision = charge
    has_account = request.uid is not None
    pseudonym = ""
    if not has_account:
        with contextlib.suppress(
            BrokenSystemError
        ):  # where there is no key; a record is worth more
            pseudonym = store.pseudonym(request.user)
    return Event(
        name=EventName.VERIFY_MFA,
        outcome=Outcome.ERROR,
        reason=Reason.STORE_UNAVAILABLE,
        at=now,
        user=request.user if has_account else "",
        unknown_user=pseudonym,
        **describe_request(request, caller, now),
        mode=decision.mode.value,
        rule=decision.rule,
        detail=detail,
    )
