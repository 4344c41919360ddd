# SPDX-License-Identifier: Apache-2.0
"""Switches that were interrupted, wait for a confirmation, or were edited since."""

from collections.abc import Iterator

from pam_mfa.doctor.finding import Finding, fault, notice, ok, warning
from pam_mfa.doctor.view import View
from pam_mfa.switching.states import list_states


def check_switches(view: View) -> Iterator[Finding]:
    """Look at the journal of switches."""
    rows = list_states(view.layout)
    for row in rows:
        name, state, note = str(row["service"]), row["state"], str(row["note"])
        if state == "interrupted":
            yield fault("switch", f"{name}: {note}", f"pam-mfa switch off {name} --force")
        elif state == "on, not confirmed":
            yield warning(
                "switch", f"{name} is switched on and not confirmed: {note}",
                "Log in by it from another terminal, then: pam-mfa switch confirm",
            )  # fmt: skip
        elif note:
            yield notice("switch", f"{name}: {note}",
                         "switch off takes pam-mfa's lines out and keeps the edit.")  # fmt: skip
    if not any(row["note"] for row in rows):
        yield ok("switch", "no switch is unfinished")
