# SPDX-License-Identifier: Apache-2.0
"""How each service that can be switched stands: by the journal, and by its file. Reads only."""

import datetime

from pam_mfa.host import pam_reader
from pam_mfa.listing import utc
from pam_mfa.pam_services import parse_service
from pam_mfa.store.layout import Layout
from pam_mfa.switching import undoing
from pam_mfa.switching.bypasses import MODULE
from pam_mfa.switching.catalog import CATALOG
from pam_mfa.switching.journal import Journal, Record, Stage
from pam_mfa.switching.plan import find_file
from pam_mfa.switching.restoring import is_edited

Row = dict[str, object]


def list_states(layout: Layout) -> list[Row]:
    """Return a row for each service that the host has, or that is switched on.

    Raises:
        BrokenSystemError: the journal is damaged.
    """
    records = Journal(layout).read()
    names = [name for name in CATALOG if name in records or find_file(layout.root, name)]
    return [_state_row(layout, name, records.get(name)) for name in names]


def _state_row(layout: Layout, name: str, record: Record | None) -> Row:
    if record is None:
        return {
            "service": name,
            "state": _state_by_file(layout, name),
            "since": "",
            "by": "",
            "note": "",
        }
    since = datetime.datetime.fromtimestamp(record.at, datetime.UTC)
    return {
        "service": name,
        "state": _name_state(record),
        "since": utc(since),
        "by": record.by,
        "note": _note(layout, record),
    }


def _name_state(record: Record) -> str:
    if record.stage is not Stage.ON:
        return "interrupted"
    return "on" if record.confirmed else "on, not confirmed"


def _note(layout: Layout, record: Record) -> str:
    if record.stage is not Stage.ON:
        return f"interrupted while {record.stage}; undone by any next pam-mfa switch command"
    notes = []
    if not record.confirmed:
        left = record.deadline - undoing.seconds_since_boot()
        is_over = left <= 0 or record.boot != undoing.current_boot()
        notes.append("to be undone now" if is_over else f"undoes itself in {left:.0f} s")
    notes += [
        f"/{file.path} {'was edited' if (layout.root / file.path).exists() else 'is gone'}"
        for file in record.files
        if is_edited(layout.root, file)
    ]
    return "; ".join(notes)


def _state_by_file(layout: Layout, name: str) -> str:
    """Return how a service stands that no switch has turned on."""
    lines = parse_service(name, pam_reader(layout.root)).lines_of("auth", MODULE)
    if not lines:
        return "off"
    return "on, by hand" if lines[0].file == name else f"as {lines[0].file}, which it includes"
