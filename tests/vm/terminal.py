# SPDX-License-Identifier: Apache-2.0
"""A terminal in the guest, and somebody who types there and reads what shows.

For people who do not only answer prompts: who touch a key, wait, or press Ctrl-C.
"""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import pexpect

from vm.guest import Guest

PATIENCE = 30.0  # seconds
CTRL_C = "\x03"


class UnexpectedTextError(AssertionError):
    """What was expected did not show; says what did."""


class Terminal:
    """One program on a terminal of its own; enter it as a context manager."""

    def __init__(self, guest: Guest, command: Sequence[str]) -> None:
        """Start the program, as root."""
        argv = guest.remote_command(list(command), "-tt")
        self.text = ""
        self._child = pexpect.spawn(
            argv[0],
            argv[1:],
            env={"TERM": "dumb", "PATH": "/usr/bin:/bin"},
            timeout=PATIENCE,
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(24, 500),
        )
        self._child.delaybeforesend = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up."""
        self._child.close(force=True)

    def send(self, text: str) -> None:
        """Type this; the Enter key is a newline in it."""
        self._child.send(text.replace("\n", "\r"))

    def expect(self, pattern: str, timeout: float = PATIENCE) -> str:
        """Wait until a regular expression is found in what shows, and return the text up to there.

        Raises:
            UnexpectedTextError: it did not show in this many seconds, or the program ended.
        """
        try:
            self._child.expect(pattern, timeout=timeout)
        except (pexpect.TIMEOUT, pexpect.EOF):
            raise UnexpectedTextError(f"waited for {pattern!r}: {self._child.before!r}") from None
        shown = f"{self._child.before}{self._child.after}".replace("\r", "")
        self.text += shown
        return shown

    def status(self, timeout: float = PATIENCE) -> int:
        """Wait for the program's end; return its status, 128 and a signal's number as a shell does.

        Raises:
            UnexpectedTextError: it did not end in this many seconds.
        """
        try:
            self._child.expect(pexpect.EOF, timeout=timeout)
        except pexpect.TIMEOUT:
            raise UnexpectedTextError(f"it does not end: {self._child.before!r}") from None
        self.text += self._child.before.replace("\r", "")
        self._child.close()
        if self._child.exitstatus is None:
            return 128 + int(self._child.signalstatus)
        return int(self._child.exitstatus)

    def last_line(self) -> str:
        """Return the last line that is not blank."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def await_true(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Wait until a condition holds, and return whether it does."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()
