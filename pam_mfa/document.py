# SPDX-License-Identifier: Apache-2.0
"""Strict YAML: PyYAML's safe loader, with every key's line kept and nothing silently accepted.

Refused here: aliases and merge keys (they blow up), duplicate keys (the last would win), keys
that are not text, more than one document. Owns reading only; what a document means is for
``policy`` and ``devices``. Only the composer and the constructor of libyaml's loader are used.
"""

import datetime
from collections.abc import Collection, Iterator
from typing import Any, Final, TypeVar

from pam_mfa.errors import DocumentError
from pam_mfa.libyaml import yaml

SIZE_MAX = 65536  # bytes, where nothing else is said
NUMBER_MAX = 2**63  # whole numbers beyond are no setting, and thousands of digits an attack
DEPTH_MAX = 20  # levels of nesting; a policy has five
_TEXT = "tag:yaml.org,2002:str"
_INTEGER = "tag:yaml.org,2002:int"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_SHAPE: Final = str.maketrans("123456789", "0" * 9)
_MOMENT: Final = "0000-00-00T00:00:00Z"  # the shape of times as this program writes them
_T = TypeVar("_T")
# What PyYAML's constructors raise at explicitly tagged nonsense, `!!int ""` for one.
_UNREADABLE = (
    yaml.YAMLError, ValueError, OverflowError, LookupError, TypeError, AttributeError,
)  # fmt: skip
_KINDS = {str: "text", int: "a whole number", bool: "true or false", list: "a list"}


class Section:
    """A mapping of a document: values by key, and the line that each key stands on."""

    def __init__(self, source: str, path: str, line: int) -> None:
        """Start an empty mapping; ``path`` is its keys from the top, for messages."""
        self.source = source
        self.path = path
        self.line = line
        self._values: dict[str, Any] = {}
        self._lines: dict[str, int] = {}

    def put(self, key: str, value: object, line: int) -> None:
        """Add a key once.

        Raises:
            DocumentError: the key stands in the mapping already.
        """
        if key in self._values:
            raise DocumentError(
                f"{self.source}, line {line}: {self._name(key)} stands here a second time, "
                f"first in line {self._lines[key]}",
                hint="Remove one of the two.",
            )
        self._values[key] = value
        self._lines[key] = line

    def __contains__(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        """Go through the keys in the document's order."""
        return iter(self._values)

    def error(self, key: str, problem: str, hint: str = "") -> DocumentError:
        """Make the error for a value, naming file, line and key."""
        line = self._lines.get(key, self.line)
        return DocumentError(f"{self.source}, line {line}: {self._name(key)} {problem}", hint=hint)

    def require_known(self, known: Collection[str]) -> None:
        """Refuse every key that is not among the known ones, naming the nearest.

        Raises:
            DocumentError: a key is unknown.
        """
        for error in self.unknown_keys(known):
            raise error

    def unknown_keys(self, known: Collection[str]) -> Iterator[DocumentError]:
        """Go through the errors for keys that are not among the known ones."""
        for key in self._values:
            if key not in known:
                from difflib import get_close_matches  # noqa: PLC0415 - most files have no fault

                near = get_close_matches(key, known, n=1)
                yield self.error(
                    key,
                    "is not a known key",
                    f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(sorted(known))}.",
                )

    def get(self, key: str, kind: type[_T], default: _T) -> _T:
        """Return a value of the given kind, or the default where the key is absent.

        Raises:
            DocumentError: the value is of another kind.
        """
        return self.require(key, kind) if key in self._values else default

    def require(self, key: str, kind: type[_T]) -> _T:
        """Return a value of the given kind.

        Raises:
            DocumentError: the key is absent or its value is of another kind.
        """
        if key not in self._values:
            raise self.error(key, "is missing")
        value = self._values[key]
        # bool is an int to isinstance: `digits: yes` must not read as 1.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(key, f"must be {_KINDS.get(kind, kind.__name__)}")
        return value

    def section(self, key: str) -> "Section":
        """Return the mapping under a key; an empty one where the key is absent.

        Raises:
            DocumentError: the value is not a mapping.
        """
        if key not in self._values:
            return Section(self.source, self._name(key), self.line)
        value = self._values[key]
        if not isinstance(value, Section):
            raise self.error(key, "must be a mapping of keys to values")
        return value

    def sections(self, key: str) -> list["Section"]:
        """Return the list of mappings under a key.

        Raises:
            DocumentError: the key is absent or the value is not such a list.
        """
        values = self.require(key, list)
        for value in values:
            if not isinstance(value, Section):
                raise self.error(key, "must be a list of mappings")
        return values

    def texts(self, key: str) -> list[str]:
        """Return the list of texts under a key.

        Raises:
            DocumentError: the key is absent or the value is not such a list.
        """
        values = self.require(key, list)
        for value in values:
            if not isinstance(value, str):
                raise self.error(key, "must be a list of words")
        return values

    def _name(self, key: str) -> str:
        return f"'{self.path}.{key}'" if self.path else f"'{key}'"


class _Loader(yaml.CSafeLoader):
    """The safe loader with a bound on nesting, where it otherwise asks for resolvers by path.

    libyaml's composer calls itself for each level: 60,000 brackets would end the process.
    """

    _depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:  # noqa: ANN401 - as PyYAML has it
        """Return what a node is; for what files of ours are full of without an expression."""
        if kind is yaml.ScalarNode and implicit[0] and value:
            if value[0] not in self.yaml_implicit_resolvers or _is_plain_duration(value):
                return _TEXT
            if _is_plain_integer(value):
                return _INTEGER
            if _is_plain_moment(value):
                return _TIMESTAMP
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        return tag

    def descend_resolver(self, current_node: object, current_index: object) -> None:
        """Go one level down.

        Raises:
            yaml.YAMLError: the document is nested too deep.
        """
        del current_node, current_index
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise yaml.YAMLError("nested too deep")

    def ascend_resolver(self) -> None:
        """Go one level up."""
        self._depth -= 1


class _Reader:
    """Turns a composed node graph into sections and plain values, refusing shared nodes."""

    def __init__(self, loader: Any, source: str) -> None:  # noqa: ANN401 - PyYAML has no types for it
        self._loader = loader
        self._source = source
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, path: str) -> Any:  # noqa: ANN401 - a document's value
        line = node.start_mark.line + 1
        self._refuse_alias(node, line)
        if isinstance(node, yaml.MappingNode):
            return self._section(node, path, line)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
        return self._scalar(node, line)

    def _refuse_alias(self, node: yaml.Node, line: int) -> None:
        if id(node) in self._seen:
            raise DocumentError(
                f"{self._source}, line {line}: an alias ('*name') is used",
                hint="Write the value out; aliases are refused.",
            )
        self._seen.add(id(node))

    def _section(self, node: yaml.MappingNode, path: str, line: int) -> Section:
        section = Section(self._source, path, line)
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            self._refuse_alias(key_node, key_line)
            if key_node.tag != _TEXT:
                raise DocumentError(f"{self._source}, line {key_line}: a key is not a word")
            key = str(key_node.value)
            inner = f"{path}.{key}" if path else key
            section.put(key, self.value(value_node, inner), key_line)
        return section

    def _scalar(self, node: yaml.Node, line: int) -> object:
        if node.tag == _TEXT:  # most of them, and the constructor is slow
            return str(node.value)
        try:
            value = self._construct(node)
        except _UNREADABLE as error:
            raise DocumentError(f"{self._source}, line {line}: a value cannot be read") from error
        if isinstance(value, int) and abs(value) > NUMBER_MAX:
            raise DocumentError(f"{self._source}, line {line}: a number is out of range")
        return value

    def _construct(self, node: yaml.Node) -> object:
        if node.tag == _INTEGER and _is_plain_integer(node.value):
            return int(node.value)
        if node.tag == _TIMESTAMP and _is_plain_moment(node.value):
            return datetime.datetime.fromisoformat(node.value)
        value: object = self._loader.construct_object(node)
        return value


def _is_plain_integer(text: str) -> bool:
    """Whether a text is a number to everybody: no octal, binary or sexagesimal one."""
    return text.isdecimal() and text.isascii() and text[0] != "0"


def _is_plain_duration(text: str) -> bool:
    return text[-1] in "smhd" and text[:-1].isdecimal()


def _is_plain_moment(text: str) -> bool:
    return text.translate(_SHAPE) == _MOMENT


def parse_document(data: bytes, source: str, size_max: int = SIZE_MAX) -> Section:
    """Read one YAML document whose top is a mapping.

    Args:
        data: the file's bytes.
        source: the file's name, for messages.
        size_max: how many bytes it may have.

    Raises:
        DocumentError: it is too long, not UTF-8, not YAML, or refused for one of the reasons above.
    """
    if len(data) > size_max:
        raise DocumentError(f"{source} has {len(data)} bytes, more than {size_max}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{source} is not UTF-8 at byte {error.start}") from error
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise DocumentError(f"{source} does not hold a mapping of keys to values")
        section = _Reader(loader, source).value(node, "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise DocumentError(f"{source}{where}: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise DocumentError(f"{source} cannot be read as YAML") from error
    finally:
        if loader is not None:
            loader.dispose()
    assert isinstance(section, Section)  # noqa: S101 - a mapping node was read
    return section
