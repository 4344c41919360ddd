# SPDX-License-Identifier: Apache-2.0
"""Where the log's end and the state's head meet, or how they came apart.

A kill leaves records in the outbox that the log lacks: they are appended. A power cut leaves a
torn line; a log that was cut, deleted or edited leaves ends that do not meet. The chain then goes
on behind the state's, and a record says so: never silently. A log that goes further than the state
is another matter: the state was restored, deleted or damaged, and does not know what was used
since. Nothing is judged by it until it was repaired.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pam_mfa.audit import (
    AuditLog,
    Event,
    EventName,
    Head,
    HeadField,
    Outcome,
    Reason,
    TornField,
    hash_line,
)
from pam_mfa.audit.log import End
from pam_mfa.errors import StateError


class Joint(NamedTuple):
    """How log and state are brought together."""

    missing: tuple[bytes, ...] = ()  # lines that the log lacks
    events: tuple[Event, ...] = ()  # what has to be recorded of it
    head: Head | None = None  # where the chain goes on; None: at the state's head
    was_rotated: bool = False  # whether the log is new, and the one before it stands beside it
    ahead: Head | None = None  # the log's end, where the state does not know of its last records

    @property
    def is_whole(self) -> bool:
        """Whether nothing has to be done."""
        return not self.missing and not self.events and self.ahead is None

    def require_state(self, path: Path, head: Head) -> None:
        """Have nothing judged by a state that is older than the log: a used code would be good.

        Args:
            path: the state's.
            head: of the chain, by the state.

        Raises:
            StateError: it is older.
        """
        if self.ahead is not None:
            raise StateError(
                f"the state {path} is older than the audit log, whose last record is number "
                f"{self.ahead.sequence}; the state knows {head.sequence}",
                hint="It was restored, deleted or damaged, and what was used since would be good "
                "again. Run: pam-mfa doctor --repair. Until then every login is refused.",
            )


def find_joint(log: AuditLog, head: Head, waiting: Sequence[bytes]) -> Joint:
    """Compare the log's end with the state's head.

    Args:
        log: as it is on the disk.
        head: of the chain, by the state.
        waiting: lines that may be missing in the log, in their order; the last is the head's.

    Raises:
        AuditError: the log cannot be read.
    """
    end = log.read_end()
    if not end.torn and end.last and hash_line(end.last) == head.hash:
        return Joint()
    if not end.last and not end.torn:
        if head == Head() and not waiting and not log.has_rotated():
            return Joint()  # the first record of all is to come
        if head != Head() and _has_end(log, head, is_sure=not waiting):
            return Joint(was_rotated=True)
    return _mend(log, end, head, waiting)


def _has_end(log: AuditLog, head: Head, *, is_sure: bool) -> bool:
    """Whether a rotated log ends with the state's head.

    Where all are compressed, which verifying reads and a login does not, what is sure to have been
    in the log is taken to be in them.
    """
    ends = list(log.rotated_ends())
    if not ends:
        return is_sure and log.has_rotated()
    return any(hash_line(end.last) == head.hash for end in ends if end.last)


def _mend(log: AuditLog, end: End, head: Head, waiting: Sequence[bytes]) -> Joint:
    ends, was_rotated = _find_ends(log, end)
    ahead = _find_ahead(ends, head, is_hidden=was_rotated and not ends)
    if ahead is not None:
        return Joint(was_rotated=was_rotated, ahead=ahead)
    last, missing = _find_missing(log, ends, waiting)
    events = []
    if end.torn and not _has(missing, EventName.MEND_LOG):
        events.append(_tell_torn(end.torn))
    joint = Joint(missing, tuple(events), was_rotated=was_rotated)
    is_compressed = was_rotated and not ends  # what can be read of it, verifying reads
    if is_compressed or _meet(last, missing, head) or _has(missing, EventName.RESUME_LOG):
        return joint
    return _resume(joint, last, head)


def _find_ends(log: AuditLog, end: End) -> tuple[list[bytes], bool]:
    """Return the log's last line, or those of rotated ones where it is new, and whether it is."""
    if end.last:
        return [end.last], False
    ends = [one.last for one in log.rotated_ends() if one.last]
    return ends, bool(ends) or log.has_rotated()


def find_ahead(log: AuditLog, head: Head) -> Head | None:
    """Return the log's last record where a state with this head does not know of it.

    Raises:
        AuditError: the log cannot be read.
    """
    ends, was_rotated = _find_ends(log, log.read_end())
    return _find_ahead(ends, head, is_hidden=was_rotated and not ends)


def _find_ahead(ends: Sequence[bytes], head: Head, *, is_hidden: bool) -> Head | None:
    """Return the last record of a log that goes further than the state.

    Judged before anything else: an old state may have records waiting that a newer one had
    appended long ago.
    """
    last = max(ends, key=_sequence_of, default=b"")
    if _sequence_of(last) > head.sequence:
        return Head(_sequence_of(last), hash_line(last))
    # Records that nobody has read yet, and a state that knows of none.
    return Head(1, Head().hash) if is_hidden and head == Head() else None


def _find_missing(
    log: AuditLog, ends: Sequence[bytes], waiting: Sequence[bytes]
) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the log's last record, and the waiting lines that follow it."""
    previous = [_previous_of(line) for line in waiting]
    for last in ends:
        found = hash_line(last)
        if found in previous:
            return last, tuple(waiting[previous.index(found) :])
    present = log.recent()
    missing = tuple(line for line in waiting if line not in present)
    return ends[0] if ends else b"", missing


def _meet(last: bytes, missing: tuple[bytes, ...], head: Head) -> bool:
    end = hash_line(last) if last else Head().hash
    if not missing:
        return end == head.hash
    return _previous_of(missing[0]) == end and hash_line(missing[-1]) == head.hash


def _resume(joint: Joint, last: bytes, head: Head) -> Joint:
    found = Head(_sequence_of(last), hash_line(last)) if last else Head()
    if head == Head():  # records of a program that knew of no chain yet
        event = tell_resumed(Reason.STATE_LOST, head, found)
        return joint._replace(missing=(), events=(*joint.events, event), head=found)
    is_same = found.sequence == head.sequence
    reason = Reason.LOG_CHANGED if is_same else Reason.LOG_LOST
    return joint._replace(events=(*joint.events, tell_resumed(reason, head, found)))


def tell_resumed(reason: Reason, head: Head, found: Head) -> Event:
    """Return what is recorded where state and log were found apart."""
    return Event(
        EventName.RESUME_LOG,
        Outcome.ERROR,
        reason,
        time.time(),
        state_head=HeadField(*head),
        log_head=HeadField(*found),
    )


def _tell_torn(torn: bytes) -> Event:
    field = TornField(len(torn), hashlib.sha256(torn).hexdigest())
    return Event(EventName.MEND_LOG, Outcome.ERROR, Reason.TORN_LINE, time.time(), torn=field)


def _has(lines: Sequence[bytes], name: EventName) -> bool:
    """Whether a record of this mending waits already: the one who began it was killed."""
    return any(f'"event_name":"{name.value}"'.encode("ascii") in line for line in lines)


def _sequence_of(line: bytes) -> int:
    value = _read(line).get("sequence")
    return value if isinstance(value, int) and value > 0 else 0


def _previous_of(line: bytes) -> str:
    return str(_read(line).get("previous", ""))


def _read(line: bytes) -> dict[str, object]:
    with contextlib.suppress(ValueError):
        record = json.loads(line)
        if isinstance(record, dict):
            return record
    return {}
