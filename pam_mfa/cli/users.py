# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa unlock`` and ``bypass``."""

import click

from pam_mfa.cli.session import Session, pass_session
from pam_mfa.errors import RefusedError
from pam_mfa.policy import parse_duration


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
