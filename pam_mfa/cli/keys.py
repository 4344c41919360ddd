# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa enable fido`` and ``pam-mfa keys``."""

from threading import Event

import click

from pam_mfa.cli.session import Session, json_option, pass_session, show
from pam_mfa.cli.terminal import drive
from pam_mfa.devices import FidoDevice
from pam_mfa.hardware.keys import Credential
from pam_mfa.key_enrolling import enable_key
from pam_mfa.lifecycle import KeyWish
from pam_mfa.listing import key_row
from pam_mfa.policy import Policy
from pam_mfa.self_service.protocol import Operation, Petition
from pam_mfa.store.policies import read_policy

_NONE = "No security key is attached to this machine."


@click.command()
@click.argument("user")
@click.option("--name", help="The device's name; default: what the key calls itself.")
@click.option(
    "--discoverable",
    is_flag=True,
    help="Have the key keep the credential, so that it can list it; pam-mfa needs no such thing.",
)
@click.option(
    "--require-verification",
    is_flag=True,
    help="Ask for the key's PIN or fingerprint at each login, whatever policy says.",
)
@pass_session
def fido(
    session: Session,
    user: str,
    *,
    name: str | None,
    discoverable: bool,
    require_verification: bool,
) -> None:
    """Enable a FIDO security key that is attached to this machine: it is touched twice.

    Of several keys the one that is touched first is taken. Its PIN is asked for where policy or the
    key wants it.
    """
    wish = KeyWish(name or "", discoverable, require_verification)
    if session.is_own:
        session.petition(_petition(user, wish))
        return
    # Loaded here: fido2 and pyudev are for this command only.
    from pam_mfa.hardware.attached_keys import AttachedKeys  # noqa: PLC0415
    from pam_mfa.hardware.registration import AttachedKeyRegistrar  # noqa: PLC0415

    lifecycle = session.lifecycle
    session.note_unknown(user)
    layout = session.layout
    policy = read_policy(layout.policy) if layout.policy.exists() else Policy()
    pending = lifecycle.begin_fido(user, policy.fido, wish)
    device = drive(enable_key(lifecycle, pending, AttachedKeyRegistrar(), AttachedKeys()))
    click.echo(f"Enabled {device.serial_number} for {user}.")


def _petition(user: str, wish: KeyWish) -> Petition:
    words = (("discoverable", wish.is_discoverable), ("verification", wish.must_verify_user))
    wishes = " ".join(word for word, is_wished in words if is_wished)
    return Petition(Operation.ENABLE_FIDO, user, name=wish.name, wishes=wishes)


@click.command()
@json_option
@pass_session
def keys(session: Session, *, as_json: bool) -> None:
    """List the security keys that are attached to this machine, and whose they are.

    Without a touch. Root sees which users have which key; others see what they may open.
    """
    from pam_mfa.hardware.registration import AttachedKeyRegistrar  # noqa: PLC0415 - only here

    owners: dict[Credential, tuple[tuple[str, FidoDevice], ...]] = {}
    if not session.is_own:
        owners = dict(session.lifecycle.enrolled_keys())
    reports = AttachedKeyRegistrar().examine(tuple(owners), Event())
    rows = [key_row(report, owners) for report in reports]
    show(rows, as_json=as_json, empty=_NONE)
