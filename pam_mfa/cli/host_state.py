# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa`` alone: the state of this host in a few lines, and the next thing to do."""

import click

from pam_mfa.cli.session import Session
from pam_mfa.doctor.view import View
from pam_mfa.errors import PamMfaError
from pam_mfa.policy import Engine, Mode
from pam_mfa.report import printable
from pam_mfa.switching.states import list_states


def show_state(session: Session) -> None:
    """Print how far this host is, and one thing to do next."""
    if session.is_own:
        click.echo("Your MFA devices: pam-mfa list. All commands: pam-mfa --help")
        return
    view = View(session.layout)
    users = _count_users(session)
    asking = [one.name for one in view.asking]
    waiting = _find_waiting(session)
    policy = view.policy
    click.echo(f"Policy:   {policy.mode.value if policy else 'none that can be used'}")
    click.echo(printable(f"Devices:  {_tell_devices(view, users)}"))
    click.echo(printable(f"Services: {', '.join(asking) if asking else 'none asks for a code'}"))
    is_listening = view.stat(view.layout.socket) is not None
    click.echo(f"Daemon:   {'there' if is_listening else 'not there; each login starts its own'}")
    click.echo(f"Next:     {_next_step(view, users, waiting)}")
    click.echo("All commands: pam-mfa --help")


def _tell_devices(view: View, users: int) -> str:
    if _is_in_fleet(view):
        return "in the database of a fleet; see: pam-mfa store status"
    return f"{users} user{' has' if users == 1 else 's have'} one"


def _is_in_fleet(view: View) -> bool:
    return view.policy is not None and view.policy.store.engine is not Engine.EMBEDDED


def _next_step(view: View, users: int, waiting: list[str]) -> str:
    if view.policy is None:
        return "write a policy; then: pam-mfa policy check"
    if waiting:
        return f"log in by {', '.join(waiting)} from another terminal; then: pam-mfa switch confirm"
    if not users and not _is_in_fleet(view):
        return "enable your own device: pam-mfa enable virtual YOUR-NAME"
    if not view.asking:
        return "switch a service on, sudo first: pam-mfa switch on sudo"
    if view.policy.mode is Mode.REPORT_ONLY:
        return "see who would be refused, then say enforce in the policy: pam-mfa status"
    return "see whether all is well: pam-mfa doctor"


def _count_users(session: Session) -> int:
    """Count device files; nothing is opened, and no right is given up."""
    directory = session.layout.devices
    return len(list(directory.glob("*.yaml"))) if directory.is_dir() else 0


def _find_waiting(session: Session) -> list[str]:
    try:
        rows = list_states(session.layout)
    except PamMfaError:
        return []
    return [str(row["service"]) for row in rows if row["state"] == "on, not confirmed"]
