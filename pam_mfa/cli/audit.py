# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa audit show`` and ``audit follow``; ``audit verify`` has a file of its own."""

import contextlib
import datetime
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pam_mfa.audit import EventName, Outcome
from pam_mfa.audit_reading import (
    Reader,
    Record,
    RecordError,
    Selection,
    format_moment,
    open_logs,
    parse_record,
)
from pam_mfa.audit_reading.following import Follower
from pam_mfa.audit_reading.lines import OddLine
from pam_mfa.audit_reading.ocsf import map_record
from pam_mfa.audit_reading.spreadsheet import write_csv
from pam_mfa.cli.audit_ship import ship
from pam_mfa.cli.audit_verify import verify
from pam_mfa.cli.session import Session, pass_session, standard_output
from pam_mfa.errors import RefusedError
from pam_mfa.policy import parse_duration
from pam_mfa.report import printable

_Command = TypeVar("_Command", bound=Callable[..., Any])
_TABLE_ROWS: Final = 1000  # then the head comes again: a column's width needs all rows
_WIDTH: Final = 200  # of what no terminal shows
_PAUSE: Final = 0.25  # seconds between looks at a log that is followed
_COLUMNS: Final = (
    "time",
    "event",
    "outcome",
    "reason",
    "user",
    "service",
    "from",
    "device",
    "more",
)
_COLORS: Final = {"success": "green", "denied": "yellow", "error": "red"}
_OWN: Final = frozenset(("Checkpoint", "MendLog", "ResumeLog"))


@click.group()
def audit() -> None:
    """The audit log."""


def _selection_options(command: _Command) -> _Command:
    """Add the options that choose among records."""
    options = (
        click.option("--user", default="", help="Of this user, or pseudonym."),
        click.option("--device", metavar="SERIAL", default="", help="With this device."),
        click.option("--service", default="", help="By this PAM service."),
        click.option(
            "--outcome", "outcomes", multiple=True,
            type=click.Choice([one.value for one in Outcome]),
            help="With this outcome; may be given again.",
        ),
        click.option(
            "--event", "events", multiple=True, metavar="EVENT",
            type=click.Choice([one.value for one in EventName], case_sensitive=False),
            help="Of this event, as VerifyMfa; may be given again.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@audit.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@_selection_options
@click.option("--since", metavar="TIME", help="From then on: 1h, 7d, or 2026-11-24T08:00 (UTC).")
@click.option("--until", metavar="TIME", help="Up to then, written in the same way.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="The last N of them only.")
@click.option(
    "--whole", is_flag=True,
    help="Read every line: times hold even where the clock was set back by more than an hour.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "ocsf"]), default="table",
    help="A table; JSON, a list; CSV; OCSF events, one JSON object a line.",
)  # fmt: skip
@pass_session
def show(session: Session, /, files: tuple[Path, ...], **options: Any) -> None:  # noqa: ANN401
    """Show records, oldest first: of the log and its rotated files, or of FILES only.

    What a key did: pam-mfa audit show --device SERIAL
    """
    selection = Selection(
        user=options["user"],
        device=options["device"],
        service=options["service"],
        outcomes=options["outcomes"],
        events=options["events"],
        since=_parse_time(options["since"], "--since"),
        until=_parse_time(options["until"], "--until"),
    )
    form = "json" if options["as_json"] else options["form"]
    with open_logs(session.layout.audit_log, files) as logs:
        reader = Reader(logs, selection, whole=options["whole"])
        limit = options["limit"]
        _write(form, iter(reader.last(limit)) if limit else reader.records())
    if reader.odd_lines:
        click.echo(
            f"Note: {reader.odd_lines} lines are no records; see: pam-mfa audit verify", err=True
        )


@audit.command()
@_selection_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
@pass_session
def follow(session: Session, /, *, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Show records as they are written, until Ctrl-C; a rotation does not end it."""
    selection = Selection(**options)
    follower = Follower(session.layout.audit_log, lambda: time.sleep(_PAUSE))
    with contextlib.suppress(KeyboardInterrupt), standard_output() as out:
        for line in follower.lines():
            if isinstance(line, OddLine):
                click.echo(f"Note: {line.problem}", err=True)
                continue
            try:
                record = parse_record(line)
            except RecordError as error:
                click.echo(f"Note: a line is no record: {error}", err=True)
                continue
            if selection.matches(record):
                out.write(f"{json.dumps(record) if as_json else _sentence(record)}\n")
                out.flush()


audit.add_command(verify)
audit.add_command(ship)


def _parse_time(text: str | None, option: str) -> str:
    """Return a time as records have it; "" where none is given."""
    if text is None:
        return ""
    now = datetime.datetime.now(datetime.UTC)
    with contextlib.suppress(ValueError):
        return format_moment(now - datetime.timedelta(seconds=parse_duration(text)))
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return format_moment(moment)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            "is no time as 1h, 7d or 2026-11-24T08:00", param_hint=option
        ) from error


def _write(form: str, records: Iterator[Record]) -> None:
    if form == "table":
        _print_table(records)
        return
    with standard_output() as out:
        if form == "csv":
            write_csv(records, out)
        elif form == "ocsf":
            out.writelines(f"{json.dumps(map_record(record))}\n" for record in records)
        else:
            separator = "[\n"
            for record in records:
                out.write(separator + json.dumps(record))
                separator = ",\n"
            out.write("[]\n" if separator == "[\n" else "\n]\n")


def _print_table(records: Iterator[Record]) -> None:
    """Print records in tables of a bounded size."""
    width = None if sys.stdout.isatty() else _WIDTH
    console = Console(width=width, highlight=False, markup=False)
    is_empty = True
    try:
        while part := list(itertools.islice(records, _TABLE_ROWS)):
            is_empty = False
            table = Table(box=None, pad_edge=False, header_style="bold")
            for name in _COLUMNS:
                table.add_column(name.upper(), overflow="fold")
            for record in part:
                styles = {"outcome": _COLORS.get(record["outcome"], "")}
                cells = zip(_COLUMNS, _cells(record), strict=True)
                table.add_row(*(Text(text, styles.get(name, "")) for name, text in cells))
            console.print(table)
    except BrokenPipeError as error:
        raise RefusedError("the output is cut: its reader is gone") from error
    if is_empty:
        click.echo("No such record.")


def _cells(record: Record) -> list[str]:
    """Return a row; what does not print in a record's texts is escaped, or it drives a terminal."""
    device = record.get("device")
    texts = (
        record["time"][:19].replace("T", " "),
        record["event_name"],
        record["outcome"],
        record["reason"],
        _user_of(record),
        record.get("service"),
        record.get("source_address") or record.get("rhost") or record.get("tty"),
        device.get("serial_number") if isinstance(device, dict) else None,
        _more(record),
    )
    return [printable(str(text)) if text else "" for text in texts]


def _user_of(record: Record) -> str:
    if record.get("user"):
        return str(record["user"])
    unknown = record.get("unknown_name") or record.get("unknown_user")
    return f"unknown: {unknown}" if unknown else ""


def _more(record: Record) -> str:
    """Return what else a reader wants to see at once."""
    facts = []
    if record.get("rule"):
        facts.append(f"rule: {record['rule']}")
    if record.get("mode") == "report-only":
        facts.append("report-only")
    if record.get("is_claim"):
        facts.append("claimed by its user")
    if record.get("offline"):
        facts.append("without the database")
    if record["event_name"] in _OWN:
        facts.append(f"record {record.get('sequence')}")
    facts += [str(record["detail"])] if record.get("detail") else []
    return ", ".join(facts)


def _sentence(record: Record) -> str:
    """Return a record as one line."""
    time_, event, outcome, reason, *others = _cells(record)
    names = ("user", "by", "from", "device", "")
    facts: Iterable[str] = (
        f"{name} {text}".strip() for name, text in zip(names, others, strict=True) if text
    )
    return "  ".join((time_, event, f"{outcome}: {reason}", *facts))
