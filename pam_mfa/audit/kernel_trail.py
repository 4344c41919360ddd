# SPDX-License-Identifier: Apache-2.0
"""The kernel's audit trail: AUDIT_USER_AUTH records, through libaudit.

The kernel makes a sender wait where its backlog is full, up to a minute: so records are sent
by a thread that no login waits for, from a queue that is bounded. Needs CAP_AUDIT_WRITE;
without it, or without libaudit or auditing in the kernel, it is off, which is said once.
"""

import ctypes
import os
import queue
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from pam_mfa.errors import BrokenSystemError

AUDIT_USER_AUTH: Final = 1100  # linux/audit.h
_LIBRARY: Final = "libaudit.so.1"
_OPERATION: Final = b"pam_mfa:verify"
_UNKNOWN: Final = b"(unknown)"
_EVENTS: Final = ("VerifyMfa", "SkipMfa")
_TERMINAL: Final = re.compile(r"[A-Za-z0-9/_.:-]{1,64}", re.ASCII)
_QUEUE_MAX: Final = 1024  # records
_PATIENCE: Final = 1.0  # seconds, at the end

Library = Callable[[str], Any]


class KernelTrail:
    """Sends records to the kernel."""

    def __init__(
        self,
        tell: Callable[[BrokenSystemError], None] | None,
        load: Library = lambda name: ctypes.CDLL(name, use_errno=True),
    ) -> None:
        """Take where to say that it is off, and what loads the library; the thread starts."""
        self._tell = tell
        self._load = load
        self._is_off = False
        self._dropped = 0
        self._queue: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_QUEUE_MAX)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, record: Mapping[str, Any]) -> None:
        """Have a verification sent; other records are none of the kernel's types."""
        if self._is_off or record["event_name"] not in _EVENTS:
            return
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Send what waits, in bounded time."""
        try:
            self._queue.put(None, timeout=_PATIENCE)
        except queue.Full:
            return
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        try:
            library = self._load(_LIBRARY)
            descriptor = library.audit_open()
            if descriptor < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        except OSError as error:
            self._turn_off(error)
            return
        try:
            while (record := self._queue.get()) is not None:
                self._send(library, descriptor, record)
                self._say_dropped()
        except OSError as error:
            self._turn_off(error)
        finally:
            library.audit_close(descriptor)

    def _send(self, library: Any, descriptor: int, record: Mapping[str, Any]) -> None:  # noqa: ANN401 - ctypes
        user = str(record.get("user", "")).encode("utf-8", "surrogateescape") or _UNKNOWN
        address = str(record.get("source_address", "")).encode("ascii", "replace") or None
        tty = str(record.get("tty", ""))
        # libaudit writes it as it is: a blank would begin a field of the caller's own making.
        terminal = tty.encode("ascii") if _TERMINAL.fullmatch(tty) else None
        result = library.audit_log_acct_message(
            descriptor, AUDIT_USER_AUTH, None, _OPERATION, user, ctypes.c_uint(0xFFFFFFFF),
            None, address, terminal, int(record["outcome"] == "success"),
        )  # fmt: skip
        if result <= 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _say_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped and self._tell is not None:
            self._tell(
                BrokenSystemError(
                    f"{dropped} records were dropped that the kernel's audit trail was too slow for"
                )
            )

    def _turn_off(self, error: OSError) -> None:
        self._is_off = True
        if self._tell is not None:
            self._tell(
                BrokenSystemError(
                    f"the kernel's audit trail takes no records of ours: {error}",
                    hint="It needs libaudit, auditing in the kernel, and CAP_AUDIT_WRITE for the "
                    "verifier. Or switch it off in the policy: audit: {kernel: false}",
                )
            )
