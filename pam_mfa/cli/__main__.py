# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa``: the command line. Only ``main`` exits.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 the system is broken.
"""

import importlib
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Final

import click

from pam_mfa import __version__
from pam_mfa.cli.session import Session
from pam_mfa.errors import PamMfaError

# Where each command is: its module in this room, and its name there.
_PLACES: Final = {
    "enable": "devices.enable",
    "keys": "keys.keys",
    "list": "devices.list_devices",
    "resync": "devices.resync",
    "deactivate": "devices.deactivate",
    "status": "status.status",
    "report": "report.report",
    "unlock": "users.unlock",
    "bypass": "users.bypass",
    "sessions": "sessions.sessions",
    "token": "tokens.token",
    "import": "importing.import_credentials",
    "try": "attempt.attempt",
    "policy": "policy.policy",
    "audit": "audit.audit",
    "seal": "seal.seal",
    "store": "store.store",
    "switch": "switch.switch",
    "doctor": "doctor.doctor",
}
# Commands of other modules under one of these.
_INNER: Final = {
    "enable": ("keys.fido", "ssh_keys.ssh_key"),
    "import": ("importing_u2f.u2f",),
    "store": ("store_copy.copy",),
}


class _Commands(MutableMapping[str, click.Command]):
    """Commands that are imported when somebody asks for them.

    One command needs a few of the modules, and all of them are most of what it costs to start.
    """

    def __init__(self) -> None:
        """Have none yet."""
        self._places = dict(_PLACES)
        self._known: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        """Import a command, and those under it."""
        if name not in self._known:
            command = _find(self._places[name])
            if isinstance(command, click.Group):
                for inner in _INNER.get(name, ()):
                    command.add_command(_find(inner))
            self._known[name] = command
        return self._known[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        """Take a command that is there."""
        self._known[name] = command
        self._places[name] = ""

    def __delitem__(self, name: str) -> None:
        """Give a command up."""
        self._known.pop(name, None)
        del self._places[name]

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._places)

    def __len__(self) -> int:
        """Count them."""
        return len(self._places)


def _find(place: str) -> click.Command:
    module, _, name = place.partition(".")
    command = getattr(importlib.import_module(f"pam_mfa.cli.{module}"), name)
    if not isinstance(command, click.Command):
        raise TypeError(place)
    return command


@click.group(
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
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
        from pam_mfa.cli import host_state  # noqa: PLC0415 - as commands are

        host_state.show_state(context.obj)


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
