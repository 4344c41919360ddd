# SPDX-License-Identifier: Apache-2.0
"""The guest's serial port, which is its kernel's console: where a rescue shell asks for root."""

import re
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

import pexpect
from pexpect import fdpexpect

PATIENCE = 120.0  # seconds; a guest boots meanwhile


class UnexpectedOutputError(AssertionError):
    """What was expected did not show; says what did."""


class SerialConsole:
    """Somebody at the serial port; enter it as a context manager."""

    def __init__(self, place: Path) -> None:
        """Connect to QEMU's end of it; what was written before is not seen."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(place))
        self._child = fdpexpect.fdspawn(
            self._socket.fileno(), timeout=PATIENCE, encoding="utf-8", codec_errors="replace"
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave; the guest goes on."""
        self._socket.close()

    def send(self, text: str) -> None:
        """Type this; the Enter key is a newline in it."""
        self._child.send(text.replace("\n", "\r"))

    def expect(self, pattern: str) -> str:
        """Wait until a regular expression is found in what shows, and return the text up to there.

        Raises:
            UnexpectedOutputError: it did not show in time.
        """
        try:
            self._child.expect(pattern)
        except (pexpect.TIMEOUT, pexpect.EOF):
            raise UnexpectedOutputError(f"waited for {pattern!r}: {self._child.before!r}") from None
        return f"{self._child.before}{self._child.after}".replace("\r", "")

    def run(self, line: str) -> tuple[int, str]:
        """Type a command at a shell's prompt; return its status and what it showed."""
        self.send(f"{line}; echo ended:$?:\n")
        shown = self.expect(r"ended:\d+:")
        match = re.search(r"ended:(\d+):$", shown)
        assert match is not None
        return int(match[1]), shown
