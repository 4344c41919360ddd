# SPDX-License-Identifier: Apache-2.0
"""Records, read from lines that anybody may have written, and what to choose among them.

Pure. What is parsed is an object with the fields that every record has; nothing is said here of
whether it was changed, which ``chain_check`` finds out.
"""

import datetime
import json
import re
from collections.abc import Collection
from typing import Any, Final, NamedTuple

Record = dict[str, Any]
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_FORM: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
_TEXTS: Final = ("event_name", "outcome", "reason", "host")


class RecordError(ValueError):
    """A line is no record; the text says why."""


def _refuse_number(text: str) -> float:
    raise RecordError(f"{text} is no number of JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_number)


def parse_record(line: bytes) -> Record:
    """Return the record of a line.

    Raises:
        RecordError: it is none.
    """
    try:
        found = _DECODER.decode(line.decode("utf-8"))
    except RecordError:
        raise
    except UnicodeDecodeError as error:
        raise RecordError("it is not UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number of 10,000 digits is a ValueError too
        raise RecordError("it is not JSON") from error
    if not isinstance(found, dict):
        raise RecordError("it is no JSON object")
    time = found.get("time")
    if not isinstance(time, str) or not _TIME.fullmatch(time):
        raise RecordError("it has no time")
    for key in _TEXTS:
        if not isinstance(found.get(key), str):
            raise RecordError(f"it has no {key}")
    return found


def format_moment(moment: datetime.datetime) -> str:
    """Return a time as records have it; such texts sort as the times do."""
    return f"{moment.astimezone(datetime.UTC):{_FORM}}".rjust(27, "0")


def parse_moment(text: str) -> datetime.datetime:
    """Return the time that a record has.

    Raises:
        ValueError: there is no such time.
    """
    return datetime.datetime.strptime(text, _FORM).replace(tzinfo=datetime.UTC)


class Selection(NamedTuple):
    """Which records are wanted; what is empty wants all."""

    user: str = ""  # the account, or the pseudonym of a name that no account has
    device: str = ""  # serial number
    service: str = ""
    outcomes: Collection[str] = ()
    events: Collection[str] = ()
    since: str = ""  # the first time, as records have it
    until: str = ""  # the last time

    def may_match(self, line: bytes) -> bool:
        """Whether a line may be wanted; told without parsing it, and never wrong in its no.

        A text of JSON stands in a line as it is, or there is a backslash in the line.
        """
        if b"\\" in line:
            return True
        return all(
            text.encode("utf-8", "surrogatepass") in line
            for text in (self.user, self.device, self.service)
        )

    def matches(self, record: Record) -> bool:
        """Whether a record is wanted."""
        device = record.get("device")
        serial_number = device.get("serial_number") if isinstance(device, dict) else None
        return (
            (not self.since or record["time"] >= self.since)
            and (not self.until or record["time"] <= self.until)
            and (not self.user or self.user in (record.get("user"), record.get("unknown_user")))
            and (not self.device or self.device == serial_number)
            and (not self.service or self.service == record.get("service"))
            and (not self.outcomes or record["outcome"] in self.outcomes)
            and (not self.events or record["event_name"] in self.events)
        )
