# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa report``."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

import click

from pam_mfa.census import count_everybody
from pam_mfa.cli.session import Session, pass_session
from pam_mfa.errors import RefusedError
from pam_mfa.host import Accounts
from pam_mfa.report import make_rows, write_csv, write_json


@click.command()
@click.option(
    "--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True,
    help="CSV has every column in every row; JSON leaves out devices that are not there.",
)  # fmt: skip
@pass_session
def report(session: Session, form: str) -> None:
    """Write the credential report: who has which MFA devices, and who has none.

    A row for every account that can log in, enrolled or not, and for every name that has a device
    file. An account can log in if its shell is empty, or is not nologin or false and, where there
    is an /etc/shells, listed in it.
    """
    lifecycle = session.lifecycle
    accounts = Accounts(session.layout.root)
    rows = make_rows(count_everybody(lifecycle, accounts, are_opened=False))
    with _standard_output() as out:
        if form == "csv":
            write_csv(rows, out)
        else:
            write_json(rows, out)


@contextlib.contextmanager
def _standard_output() -> Iterator[TextIO]:
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
        raise RefusedError("the report is cut: its reader is gone") from error
    finally:
        out.detach()
