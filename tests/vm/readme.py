# SPDX-License-Identifier: Apache-2.0
"""What README.md tells an administrator to type: its own fenced blocks, as they stand there.

So a test that follows the README fails when a command in it is wrong, and is another test when the
README says something else.
"""

import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from installed import REPOSITORY

_HEADING = re.compile(r"#+ (.*)")
_FENCE = "```"
_NAME = "YOUR-NAME"
_SOURCE_PREFIX = "/opt/pam-mfa"  # "From a package, leave out each line that names it"
_MODULE_PATH = f"{_SOURCE_PREFIX}/lib/security/"


class Block(NamedTuple):
    """One fenced block."""

    heading: str  # of the section that it stands in
    language: str  # "" for what belongs into a file
    text: str

    def commands(self, user: str) -> list[str]:
        """Return the commands for a host that has the package, with a user's name put in."""
        lines = [line.partition("  #")[0].rstrip() for line in self.text.splitlines()]
        return [line.replace(_NAME, user) for line in lines if line and _SOURCE_PREFIX not in line]

    def content(self) -> str:
        """Return what belongs into a file of a host that has the package."""
        return self.text.replace(_MODULE_PATH, "")


class Readme:
    """README.md, by its sections."""

    def __init__(self) -> None:
        """Read it."""
        self.text = (REPOSITORY / "README.md").read_text()
        self._blocks = list(_parse(self.text))

    def commands(self, heading: str, user: str = "") -> list[str]:
        """Return a section's commands, in their order; a section must have some."""
        found = self._of(heading, "sh")
        return [line for block in found for line in block.commands(user)]

    def contents(self, heading: str) -> list[str]:
        """Return what a section says that files are to contain, in its order."""
        return [block.content() for block in self._of(heading, "")]

    def _of(self, heading: str, language: str) -> list[Block]:
        found = [one for one in self._blocks if (one.heading, one.language) == (heading, language)]
        assert found, f"README.md has no such block under '{heading}'"
        return found


def _parse(text: str) -> Iterator[Block]:
    heading, language = "", ""
    block: list[str] | None = None
    for line in text.splitlines():
        word = line.strip()
        if word.startswith(_FENCE):
            if block is None:
                language, block = word.removeprefix(_FENCE), []
            else:
                yield Block(heading, language, textwrap.dedent("".join(block)))
                block = None
        elif block is not None:
            block.append(f"{line}\n")
        elif match := _HEADING.match(line):
            heading = match[1]
