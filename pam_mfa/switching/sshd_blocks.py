# SPDX-License-Identifier: Apache-2.0
"""Match blocks of sshd's configuration, each made to count by itself.

Pure. Who would come into a block cannot be worked out: sshd's patterns take in users, groups and
addresses that nobody has listed. So a block's criteria are replaced by ``all``, those of the other
blocks by one that nobody fits, and sshd itself is asked what it would then do.
"""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

# Whom sshd is asked about; no block names it.
CONNECTION: Final = (
    "user=pam-mfa-somebody,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22,rdomain="
)
_NOBODY = "user pam-mfa-nobody"
_MATCH = re.compile(r"""^(\s*["']?match["']?(?:\s+|\s*=\s*))([^#]*)""", re.IGNORECASE)
_ALL = re.compile(r"""["']?all["']?""", re.IGNORECASE)
_EVERYBODY = re.compile(r"(?:\*|\*\.\*\.\*\.\*|0\.0\.0\.0/0|::/0|,)+")
_PERSONS = ("user", "group")


class Block(NamedTuple):
    """A Match block."""

    file: Path  # below /etc/ssh
    number: int  # of its line, from 1
    criteria: str

    @property
    def names_persons(self) -> bool:
        """Whether it is for users or groups that somebody has named one by one."""
        words = re.split(r"[\s=]+", self.criteria)
        pairs = itertools.pairwise(words)
        return any(
            word.lower() in _PERSONS and not re.search(r"[*?!]", value) for word, value in pairs
        )

    @property
    def is_for_everybody(self) -> bool:
        """Whether each of its patterns takes everybody in."""
        return all(_EVERYBODY.fullmatch(one) for one in re.split(r"[\s=]+", self.criteria)[1::2])


def find_blocks(texts: Mapping[Path, str]) -> list[Block]:
    """Return the blocks of a configuration's files; not ``Match all``, which always counts."""
    return [
        Block(file, number, match[2].strip())
        for file, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if (match := _match(line)) is not None
    ]


def isolate(texts: Mapping[Path, str], block: Block | None) -> dict[Path, str]:
    """Return the files with every other block switched off; None: with each of them."""
    found: dict[Path, str] = {}
    for file, text in texts.items():
        lines = []
        for number, line in enumerate(text.splitlines(), 1):
            match = _match(line)
            if match is not None:
                is_it = block is not None and (file, number) == block[:2]
                line = match[1] + ("all" if is_it else _NOBODY)  # noqa: PLW2901 - as it is to be
            lines.append(line)
        found[file] = "\n".join([*lines, ""])
    return found


def _match(line: str) -> re.Match[str] | None:
    match = _MATCH.match(line)
    return None if match is None or _ALL.fullmatch(match[2].strip()) else match
