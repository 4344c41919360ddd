# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa``: the command line. Only ``main`` exits.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 the system is broken.
"""

import sys
from pathlib import Path

import click

from pam_mfa import __version__
from pam_mfa.cli import (
    attempt,
    audit,
    devices,
    doctor,
    host_state,
    importing,
    importing_u2f,
    keys,
    policy,
    report,
    seal,
    sessions,
    ssh_keys,
    status,
    store,
    store_copy,
    switch,
    tokens,
    users,
)
from pam_mfa.cli.session import Session
from pam_mfa.errors import PamMfaError


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, prog_name="pam-mfa")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default="/",
    help="Act under this directory instead of the host's own: for tests, images and rescue.",
)
@click.pass_context
def commands(context: click.Context, root: Path) -> None:
    """Multi-factor authentication for Linux logins.

    Without a command: the state of this host, and the next thing to do.
    """
    context.obj = Session(root.absolute())
    if context.invoked_subcommand is None:
        host_state.show_state(context.obj)


for _command in (
    devices.enable,
    keys.keys,
    devices.list_devices,
    devices.resync,
    devices.deactivate,
    status.status,
    report.report,
    users.unlock,
    users.bypass,
    sessions.sessions,
    tokens.token,
    importing.import_credentials,
    attempt.attempt,
    policy.policy,
    audit.audit,
    seal.seal,
    store.store,
    switch.switch,
    doctor.doctor,
):
    commands.add_command(_command)


devices.enable.add_command(keys.fido)
devices.enable.add_command(ssh_keys.ssh_key)


store.store.add_command(store_copy.copy)
importing.import_credentials.add_command(importing_u2f.u2f)


def main() -> None:
    """Run the command line."""
    try:
        status = commands(prog_name="pam-mfa", standalone_mode=False)
        if isinstance(status, int) and status:  # of a command that ended by Context.exit
            sys.exit(status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("Aborted; nothing was changed.", err=True)
        sys.exit(1)
    except PamMfaError as error:
        click.echo(f"pam-mfa: {error}.", err=True)
        if error.hint:
            click.echo(error.hint, err=True)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
