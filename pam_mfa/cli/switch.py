# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa switch``: services switched on and off, with a way back whatever happens."""

import datetime
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

import click

from pam_mfa.cli.session import Session, json_option, pass_session, show
from pam_mfa.errors import BrokenSystemError, PamMfaError, RefusedError
from pam_mfa.lifecycle import current_actor
from pam_mfa.policy import Mode, parse_duration
from pam_mfa.report import printable
from pam_mfa.store.policies import read_policy
from pam_mfa.switching.outlook import Outlook, find_keyless, foresee
from pam_mfa.switching.plan import Options, Plan, diff, make_plan
from pam_mfa.switching.sshd import FirstFactor
from pam_mfa.switching.states import list_states
from pam_mfa.switching.switchboard import Switchboard
from pam_mfa.switching.undoing import expire_patiently, find_boot_gap

_NEVER = "never"
_SHORTEST = 1.0  # seconds


@click.group()
def switch() -> None:
    """Switch services on and off: their PAM files, and sshd's settings.

    What is switched on undoes itself, unless it is confirmed in time.
    """


@switch.command()
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...")
@click.option(
    "--confirm-within", default="5m", show_default=True, metavar="TIME",
    help="Undo it by itself, unless it is confirmed within this time, as 90s, 5m; or never.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask whether to do it.")
@click.option("--dry-run", is_flag=True, help="Show what would be changed, and change nothing.")
@click.option("--force", is_flag=True, help="Do it even where nobody could get in any more.")
@click.option(
    "--sshd-login", type=click.Choice([each.value for each in FirstFactor]),
    help="What sshd asks for beside the code; by default what it asks for now.",
)  # fmt: skip
@click.option(
    "--module", type=click.Path(dir_okay=False, path_type=Path),
    help="The module's file, where it is not found by itself.",
)  # fmt: skip
@click.option(
    "--argument", "arguments", multiple=True, metavar="WORD",
    help="An argument of the module's line, as timeout=60; may be given again.",
)  # fmt: skip
@pass_session
def on(  # noqa: PLR0913 - of one switch
    session: Session,
    services: tuple[str, ...],
    *,
    confirm_within: str,
    yes: bool,
    dry_run: bool,
    force: bool,
    sshd_login: str | None,
    module: Path | None,
    arguments: tuple[str, ...],
) -> None:
    """Switch services on: sshd, sudo, sudo-i, login, su, polkit-1, a display manager, or all.

    Shows the exact change and who would be locked out by it, asks, makes it, and undoes it after
    the time to confirm: log in by the new stack, then run "pam-mfa switch confirm" there.
    """
    within = _parse_time(confirm_within)
    _require_root(session)
    _require_words(arguments)
    board = Switchboard(session.layout)
    first = FirstFactor(sshd_login) if sshd_login else None
    options = Options(module.absolute() if module else None, arguments, first)
    plan = make_plan(session.layout.root, services, board.read(), options)
    _show_plan(session, plan, is_forced=force)
    if dry_run:
        click.echo("Nothing was changed: this was a dry run.")
        return
    if not yes:
        click.confirm("Make this change?", abort=True)
    for sentence in board.turn_on(plan, _caller_name(), within):
        click.echo(printable(sentence))
    if within and (gap := find_boot_gap(session.layout.root)):
        click.echo(gap)
    _show_done([one.service for one in plan.changes], within)


@switch.command()
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...")
@click.option(
    "--force", is_flag=True,
    help="Whatever is in the way: take out every line that names the module.",
)  # fmt: skip
@pass_session
def off(session: Session, services: tuple[str, ...], *, force: bool) -> None:
    """Bring services back to what they were, byte for byte; an edit made since is kept."""
    _require_root(session)
    for sentence in Switchboard(session.layout).turn_off(services, is_forced=force):
        click.echo(printable(sentence))
    click.echo(f"Off: {', '.join(services)}.")


@switch.command()
@click.argument("services", nargs=-1, metavar="[SERVICE...]")
@click.option("--anyway", is_flag=True, help="Keep it, though nobody has got in by it yet.")
@pass_session
def confirm(session: Session, services: tuple[str, ...], *, anyway: bool) -> None:
    """Keep what was switched on: somebody must have got in by it since.

    Run by sudo, it is you who must have got in; run by root itself, anybody.
    """
    _require_root(session)
    caller = _caller_name()
    user = None if caller == "root" else caller
    done = Switchboard(session.layout).confirm(services, user, is_anyway=anyway)
    if done.confirmed:
        click.echo(f"Confirmed: {', '.join(done.confirmed)}.")
    if anyway:
        click.echo("Warning: whether anybody can get in by it was not looked at.", err=True)
    if done.unproven:
        names = ", ".join(done.unproven)
        whom = f"{user} has not" if user else "nobody has"
        raise RefusedError(
            f"{whom} got in by {names} since it was switched on; it is still to be undone",
            hint="Log in by it from another terminal, then confirm again. "
            "To keep it unproven: --anyway",
        )


@switch.command(name="status")
@json_option
@pass_session
def show_states(session: Session, *, as_json: bool) -> None:
    """Show each service that can be switched, and what waits for a confirmation."""
    _require_root(session)
    rows = list_states(session.layout)
    show(rows, as_json=as_json, empty="This host has none of the services that can be switched.")


@switch.command(hidden=True)
@pass_session
def expire(session: Session) -> None:
    """Undo what was interrupted or not confirmed in time: for the timer and the boot."""
    _require_root(session)
    for sentence in expire_patiently(Switchboard(session.layout).expire):
        click.echo(printable(sentence))


def _require_root(session: Session) -> None:
    if session.is_own:
        raise RefusedError("only root can switch services", hint="Run it by sudo.")
    if not session.layout.root.is_dir():
        raise RefusedError(f"there is no directory {session.layout.root} to act under")


def _require_words(arguments: Sequence[str]) -> None:
    for word in arguments:
        if not word or set(word) & set(" \t\n#\\[]"):
            raise RefusedError(f"'{printable(word)}' cannot be an argument of a PAM line")


def _parse_time(text: str) -> float:
    if text == _NEVER:
        return 0.0
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise RefusedError(
            f"'{text}' is no length of time", hint="Try --confirm-within 5m"
        ) from error
    return max(seconds, _SHORTEST)


def _caller_name() -> str:
    """Return who stands behind this process: by the kernel's login uid, else by sudo's word."""
    login_uid = current_actor().login_uid
    by_sudo = os.environ.get("SUDO_UID", "")
    uid = login_uid if login_uid is not None else int(by_sudo) if by_sudo.isdecimal() else 0
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return "root"


def _show_plan(session: Session, plan: Plan, *, is_forced: bool) -> None:
    """Show the change and whom it would lock out.

    Raises:
        RefusedError: by some service nobody could get in.
    """
    for line in diff(plan).splitlines():
        click.echo("\t".join(map(printable, line.split("\t"))))
    click.echo()
    for note in plan.notes:
        click.echo(printable(f"Note: {note}"))
    try:
        outlook = foresee(session.layout, plan, _caller_name())
    except PamMfaError as error:
        if not is_forced:
            raise BrokenSystemError(
                f"everybody would be refused: {error}",
                hint=error.hint or "Nothing was changed. See: pam-mfa doctor",
            ) from error
        click.echo(printable(f"Warning: everybody would be refused: {error}."), err=True)
        return
    _show_outlook(outlook, is_forced=is_forced)
    if plan.first is FirstFactor.KEY and session.layout.root == Path("/"):
        for name in find_keyless(outlook.people):
            words = f"Warning: {name} has no file of SSH keys at home, and sshd will ask for a key."
            click.echo(printable(words), err=True)
    if read_policy(session.layout.policy).mode is Mode.REPORT_ONLY:
        click.echo("Note: the policy says report-only, so whatever is answered lets in.")


def _show_outlook(outlook: Outlook, *, is_forced: bool) -> None:
    for one in outlook.forecasts:
        if one not in outlook.locked_out:
            click.echo(printable(f"{one.user} by {one.service}: {one.text}"))
    for one in outlook.locked_out:
        words = f"Warning: {one.user} would be locked out of {one.service}: {one.text}"
        click.echo(printable(words), err=True)
    if outlook.closed and not is_forced:
        raise RefusedError(
            f"nobody of {', '.join(outlook.people)} could get in by {', '.join(outlook.closed)}",
            hint="Nothing was changed. Enable a device first: pam-mfa enable virtual USER. "
            "To do it all the same: --force",
        )


def _show_done(names: Sequence[str], within: float) -> None:
    what = ", ".join(names)
    if not within:
        click.echo(f"On: {what}. To go back: pam-mfa switch off {' '.join(names)}")
        return
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=within)
    click.echo(
        f"On: {what}. This undoes itself at {until:%H:%M:%S} UTC, unless you log in from another "
        "terminal, by each of them, and then run: pam-mfa switch confirm"
    )
