# SPDX-License-Identifier: Apache-2.0
"""The mistakes of a policy file, gathered: all of them are told at once."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pam_mfa.document import Section
from pam_mfa.errors import BrokenSystemError

_Value = TypeVar("_Value")
_Arguments = ParamSpec("_Arguments")
_FAULTS_MAX = 200  # a file of nothing but mistakes is told of no further


class Faults:
    """What was found wrong so far; whatever reads on gets a value to go on with."""

    def __init__(self) -> None:
        """Start without any."""
        self.errors: list[BrokenSystemError] = []

    def add(self, error: BrokenSystemError) -> None:
        """Take note of one."""
        if len(self.errors) < _FAULTS_MAX:
            self.errors.append(error)

    def try_or(
        self,
        default: _Value,
        read: Callable[_Arguments, _Value],
        *arguments: _Arguments.args,
        **options: _Arguments.kwargs,
    ) -> _Value:
        """Return what ``read`` reads; the default where that is wrong."""
        try:
            return read(*arguments, **options)
        except BrokenSystemError as error:
            self.add(error)
            return default

    def refuse_unknown(self, section: Section, known: tuple[str, ...]) -> None:
        """Take note of every key of a section that is not among the known ones."""
        for error in section.unknown_keys(known):
            self.add(error)

    def section(self, section: Section, key: str, known: tuple[str, ...]) -> Section:
        """Return the mapping under a key, its unknown keys noted; an empty one if it is none."""
        empty = Section(section.source, key, section.line)
        found = self.try_or(empty, section.section, key)
        self.refuse_unknown(found, known)
        return found
