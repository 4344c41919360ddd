# SPDX-License-Identifier: Apache-2.0
"""Where records go besides the log: the journal, the system log, the kernel's audit trail.

They are told after the record is durable, and none is waited for: what a slow or dead one does not
take at once is dropped, counted, and the count told with the next record that it takes. The log
itself has everything.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pam_mfa.audit.telling import describe, flatten, priority_of
from pam_mfa.errors import BrokenSystemError
from pam_mfa.policy import AuditRules

if TYPE_CHECKING:  # ctypes and threading behind it
    from pam_mfa.audit.kernel_trail import KernelTrail

JOURNAL: Final = "/run/systemd/journal/socket"  # systemd-journald's native protocol
SYSLOG: Final = "/dev/log"
_JOURNAL_ROOM: Final = "/run/systemd/journal/"
_AUTHPRIV: Final = 10  # LOG_AUTHPRIV of sys/syslog.h, without the shift
_TAKES_NONE: Final = (FileNotFoundError, NotADirectoryError)
# One id for all records, so that journalctl MESSAGE_ID=... finds them.
MESSAGE_ID: Final = "9b2b7c6ee0a14c19b1f7f3f1d6b0a4e5"


class _Outlet:
    """A socket of datagrams, or of messages with a NUL behind each, that is never waited for."""

    def __init__(self, path: str, kinds: Sequence[socket.SocketKind]) -> None:
        self.dropped = 0
        self._path = path
        self._kinds = kinds
        self._socket: socket.socket | None = None

    def is_there(self) -> bool:
        """Whether somebody may listen, so that a message is worth its making."""
        return self._socket is not None or os.path.exists(self._path)  # noqa: PTH110 - each login

    def send(self, message: bytes) -> bool:
        """Send, and connect anew once; return whether it was taken."""
        for is_new in (False, True):
            try:
                if is_new or self._socket is None:
                    self._connect()
                if self._socket is not None and self._send(self._socket, message):
                    self.dropped = 0
                    return True
                break
            except BlockingIOError:
                break
            except _TAKES_NONE:  # nobody is there who could miss it
                self.close()
                return False
            except OSError:
                self.close()
        self.dropped += 1
        return False

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _connect(self) -> None:
        self.close()
        for kind in self._kinds:
            connection = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
            try:
                connection.connect(self._path)
            except OSError:
                connection.close()
                if kind == self._kinds[-1]:
                    raise
            else:
                self._socket = connection
                return

    def _send(self, connection: socket.socket, message: bytes) -> bool:
        if connection.type == socket.SOCK_STREAM:
            message += b"\0"
        if connection.send(message, socket.MSG_NOSIGNAL) == len(message):
            return True
        self.close()  # half of a message would be taken for the next one's beginning
        return False


class Outlets:
    """All outlets of one process."""

    def __init__(self, journal: str = JOURNAL, syslog: str = SYSLOG) -> None:
        """Take the sockets' names; none is opened yet."""
        self._rules: AuditRules | None = None
        self._find_rules: Callable[[], AuditRules] = _tell_none
        self._tell: Callable[[BrokenSystemError], None] | None = None
        self._journal = _Outlet(journal, (socket.SOCK_DGRAM,))
        self._syslog = _Outlet(syslog, (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        self._syslog_path = syslog
        self._kernel: KernelTrail | None = None

    def follow(
        self, find_rules: Callable[[], AuditRules], tell: Callable[[BrokenSystemError], None]
    ) -> None:
        """Use those from now on that policy has switched on; it is asked at the first record."""
        self._rules, self._find_rules, self._tell = None, find_rules, tell

    def send(self, lines: Sequence[bytes]) -> None:
        """Tell of records that are durable."""
        rules = self._rules = self._rules or self._find_rules()
        has_journal = rules.journal and self._journal.is_there()
        has_syslog = rules.syslog and self._syslog.is_there()
        if not (has_journal or has_syslog or rules.kernel):
            return
        for line in lines:
            record = json.loads(line)
            is_in_journal = has_journal and self._journal.send(self._entry(record))
            if has_syslog and not (is_in_journal and self._is_one_log()):
                self._syslog.send(self._line(record))
            if rules.kernel:
                self._kernel_trail().put(record)

    def close(self) -> None:
        """Close the sockets, to be opened again by the next record."""
        self._journal.close()
        self._syslog.close()
        if self._kernel is not None:
            self._kernel.close()
        self._kernel = None

    def _is_one_log(self) -> bool:
        """Whether journald listens on the system log's socket: it would have the record twice."""
        with contextlib.suppress(OSError):
            return os.path.realpath(self._syslog_path).startswith(_JOURNAL_ROOM)
        return False

    def _entry(self, record: Mapping[str, Any]) -> bytes:
        """Return an entry by systemd's native protocol: no value has a newline in it."""
        fields = [
            ("MESSAGE", _note(describe(record), self._journal.dropped)),
            ("MESSAGE_ID", MESSAGE_ID),
            ("PRIORITY", str(priority_of(record))),
            ("SYSLOG_FACILITY", str(_AUTHPRIV)),
            ("SYSLOG_IDENTIFIER", str(record["process"]["program"])),
            ("SYSLOG_PID", str(record["process"]["pid"])),
        ]
        fields += [(f"PAM_MFA_{name.upper()}", value) for name, value in flatten(record)]
        return "".join(f"{name}={value}\n" for name, value in fields).encode("ascii")

    def _line(self, record: Mapping[str, Any]) -> bytes:
        """Return a line as syslog(3) makes it."""
        moment = time.strftime("%b %e %H:%M:%S", time.localtime())
        process = record["process"]
        text = _note(describe(record), self._syslog.dropped)
        number = _AUTHPRIV * 8 + priority_of(record)
        return f"<{number}>{moment} {process['program']}[{process['pid']}]: {text}".encode("ascii")

    def _kernel_trail(self) -> "KernelTrail":
        if self._kernel is None:
            from pam_mfa.audit.kernel_trail import KernelTrail  # noqa: PLC0415 - start-up cost

            self._kernel = KernelTrail(self._tell)
        return self._kernel


def _tell_none() -> AuditRules:
    return AuditRules(journal=False, syslog=False)


def _note(text: str, dropped: int) -> str:
    return f"{text} dropped_before={dropped}" if dropped else text
