# SPDX-License-Identifier: Apache-2.0
"""The seal keys: whether they can be read, and whether they are those that sealed what is there.

Looked at by a child that is the service user, as the state is.
"""

from collections.abc import Iterator
from typing import Any

from pam_mfa.doctor.finding import Finding, fault, notice, ok
from pam_mfa.doctor.view import View
from pam_mfa.forecast import ask_child
from pam_mfa.store.layout import Layout, drop_privileges
from pam_mfa.store.opening import open_administrators_store
from pam_mfa.store.resealing import take_census

_SHOWN, _HOLDERS_MAX = 20, 1000
_SUBJECT = "seal key"


def check_seal_key(view: View) -> Iterator[Finding]:
    """Look at the keys, and whom they do not open anything for."""
    layout = view.layout
    if view.stat(layout.library) is None or view.stat(layout.devices) is None:
        return  # told by another check
    if view.stat(layout.seal_key) is None:
        if any(layout.devices.glob("*.yaml")):
            yield fault(
                _SUBJECT, f"{layout.seal_key} is missing, and devices are there that it sealed",
                "Restore it from the backup of /var/lib/pam_mfa; a systemd credential "
                "pam-mfa.seal is not looked at here.",
            )  # fmt: skip
        else:
            yield ok(_SUBJECT, "no seal key is needed yet")
        return
    found: dict[str, Any] = ask_child(lambda: _look(layout))
    yield from _tell_strangers(found["strangers"])
    yield from _tell_rotation(found)


def _look(layout: Layout) -> dict[str, object]:
    drop_privileges()
    store = open_administrators_store(layout)
    try:
        ring = store.sealer.ring
        holders = take_census(store, layout, _HOLDERS_MAX).holders
        strangers = {
            name: [one.words for one in named]
            for name, named in holders.items()
            if name and name not in ring.names  # "": no sealed text at all, which others tell of
        }
        return {
            "used": ring.used, "staged": ring.staged, "old": ring.old, "strangers": strangers,
        }  # fmt: skip
    finally:
        store.close()


def _tell_strangers(strangers: dict[str, list[str]]) -> Iterator[Finding]:
    """Tell whose devices were sealed by keys that are not here."""
    for name, users in strangers.items():
        more = f", and {len(users) - _SHOWN} more" if len(users) > _SHOWN else ""
        yield fault(
            _SUBJECT,
            f"the key {name} is not in the ring, and devices are sealed by it: "
            f"{', '.join(users[:_SHOWN])}{more}",
            "Bring the ring of a host that has it: pam-mfa seal rotate --stage --from FILE; or "
            "restore seal.key from the backup. If it is lost, deactivate these devices and enable "
            "new ones.",
        )


def _tell_rotation(found: dict[str, Any]) -> Iterator[Finding]:
    if found["old"]:
        yield notice(
            _SUBJECT, f"the key {', '.join(found['old'])} was followed by {found['used']} and is "
            "still here", "When every host seals by the new one: pam-mfa seal rotate --finish",
        )  # fmt: skip
    if found["staged"]:
        yield notice(
            _SUBJECT, f"the key {', '.join(found['staged'])} is staged and does not seal yet",
            "When every host has it: pam-mfa seal rotate --use",
        )  # fmt: skip
    if not found["strangers"]:
        yield ok(_SUBJECT, f"{found['used']} seals, and all that is sealed is by keys of this ring")
