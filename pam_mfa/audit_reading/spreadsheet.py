# SPDX-License-Identifier: Apache-2.0
"""Records as CSV: a column a field, an object's fields each in a column of their own."""

import csv
from collections.abc import Iterable
from typing import Final, TextIO

from pam_mfa.audit_reading.records import Record
from pam_mfa.report import format_cell

COLUMNS: Final = (
    "time", "sequence", "event_name", "outcome", "reason", "user", "unknown_user", "unknown_name",
    "service", "phase", "tty", "source_address", "rhost", "ruser", "is_claim", "offline",
    "device_serial_number", "device_type", "device_name", "sign_count", "used_step", "mfa_age",
    "mode", "rule", "duration_ms", "caller_uid", "caller_pid", "login_uid", "login_session", "host",
    "process_pid", "process_program", "policy_sha256", "policy_is_accepted", "detail", "event_id",
)  # fmt: skip
_OBJECTS: Final = ("device", "process", "policy")


def write_csv(records: Iterable[Record], out: TextIO) -> None:
    """Write records under a line of all columns; what a record does not have is left empty."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        writer.writerow([_cell(_find(record, name)) for name in COLUMNS])


def _find(record: Record, column: str) -> object:
    if column in record:
        return record[column]
    for name in _OBJECTS:
        inner = record.get(name)
        if column.startswith(f"{name}_") and isinstance(inner, dict):
            return inner.get(column.removeprefix(f"{name}_"))
    return None


def _cell(value: object) -> str:
    """Return a cell; what is of no kind that a record has is told as a text."""
    if value is None:
        return ""
    return format_cell(value if isinstance(value, str | int) else repr(value))
