# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa status``: who can log in by what, and what would happen at the next login."""

import datetime
import itertools
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pam_mfa.census import Person, count_everybody, find_people
from pam_mfa.cli.session import Session, json_option, pass_session, print_json
from pam_mfa.devices import require_user
from pam_mfa.errors import BrokenSystemError
from pam_mfa.host import Accounts, read_services
from pam_mfa.host_groups import group_finder
from pam_mfa.listing import status_row
from pam_mfa.login_words import Outcome
from pam_mfa.next_login import (
    NextLogin,
    Situation,
    foresee_logins,
    is_relevant,
    summarize,
)
from pam_mfa.pam_services import Service
from pam_mfa.report import printable
from pam_mfa.self_service.protocol import Operation, Petition
from pam_mfa.store.policies import read_policy

_COLUMNS = ("user", "logs in by", "last used", "drift", "codes left", "locked until", "next login")
_COLORS = {
    Outcome.CODE: "green",
    Outcome.TOUCH: "green",
    Outcome.SSH_KEY: "green",
    Outcome.ENROLLS: "yellow",
    Outcome.NOT_REFUSED: "yellow",
    Outcome.REFUSED: "red",
}
_TABLE_ROWS = 1000  # then the head comes again
_WIDTH = 200  # of what no terminal shows
Row = dict[str, Any]


class _Surroundings(NamedTuple):
    """What everybody's next login depends on."""

    services: list[Service]
    situation: Situation


@click.command()
@click.argument("user", required=False)
@json_option
@pass_session
def status(session: Session, user: str | None, *, as_json: bool) -> None:
    """Show who can log in by what, and what would happen at the next login, by service.

    Of one USER everything; of the whole host a line for each account that can log in and each name
    that has devices.
    """
    if session.is_own:
        user = user or session.own_name
        rows: Iterator[Row] = iter(session.petition(Petition(Operation.STATUS, user)))
    else:
        rows = _rows(session, user)
    if as_json:
        print_json(rows)
    elif user:
        for row in rows:
            _print_block(row)
    else:
        _print_table(rows)


def _rows(session: Session, user: str | None) -> Iterator[Row]:
    """Go through users as JSON has them."""
    if user is not None:
        require_user(user)
    lifecycle = session.lifecycle
    accounts = Accounts(session.layout.root)
    surroundings = _look_around(session)
    people = (
        count_everybody(lifecycle, accounts)
        if user is None
        else find_people(lifecycle, accounts, [user])
    )
    for person in people:
        yield _row(person, surroundings)


def _look_around(session: Session) -> _Surroundings:
    root = session.layout.root
    try:
        policy = read_policy(session.layout.policy)
    except BrokenSystemError as error:
        policy = None
        click.echo(f"Note: {error}.", err=True)
    now = datetime.datetime.now(datetime.UTC)
    services = [service for service in read_services(root) if is_relevant(service)]
    situation = Situation(
        policy, str(root), now, find_groups=group_finder(policy.groups if policy else ())
    )
    return _Surroundings(services, situation)


def _row(person: Person, surroundings: _Surroundings) -> Row:
    account = person.account
    logins = foresee_logins(
        surroundings.services,
        person.status,
        surroundings.situation,
        has_account=person.has_account is not False,
    )
    row = status_row(person.status)
    return {
        "user": row.pop("user"),
        "account": person.has_account,
        "uid": account.uid if account else None,
        "login_capable": account.is_login_capable if account else None,
        **row,
        "next_logins": [login._asdict() for login in logins],
    }


def _print_block(row: Row) -> None:
    """Print everything of one user."""
    logins = _logins(row)
    lines = [_heading(row)]
    lines += [Text(f"  {_describe_device(device)}") for device in row["devices"]]
    if not row["devices"] and not row["problem"]:
        lines.append(Text("  no MFA device"))
    if logins:
        lines.append(Text("At the next login:"))
    for login in logins:
        text = f"  {printable(login.service)}: {printable(login.text)}"
        lines.append(Text(text, style=_COLORS.get(login.outcome, "")))
    if "next_logins" in row and all(one.outcome is Outcome.NOT_ASKED for one in logins):
        lines.append(Text("No PAM service asks this user for a code."))
    console = _console()
    for line in lines:
        console.print(line, soft_wrap=True)


def _heading(row: Row) -> Text:
    name = printable(row["user"])
    facts = [str(row["standing"])]
    if row.get("account") is False:
        facts.append("there is no such account")
    elif row.get("login_capable") is False:
        facts.append("the account's shell lets nobody log in")
    if row["recent_failures"]:
        facts.append(f"wrong codes of late: {row['recent_failures']}")
    text = Text(name, style="bold").append(": " + "; ".join(facts), style="not bold")
    if row["problem"]:
        text.append(f"\n  {printable(row['problem'])}", style="not bold red")
    if row["locked_until"]:
        text.append(
            f"\n  locked until {row['locked_until']}; to end it: pam-mfa unlock {name}",
            style="not bold red",
        )
    return text


def _describe_device(device: Row) -> str:
    used = device["last_used_at"]
    facts = [device["type"], f"last used {used}" if used else "never used"]
    if device["codes_left"] is not None:
        facts.append(f"codes left: {device['codes_left']}")
    if device["expires_at"]:
        facts.append(f"until {device['expires_at']}")
    if device["drift"]:
        facts.append(f"drift {device['drift']} time steps")
    if device["weak"]:
        facts.append("weak: its seed is short")
    if device["problem"]:
        facts.append(device["problem"])
    return printable(f"{device['serial_number']}  {', '.join(facts)}")


def _print_table(rows: Iterator[Row]) -> None:
    """Print a line for everybody, in tables of a bounded size: a column's width needs them all."""
    is_empty = True
    while part := list(itertools.islice(rows, _TABLE_ROWS)):
        is_empty = False
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in _COLUMNS:
            table.add_column(name.upper(), overflow="fold")
        for row in part:
            table.add_row(*_cells(row))
        _console().print(table)
    if is_empty:
        click.echo("No account can log in here, and nobody has an MFA device.")


def _cells(row: Row) -> list[Text]:
    devices = row["devices"]
    ways = [one["name"] for one in devices if not one["problem"]]
    used = max((one["last_used_at"] for one in devices if one["last_used_at"]), default="never")
    drifts = [str(one["drift"]) for one in devices if one["drift"]]
    left = [str(one["codes_left"]) for one in devices if one["type"] == "recovery"]
    by = ", ".join(ways) or ("unreadable" if row["problem"] or devices else "no device")
    logins = _logins(row)
    color = next((_COLORS[one.outcome] for one in logins if one.outcome in _COLORS), "")
    texts = [
        row["user"],
        by,
        used if devices else "",
        ", ".join(drifts),
        "".join(left),
        row["locked_until"] or "",
        summarize(logins) or "no service asks",
    ]
    styles = ["", "", "", "", "", "red", color]
    return [Text(printable(text), style) for text, style in zip(texts, styles, strict=True)]


def _logins(row: Row) -> list[NextLogin]:
    return [NextLogin(**login) for login in row.get("next_logins", [])]


def _console() -> Console:
    width = None if sys.stdout.isatty() else _WIDTH
    return Console(width=width, highlight=False, markup=False)
