# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa sessions``: which verifications are fresh, and their end."""

import click

from pam_mfa.cli.session import Session, json_option, pass_session, show
from pam_mfa.errors import RefusedError
from pam_mfa.lifecycle import MfaSession
from pam_mfa.listing import utc
from pam_mfa.report import printable


class _UserOrCommand(click.Group):
    """A group whose first word may be a user, for whom it then lists: ``sessions alice``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            return "list", self.commands["list"], args
        return super().resolve_command(ctx, args)


@click.group(cls=_UserOrCommand, invoke_without_command=True)
@json_option
@click.pass_context
def sessions(context: click.Context, *, as_json: bool) -> None:
    """Show which verifications are remembered for MFA age, of USER or of everybody.

    A user named like a command is listed by: sessions list USER.
    """
    context.ensure_object(Session)
    if context.invoked_subcommand is None:
        _show(context.obj, None, as_json=as_json)
    else:
        context.meta["as_json"] = as_json


@sessions.command("list")
@click.argument("user", required=False)
@json_option
@click.pass_context
@pass_session
def list_sessions(
    session: Session, context: click.Context, user: str | None, *, as_json: bool
) -> None:
    """Show which verifications are remembered."""
    _show(session, user, as_json=as_json or bool(context.meta.get("as_json")))


@sessions.command()
@click.argument("user", required=False)
@click.option("--all", "everybody", is_flag=True, help="Of all users.")
@pass_session
def end(session: Session, user: str | None, *, everybody: bool) -> None:
    """End what is remembered of USER: the next login that needs a verification asks for one."""
    if (user is None) is not everybody:
        raise click.UsageError("Name a USER, or say --all.")
    if session.is_own:
        raise RefusedError("only root may end MFA sessions", hint="Run the command with sudo.")
    lifecycle = session.lifecycle
    if user is not None:
        session.note_unknown(user)
    count = lifecycle.end_mfa_sessions(user)
    whose = "everybody" if user is None else user
    click.echo(printable(f"Ended for {whose}; verifications that were remembered: {count}."))


def _show(session: Session, user: str | None, *, as_json: bool) -> None:
    if session.is_own:
        raise RefusedError("only root may list MFA sessions", hint="Run the command with sudo.")
    rows = [_row(one) for one in session.lifecycle.mfa_sessions(user)]
    if not as_json:
        rows = [{key: printable(str(value)) for key, value in row.items()} for row in rows]
    show(rows, as_json=as_json, empty="No verification is remembered.")


def _row(one: MfaSession) -> dict[str, object]:
    return {
        "user": one.user,
        "type": one.type,
        "device": one.serial_number,
        "service": one.service,
        "session": one.session,
        "source": one.source,
        "time": utc(one.verified_at),
        "age": round(one.age),
    }
