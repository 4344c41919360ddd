# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa unlock``."""

import click

from pam_mfa.cli.session import Session, pass_session


@click.command()
@click.argument("user")
@pass_session
def unlock(session: Session, user: str) -> None:
    """End a user's lock and forget the wrong codes that led to it."""
    lifecycle = session.lifecycle
    session.note_unknown(user)
    had = lifecycle.unlock(user)
    click.echo(f"Unlocked {user}." if had else f"{user} was not locked and has no wrong codes.")
