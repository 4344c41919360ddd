# SPDX-License-Identifier: Apache-2.0
"""A record in other words: one readable line, and fields with flat names. Pure."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_SHOWN: Final = (
    "user", "unknown_user", "unknown_name", "service", "phase", "tty", "rhost", "ruser",
    "device", "mode", "rule", "caller_uid", "login_uid", "policy", "torn", "state_head", "log_head",
    "public_key_id", "signature", "detail", "sequence", "event_id",
)  # fmt: skip
_PRIORITIES: Final = {"success": 6, "denied": 4, "error": 3}  # of syslog(3): info, warning, err
NOTICE: Final = 5
_PLAIN: Final = re.compile(r"[ !#-\[\]-~]*", re.ASCII)  # what JSON spells as it is
_UNQUOTED: Final = re.compile(r"[^ \"=]+")


def priority_of(record: Mapping[str, Any]) -> int:
    """Return how urgent a record is, as syslog(3) counts."""
    return _PRIORITIES.get(str(record.get("outcome")), NOTICE)


def describe(record: Mapping[str, Any]) -> str:
    """Return one line: what happened and how it ended, then the fields that matter."""
    words = [str(record[key]) for key in ("event_name", "outcome", "reason")]
    for key in _SHOWN:
        if key in record:
            words += [f"{name}={_quote(value)}" for name, value in _flatten(key, record[key])]
    return " ".join(words)


def flatten(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Go through a record's fields, those of a field in it with both names."""
    for key, value in record.items():
        for name, inner in _flatten(key, value):
            yield name, _escape(inner)


def _flatten(key: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for inner, each in value.items():
            yield f"{key}_{inner}", each
    else:
        yield key, value


def _quote(value: object) -> str:
    text = _escape(value)
    return text if _UNQUOTED.fullmatch(text) else f'"{text}"'


def _escape(value: object) -> str:
    """One line of ASCII: what somebody typed must not forge a second one."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value):  # nearly all, and an encoder takes ten times as long
            return value
        return json.dumps(value)[1:-1].replace("\x7f", "\\u007f")
    return json.dumps(value)
