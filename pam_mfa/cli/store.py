# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa store``: where devices and state are kept, and the database of a fleet."""

import click

from pam_mfa.cli.session import Session, json_option, pass_session, print_json
from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.lifecycle import require_root
from pam_mfa.report import printable
from pam_mfa.store.layout import drop_privileges
from pam_mfa.store.opening import StoreHealth, examine_store


@click.group()
def store() -> None:
    """Show where devices and state are kept, and set the database of a fleet up."""


@store.command()
@json_option
@pass_session
@click.pass_context
def status(context: click.Context, session: Session, *, as_json: bool) -> None:
    """Say which store logins ask, whether it answers, and how fast.

    Exit status: 0 it can be used, 3 logins are refused.
    """
    require_root()
    drop_privileges()
    health = examine_store(session.layout)
    if as_json:
        print_json([health._asdict()])
    else:
        _tell(health)
    if health.problem:
        context.exit(BrokenSystemError.exit_status)


def _tell(health: StoreHealth) -> None:
    click.echo(printable(f"{health.engine}: {health.place}"))
    if health.fleet:
        speed = f"answered in {health.milliseconds} ms"
        role = f"as the role {health.role}, version {health.version}"
        click.echo(printable(f"fleet {health.fleet}, {role}; {speed}"))
    if health.standby:
        click.echo(printable(f"{health.standby}."))
    if health.problem:
        click.echo(printable(f"{health.problem}. {health.hint}"), err=True)


@store.command()
@click.option("--url", required=True, help="The database, as libpq has it, for its owner.")
@click.option("--fleet", default="", help="Make this fleet, or let more roles into it.")
@click.option("--host-role", "hosts", multiple=True, help="A role that hosts verify by.")
@click.option(
    "--administrator-role", "administrators", multiple=True, help="A role that changes devices."
)
def migrate(url: str, fleet: str, hosts: tuple[str, ...], administrators: tuple[str, ...]) -> None:
    """Bring a database to this program's version, and let roles into a fleet.

    Run it as the database's owner; a password comes from PGPASSFILE or PGPASSWORD, never from the
    URL. It may be run again: what is there stays.
    """
    from pam_mfa.store.postgresql.migrating import (  # noqa: PLC0415 - psycopg behind it
        Admission,
        admit,
    )
    from pam_mfa.store.postgresql.migrating import migrate as bring  # noqa: PLC0415 - the same

    if (hosts or administrators) and not fleet:
        raise RefusedError("roles are of a fleet", hint="Name it: --fleet NAME")
    reached = list(bring(url))
    for version in reached:
        click.echo(f"The database is of version {version} now.")
    if not reached:
        click.echo("The database is up to date.")
    if fleet:
        admissions = [Admission(role, is_administrator=False) for role in hosts]
        admissions += [Admission(role, is_administrator=True) for role in administrators]
        admit(url, fleet, admissions)
        roles = ", ".join((*hosts, *administrators)) or "no more roles"
        click.echo(printable(f"Fleet {fleet}: {roles}."))
