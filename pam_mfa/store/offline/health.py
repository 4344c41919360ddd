# SPDX-License-Identifier: Apache-2.0
"""How far this host could go on without its database, in a sentence for administrators."""

from pam_mfa.errors import BrokenSystemError
from pam_mfa.policy import Offline
from pam_mfa.store.layout import Layout
from pam_mfa.store.offline.contact import Link
from pam_mfa.store.offline.kept import KeptUsers
from pam_mfa.store.seal import Sealer, find_ring, load_sealer


def describe_standby(layout: Layout, rules: Offline, now: float) -> str:
    """Say what policy lets go on without the database, for how long, and for how many users."""
    if not rules.allow:
        return "without the database nobody is let in"
    kept = KeptUsers(layout.offline)
    waiting = len(kept.list_pending())
    types = ", ".join(rules.allow)
    words = [f"{types} count without the database", f"{kept.count()} users are kept"]
    if waiting:
        words.append(f"what {waiting} of them used waits to be handed in")
    if not find_ring(layout).path.exists():
        return "; ".join((*words, "there is no seal key to open them with"))
    sealer: Sealer = load_sealer(layout)
    link = Link(layout.offline / "contact", rules, lambda: sealer, lambda: now)
    at = link.read().at
    try:
        words.append(f"it answered {max(0.0, now - at):.0f} s ago" if at else "it never answered")
        words.append(f"{link.require_allowed():.0f} s are left from now")
    except BrokenSystemError as error:
        words.append(f"nobody is let in: {error}")
    return "; ".join(words)
