# SPDX-License-Identifier: Apache-2.0
"""Records as events of the Open Cybersecurity Schema Framework, https://schema.ocsf.io, 1.4.0.

Pure. Class and activity of each event name stand in ``ACTIVITIES``. Verifications are
Authentication (3002), as MFA is a part of a logon. Devices that come and go, and locks, are Account
Change (3001): its activities 10 and 11 are MFA Factor Enable and Disable, and its ``user`` is
whom they belong to; Entity Management (3004) has neither. What concerns no single user is Entity
Management; the verifier itself is Application Lifecycle (6002); what the log tells of itself is
Event Log Activity (1008).
"""

import ipaddress
from typing import Any, Final, NamedTuple

from pam_mfa import __version__
from pam_mfa.audit import EventName
from pam_mfa.audit_reading.records import Record, parse_moment

SCHEMA_VERSION: Final = "1.4.0"  # the first with Account Change: Unlock
_OTHER: Final = 99
_PRODUCT: Final = {"name": "pam-mfa", "vendor_name": "pam-mfa", "version": __version__}
_CLASSES: Final = {
    1008: ("Event Log Activity", 1, "System Activity"),
    3001: ("Account Change", 3, "Identity & Access Management"),
    3002: ("Authentication", 3, "Identity & Access Management"),
    3004: ("Entity Management", 3, "Identity & Access Management"),
    6002: ("Application Lifecycle", 6, "Application Activity"),
}


class Activity(NamedTuple):
    """A class of events and what was done."""

    class_uid: int
    activity_id: int
    activity_name: str


ACTIVITIES: Final = {
    EventName.VERIFY_MFA: Activity(3002, 1, "Logon"),
    EventName.SKIP_MFA: Activity(3002, 1, "Logon"),
    EventName.ENABLE_MFA_DEVICE: Activity(3001, 10, "MFA Factor Enable"),
    EventName.ISSUE_BYPASS: Activity(3001, 10, "MFA Factor Enable"),
    EventName.DEACTIVATE_MFA_DEVICE: Activity(3001, 11, "MFA Factor Disable"),
    EventName.RESYNC_MFA_DEVICE: Activity(3001, _OTHER, "MFA Factor Resynchronize"),
    EventName.LOCK_USER: Activity(3001, 9, "Lock"),
    EventName.UNLOCK_USER: Activity(3001, 12, "Unlock"),
    EventName.END_MFA_SESSIONS: Activity(3002, 2, "Logoff"),
    EventName.IMPORT_DEVICES: Activity(3004, 6, "Enroll"),
    EventName.COPY_STORE: Activity(3004, _OTHER, "Copy"),
    EventName.ROTATE_SEAL_KEY: Activity(3004, 3, "Update"),
    EventName.CHANGE_POLICY: Activity(3004, 3, "Update"),
    EventName.START_VERIFIER: Activity(6002, 3, "Start"),
    EventName.STOP_VERIFIER: Activity(6002, 4, "Stop"),
    EventName.CHECKPOINT: Activity(1008, _OTHER, "Checkpoint"),
    EventName.MEND_LOG: Activity(1008, _OTHER, "Mend"),
    EventName.RESUME_LOG: Activity(1008, 8, "Restart"),
}
_ROTATE: Final = Activity(1008, 5, "Rotate")  # a checkpoint at rotation
_UNKNOWN: Final = Activity(3002, 0, "Unknown")  # an event that this version does not know
_FACTORS: Final = {  # auth_factor's factor_type_id
    "virtual": (7, "OTP"),
    "token": (6, "Hardware Token"),
    "fido": (9, "U2F"),
    "ssh-key": (9, "U2F"),
    "recovery": (_OTHER, "Recovery Code"),
    "bypass": (_OTHER, "Bypass Code"),
}
_STATUSES: Final = {"success": (1, "Success"), "denied": (2, "Failure"), "error": (2, "Failure")}
_SEVERITIES: Final = {"success": (1, "Informational"), "denied": (2, "Low"), "error": (3, "Medium")}
_HIGH: Final = (4, "High")
# What other attributes hold; everything else goes into ``unmapped``, under our own names.
_MAPPED: Final = frozenset(
    ("time", "event_id", "sequence", "outcome", "reason", "host", "user", "service", "tty",
     "source_address", "device", "caller_uid", "caller_pid", "login_session", "duration_ms")
)  # fmt: skip
Object = dict[str, Any]


def map_record(record: Record) -> Object:
    """Return a record as an event of OCSF."""
    activity = _activity(record)
    name, category_uid, category_name = _CLASSES[activity.class_uid]
    status_id, status = _STATUSES.get(record["outcome"], (0, "Unknown"))
    severity_id, severity = _severity(record)
    event: Object = {
        "activity_id": activity.activity_id,
        "activity_name": activity.activity_name,
        "category_uid": category_uid,
        "category_name": category_name,
        "class_uid": activity.class_uid,
        "class_name": name,
        "type_uid": activity.class_uid * 100 + activity.activity_id,
        "type_name": f"{name}: {activity.activity_name}",
        "time": _milliseconds(record["time"]),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "status_code": record["outcome"],
        "status_detail": record["reason"],
        "message": f"{record['event_name']}: {record['outcome']}, {record['reason']}",
        "metadata": _metadata(record),
        "device": {"hostname": record["host"], "type_id": 0, "type": "Unknown"},
        **_details(activity.class_uid, record),
    }
    if actor := _actor(record):
        event["actor"] = actor
    if type(record.get("duration_ms")) is int:
        event["duration"] = record["duration_ms"]
    unmapped = {key: value for key, value in record.items() if key not in _MAPPED}
    return {**event, "unmapped": unmapped}


def _activity(record: Record) -> Activity:
    name, reason = record["event_name"], record["reason"]
    if name == EventName.CHECKPOINT and reason == "rotation":
        return _ROTATE
    return ACTIVITIES[EventName(name)] if name in set(EventName) else _UNKNOWN


def _severity(record: Record) -> tuple[int, str]:
    if record["event_name"] == EventName.RESUME_LOG:
        return _HIGH
    return _SEVERITIES.get(record["outcome"], (0, "Unknown"))


def _milliseconds(time: str) -> int:
    try:
        return int(parse_moment(time).timestamp() * 1000)
    except ValueError:  # a time that there is not, such as February 30
        return 0


def _metadata(record: Record) -> Object:
    metadata: Object = {
        "version": SCHEMA_VERSION,
        "product": _PRODUCT,
        "profiles": ["host"],
        "log_name": "pam-mfa audit log",
        "original_time": record["time"],
    }
    if isinstance(record.get("event_id"), str):
        metadata["uid"] = record["event_id"]
    if type(record.get("sequence")) is int:
        metadata["sequence"] = record["sequence"]
    return metadata


def _details(class_uid: int, record: Record) -> Object:
    """Return what a class has beside what all have."""
    if class_uid == 3002:  # noqa: PLR2004 - the schema's number
        return _authentication(record)
    if class_uid == 3001:  # noqa: PLR2004
        return {"user": _user(record), **_factors(record), **_source(record)}
    if class_uid == 3004:  # noqa: PLR2004
        return {"entity": _entity(record)}
    if class_uid == 6002:  # noqa: PLR2004
        return {"app": _PRODUCT}
    return {"log_name": "pam-mfa audit log", "log_provider": "pam-mfa"}


def _authentication(record: Record) -> Object:
    event: Object = {
        "user": _user(record),
        "service": {"name": str(record.get("service") or "unknown")},
        "dst_endpoint": {"hostname": record["host"]},
        "auth_protocol_id": _OTHER,
        "auth_protocol": "PAM",
        "is_mfa": record["event_name"] == EventName.VERIFY_MFA,
        "is_remote": bool(record.get("rhost") or record.get("source_address")),
        **_factors(record),
        **_source(record),
    }
    if record.get("tty"):
        event["session"] = {"terminal": str(record["tty"])}
    return event


def _user(record: Record) -> Object:
    if record.get("user"):
        return {"name": str(record["user"])}
    known = record.get("unknown_name") or record.get("unknown_user") or "unknown"
    return {"name": str(known), "type_id": 0, "type": "Unknown"}


def _factors(record: Record) -> Object:
    device = record.get("device")
    if not isinstance(device, dict):
        return {}
    kind = str(device.get("type"))
    factor_type_id, factor_type = _FACTORS.get(kind, (0, "Unknown"))
    thing = {
        "uid": str(device.get("serial_number")),
        "name": str(device.get("name")),
        "type_id": _OTHER,
        "type": kind,
    }
    factor = {"factor_type_id": factor_type_id, "factor_type": factor_type, "device": thing}
    return {"auth_factors": [factor]}


def _source(record: Record) -> Object:
    source = str(record.get("source_address") or record.get("rhost") or "")
    if not source:
        return {}
    try:
        ipaddress.ip_address(source)
    except ValueError:
        return {"src_endpoint": {"hostname": source}}
    return {"src_endpoint": {"ip": source}}


def _entity(record: Record) -> Object:
    if record["event_name"] == EventName.CHANGE_POLICY:
        policy = record.get("policy")
        sha256 = policy.get("sha256") if isinstance(policy, dict) else None
        about = {"name": "policy.yaml", "uid": str(sha256)}
        return {"type_id": 5, "type": "Policy", "policy": about, **about}
    return {"type_id": _OTHER, "type": "MFA devices", "name": str(record.get("detail"))}


def _actor(record: Record) -> Object:
    """Return who asked, by the kernel's word."""
    actor: Object = {}
    if type(record.get("caller_pid")) is int:
        actor["process"] = {"pid": record["caller_pid"]}
    if type(record.get("caller_uid")) is int:
        actor["user"] = {"uid": str(record["caller_uid"])}
    if type(record.get("login_session")) is int:
        actor["session"] = {"uid": str(record["login_session"])}
    return actor
