# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa policy check``."""

from pathlib import Path

import click

from pam_mfa.cli.session import Session, pass_session
from pam_mfa.store.policies import read_policy


@click.group()
def policy() -> None:
    """The policy file."""


@policy.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@pass_session
def check(session: Session, file: Path | None) -> None:
    """Check the policy in force, or a FILE before it is put in its place."""
    path = file or session.layout.policy
    found = read_policy(path)
    click.echo(
        f"{path} is sound: mode {found.mode}, users without a device: {found.unenrolled}, "
        f"{found.lockout.failures} wrong codes lock for {found.lockout.lock_for:.0f} s."
    )
