# SPDX-License-Identifier: Apache-2.0
"""The database of a fleet: whether this host can verify by it, and what does not go with one.

Asked by a child that is the service user, as a verifier is.
"""

from collections.abc import Iterator
from typing import Any

from pam_mfa.doctor.finding import Finding, fault, notice, ok, warning
from pam_mfa.doctor.view import View
from pam_mfa.forecast import ask_child
from pam_mfa.policy import Engine, Unenrolled
from pam_mfa.store.layout import Layout, drop_privileges
from pam_mfa.store.opening import examine_store

_SUBJECT = "fleet"
_SLOW = 100.0  # milliseconds
_CODES = ("virtual", "token")


def check_fleet(view: View) -> Iterator[Finding]:
    """Ask the database, where policy names one."""
    policy = view.policy
    if policy is None or policy.store.engine is Engine.EMBEDDED:
        return
    health: dict[str, Any] = ask_child(lambda: _ask(view.layout))
    offline = policy.store.offline
    if health["problem"] and offline.allow:
        yield warning(
            _SUBJECT, f"{health['problem']}; {health['standby']}",
            health["hint"] or "See: pam-mfa store status",
        )  # fmt: skip
    elif health["problem"]:
        yield fault(_SUBJECT, health["problem"], health["hint"] or "See: pam-mfa store status")
    else:
        words = f"{health['place']} answers in {health['milliseconds']} ms, for {health['fleet']}"
        is_slow = health["milliseconds"] > _SLOW
        hint = "Every login asks two or three questions: look at the network and the database."
        yield warning(_SUBJECT, words, hint) if is_slow else ok(_SUBJECT, words)
        if offline.allow:
            yield ok(_SUBJECT, health["standby"])
    codes = [one for one in offline.allow if one in _CODES]
    if codes:
        yield notice(
            _SUBJECT, f"a code of {' or '.join(codes)} is good at each host that is cut off, once",
            "Leave them out of store: offline: allow, where that is too much.",
        )  # fmt: skip
    if policy.unenrolled is Unenrolled.ENROLL:
        yield warning(
            _SUBJECT, "policy has users enroll at a login, which hosts of a fleet may not do",
            "Enable devices on an administrators' host, and say: unenrolled: deny",
        )  # fmt: skip
    if policy.unenrolled is Unenrolled.ALLOW:
        yield warning(
            _SUBJECT, "policy lets users by who have no device, so whoever can delete a row of the "
            "database lets its user by",
            "Say: unenrolled: deny",
        )  # fmt: skip


def _ask(layout: Layout) -> dict[str, object]:
    drop_privileges()
    return examine_store(layout)._asdict()
