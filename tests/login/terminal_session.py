# SPDX-License-Identifier: Apache-2.0
"""A session on a terminal: runs one login program and answers its prompts as a person would.

Owns the pseudo-terminal and the bounds on waiting. It knows no program: what to run, what will be
asked and what to answer are given. An answer is sent as soon as its prompt shows, since every
program tested here discards earlier typing before it prompts.
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pexpect
from private_host import PATIENCE_SECONDS

# A prompt's regular expression and the answer, or what makes it of all that was shown so far; None
# hangs up there instead of answering.
Answer = tuple[str, str | Callable[[str], str] | None]


@dataclass(frozen=True)
class LoginResult:
    """What a login came to: the exit status, all that was shown, and each answered prompt's line.

    A status above 128 is 128 and the number of the signal that ended the program.
    """

    status: int
    output: str
    prompts: tuple[str, ...]

    @property
    def last_line(self) -> str:
        """The last line that is not blank, without spaces around it; else nothing."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class UnansweredPromptError(AssertionError):
    """A program waited for something that no answer was given for; shows all that it wrote."""


class TerminalSession:
    """One program on a terminal of its own, from its start to its end."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the program with exactly this environment."""
        self._shown = io.StringIO()
        self._prompts: list[str] = []
        self._child = pexpect.spawn(
            argv[0],
            list(argv[1:]),
            env=dict(environment),
            timeout=PATIENCE_SECONDS,
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(24, 500),
        )
        self._child.delaybeforesend = None
        self._child.ptyproc.delayafterclose = 0
        self._child.logfile_read = self._shown

    def converse(self, answers: Sequence[Answer]) -> bool:
        """Answer these prompts, in this order; return whether the program is still there.

        Raises:
            UnansweredPromptError: it neither showed the next prompt nor ended.
        """
        for prompt, answer in answers:
            if not self._await(prompt):
                return False
            lines = f"{self._child.before}{self._child.after}".splitlines()
            self._prompts.append(lines[-1])
            if answer is None:
                self._hang_up()
                return False
            self._child.sendline(answer if isinstance(answer, str) else answer(self._text()))
        return True

    def result(self) -> LoginResult:
        """Wait for the program's end and return what the session came to.

        Raises:
            UnansweredPromptError: it did not end.
        """
        if not self._child.closed:
            self._await(pexpect.EOF)
            self._hang_up()
        status = self._child.exitstatus
        if status is None:
            status = 128 + self._child.signalstatus
        return LoginResult(int(status), self._text(), tuple(self._prompts))

    def _await(self, expected: object) -> bool:
        """Wait until `expected` shows and return True, or until the end and return False."""
        try:
            return int(self._child.expect([expected, pexpect.EOF])) == 0
        except pexpect.TIMEOUT:
            self._hang_up()
            raise UnansweredPromptError(f"waited for {expected!r}: {self._text()}") from None

    def _hang_up(self) -> None:
        """Close the terminal, let the program end by itself, and kill it if it does not."""
        self._child.ptyproc.fileobj.close()
        # Left set by an end of file, this would make isalive() wait without a bound.
        self._child.flag_eof = False
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._child.isalive() and time.monotonic() < deadline:
            time.sleep(0.002)
        self._child.close(force=True)

    def _text(self) -> str:
        """Return all that the program wrote, without carriage returns."""
        return self._shown.getvalue().replace("\r", "")
