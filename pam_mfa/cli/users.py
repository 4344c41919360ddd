# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa status``, ``unlock`` and ``bypass``."""

import click

from pam_mfa.cli.session import Session, json_option, pass_session, show
from pam_mfa.errors import RefusedError
from pam_mfa.listing import status_row, utc
from pam_mfa.policy import parse_duration
from pam_mfa.self_service.protocol import Operation, Petition


@click.command()
@click.argument("user", required=False)
@json_option
@pass_session
def status(session: Session, user: str | None, *, as_json: bool) -> None:
    """Show who can log in by what: last use, drift, codes left, locks."""
    if session.is_own:
        user = user or session.own_name
        rows = session.petition(Petition(Operation.STATUS, user))
        show(rows, as_json=as_json, empty=f"{user} has no MFA device.")
        return
    lifecycle = session.lifecycle
    rows = [
        status_row(owner, found, lifecycle.standing(owner))
        for owner in ([user] if user else lifecycle.users())
        for found in lifecycle.device_statuses(owner)
    ]
    nobody = f"{user} has no MFA device." if user else "No user has an MFA device."
    show(rows, as_json=as_json, empty=nobody)
    if user and not as_json:
        until = lifecycle.standing(user).locked_until
        if until is not None:
            click.echo(f"{user} is locked until {utc(until)}; to end it: pam-mfa unlock {user}")


@click.command()
@click.argument("user")
@pass_session
def unlock(session: Session, user: str) -> None:
    """End a user's lock and forget the wrong codes that led to it."""
    lifecycle = session.lifecycle
    session.note_unknown(user)
    had = lifecycle.unlock(user)
    click.echo(f"Unlocked {user}." if had else f"{user} was not locked and has no wrong codes.")


@click.command()
@click.argument("user")
@click.option("--for", "time", default="1h", show_default=True, help="How long, as 30m, 1h, 2d.")
@pass_session
def bypass(session: Session, user: str, time: str) -> None:
    """Issue a code that lets a user in once, for whoever has lost a device."""
    try:
        seconds = parse_duration(time)
    except ValueError as error:
        raise RefusedError(f"'{time}' is no length of time", hint="Try --for 1h") from error
    lifecycle = session.lifecycle
    session.note_unknown(user)
    code = lifecycle.issue_bypass(user, seconds)
    click.echo(f"Bypass code for {user}, good once within {time}: {code}")
    click.echo("Tell it to the person whose voice you know; it is recorded that you issued it.")
