# SPDX-License-Identifier: Apache-2.0
"""A shell in the guest, and somebody who types commands there one by one and answers what they ask.

Every command has to end well. The shell's prompt shows the status, so that nothing is typed before
the command is over.
"""

import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from vm.guest import Guest
from vm.terminal import Terminal

_PROMPT = r"\[(\d+)\]% $"
_SHELL = ("env", "PS1=[$?]% ", "bash", "--norc", "--noprofile")
_LONGEST = 600.0  # seconds: a package is installed
# A prompt, and what is typed or makes it of what showed; None leaves it waiting, to hang up there.
Answer = tuple[str, str | Callable[[str], str] | None]


class CommandError(AssertionError):
    """A command failed; says what it wrote."""


class Shell:
    """One shell; enter it as a context manager."""

    def __init__(self, guest: Guest, user: str = "root") -> None:
        """Start it, in the user's home."""
        how = () if user == "root" else ("runuser", "-u", user, "--", "env", "-C", f"/home/{user}")
        self._terminal = Terminal(guest, [*how, *_SHELL])

    def __enter__(self) -> Self:
        """Wait for its first prompt."""
        self._terminal.__enter__()
        self._terminal.expect(_PROMPT, _LONGEST)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up."""
        self._terminal.__exit__(kind, error, trace)

    def type(self, line: str, answers: Sequence[Answer] = (), *, status: int | None = 0) -> str:
        """Type a command, answer what it asks, and return what it showed.

        Raises:
            CommandError: it ended with another status; None is any.
        """
        self._terminal.send(f"{line}\n")
        shown = ""
        for prompt, answer in answers:
            shown += self._terminal.expect(prompt, _LONGEST)
            if answer is None:
                return shown
            typed = answer if isinstance(answer, str) else answer(shown)
            self._terminal.send(f"{typed}\n")
        shown += self._terminal.expect(_PROMPT, _LONGEST)
        match = re.search(_PROMPT, shown)
        assert match is not None
        if status is not None and int(match[1]) != status:
            raise CommandError(f"{line}: {shown}")
        return shown.partition("\n")[2].removesuffix(match[0])
