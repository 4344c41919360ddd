# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa import u2f``: security keys that are in use with pam_u2f."""

import os
import pwd
from pathlib import Path

import click

from pam_mfa.cli.session import Session, json_option, pass_session, show
from pam_mfa.errors import RefusedError
from pam_mfa.importing.security_keys import Origins, Result, Row
from pam_mfa.importing.u2f_keys import BadKey, U2fKeys, parse_u2f_keys
from pam_mfa.lifecycle import require_root
from pam_mfa.store.files import read_file

_FILE_MAX = 16 * 1024 * 1024  # bytes
_WRITABLE_BY_OTHERS = 0o022
_SHOWN = 100  # lines of bad entries


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--user", help="Take this user's credentials only; the file may be the user's own.")
@click.option("--origin", help="pam_u2f's argument origin=; default: pam:// and this host's name.")
@click.option("--appid", help="pam_u2f's argument appid=, for the old format; default: the origin.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, change nothing.")
@click.option("--skip-bad", is_flag=True, help="Take the others where some are bad.")
@json_option
@pass_session
def u2f(  # noqa: PLR0913 - one parameter an option
    session: Session,
    file: Path,
    *,
    user: str | None,
    origin: str | None,
    appid: str | None,
    dry_run: bool,
    skip_bad: bool,
    as_json: bool,
) -> None:
    """Import pam_u2f's FILE, for example /etc/u2f_mappings or a user's u2f_keys.

    Nobody touches anything: the keys are in use. Credentials that lie on a key alone (resident) are
    left out.
    """
    require_root()
    origin = origin or f"pam://{os.uname().nodename}"
    found = _read(file, user)
    if found.bad and not (skip_bad or dry_run):
        _refuse(file, found.bad)
    importer = session.key_importer(Origins(origin, appid or origin))
    credentials = found.credentials
    rows = importer.plan(credentials) if dry_run else importer.carry_out(credentials, str(file))
    table = [_bad_row(entry) for entry in found.bad] + [_row(row) for row in rows]
    show(table, as_json=as_json, empty="There is nothing to import.")
    counts = {result: sum(1 for row in rows if row.result is result) for result in Result}
    click.echo(
        f"{'Would import' if dry_run else 'Imported'} {counts[Result.IMPORT]} security keys; "
        f"{counts[Result.PRESENT]} were there already; {counts[Result.LEFT_OUT]} are left out, "
        f"{len(found.bad)} are bad{'; nothing was changed' if dry_run else ''}.",
        err=as_json,
    )


def _read(file: Path, user: str | None) -> U2fKeys:
    owners = {0, os.geteuid()}
    if user is not None:
        try:
            owners.add(pwd.getpwnam(user).pw_uid)
        except KeyError:
            click.echo(f"Note: this host has no account '{user}'.", err=True)
    # Whoever may write it could give himself another user's logins.
    data = read_file(
        file.absolute(), owners=owners, forbidden=_WRITABLE_BY_OTHERS, size_max=_FILE_MAX
    )
    said = parse_u2f_keys(data, str(file))
    if user is None:
        return said
    credentials = tuple(one for one in said.credentials if one.user == user)
    return U2fKeys(credentials, tuple(one for one in said.bad if one.user == user))


def _refuse(file: Path, bad: tuple[BadKey, ...]) -> None:
    """Name the bad entries and import nothing.

    Raises:
        RefusedError: always.
    """
    for entry in bad[:_SHOWN]:
        click.echo(_describe(entry), err=True)
    if len(bad) > _SHOWN:
        click.echo(f"... and {len(bad) - _SHOWN} more.", err=True)
    raise RefusedError(
        f"{file} has {len(bad)} bad entries; nothing was imported",
        hint="Have them corrected, or take the others only: --skip-bad",
    )


def _describe(entry: BadKey) -> str:
    return f"{entry.source}, line {entry.line}: {entry.reason}"


def _row(row: Row) -> dict[str, object]:
    return {
        "user": row.user,
        "result": row.result.value,
        "serial_number": row.serial_number,
        "kind": row.kind,
        "note": row.note,
    }


def _bad_row(entry: BadKey) -> dict[str, object]:
    return {
        "user": entry.user,
        "result": "bad",
        "serial_number": "",
        "kind": "",
        "note": _describe(entry),
    }
