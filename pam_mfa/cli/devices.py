# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa enable``, ``list`` and ``deactivate``."""

import os
import sys

import click

from pam_mfa import oath
from pam_mfa.cli.session import Session, json_option, pass_session, read_secret, show
from pam_mfa.devices import RecoveryCodes
from pam_mfa.errors import RefusedError
from pam_mfa.lifecycle import Lifecycle, PendingDevice, refuse_sms
from pam_mfa.listing import list_row
from pam_mfa.oath import DIGITS, PERIODS, Algorithm, Parameters
from pam_mfa.qr_code import draw_lines
from pam_mfa.self_service.protocol import Operation, Petition

_TRIES = 3  # pairs of codes that are asked for before giving up


@click.group()
def enable() -> None:
    """Enable an MFA device for a user."""


@enable.command()
@click.argument("user")
@click.option("--name", help="The device's name; default: phone.")
@click.option(
    "--secret",
    type=click.Choice(["-"]),
    help="Read the secret (base32) from a prompt or standard input instead of making one.",
)
@click.option("--qr", is_flag=True, help="Show the QR code of a secret that was given, too.")
@click.option("--codes", nargs=2, metavar="C1 C2", help="Two consecutive codes of the device.")
@click.option("--algorithm", type=click.Choice(list(Algorithm)), default="SHA1", show_default=True)
@click.option("--digits", type=click.Choice([str(n) for n in DIGITS]), default="6")
@click.option("--period", type=click.Choice([str(n) for n in PERIODS]), default="30")
@pass_session
def virtual(  # noqa: PLR0913 - one parameter an option
    session: Session,
    user: str,
    name: str | None,
    secret: str | None,
    *,
    qr: bool,
    codes: tuple[str, str] | None,
    algorithm: str,
    digits: str,
    period: str,
) -> None:
    """Enable a virtual MFA device: an authenticator application on a phone.

    Shows a QR code and the secret key for typing, then asks for two consecutive codes.
    """
    parameters = Parameters(Algorithm(algorithm), int(digits), int(period))
    given = read_secret("Secret (base32)") if secret else ""
    first, second = codes or ("", "")
    if session.is_own:
        session.petition(
            Petition(
                Operation.ENABLE_VIRTUAL, user, "", name or "", algorithm, digits, period, given,
                first, second,
            )
        )  # fmt: skip
        return
    seed = oath.parse_seed(given) if secret else None
    lifecycle = session.lifecycle
    if codes is None and not sys.stdin.isatty():
        raise click.UsageError("--codes C1 C2 is needed where standard input is not a terminal")
    session.note_unknown(user)
    pending = lifecycle.begin_virtual(user, name, seed=seed, parameters=parameters)
    if seed is None or qr:
        _show_secret(pending)
    _enable(lifecycle, pending, codes)


@enable.command()
@click.argument("user")
@click.option("--serial-number", required=True, help="As printed on the token.")
@click.option("--name", help="The device's name; default: token.")
@click.option("--codes", nargs=2, metavar="C1 C2", help="Two consecutive codes of the token.")
@pass_session
def token(
    session: Session,
    user: str,
    *,
    serial_number: str,
    name: str | None,
    codes: tuple[str, str] | None,
) -> None:
    """Enable a hardware token of the stock: asks for two consecutive codes."""
    first, second = codes or ("", "")
    if session.is_own:
        petition = Petition(Operation.ENABLE_TOKEN, user, serial_number, name or "")
        session.petition(petition._replace(first_code=first, second_code=second))
        return
    lifecycle = session.lifecycle
    session.note_unknown(user)
    _enable(lifecycle, lifecycle.begin_token(user, serial_number, name), codes)


@enable.command()
@click.argument("user")
@pass_session
def recovery(session: Session, user: str) -> None:
    """Make ten recovery codes in the place of an old set; they are shown this once."""
    if session.is_own:
        session.petition(Petition(Operation.ENABLE_RECOVERY, user))
        return
    lifecycle = session.lifecycle
    session.note_unknown(user)
    had = any(isinstance(one, RecoveryCodes) for one in lifecycle.list_devices(user))
    codes = lifecycle.enable_recovery(user)
    click.echo(f"Recovery codes of {user}, each good once. Print them; they are not shown again.\n")
    for code in codes:
        click.echo(f"  {code}")
    if had:
        click.echo("\nThe codes that were made before are void from now on.")


@click.command()
@click.argument("user")
@click.argument("serial_number")
@click.option("--codes", nargs=2, metavar="C1 C2", help="Two consecutive codes of the device.")
@pass_session
def resync(
    session: Session, user: str, serial_number: str, *, codes: tuple[str, str] | None
) -> None:
    """Bring a device back into step by two consecutive codes."""
    if session.is_own:
        given = codes or ("", "")
        petition = Petition(Operation.RESYNC, user, serial_number)
        session.petition(petition._replace(first_code=given[0], second_code=given[1]))
        return
    lifecycle = session.lifecycle
    first, second = codes or _ask_codes()
    status = lifecycle.resync(user, serial_number, first, second)
    click.echo(f"Resynchronized {serial_number} of {user}; drift {status.drift} time steps.")


@enable.command()
@click.argument("user")
def sms(user: str) -> None:
    """Say why SMS is not a device type."""
    del user
    raise refuse_sms()


@click.command(name="list")
@click.argument("user", required=False)
@json_option
@pass_session
def list_devices(session: Session, user: str | None, *, as_json: bool) -> None:
    """List the MFA devices of a user, or of every enrolled user."""
    if session.is_own:
        user = user or session.own_name
        rows = session.petition(Petition(Operation.LIST, user))
    else:
        lifecycle = session.lifecycle
        rows = [
            list_row(owner, device)
            for owner in ([user] if user else lifecycle.users())
            for device in lifecycle.list_devices(owner)
        ]
    nobody = f"{user} has no MFA device." if user else "No user has an MFA device."
    show(rows, as_json=as_json, empty=nobody)


@click.command()
@click.argument("user")
@click.argument("serial_number", required=False)
@click.option("--all", "every", is_flag=True, help="Every device, for whoever has lost them.")
@click.option("--leave-none", is_flag=True, help="Even if the user is left without a device.")
@pass_session
def deactivate(
    session: Session, user: str, serial_number: str | None, *, every: bool, leave_none: bool
) -> None:
    """Take an MFA device from its user; a token goes back to the stock."""
    if bool(serial_number) == every:
        raise click.UsageError("name one SERIAL_NUMBER, or say --all")
    if session.is_own:
        if not serial_number or leave_none:
            raise RefusedError(
                "your last device can be deactivated by an administrator only",
                hint=f"Deactivate the others one by one: pam-mfa deactivate {user} SERIAL_NUMBER",
            )
        session.petition(Petition(Operation.DEACTIVATE, user, serial_number))
        return
    lifecycle = session.lifecycle
    gone = (
        (lifecycle.deactivate(user, serial_number, leave_none=leave_none),)
        if serial_number
        else lifecycle.deactivate_all(user, leave_none=leave_none)
    )
    for device in gone:
        click.echo(f"Deactivated {device.serial_number} of {user}.")
    if not lifecycle.list_devices(user):
        click.echo(f"{user} has no MFA device now; policy decides whether they can log in.")


def _enable(lifecycle: Lifecycle, pending: PendingDevice, codes: tuple[str, str] | None) -> None:
    if codes is None and not sys.stdin.isatty():
        raise click.UsageError("--codes C1 C2 is needed where standard input is not a terminal")
    for left in reversed(range(1 if codes else _TRIES)):
        first, second = codes or _ask_codes()
        try:
            device = lifecycle.enable(pending, first, second)
        except RefusedError as error:
            if not left:
                raise
            click.echo(f"{error}.\n{error.hint}\n", err=True)
            continue
        click.echo(f"Enabled {device.serial_number} for {pending.user}.")
        return


def _ask_codes() -> tuple[str, str]:
    first = click.prompt("First code")
    return first, click.prompt("Second code, the one that the device shows next")


def _show_secret(pending: PendingDevice) -> None:
    uri = pending.uri(issuer=os.uname().nodename)
    click.echo("Scan this with an authenticator application:\n")
    # Painted on a terminal, so that it is dark on light whatever the terminal's colors are.
    lines = draw_lines(uri, is_painted=sys.stdout.isatty() and os.environ.get("TERM") != "dumb")
    click.echo("\n".join([*lines, ""]))
    key = oath.encode_seed(pending.seed)
    grouped = " ".join(key[at : at + 4] for at in range(0, len(key), 4))
    parameters = pending.parameters
    click.echo(f"Or type this secret key: {grouped}")
    click.echo(
        f"(time based, {parameters.algorithm}, {parameters.digits} digits, "
        f"{parameters.period} seconds)\n"
    )
