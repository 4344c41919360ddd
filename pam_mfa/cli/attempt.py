# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa try``: a service's real PAM stack, run from the command line."""

import sys

import click

from pam_mfa.errors import RefusedError

_ECHO_OFF, _ECHO_ON, _ERROR = 1, 2, 3  # message styles of security/_pam_types.h


@click.command(name="try")
@click.argument("user")
@click.option("--service", required=True, help="The PAM service, as sshd or sudo.")
@click.option("--rhost", help="Pretend that the user comes from this address.")
@click.option("--tty", help="Pretend that the user is at this terminal.")
@click.option(
    "--pam-dir",
    type=click.Path(exists=True, file_okay=False),
    help="Read the service file from this directory instead of /etc/pam.d.",
)
def attempt(
    user: str, service: str, rhost: str | None, tty: str | None, pam_dir: str | None
) -> None:
    """Run a service's PAM stack for a user, as a login would, and say how it ends.

    Nobody is logged in, but the attempt counts: it is recorded, uses its code up, and a wrong
    code is a wrong code. Answers are asked for, or read from standard input, one a line.
    """
    from pam_mfa.pam import Login, run_stack  # noqa: PLC0415 - ctypes is for this command only

    items = {key: value for key, value in (("rhost", rhost), ("tty", tty)) if value}
    outcome = run_stack(Login(service, user, pam_dir, items), _answer)
    if not outcome.is_success:
        raise RefusedError(
            f"{service} refuses {user} in the {outcome.phase} phase: {outcome.message}",
            hint="The audit log and the system log (facility authpriv) say why.",
        )
    click.echo(f"{service} lets {user} in.")


def _answer(style: int, text: str) -> str | None:
    if style not in (_ECHO_OFF, _ECHO_ON):
        click.echo(text, err=style == _ERROR)
        return None
    if sys.stdin.isatty():
        answer = click.prompt(
            text.rstrip(), prompt_suffix=" ", hide_input=style == _ECHO_OFF, default="",
            show_default=False,
        )  # fmt: skip
        return str(answer)
    click.echo(text.rstrip())
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None
