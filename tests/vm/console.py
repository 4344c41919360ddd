# SPDX-License-Identifier: Apache-2.0
"""The guest's first console, tty1: a person who types there and reads the screen.

Each `send` begins with an empty screen, so what `expect` finds was shown since. The typing and the
reading are done by `inside/terminal.py`, on the virtual terminal itself.
"""

import json
import os
import re
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from vm.guest import Guest

PATIENCE = 30.0  # seconds
_PROGRAM = Path(__file__).resolve().parent / "inside/terminal.py"
_STOP_SECONDS = 10.0


class UnexpectedScreenError(AssertionError):
    """What was expected did not show; says what did."""


class Console:
    """Somebody at tty1; enter it as a context manager, which brings the login prompt."""

    def __init__(self, guest: Guest) -> None:
        """Describe it."""
        self._guest = guest
        self._typed = 0
        self._unread = b""
        self.screen = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """End whatever is on tty1 and wait for the login prompt."""
        self._guest.run(["systemctl", "restart", "getty@tty1.service"])
        self._process = self._guest.start(_PROGRAM, "1")
        try:
            self.expect(r"login: $")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave tty1: a shell there ends as when a terminal hangs up."""
        self._stop()
        self._guest.run(["systemctl", "restart", "getty@tty1.service"])

    def send(self, text: str) -> None:
        """Type this; the Enter key is a newline in it."""
        self._typed += 1
        self.screen = ""
        self._pipes()[0].write(json.dumps(text).encode() + b"\n")
        self._pipes()[0].flush()

    def expect(self, pattern: str, timeout: float = PATIENCE) -> str:
        """Wait until a regular expression is found on the screen, and return the screen's text.

        The text ends at the cursor, so a `$` at the end finds a prompt that waits.

        Raises:
            UnexpectedScreenError: it did not show in this many seconds.
        """
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.screen):
            line = self._read_line(deadline - time.monotonic())
            if line is None:
                raise UnexpectedScreenError(f"waited for {pattern!r}: {self.screen!r}")
            typed, screen = json.loads(line)
            if typed == self._typed:  # not from before the latest typing
                self.screen = str(screen)
        return self.screen

    def _read_line(self, timeout: float) -> bytes | None:
        """Return the next line of the program, or None if there is none in time."""
        deadline = time.monotonic() + timeout
        output = self._pipes()[1]
        while b"\n" not in self._unread:
            left = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([output], [], [], left)
            chunk = os.read(output.fileno(), 65536) if readable else b""
            if not chunk:
                return None
            self._unread += chunk
        line, self._unread = self._unread.split(b"\n", 1)
        return line

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RuntimeError("enter the console first")
        return process.stdin, process.stdout

    def _stop(self) -> None:
        """End the program inside: it ends with its input."""
        if self._process is None:
            return
        try:
            self._process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._process = None
