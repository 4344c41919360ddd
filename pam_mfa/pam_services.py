# SPDX-License-Identifier: Apache-2.0
"""PAM service files, by pam.d(5): the lines of a service, with everything that it includes.

Pure: a function that returns a file's text comes as an argument. Owns the syntax; what a line's
module does, and whether libpam reaches it, it does not know.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

TYPES: Final = ("auth", "account", "session", "password")
OTHER: Final = "other"  # the service whose lines stand in for those that a service has not
_DEPTH_MAX = 15  # of files that include files: PAM_SUBSTACK_MAX_LEVEL is refused
_LINES_MAX = 4096  # of one service: files that include each other twice would double without end
# A token, or one in brackets, in which "\]" is a bracket that does not end it.
_TOKEN = re.compile(r"[ \t\n]*(?:\[((?:\\\]|[^\]])*)\]?|([^ \t\n]+))")
_ACTION = re.compile(r"([a-z_]+)[ \t]*=[ \t]*([a-z0-9]+)")
_CONTROLS = {
    "required": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "bad"},
    "requisite": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "die"},
    "sufficient": {"success": "done", "new_authtok_reqd": "done", "default": "ignore"},
    "optional": {"success": "ok", "new_authtok_reqd": "ok", "default": "ignore"},
}  # fmt: skip
ReadText = Callable[[str], str]  # a file's name in; its text, or OSError


class Line(NamedTuple):
    """A module's line."""

    type: str  # one of TYPES
    control: str  # as required, or success=1 default=ignore; lower case, without brackets
    module: str  # a path, or a name in the directory of modules
    arguments: tuple[str, ...]
    file: str  # that it stands in
    number: int  # of its first line there
    substack: tuple[int, ...] = ()  # those that it is in, outermost first, each with its own number

    def is_binding(self, result: str) -> bool:
        """Whether the login is refused where the module returns this, as auth_err."""
        if "=" not in self.control:
            return self.control not in ("optional", "sufficient")
        actions = dict(_ACTION.findall(self.control))
        return actions.get(result, actions.get("default", "bad")) in ("bad", "die")

    @property
    def actions(self) -> dict[str, str]:
        """What PAM does by the module's result, as success: ok; a number is a jump."""
        return _CONTROLS.get(self.control) or dict(_ACTION.findall(self.control))


class Service(NamedTuple):
    """What one service's file says."""

    name: str
    lines: tuple[Line, ...]  # in their order
    faults: tuple[str, ...]  # what libpam would not take; it then refuses the service, or a phase

    def lines_of(self, type_: str, module: str) -> list[Line]:
        """Return a phase's lines whose module has this file name, wherever it lies."""
        return [
            line
            for line in self.lines
            if line.type == type_ and line.module.rpartition("/")[2] == module
        ]


class FaultError(ValueError):
    """A file cannot be taken."""


def find_jumps(lines: Sequence[Line], at: int) -> Iterator[tuple[str, int]]:
    """Go through what a line's results skip: each result, and the index that it goes on at.

    As libpam does it: ``done`` in a substack ends that, a jump never leaves it, and counts a
    substack as one module.

    Args:
        lines: of one phase, in their order.
        at: the index of the line.
    """
    inside = lines[at].substack
    ends = (
        index
        for index in range(at + 1, len(lines))
        if lines[index].substack[: len(inside)] != inside
    )
    end = next(ends, len(lines))
    for result, action in lines[at].actions.items():
        if action == "done":
            yield result, end
        elif action.isdecimal() and int(action) > 0:
            target = at + 1
            for _ in range(int(action)):
                target = min(_after(lines, target, len(inside)), end)
            yield result, target


def _after(lines: Sequence[Line], at: int, depth: int) -> int:
    """Return the index behind a line, or behind the whole substack that begins there."""
    if at >= len(lines) or len(lines[at].substack) <= depth:
        return at + 1
    path = lines[at].substack[: depth + 1]
    while at < len(lines) and lines[at].substack[: depth + 1] == path:
        at += 1
    return at


def parse_service(name: str, read_text: ReadText) -> Service:
    """Read a service's file and the files that it includes.

    A phase that the service has no line for has those of ``other``.

    Args:
        name: of the service.
        read_text: returns the text of a file of PAM's directory, or of an absolute path.
    """
    reader = _Reader(read_text)
    reader.read(name, None, 0)
    present = {line.type for line in reader.lines}
    if len(present) < len(TYPES) and name != OTHER:
        other = _Reader(read_text)
        other.read(OTHER, None, 0)
        reader.lines += [line for line in other.lines if line.type not in present]
    return Service(name, tuple(reader.lines), tuple(reader.faults))


class _Reader:
    """Collects the lines of files that include each other."""

    def __init__(self, read_text: ReadText) -> None:
        self.lines: list[Line] = []
        self.faults: list[str] = []
        self._read_text = read_text
        self._substack: tuple[int, ...] = ()
        self._substacks = 0

    def read(self, file: str, wanted: str | None, depth: int) -> None:
        """Read a file's lines, those of the wanted type only where one is."""
        try:
            if depth > _DEPTH_MAX:
                raise FaultError("is included more than 15 files deep")
            text = self._read_text(file)
            for number, content in _join_lines(text):
                self._take(_split_tokens(content), (file, number), wanted, depth)
        except OSError as error:
            self.faults.append(f"{file} cannot be read: {error.strerror}")
        except FaultError as error:
            self.faults.append(f"{file} {error}")

    def _take(
        self, tokens: list[str], place: tuple[str, int], wanted: str | None, depth: int
    ) -> None:
        """Take one line, or the file that it includes."""
        word = tokens[0].lower()
        if word == "@include":  # Debian's: whatever type the lines are of
            self._include(tokens[1:], place, wanted, depth)
            return
        type_ = word.removeprefix("-")
        if type_ not in TYPES:
            self._note(place, f"'{tokens[0]}' is no type of module")
            return
        if wanted not in (None, type_):
            return
        control = tokens[1].lower() if len(tokens) > 1 else ""
        if control == "substack":
            self._enter(tokens[2:], place, type_, depth)
        elif control == "include":
            self._include(tokens[2:], place, type_, depth)
        elif len(tokens) < 3:  # noqa: PLR2004 - type, control, module
            self._note(place, "names no module")
        elif len(self.lines) >= _LINES_MAX:
            raise FaultError(f"is one of too many files: {_LINES_MAX} lines were read")
        else:
            line = Line(type_, control, tokens[2], tuple(tokens[3:]), *place, self._substack)
            self.lines.append(line)

    def _enter(self, tokens: list[str], place: tuple[str, int], type_: str, depth: int) -> None:
        """Take what a substack includes."""
        outer = self._substack
        self._substacks += 1
        self._substack = (*outer, self._substacks)
        self._include(tokens, place, type_, depth)
        self._substack = outer

    def _include(
        self, tokens: list[str], place: tuple[str, int], wanted: str | None, depth: int
    ) -> None:
        if tokens:
            self.read(tokens[0], wanted, depth + 1)
        else:
            self._note(place, "names no file to include")

    def _note(self, place: tuple[str, int], fault: str) -> None:
        self.faults.append(f"{place[0]}, line {place[1]}: {fault}")


def _join_lines(text: str) -> Iterator[tuple[int, str]]:
    """Go through the lines that say something, continued ones joined, with their numbers.

    As libpam does it: a line with a comment is not continued, and lines that are empty or all
    comment do not end a continued one.

    Raises:
        FaultError: the last line is to be continued.
    """
    joined, first = "", 0
    for number, raw in enumerate(text.split("\n"), start=1):
        content, mark, _ = raw.partition("#")
        content = content.strip(" \t")
        if not content:
            continue
        first = first or number
        if content.endswith("\\") and not mark:
            joined += content[:-1] + " "
            continue
        yield first, joined + content
        joined, first = "", 0
    if first:
        raise FaultError("ends in the middle of a line")


def _split_tokens(content: str) -> list[str]:
    """Split a line at white space, but for what stands in brackets, which are taken off."""
    return [
        match[2] if match[2] is not None else match[1].replace("\\]", "]")
        for match in _TOKEN.finditer(content)
    ]
