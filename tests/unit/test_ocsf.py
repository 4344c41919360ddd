# SPDX-License-Identifier: Apache-2.0
"""Records as OCSF events: every event name has its class, and each class what it requires."""

import json
from typing import Any

import pytest
from audit_logs import LogMaker

from pam_mfa.audit import EventName, Outcome
from pam_mfa.audit_reading.ocsf import ACTIVITIES, map_record

# https://schema.ocsf.io/1.4.0: what base_event and the class require.
BASE = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
REQUIRED = {
    1008: {"log_name"}, 3001: {"user"}, 3002: {"user", "service"}, 3004: {"entity"}, 6002: {"app"},
}  # fmt: skip
# The captions of activity_id, by class.
CAPTIONS = {
    (3001, 9): "Lock", (3001, 10): "MFA Factor Enable", (3001, 11): "MFA Factor Disable",
    (3001, 12): "Unlock", (3002, 1): "Logon", (3002, 2): "Logoff",
    (3004, 3): "Update", (3004, 6): "Enroll", (6002, 3): "Start", (6002, 4): "Stop",
    (1008, 5): "Rotate", (1008, 8): "Restart",
}  # fmt: skip


def map_one(event_name: str = "VerifyMfa", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a record's event."""
    return map_record(json.loads(LogMaker().add(event_name, **fields).lines[0]))


@pytest.mark.parametrize("name", list(EventName))
def test_every_event(name: EventName) -> None:
    """Each event has a class, with what the schema requires of it."""
    event = map_one(name.value, user="alice", service="sshd")
    assert BASE | REQUIRED[event["class_uid"]] <= set(event)
    assert event["class_uid"] * 100 + event["activity_id"] == event["type_uid"]
    assert event["class_uid"] // 1000 == event["category_uid"]
    caption = CAPTIONS.get((event["class_uid"], event["activity_id"]))
    assert caption == event["activity_name"] or 99 == event["activity_id"]
    assert "1.4.0" == event["metadata"]["version"]
    json.dumps(event)


def test_every_name_is_mapped() -> None:
    """No event name is left to chance."""
    assert set(EventName) == set(ACTIVITIES)


def test_authentication() -> None:
    """A verification is a logon with its user, service, source and factor."""
    device = {"serial_number": "T-1", "type": "token", "name": "token"}
    event = map_one(
        user="alice", service="sshd", source_address="2001:db8::7", device=device, tty="ssh",
        caller_uid=0, caller_pid=7, login_session=3, duration_ms=12, rule="outside",
    )  # fmt: skip
    expected = {
        "class_uid": 3002, "type_uid": 300201, "user": {"name": "alice"},
        "service": {"name": "sshd"}, "src_endpoint": {"ip": "2001:db8::7"}, "is_remote": True,
        "is_mfa": True, "status_id": 1, "status_detail": "code_accepted", "duration": 12,
        "session": {"terminal": "ssh"}, "time": 1795507201000,
    }  # fmt: skip
    assert expected == {key: event[key] for key in expected}
    assert (6, "T-1") == (
        event["auth_factors"][0]["factor_type_id"], event["auth_factors"][0]["device"]["uid"],
    )  # fmt: skip
    assert {"process": {"pid": 7}, "user": {"uid": "0"}, "session": {"uid": "3"}} == event["actor"]
    assert "outside" == event["unmapped"]["rule"]


@pytest.mark.parametrize(
    ("outcome", "status_id"), [(Outcome.SUCCESS, 1), (Outcome.DENIED, 2), (Outcome.ERROR, 2)]
)
def test_status(outcome: Outcome, status_id: int) -> None:
    """What did not succeed is a failure."""
    assert status_id == map_one(outcome=outcome.value)["status_id"]


def test_unknown_user() -> None:
    """A name that no account has is known by its pseudonym, or by itself where that was kept."""
    assert "0123" == map_one(unknown_user="0123")["user"]["name"]
    assert "eve" == map_one(unknown_user="0123", unknown_name="eve")["user"]["name"]
    assert "unknown" == map_one()["user"]["name"]


def test_source_that_is_a_name() -> None:
    """A source that is no address is a host's name."""
    assert {"hostname": "laptop"} == map_one(rhost="laptop")["src_endpoint"]


def test_rotation() -> None:
    """A checkpoint at rotation is the log's rotation."""
    assert 100805 == map_one("Checkpoint", reason="rotation")["type_uid"]


def test_event_of_a_newer_version() -> None:
    """An event that this version does not know is mapped all the same."""
    assert 300200 == map_one("TeleportUser")["type_uid"]


def test_nothing_is_lost() -> None:
    """Each field is either mapped or among the unmapped."""
    fields: dict[str, Any] = {"mode": "enforce", "phase": "auth", "mfa_age": 5, "sign_count": 9}
    event = map_one(user="alice", **fields)
    assert fields == {key: event["unmapped"][key] for key in fields}
