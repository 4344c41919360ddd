# SPDX-License-Identifier: Apache-2.0
"""The format of a line: canonical JSON, so that a record has one spelling and one hash.

A line is the record with sorted keys, without spaces, in ASCII, and a newline. A line that is
spelled in another way was not written by this program.
"""

import datetime
import json
from typing import Final, NamedTuple

from pam_mfa.audit.chain import Head
from pam_mfa.audit.events import Event

VERSION: Final = 1
_TEXT_MAX: Final = 128  # characters of a text that the caller chose: a record must stay short
_OWN_TEXT_MAX: Final = 1024  # of a text that we chose
# Names of accounts, and our own sentences.
_OWN_TEXTS: Final = frozenset(("user", "rule", "detail"))
_FIELDS: Final = Event._fields[4:]
# Made once: json.dumps makes one a call where it is asked for anything but its defaults.
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


class Origin(NamedTuple):
    """The process that writes."""

    host: str
    pid: int
    program: str


def build_record(event: Event, event_id: str, origin: Origin, head: Head) -> dict[str, object]:
    """Return a record, which follows the head of the chain."""
    moment = datetime.datetime.fromtimestamp(event.at, datetime.UTC)
    record: dict[str, object] = {
        "version": VERSION,
        "sequence": head.sequence + 1,
        "previous": head.hash,
        "time": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "event_id": event_id,
        "event_name": event.name.value,
        "outcome": event.outcome.value,
        "reason": event.reason.value,
        "host": origin.host,
        "process": {"pid": origin.pid, "program": origin.program},
    }
    for key, value in zip(_FIELDS, event[4:], strict=True):
        if value is None or value == "":
            continue
        if isinstance(value, str):
            record[key] = value[: _OWN_TEXT_MAX if key in _OWN_TEXTS else _TEXT_MAX]
        elif isinstance(value, int):
            record[key] = value
        else:
            record[key] = value._asdict()
    return record


def format_record(record: dict[str, object]) -> bytes:
    """Return a record's canonical text, without the newline that ends its line."""
    return _ENCODER.encode(record).encode("ascii")


def format_event(event: Event, event_id: str, origin: Origin, head: Head) -> bytes:
    """Return an event's line; other characters than ASCII are escaped, so a line is a line."""
    return format_record(build_record(event, event_id, origin, head)) + b"\n"
