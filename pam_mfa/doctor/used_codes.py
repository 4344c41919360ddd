# SPDX-License-Identifier: Apache-2.0
"""What the audit log tells of codes that were used and of wrong ones, for a state that is lost.

Reads, and believes nothing behind which a record may be missing: what joins up to the log's end,
and on to the last record that the state knew of, is all that happened. Writes nothing.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from pam_mfa import lockout
from pam_mfa.audit import EventName, Head, Outcome, Reason, hash_line
from pam_mfa.audit_reading import open_logs
from pam_mfa.audit_reading.records import parse_moment
from pam_mfa.errors import BrokenSystemError, RefusedError

_PAPER: Final = ("recovery", "bypass")
_ENABLED: Final = (EventName.ENABLE_MFA_DEVICE, EventName.ISSUE_BYPASS)
_ACCEPTED: Final = (Reason.CODE_ACCEPTED, Reason.RESYNCHRONIZED)
_RESYNC: Final = EventName.RESYNC_MFA_DEVICE
_WRONG: Final = (Reason.WRONG_CODE, Reason.MALFORMED_CODE)


class Uses:
    """What was used of one device."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self.last = -1  # the last step, counter or sign count that the log has
        self.numbers: set[int] = set()  # of codes on paper
        self.is_sure = False  # whether nothing was used but this
        self.is_doubtful = False  # whether something was used that the record does not name
        self.was_moved = False  # whether it was ever resynchronized

    def add(self, record: dict[str, Any], kind: str) -> None:
        """Take a record of a success in which the device is."""
        name, reason = record["event_name"], record["reason"]
        step = record.get("used_step", record.get("sign_count"))
        is_acceptance = reason in _ACCEPTED or name == _RESYNC
        self.was_moved |= reason == Reason.RESYNCHRONIZED or name == _RESYNC
        if isinstance(step, int):
            self.last = max(self.last, step)
            self.numbers.add(step)
        is_nameless = is_acceptance and step is None
        if kind in _PAPER:
            self.is_doubtful |= is_nameless
            self.is_sure = (self.is_sure or name in _ENABLED) and not self.is_doubtful
        elif is_acceptance or name in _ENABLED:
            # Steps and counters only grow, so the last one that is told says enough.
            self.is_doubtful = is_nameless
            self.is_sure = step is not None


class UsedCodes:
    """What all of a log tells, read once from its first record to its last."""

    def __init__(self, rule: lockout.LockoutRule) -> None:
        """Begin before the first record."""
        self._rule = rule
        self._devices: dict[str, Uses] = {}
        self._end = Head()
        self._first = 1  # the sequence from which on every record is there
        self._known = Head()  # the last record that the state knew of
        self._is_joined = False  # whether it is among those
        self.log_end = Head()
        self.is_readable = True
        self.locks: dict[str, lockout.LockState] = {}  # by user

    def read(self, log: Path, waiting: Iterable[bytes], known: Head) -> None:
        """Read a log, and what was on its way there.

        Args:
            log: its path.
            waiting: records of the outbox, in their order.
            known: the last record that the state knew of.
        """
        self._known = known
        try:
            with open_logs(log) as files:
                for file in files:
                    for line in file.lines():
                        if isinstance(line, bytes):
                            self._add(line)
        except RefusedError:
            self.is_readable = not log.exists()
        except BrokenSystemError:
            self.is_readable = False
        self.log_end = self._end
        for line in waiting:
            if _read(line).get("sequence", 0) > self._end.sequence:
                self._add(line.removesuffix(b"\n"))

    def is_whole_since(self, sequence: int) -> bool:
        """Whether every record after this one is known, to the last one that there was."""
        return self.is_readable and self._is_joined and self._first <= sequence + 1

    def find(self, serial_number: str) -> Uses:
        """Return what was used of a device, unsure where records may be missing."""
        uses = self._devices.get(serial_number, Uses())
        uses.is_sure = uses.is_sure and self.is_readable and self._is_joined
        return uses

    def _add(self, line: bytes) -> None:
        record = _read(line)
        sequence = record.get("sequence")
        if not isinstance(sequence, int):
            return  # torn, or of a program that knew of no chain: the next record tells
        if (sequence, record.get("previous")) != (self._end.sequence + 1, self._end.hash):
            self._break(sequence)
        self._end = Head(sequence, hash_line(line))
        self._is_joined |= self._end == self._known
        device = record.get("device")
        if isinstance(device, dict) and record.get("outcome") == Outcome.SUCCESS:
            uses = self._devices.setdefault(str(device.get("serial_number")), Uses())
            uses.add(record, str(device.get("type")))
        self._count(record)

    def _break(self, sequence: int) -> None:
        """Note that records may be missing before this one."""
        self._first, self._is_joined = sequence, False
        for uses in self._devices.values():
            uses.is_sure = False

    def _count(self, record: dict[str, Any]) -> None:
        """Follow the wrong codes and locks of a user."""
        user, reason = record.get("user"), record.get("reason")
        if not isinstance(user, str):
            return
        state = self.locks.get(user, lockout.LockState())
        if reason in _WRONG:
            at = parse_moment(record["time"]).timestamp()
            self.locks[user] = lockout.register_failure(state, self._rule, at)
        elif reason == Reason.CODE_ACCEPTED or record["event_name"] == EventName.UNLOCK_USER:
            self.locks.pop(user, None)


def _read(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and all(
            isinstance(record.get(key), str) for key in ("event_name", "reason", "time")
        ):
            return record
    except (ValueError, RecursionError):
        pass
    return {}
