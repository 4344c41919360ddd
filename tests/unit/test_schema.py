# SPDX-License-Identifier: Apache-2.0
"""The schema that is shipped: as closed as the code's own lists, and telling what is no record."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from audit_records import SCHEMA, find_strangers
from doubles import make_event

from pam_mfa.audit import (
    DeviceField,
    Event,
    EventName,
    Head,
    HeadField,
    Origin,
    Outcome,
    PolicyField,
    Reason,
    TornField,
    format_event,
    format_record,
)
from pam_mfa.policy import Mode
from pam_mfa.wire import Phase

NO_HEAD = HeadField(0, "0" * 64)
FULL = Event(
    EventName.VERIFY_MFA, Outcome.SUCCESS, Reason.CODE_ACCEPTED, 1_700_000_000.5, "alice", "ab" * 8,
    "sshd", "auth", "ssh", "192.0.2.7", "bob", DeviceField("virtual/a/b", "virtual", "b"), 7,
    "enforce", "a rule", 0, 1, 1000, "why", 3, "typed", "192.0.2.7", True, 60, 12,
)  # fmt: skip


def schema() -> dict[str, Any]:
    """Return the schema."""
    found: dict[str, Any] = json.loads(SCHEMA.read_text("utf-8"))
    return found


def strangers(event: Event, change: Callable[[dict[str, Any]], None] = lambda _: None) -> list[str]:
    """Return what the schema has against an event's record, after a change of it."""
    line = format_event(event, "0123456789abcdef", Origin("host", 1, "pam-mfad"), Head(0, "0" * 64))
    record = json.loads(line)
    change(record)
    return list(find_strangers([format_record(record) + b"\n"]))


@pytest.mark.parametrize(
    ("key", "words"),
    [("event_name", EventName), ("outcome", Outcome), ("reason", Reason), ("mode", Mode)],
)
def test_words(key: str, words: type[EventName]) -> None:
    """A closed list is the code's own."""
    assert [word.value for word in words] == schema()["properties"][key]["enum"]


def test_phases() -> None:
    """So are the phases."""
    expected = [phase.name.lower() for phase in Phase]
    assert expected == schema()["properties"]["phase"]["enum"]


def test_every_field() -> None:
    """Every field that an event can have is in the schema, and described there."""
    properties = schema()["properties"]
    assert set(Event._fields[4:]) <= set(properties)
    assert [] == [key for key, value in properties.items() if not value.get("description")]


@pytest.mark.parametrize("event", [FULL, make_event(), FULL._replace(outcome=Outcome.ERROR)])
def test_good_records(event: Event) -> None:
    """A record as it is written is one by the schema."""
    assert [] == strangers(event)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (EventName.MEND_LOG, {"torn": TornField(3, "ab" * 32)}),
        (EventName.RESUME_LOG, {"state_head": NO_HEAD, "log_head": HeadField(1, "f" * 64)}),
        (EventName.CHANGE_POLICY, {"policy": PolicyField("ab" * 32, is_accepted=True)}),
        (EventName.CHANGE_POLICY, {"policy": PolicyField("", is_accepted=False)}),
        (EventName.START_VERIFIER, {}),
    ],
)  # fmt: skip
def test_records_of_the_log(name: EventName, fields: dict[str, Any]) -> None:
    """What a log tells of itself has the fields that are its own, and needs them."""
    event = Event(name, Outcome.SUCCESS, Reason.REQUESTED, 1e9)
    assert [] == strangers(event._replace(**fields))
    assert bool(fields) == bool(strangers(event))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(secret="x"),
        lambda record: record.update(code="123456"),
        lambda record: record.update(reason="because"),
        lambda record: record.update(event_name="Verify"),
        lambda record: record.update(previous="AB" * 32),
        lambda record: record.update(sequence=0),
        lambda record: record.update(sequence="1"),
        lambda record: record.update(version=2),
        lambda record: record.update(time="2026-01-02T03:04:05Z"),
        lambda record: record.update(torn={"bytes": 1, "sha256": "ab" * 32}),
        lambda record: record.update(user="x" * 1025),
        lambda record: record["process"].update(uid=0),
        lambda record: record["device"].pop("name"),
        lambda record: record.pop("caller_uid"),
        lambda record: record.pop("previous"),
    ],
)
def test_strangers(change: Callable[[dict[str, Any]], None]) -> None:
    """What is no field, or not a field's value, is refused."""
    assert strangers(FULL, change)
