# SPDX-License-Identifier: Apache-2.0
"""The audit log: one JSON object a line.

The only room that writes the log; ``store.ledger`` sees to it that a record is durable before a
success is told. A record never holds a secret, a code, or what somebody typed
as a user name that no account has: that may be a password, so a pseudonym stands for it.
"""

import contextlib
import datetime
import enum
import errno
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pam_mfa.errors import AuditError

_TEXT_MAX = 128  # characters of a text that the caller chose: a record must stay short
_OWN_TEXT_MAX = 1024  # of a text that we chose
_OWN_TEXTS = frozenset(("user", "rule", "detail"))  # names of accounts, and our own sentences
_END_BYTES = 1 << 21  # of a log's end, where records of late are found again
_LAST_LINE_BYTES = 1 << 16
_FORBIDDEN = 0o007  # nobody outside the log's group reads or writes it


class EventName(enum.StrEnum):
    """What happened, in AWS's manner."""

    VERIFY_MFA = "VerifyMfa"
    SKIP_MFA = "SkipMfa"
    ENABLE_MFA_DEVICE = "EnableMfaDevice"
    RESYNC_MFA_DEVICE = "ResyncMfaDevice"
    DEACTIVATE_MFA_DEVICE = "DeactivateMfaDevice"
    ISSUE_BYPASS = "IssueBypass"
    IMPORT_DEVICES = "ImportDevices"
    LOCK_USER = "LockUser"
    UNLOCK_USER = "UnlockUser"


class Outcome(enum.StrEnum):
    """How it ended."""

    SUCCESS = "success"
    DENIED = "denied"
    ERROR = "error"


class Reason(enum.StrEnum):
    """Why it ended so; a closed list."""

    CODE_ACCEPTED = "code_accepted"
    RESYNCHRONIZED = "resynchronized"
    WRONG_CODE = "wrong_code"
    MALFORMED_CODE = "malformed_code"
    EMPTY_ANSWER = "empty_answer"
    CODE_REUSED = "code_reused"
    LOCKED = "locked"
    TOO_MANY_FAILURES = "too_many_failures"
    NOT_ENROLLED = "not_enrolled"
    NO_ACCEPTABLE_DEVICE = "no_acceptable_device"
    NO_CONVERSATION = "no_conversation"
    ABANDONED = "abandoned"
    TIMED_OUT = "timed_out"
    CALLER_NOT_ALLOWED = "caller_not_allowed"
    DEVICES_UNREADABLE = "devices_unreadable"
    UNENROLLED_ALLOWED = "unenrolled_allowed"
    ENROLLMENT_DUE = "enrollment_due"
    DENIED_BY_RULE = "denied_by_rule"
    SKIPPED_BY_RULE = "skipped_by_rule"
    REQUESTED = "requested"
    PASSWORD_REFUSED = "password_refused"  # noqa: S105 - a reason, not a password
    NOT_ALLOWED = "not_allowed"
    TOUCH_ACCEPTED = "touch_accepted"
    KEY_ABSENT = "key_absent"
    KEY_TIMED_OUT = "key_timed_out"
    KEY_UNUSABLE = "key_unusable"
    KEY_PIN_REFUSED = "key_pin_refused"
    UNPROVEN_ASSERTION = "unproven_assertion"
    POSSIBLE_CLONE = "possible_clone"
    SSH_KEY_ACCEPTED = "ssh_key_accepted"
    SSH_KEY_NOT_ENROLLED = "ssh_key_not_enrolled"
    NOT_POSSIBLE = "not_possible"  # with these devices
    DEVICES_CHANGED = "devices_changed"  # since the user was verified
    UNPROVEN_REGISTRATION = "unproven_registration"


class DeviceField(NamedTuple):
    """The device of a record."""

    serial_number: str
    type: str
    name: str


class Event(NamedTuple):
    """One record, before it has an id; empty fields are left out of the line."""

    name: EventName
    outcome: Outcome
    reason: Reason
    at: float  # seconds since the epoch
    user: str = ""
    unknown_user: str = ""  # the pseudonym of a name that no account has
    service: str = ""
    phase: str = ""
    tty: str = ""
    rhost: str = ""
    ruser: str = ""
    device: DeviceField | None = None
    sign_count: int | None = None  # of a security key's assertion
    mode: str = ""
    rule: str = ""  # of the policy, that decided; "": its defaults
    caller_uid: int | None = None  # of the process that asked, by the kernel's word
    caller_pid: int | None = None
    login_uid: int | None = None  # who acts, for what is done on the command line
    detail: str = ""


def format_event(event: Event, event_id: str, host: str) -> bytes:
    """Return a record's line; other characters than ASCII are escaped, so a line is a line."""
    moment = datetime.datetime.fromtimestamp(event.at, datetime.UTC)
    record: dict[str, object] = {
        "time": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "event_id": event_id,
        "event_name": event.name.value,
        "outcome": event.outcome.value,
        "reason": event.reason.value,
        "host": host,
    }
    for key, value in zip(event._fields[4:], event[4:], strict=True):
        if isinstance(value, DeviceField):
            record[key] = value._asdict()
        elif isinstance(value, str) and value:
            record[key] = value[: _OWN_TEXT_MAX if key in _OWN_TEXTS else _TEXT_MAX]
        elif isinstance(value, int):
            record[key] = value
    return json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"


class AuditLog:
    """The log file: opened when first needed, and again when it was rotated away.

    Writers of several processes take turns by the store's lock, not by one on this file: whoever
    may read the log could hold that and keep everybody from logging in.
    """

    def __init__(self, path: Path) -> None:
        """Take the path; it is not touched yet."""
        self._path = path
        self._descriptor = -1
        self._identity = (0, 0)

    def write(self, lines: Sequence[bytes]) -> None:
        """Append records; they are durable after ``sync``, or by the store's own copy.

        Raises:
            AuditError: nothing of them is left in the log.
        """
        data = b"".join(lines)
        if not data:
            return
        try:
            descriptor = self._current_descriptor()
            size = os.fstat(descriptor).st_size
            # A record that a power loss or a kill has cut must not spoil the next one.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data
            try:
                if os.write(descriptor, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        except OSError as error:
            raise self._error(error) from error

    def sync(self) -> None:
        """Make everything durable that this process has written, also if it was rotated away.

        Raises:
            AuditError: it is not.
        """
        try:
            if self._descriptor < 0:
                self._descriptor = self._open()
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise self._error(error) from error

    def require_usable(self) -> None:
        """Open the log, where it is not open yet.

        Raises:
            AuditError: no record could be written to it.
        """
        try:
            self._current_descriptor()
        except OSError as error:
            raise self._error(error) from error

    def was_rotated(self) -> bool:
        """Whether the file that this process writes to is no longer the log."""
        return self._descriptor >= 0 and self._look() != self._identity

    def ends_with(self, line: bytes) -> bool:
        """Whether this is the log's last record."""
        return _read_end(self._path, _LAST_LINE_BYTES).endswith(line)

    def recent(self) -> set[bytes]:
        """Return the lines at the ends of this log and of the newest rotated one, made durable.

        Raises:
            AuditError: they are not.
        """
        names = sorted(self._path.parent.glob(f"{self._path.name}*"), key=_modified, reverse=True)
        try:
            for name in names[:2]:
                _sync(name)
        except OSError as error:
            raise self._error(error) from error
        ends = [_read_end(name, _END_BYTES) for name in names[:2]]
        return {line for end in ends for line in end.splitlines(keepends=True)}

    def close(self) -> None:
        """Close the file, to be opened again by the next record."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _error(self, error: OSError) -> AuditError:
        return AuditError(
            f"the audit log {self._path} cannot be written: {error.strerror}",
            hint=f"See: df {self._path.parent}; ls -l {self._path.parent}. "
            "Until it can be written, every login is refused.",
        )

    def _current_descriptor(self) -> int:
        if self._descriptor < 0 or self.was_rotated():
            self.close()
            self._descriptor = self._open()
        return self._descriptor

    def _look(self) -> tuple[int, int]:
        try:
            about = self._path.lstat()
        except FileNotFoundError:
            return (0, 0)
        return (about.st_dev, about.st_ino)

    def _open(self) -> int:
        # pam-u2f CVE-2019-12209: no link is followed; CVE-2019-12210: no child inherits it.
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self._path, flags)
        except FileNotFoundError:
            descriptor = os.open(self._path, flags | os.O_CREAT, 0o640)
            os.fchmod(descriptor, 0o640)  # for the log's group, whatever the umask is
        about = os.fstat(descriptor)
        wrong = (
            "it is not a regular file" if not stat.S_ISREG(about.st_mode)
            else f"it belongs to user id {about.st_uid}" if about.st_uid != os.geteuid()
            else "others may read or write it" if about.st_mode & _FORBIDDEN
            else ""
        )  # fmt: skip
        if wrong:
            os.close(descriptor)
            raise AuditError(
                f"the audit log {self._path} is not used: {wrong}",
                hint="Move it away; a new one is made by the next record.",
            )
        self._identity = (about.st_dev, about.st_ino)
        return descriptor


def _modified(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.lstat().st_mtime_ns
    return 0


def _sync(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        return  # none of ours, and not read either
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _read_end(path: Path, size: int) -> bytes:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, size, max(0, os.fstat(descriptor).st_size - size))
        finally:
            os.close(descriptor)
    return b""
