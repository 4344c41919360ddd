# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa try``: a service's real PAM stack, run from the command line."""

import os
import sys
from pathlib import Path

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

    if os.geteuid() != 0:
        raise RefusedError(
            "only root may try a service as it runs in a login", hint="Run the command with sudo."
        )
    directory = Path(pam_dir or "/etc/pam.d")
    if not (directory / service).exists():
        raise RefusedError(
            f"there is no PAM service {service} in {directory}", hint=f"See: ls {directory}"
        )
    items = {key: value for key, value in (("rhost", rhost), ("tty", tty)) if value}
    conversation = _Conversation()
    outcome = run_stack(Login(service, user, pam_dir, items), conversation)
    if not outcome.is_success:
        raise RefusedError(
            f"{service} refuses {user} in the {outcome.phase} phase: {outcome.message}",
            hint="The audit log and the system log (facility authpriv) say why; "
            "pam-mfa policy check says whether the policy is sound.",
        )
    click.echo(f"{service} lets {user} in.")
    if not conversation.was_asked_for_code:
        click.echo(
            f"But no verification code was asked for: see {directory / service} and the policy.",
            err=True,
        )


class _Conversation:
    """Shows messages and answers prompts, from the terminal or a line of standard input each."""

    def __init__(self) -> None:
        self.was_asked_for_code = False

    def __call__(self, style: int, text: str) -> str | None:
        self.was_asked_for_code |= "erification code" in text
        return _answer(style, text)


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
