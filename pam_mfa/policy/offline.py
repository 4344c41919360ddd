# SPDX-License-Identifier: Apache-2.0
"""The policy's ``store: offline``: what a host does while its database cannot be reached. Pure."""

from typing import Final

from pam_mfa.document import Section
from pam_mfa.errors import DocumentError
from pam_mfa.policy.faults import Faults
from pam_mfa.policy.values import read_devices, read_duration
from pam_mfa.policy.words import Offline

KEYS: Final = ("allow", "for", "users")
_SHORTEST, _LONGEST = 60.0, 30 * 86400.0  # seconds


def read_offline(store: Section, faults: Faults) -> Offline:
    """Return what a policy says of it; mistakes are noted, and then nobody is let in."""
    if "offline" not in store:
        return Offline()
    try:
        word = store.require("offline", str)
    except DocumentError:
        known = len(faults.errors)
        section = faults.section(store, "offline", KEYS)
        if len(faults.errors) > known:
            return Offline()
        return faults.try_or(Offline(), _read, section)
    if word != "deny":
        faults.add(
            store.error(
                "offline", f"is '{word}', neither 'deny' nor a mapping",
                "Write offline: deny, or offline: {allow: [fido, ssh-key], for: 24h}.",
            )
        )  # fmt: skip
    return Offline()


def _read(section: Section) -> Offline:
    allow = read_devices(section, "allow")
    if "recovery" in allow:
        raise section.error(
            "allow", "names recovery, and codes on paper never count without the database",
            "Each is good once in the whole fleet, which only the database can tell.",
        )  # fmt: skip
    section.require("for", str)
    seconds = read_duration(section, "for", 0.0)
    if not _SHORTEST <= seconds <= _LONGEST:
        raise section.error("for", "is not 60s to 30d")
    users = tuple(section.texts("users")) if "users" in section else ()
    if "users" in section and not (users and all(users)):
        raise section.error("users", "names nobody", "Leave it out to mean everybody.")
    return Offline(allow, seconds, users)
