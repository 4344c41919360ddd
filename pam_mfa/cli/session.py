# SPDX-License-Identifier: Apache-2.0
"""What every command shares: the root, the opened store, and how results are shown."""

import contextlib
import functools
import io
import json
import os
import pwd
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click
from rich.console import Console
from rich.table import Table

from pam_mfa.errors import RefusedError
from pam_mfa.lifecycle import Actor, Lifecycle, open_store
from pam_mfa.seal_rotation import SealRotation
from pam_mfa.self_service.client import Sign, send_petition, sign_nothing
from pam_mfa.self_service.protocol import Petition
from pam_mfa.store import AdministratorsStore
from pam_mfa.store.layout import Layout
from pam_mfa.token_stock import TokenStock
from pam_mfa.wire import Style

if TYPE_CHECKING:  # what one command needs is not what all of them wait for
    from pam_mfa.importing.importer import Importer, Rules
    from pam_mfa.importing.security_keys import KeyImporter, Origins

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Session:
    """One run of the command line."""

    def __init__(self, root: Path) -> None:
        """Take the root under which everything lies."""
        self.layout = Layout(root)

    @functools.cached_property
    def lifecycle(self) -> Lifecycle:
        """What may be done to devices."""
        store, actor = self._opened
        return Lifecycle(store, time.time, actor)

    @functools.cached_property
    def token_stock(self) -> TokenStock:
        """What may be done to the stock of tokens."""
        store, actor = self._opened
        return TokenStock(store, time.time, actor)

    @functools.cached_property
    def seal_rotation(self) -> SealRotation:
        """What may be done to the seal keys."""
        store, actor = self._opened
        return SealRotation(store, self.layout, time.time, actor)

    def importer(self, rules: "Rules") -> "Importer":
        """What takes other programs' credentials in; what root alone can read is read before."""
        from pam_mfa.importing.importer import Importer  # noqa: PLC0415 - see above

        store, actor = self._opened
        return Importer(store, time.time, actor, rules)

    def key_importer(self, origins: "Origins") -> "KeyImporter":
        """What takes pam_u2f's credentials in; what root alone can read is read before."""
        from pam_mfa.importing.security_keys import KeyImporter  # noqa: PLC0415 - see above

        store, actor = self._opened
        return KeyImporter(store, time.time, actor, origins)

    @functools.cached_property
    def _opened(self) -> tuple[AdministratorsStore, Actor]:
        """Open the store, as the service user from here on.

        Raises:
            RefusedError: the caller is not root.
        """
        store, actor = open_store(self.layout)
        click.get_current_context().call_on_close(store.close)
        return store, actor

    @property
    def is_own(self) -> bool:
        """Whether a user acts who is not root, and so may act on own devices only."""
        return os.geteuid() != 0

    @property
    def own_name(self) -> str:
        """The account of whoever runs this."""
        try:
            return pwd.getpwuid(os.geteuid()).pw_name
        except KeyError as error:
            raise RefusedError("your user id has no account on this host") from error

    def petition(self, petition: Petition, sign: Sign = sign_nothing) -> list[dict[str, object]]:
        """Ask the service for something on a user's own devices; return a listing's rows.

        Raises:
            RefusedError: policy, the password or the device did not let it through.
            BrokenSystemError: there is no service.
        """
        return send_petition(self.layout.self_service_socket, petition, _answer, sign)

    def note_unknown(self, user: str) -> None:
        """Warn where no account has this name: a typing error would enable nobody's device."""
        if self.layout.root != Path("/"):
            return  # the accounts there are not this host's
        try:
            pwd.getpwnam(user)
        except KeyError:
            click.echo(f"Note: this host has no account '{user}'.", err=True)


def _answer(style: Style, text: str) -> str | None:
    """Show what the service says; answer from the terminal, or by a line of standard input."""
    if style not in (Style.ECHO_OFF, Style.ECHO_ON):
        click.echo(text, err=style is Style.ERROR)
        return None
    if sys.stdin.isatty():
        hidden = style is Style.ECHO_OFF
        return str(click.prompt(text.rstrip(" :"), hide_input=hidden, default="",
                                show_default=False))  # fmt: skip
    click.echo(text.rstrip())
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def read_secret(prompt: str) -> str:
    """Read a secret from a prompt, or a line of standard input; never from an argument."""
    if sys.stdin.isatty():
        return str(click.prompt(prompt, hide_input=True))
    return sys.stdin.readline().rstrip("\n")


pass_session = click.make_pass_decorator(Session)


def json_option(command: _Command) -> _Command:
    """Add ``--json`` to a command that lists."""
    option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    return option(command)


def show(rows: list[dict[str, object]], *, as_json: bool, empty: str) -> None:
    """Print rows as a table, or as JSON."""
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif not rows:
        click.echo(empty)
    else:
        _table(rows[0].keys(), rows)


def print_json(rows: Iterable[dict[str, object]]) -> None:
    """Print rows as JSON as they come: there may be 100,000."""
    separator = "[\n"
    for row in rows:
        click.echo(separator + textwrap.indent(json.dumps(row, indent=2), "  "), nl=False)
        separator = ",\n"
    click.echo("[]" if separator == "[\n" else "\n]")


def _table(columns: Iterable[str], rows: list[dict[str, object]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = list(columns)
    for name in names:
        table.add_column(name.replace("_", " ").upper(), overflow="fold")
    for row in rows:
        table.add_row(*(str(row[name]) for name in names))
    # Wide enough for every column where a program reads the output.
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False, markup=False).print(table)


@contextlib.contextmanager
def standard_output() -> Iterator[TextIO]:
    """Give the standard output for a file's text: UTF-8 whatever the locale, no line changed.

    Raises:
        RefusedError: nobody reads it any more.
    """
    binary = sys.stdout.buffer
    out = io.TextIOWrapper(binary, encoding="utf-8", newline="")
    try:
        yield out
        out.flush()
    except BrokenPipeError as error:
        # Or the interpreter tries to write what is left once more, and complains.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), binary.fileno())
        raise RefusedError("the output is cut: its reader is gone") from error
    finally:
        out.detach()
