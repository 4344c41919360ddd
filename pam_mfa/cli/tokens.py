# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa token import`` and ``token list``."""

import binascii
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from pam_mfa import pskc, token_csv
from pam_mfa.cli.session import Session, json_option, pass_session, read_secret, show
from pam_mfa.errors import RefusedError
from pam_mfa.secret import Secret
from pam_mfa.token_stock import BadDeliveryError, Intake, TokenStock
from pam_mfa.tokens import BadEntry, Delivery

_FILE_MAX = 512 * 1024 * 1024  # bytes
_SHOWN_BAD = 20


@click.group()
def token() -> None:
    """Hardware tokens: the stock that users are given theirs from."""


@token.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(["pskc", "csv"]), help="Default: by content.")
@click.option("--key", type=click.Choice(["-"]), help="Read the pre-shared key (hex), PSKC.")
@click.option("--password", type=click.Choice(["-"]), help="Read the password, PSKC.")
@click.option("--seed-encoding", type=click.Choice(["hex", "base32"]), help="Of a CSV file.")
@click.option("--skip-bad", is_flag=True, help="Take the good entries of a file with bad ones.")
@click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing.")
@pass_session
def import_tokens(  # noqa: PLR0913 - one parameter an option
    session: Session,
    file: Path,
    *,
    form: str | None,
    key: str | None,
    password: str | None,
    seed_encoding: str | None,
    skip_bad: bool,
    dry_run: bool,
) -> None:
    """Take a vendor's file of tokens into the stock: PSKC (RFC 6030) or CSV.

    How the file was read is shown. It can be run again: what is there already is left as it is.
    """
    delivery = _read(file, form, seed_encoding, (key, password))
    click.echo(f"{file.name}: {delivery.dialect}.")
    _show_bad(file.name, delivery.bad)
    stock = session.token_stock
    if dry_run:
        click.echo(f"Would take {len(delivery.tokens)} tokens; nothing was changed.")
        return
    try:
        intake = _take_in(stock, delivery, file.name, skip_bad=skip_bad)
    except BadDeliveryError as error:
        _show_bad(file.name, error.entries[len(delivery.bad) :])
        raise
    _show_bad(file.name, intake.bad[len(delivery.bad) :])
    click.echo(f"Imported {intake.added} tokens; {intake.present} were in stock already.")


@token.command(name="list")
@json_option
@pass_session
def list_tokens(session: Session, *, as_json: bool) -> None:
    """List the stock: which tokens are free, and who has the others."""
    rows: list[dict[str, object]] = [
        {
            "serial_number": one.serial_number,
            "manufacturer": one.manufacturer,
            "kind": "HOTP" if one.parameters.is_event_based else f"TOTP {one.parameters.period} s",
            "algorithm": one.parameters.algorithm.value,
            "digits": one.parameters.digits,
            "user": one.user or "",
        }
        for one in session.token_stock.list_tokens()
    ]
    show(rows, as_json=as_json, empty="There is no token in stock.")


def _read(
    file: Path, form: str | None, encoding: str | None, secrets: tuple[str | None, str | None]
) -> Delivery:
    if file.stat().st_size > _FILE_MAX:
        raise RefusedError(f"{file} is larger than {_FILE_MAX} bytes")
    data = file.read_bytes()
    key, password = secrets
    if form == "csv" or (form is None and not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")):
        return token_csv.parse_csv(data, file.name, encoding=encoding)
    given = _parse_key(read_secret("Pre-shared key (hex)")) if key else None
    word = read_secret("Password") if password else None
    return pskc.parse_pskc(data, file.name, key=given, password=word)


def _parse_key(text: str) -> Secret:
    try:
        return Secret(binascii.unhexlify(text.strip()))
    except (binascii.Error, ValueError) as error:
        raise RefusedError("the pre-shared key is not hexadecimal") from error


def _take_in(stock: TokenStock, delivery: Delivery, source: str, *, skip_bad: bool) -> Intake:
    if not sys.stderr.isatty():
        return stock.take_in(delivery, source, skip_bad=skip_bad)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Importing", total=len(delivery.tokens))
        return stock.take_in(
            delivery,
            source,
            skip_bad=skip_bad,
            progress=lambda count: progress.advance(task, count),
        )


def _show_bad(source: str, entries: tuple[BadEntry, ...]) -> None:
    for entry in entries[:_SHOWN_BAD]:
        name = f"token {entry.serial_number}" if entry.serial_number else "an entry"
        click.echo(f"{source}, line {entry.line}: {name}: {entry.reason}", err=True)
    if len(entries) > _SHOWN_BAD:
        click.echo(f"... and {len(entries) - _SHOWN_BAD} more.", err=True)
