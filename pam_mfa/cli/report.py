# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa report``."""

import contextlib
import datetime
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from pam_mfa.census import Person, count_everybody
from pam_mfa.cli.session import Session, json_option, pass_session, show, standard_output
from pam_mfa.cli.terminal import show_progress
from pam_mfa.errors import RefusedError
from pam_mfa.host import Accounts
from pam_mfa.lifecycle import Lifecycle
from pam_mfa.policy import parse_duration
from pam_mfa.report import make_rows, printable, write_csv, write_json
from pam_mfa.would_refuse import LINE_MAX, Tally


@click.command()
@click.option(
    "--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True,
    help="CSV has every column in every row; JSON leaves out devices that are not there.",
)  # fmt: skip
@click.option(
    "--would-refuse", is_flag=True,
    help="List instead whom policy would refuse, by what it only reported.",
)  # fmt: skip
@click.option(
    "--fleet", "is_fleet", is_flag=True,
    help="Everybody who has devices in the store, and nothing of this host's accounts.",
)  # fmt: skip
@click.option("--since", metavar="TIME", help="With --would-refuse: how far back, as 7d; all.")
@json_option
@pass_session
def report(  # noqa: PLR0913 - options
    session: Session,
    form: str,
    *,
    would_refuse: bool,
    is_fleet: bool,
    since: str | None,
    as_json: bool,
) -> None:
    """Write the credential report: who has which MFA devices, and who has none.

    A row for every account that can log in, enrolled or not, and for every name that has a device
    file. An account can log in if its shell is empty, or is not nologin or false and, where there
    is an /etc/shells, listed in it.
    """
    if would_refuse and is_fleet:
        raise click.UsageError("--would-refuse is of this host's log, and --fleet of all hosts.")
    if would_refuse:
        refusals = list(_find_refusals(session, since))
        show(refusals, as_json=as_json, empty="Nobody would have been refused.")
        return
    if since is not None:
        raise click.UsageError("--since goes with --would-refuse only")
    form = "json" if as_json else form
    lifecycle = session.lifecycle
    accounts = Accounts(session.layout.root)
    counted = _found_in_store(lifecycle) if is_fleet else _counted(lifecycle, accounts)
    with standard_output() as out, counted as people:
        rows = make_rows(people)
        if form == "csv":
            write_csv(rows, out)
        else:
            write_json(rows, out)


@contextlib.contextmanager
def _found_in_store(lifecycle: Lifecycle) -> Iterator[Iterator[Person]]:
    yield (Person(status, None, None) for status in lifecycle.fleet_statuses())


@contextlib.contextmanager
def _counted(lifecycle: Lifecycle, accounts: Accounts) -> Iterator[Iterator[Person]]:
    """Go through everybody and show how far it is, unless the report itself is on the terminal."""
    people = count_everybody(lifecycle, accounts, are_opened=False)
    if sys.stdout.isatty() or not sys.stderr.isatty():
        yield people
        return
    total = len({entry.user for entry in lifecycle.entries()} | set(accounts.names()))
    with show_progress("Reporting", total) as advance:

        def count() -> Iterator[Person]:
            for person in people:
                advance(1)
                yield person

        yield count()


def _find_refusals(session: Session, since: str | None) -> Iterator[dict[str, object]]:
    """Go through users, services and reasons by what the log and the one before it have."""
    start = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    if since is not None:
        try:
            length = datetime.timedelta(seconds=parse_duration(since))
        except ValueError as error:
            raise click.BadParameter("is no time as 12h or 7d", param_hint="--since") from error
        start = datetime.datetime.now(datetime.UTC) - length
    tally, path = Tally(start), session.layout.audit_log
    for log in (path.with_name(f"{path.name}.1"), path):
        with contextlib.suppress(FileNotFoundError), _open_log(log) as file:
            tally.read(iter(lambda: file.readline(LINE_MAX), b""))
    for row in tally.rows():
        yield {key: printable(one) if isinstance(one, str) else one for key, one in row.items()}


def _open_log(path: Path) -> BinaryIO:
    """Open a log for reading.

    Raises:
        FileNotFoundError: there is none.
        RefusedError: it may not be read, or is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be read: {error.strerror}", hint="Run it as root or in the group adm."
        ) from error
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise RefusedError(f"{path} is no regular file")
    return file
