# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa import``: devices that are in use with google-authenticator or pam_oath."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from pam_mfa.cli.session import Session, json_option, pass_session, show
from pam_mfa.cli.terminal import show_progress
from pam_mfa.errors import RefusedError
from pam_mfa.importing.credentials import BadCredential, Credential
from pam_mfa.importing.google_authenticator import FILE_NAME
from pam_mfa.importing.homes import (
    Account,
    SecretFiles,
    expand_template,
    find_account,
    list_accounts,
    read_private_file,
    read_secret_files,
)
from pam_mfa.importing.importer import Result, Row, Rules
from pam_mfa.importing.users_oath import parse_users_file
from pam_mfa.lifecycle import require_root
from pam_mfa.policy import Policy
from pam_mfa.store.policies import read_policy

_USERS_FILE_MAX = 64 * 1024 * 1024  # bytes
_SHOWN = 100  # rows of a table, and lines of bad entries
_HOME_TEMPLATE = f"~/{FILE_NAME}"


class _Found(NamedTuple):
    """What was read, and from where."""

    source: str
    credentials: tuple[Credential, ...]
    bad: tuple[BadCredential, ...]
    unreachable: tuple[BadCredential, ...] = ()


class _Options(NamedTuple):
    """What both commands take."""

    dry_run: bool
    skip_bad: bool
    as_json: bool


@click.group(name="import")
def import_credentials() -> None:
    """Take over the devices that users have with another program.

    No codes are asked for: the devices are in use. The other program's files are left as they are.
    It can be run again: what is there already stays as it is.
    """


_dry_run = click.option("--dry-run", is_flag=True, help="Say what would happen, change nothing.")
_skip_bad = click.option("--skip-bad", is_flag=True, help="Take the others where some are bad.")


@import_credentials.command(name="google-authenticator")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--user", "users", multiple=True, help="Whose file it is, or whose to look for.")
@click.option("--all-homes", is_flag=True, help="Look for the file of every account of this host.")
@click.option(
    "--path-template",
    default=_HOME_TEMPLATE,
    show_default=True,
    help="Where users' files are, as in pam_google_authenticator's secret=: ${USER}, ${HOME}, ~.",
)
@_dry_run
@_skip_bad
@json_option
@pass_session
def google_authenticator(  # noqa: PLR0913 - one parameter an option
    session: Session,
    file: Path | None,
    users: tuple[str, ...],
    *,
    all_homes: bool,
    path_template: str,
    dry_run: bool,
    skip_bad: bool,
    as_json: bool,
) -> None:
    """Import secret files of google-authenticator: a FILE of one user, or those in homes.

    TOTP and HOTP, used codes, time skew, and scratch codes as recovery codes.
    """
    if all_homes == bool(users) or (file and len(users) != 1):
        raise click.UsageError("say FILE --user USER, or --user USER ..., or --all-homes")
    require_root()
    if file:
        session.note_unknown(users[0])
        said = _read_file(file, users[0])
    else:
        said = _read_homes(users, path_template)
    source = str(file) if file else path_template
    _import(
        session, "google-authenticator", _Found(source, *said), _Options(dry_run, skip_bad, as_json)
    )


@import_credentials.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_dry_run
@_skip_bad
@json_option
@pass_session
def oath(session: Session, file: Path, *, dry_run: bool, skip_bad: bool, as_json: bool) -> None:
    """Import pam_oath's users FILE, for example /etc/users.oath: HOTP and TOTP."""
    require_root()
    try:
        data = read_private_file(file.absolute(), None, _USERS_FILE_MAX)
    except FileNotFoundError as error:
        raise RefusedError(f"there is no {file}") from error
    said = parse_users_file(data, str(file), time.mktime)
    _import(session, "oath", _Found(str(file), *said), _Options(dry_run, skip_bad, as_json))


def _read_file(file: Path, user: str) -> SecretFiles:
    if not file.is_symlink() and not file.exists():
        raise RefusedError(f"there is no {file}")
    return read_secret_files([(user, find_account(user), file.absolute())])


def _read_homes(users: Sequence[str], template: str) -> SecretFiles:
    """Read the files of some users, or of all where none is named."""
    accounts = [_require_account(user) for user in users] or list_accounts()
    with show_progress("Reading", len(accounts)) as advance:
        return read_secret_files(_files_of(accounts, template), advance)


def _require_account(user: str) -> Account:
    account = find_account(user)
    if account is None:
        raise RefusedError(
            f"this host has no account '{user}'",
            hint=f"Name the file as well: pam-mfa import google-authenticator FILE --user {user}",
        )
    return account


def _files_of(accounts: Sequence[Account], template: str) -> Iterator[tuple[str, Account, Path]]:
    for account in accounts:
        path = expand_template(template, account)
        if path is not None:
            yield account.user, account, path


def _import(session: Session, program: str, found: _Found, options: _Options) -> None:
    policy = read_policy(session.layout.policy) if session.layout.policy.exists() else Policy()
    importer = session.importer(Rules(program, policy))
    credentials = found.credentials
    if found.bad and not (options.skip_bad or options.dry_run):
        _refuse(found)
    if options.dry_run:
        with show_progress("Planning", len(credentials)) as advance:
            rows = importer.plan(credentials, advance)
    else:
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            advance(more)

        try:
            with show_progress("Importing", len(credentials)) as advance:
                rows = importer.carry_out(credentials, found.source, count)
        except KeyboardInterrupt as error:
            raise RefusedError(
                f"the import was interrupted after {done} of {len(credentials)} devices",
                hint="Run the same command again: it goes on where it stopped.",
            ) from error
    _show_rows(rows, found, options)


def _refuse(found: _Found) -> None:
    """Name the bad entries and import nothing.

    Raises:
        RefusedError: always.
    """
    for entry in found.bad[:_SHOWN]:
        click.echo(_describe(entry), err=True)
    if len(found.bad) > _SHOWN:
        click.echo(f"... and {len(found.bad) - _SHOWN} more.", err=True)
    raise RefusedError(
        f"{found.source} has {len(found.bad)} bad entries; nothing was imported",
        hint="Have them corrected, or take the others only: --skip-bad",
    )


def _describe(entry: BadCredential) -> str:
    if not entry.line:
        return entry.reason if entry.source in entry.reason else f"{entry.source}: {entry.reason}"
    return f"{entry.source}, line {entry.line}: {entry.reason}"


def _show_rows(rows: list[Row], found: _Found, options: _Options) -> None:
    table = [_bad_row(entry, "bad") for entry in found.bad]
    table += [_bad_row(entry, Result.LEFT_OUT.value) for entry in found.unreachable]
    # What has something to be read comes first, for a table is cut.
    table += [_row(row) for row in sorted(rows, key=lambda row: _ORDER[row.result])]
    shown = table if options.as_json else table[:_SHOWN]
    show(shown, as_json=options.as_json, empty="There is nothing to import.")
    if len(table) > len(shown):
        click.echo(f"... and {len(table) - len(shown)} more; all of them: --json")
    counts = {result: sum(1 for row in rows if row.result is result) for result in Result}
    codes = sum(row.recovery_codes for row in rows)
    click.echo(
        f"{'Would import' if options.dry_run else 'Imported'} {counts[Result.IMPORT]} devices and "
        f"{codes} recovery codes; {counts[Result.PRESENT]} were there already; "
        f"{counts[Result.LEFT_OUT] + len(found.unreachable)} are left out, {len(found.bad)} are bad"
        f"{'; nothing was changed' if options.dry_run else ''}.",
        err=options.as_json,
    )


_ORDER = {Result.LEFT_OUT: 0, Result.IMPORT: 1, Result.PRESENT: 2}


def _row(row: Row) -> dict[str, object]:
    parameters = row.parameters
    kind = "HOTP" if parameters.is_event_based else f"TOTP {parameters.period} s"
    return {
        "user": row.user if row.user.isprintable() else ascii(row.user),
        "result": row.result.value,
        "serial_number": row.serial_number,
        "kind": f"{kind}, {parameters.digits} digits",
        "recovery_codes": row.recovery_codes or "",
        "note": row.note,
    }


def _bad_row(entry: BadCredential, result: str) -> dict[str, object]:
    return {
        "user": entry.user,
        "result": result,
        "serial_number": "",
        "kind": "",
        "recovery_codes": "",
        "note": _describe(entry),
    }
