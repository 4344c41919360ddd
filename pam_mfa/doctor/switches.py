# SPDX-License-Identifier: Apache-2.0
"""Switches that were interrupted, wait for a confirmation, or were edited since."""

from collections.abc import Iterator

from pam_mfa.doctor.finding import Finding, fault, notice, ok, warning
from pam_mfa.doctor.view import View
from pam_mfa.errors import RefusedError
from pam_mfa.host import pam_reader
from pam_mfa.pam_services import parse_service
from pam_mfa.switching.bypasses import MODULE
from pam_mfa.switching.journal import Journal, Record
from pam_mfa.switching.placing import require_changeable
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
    for record in Journal(view.layout).read().values():
        yield from _check_files(view, record)
    if not any(row["note"] for row in rows):
        yield ok("switch", "no switch is unfinished")


def _check_files(view: View, record: Record) -> Iterator[Finding]:
    """Look at what a switched service's files have become, and whether they can be brought back."""
    name = record.service
    for file in record.files:
        path = view.root / file.path
        if not path.exists():
            yield fault(
                "switch", f"{name} is switched on, and {path} is gone: PAM refuses everybody",
                f"pam-mfa switch off {name} --force brings it back as it was.",
            )  # fmt: skip
            return
        try:
            require_changeable(path)
        except RefusedError as refusal:
            what = str(refusal).removesuffix("; nothing was changed")
            yield fault("switch", f"{name} could not be undone now: {what}", refusal.hint)
    if not parse_service(name, pam_reader(view.root)).lines_of("auth", MODULE):
        yield fault(
            "switch", f"{name} is switched on, but its file has no line of {MODULE} any more: it "
            "asks for no code",
            f"pam-mfa switch off {name}; then pam-mfa switch on {name}",
        )  # fmt: skip
