# SPDX-License-Identifier: Apache-2.0
"""Writes the manual pages: pam-mfa(1) from the command line's own help, the others as they are.

``write_pages.py LIBRARY DIRECTORY``: the packages that ``pam_mfa`` needs, and where man1, man5 and
man8 are made. Own and not click-man, which makes a page a command: here all stand on one.
"""

import datetime
import gzip
import inspect
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

SOURCES = Path(__file__).resolve().parent
NAME = "pam-mfa"
_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")


def main(library: str, target: str) -> None:
    """Write every page, compressed as distributions have them."""
    sys.path.insert(0, library)
    for name, text in pages().items():
        directory = Path(target, f"man{name.rpartition('.')[2]}")
        directory.mkdir(parents=True, exist_ok=True)
        packed = gzip.compress(text.encode("ascii"), compresslevel=9, mtime=0)
        (directory / f"{name}.gz").write_bytes(packed)


def pages() -> dict[str, str]:
    """Return the pages' text by name, as "pam_mfa.8"."""
    found = {path.name: path.read_text("ascii") for path in sorted(SOURCES.glob("*.[58]"))}
    return {**found, f"{NAME}.1": command_page()}


def command_page() -> str:
    """Return pam-mfa(1)."""
    from pam_mfa.cli.__main__ import commands  # noqa: PLC0415 - main() says where it is

    context = commands.make_context(NAME, [], resilient_parsing=True)
    chapters = [line for path, one in leaves(context) for line in _chapter(path, one)]
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    today = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    text = (SOURCES / f"{NAME}.1.in").read_text("ascii")
    for key, value in {
        "@DATE@": f"{today:%B} {today.day}, {today.year}",
        "@OPTIONS@": "\n".join(_options(context)),
        "@COMMANDS@": "\n".join(chapters),
    }.items():
        text = text.replace(key, value)
    return text


def leaves(context: "click.Context") -> Iterator[tuple[str, "click.Context"]]:
    """Go through the commands that are no groups, by their whole names."""
    import click  # noqa: PLC0415 - main() says where it is

    group = context.command
    if not isinstance(group, click.Group):
        yield context.command_path, context
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield from leaves(click.Context(command, info_name=name, parent=context))


def _chapter(path: str, context: "click.Context") -> Iterator[str]:
    command = context.command
    yield f".Ss {_words(path)}"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".Dl {_words(f'{path} {usage}')}"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield ".Pp"
        yield from _text(paragraph)
    yield from _options(context)


def _options(context: "click.Context") -> Iterator[str]:
    params = [param for param in context.command.get_params(context) if "--help" not in param.opts]
    records = [record for param in params if (record := _record(param, context))]
    if not records:
        return
    yield ".Bl -tag -width Ds"
    for names, text in records:
        yield f".It {_words(names)}"
        yield from _text(text)
    yield ".El"


def _record(param: "click.Parameter", context: "click.Context") -> tuple[str, str] | None:
    """Return an option's names and its help; None for an argument, which has none."""
    if param.param_type_name != "option":
        return None
    return param.get_help_record(context)


def _words(text: str) -> str:
    """Return a macro's arguments; none of them is taken for a macro."""
    return " ".join(rf"\&{_escape(word)}" for word in text.split())


def _text(paragraph: str) -> Iterator[str]:
    """Go through a paragraph's sentences, each on lines of its own; none is taken for a macro."""
    for sentence in _SENTENCE.split(" ".join(paragraph.split())):
        for line in textwrap.wrap(_escape(sentence), 78, break_on_hyphens=False):
            yield rf"\&{line}" if line.startswith((".", "'")) else line


def _escape(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")


if __name__ == "__main__":
    main(*sys.argv[1:])
