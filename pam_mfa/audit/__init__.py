# SPDX-License-Identifier: Apache-2.0
"""The audit log: one JSON object a line, each with the hash of the line before.

The only room that writes the log; ``store.ledger`` sees to it that a record is durable before a
success is told. A record never holds a secret, a code, or what somebody typed
as a user name that no account has: that may be a password, so a pseudonym stands for it.
"""

from pam_mfa.audit.chain import NO_HASH, Head, follow, hash_line, name_key
from pam_mfa.audit.events import (
    DeviceField,
    Event,
    EventName,
    HeadField,
    Outcome,
    PolicyField,
    Reason,
    TornField,
)
from pam_mfa.audit.log import AuditLog
from pam_mfa.audit.record import VERSION, Origin, build_record, format_event, format_record

__all__ = [
    "NO_HASH",
    "VERSION",
    "AuditLog",
    "DeviceField",
    "Event",
    "EventName",
    "Head",
    "HeadField",
    "Origin",
    "Outcome",
    "PolicyField",
    "Reason",
    "TornField",
    "build_record",
    "follow",
    "format_event",
    "format_record",
    "hash_line",
    "name_key",
]
