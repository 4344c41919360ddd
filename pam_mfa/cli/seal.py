# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa seal status``, ``seal rotate`` and ``seal export``: the keys that seal the seeds."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

from pam_mfa.cli.session import Session, json_option, pass_session, show
from pam_mfa.cli.terminal import show_progress
from pam_mfa.errors import RefusedError
from pam_mfa.lifecycle import require_root
from pam_mfa.seal_rotation import Progress, Rotated
from pam_mfa.store.files import read_file
from pam_mfa.store.key_ring import RING_BYTES_MAX, KeyRing, format_ring, parse_ring
from pam_mfa.store.resealing import Census
from pam_mfa.store.seal import find_ring


@click.group()
def seal() -> None:
    """The keys that seal the seeds of devices."""


@seal.command()
@json_option
@pass_session
def status(session: Session, *, as_json: bool) -> None:
    """Show the seal keys by name, and how much is sealed by each."""
    rotation = session.seal_rotation
    ring, census = rotation.ring, rotation.take_census()
    show(_rows(ring, census), as_json=as_json, empty="")
    if as_json:
        return
    click.echo(f"The keys are in {find_ring(session.layout).path}.")
    for problem in census.unread:
        click.echo(f"Note: {problem}", err=True)
    if ring.staged:
        click.echo("A staged key opens and does not seal. When every host has it: "
                   "pam-mfa seal rotate --use")  # fmt: skip
    elif ring.old:
        click.echo("An old key is to be retired: pam-mfa seal rotate --finish")


@seal.command()
@click.option("--stage", "step", flag_value="stage", help="Only add a new key, that does not seal.")
@click.option(
    "--from", "source", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="With --stage: add the keys of another host's ring, of its seal export; - for stdin.",
)  # fmt: skip
@click.option("--unstage", "step", flag_value="unstage", help="Take the staged keys back.")
@click.option("--use", "step", flag_value="use", help="Seal by the newest key, everything anew.")
@click.option("--finish", "step", flag_value="finish", help="Retire the old keys.")
@click.option(
    "--print", "is_printed", is_flag=True,
    help="Change nothing; print the ring as the step would leave it, for a systemd credential.",
)  # fmt: skip
@pass_session
def rotate(session: Session, step: str | None, source: Path | None, *, is_printed: bool) -> None:
    """Replace the key that seals the seeds, while logins go on.

    On one host, all of it. It can be run again: killed, it goes on where it stopped.

    Where several hosts share devices, step by step: --stage on one, its seal export to
    --stage --from on the others; --use on each; --finish on each.
    """
    require_root()
    if (source is not None and step != "stage") or (is_printed and (not step or source)):
        raise click.UsageError("say --stage --from FILE, or one step with --print")
    other = _read_ring(source) if source else None
    rotation = session.seal_rotation
    if is_printed and step:
        _print_ring(rotation.foretell(step))
    elif step == "stage":
        ring = rotation.stage(other)
        click.echo(f"The keys are {', '.join(ring.names)}; {ring.used} seals.")
    elif step == "unstage":
        click.echo(f"The keys are {', '.join(rotation.unstage().names)}.")
    elif step == "finish":
        _tell_retired(rotation.ring.old, rotation.finish(), session)
    else:
        carry_out = rotation.use if step == "use" else rotation.rotate
        _tell(_run(carry_out, rotation.size()), session)


@seal.command()
@pass_session
def export(session: Session) -> None:
    """Print the ring of keys, for another host's seal rotate --stage --from, or for a backup.

    Whoever has what it prints can open every seed: into a pipe, never into a file that others read.
    """
    require_root()
    _print_ring(format_ring(session.seal_rotation.ring))


def _run(carry_out: Callable[[Progress], Rotated], size: int) -> Rotated:
    with show_progress("Sealing anew", size) as progress:
        return carry_out(progress)


def _tell(rotated: Rotated, session: Session) -> None:
    click.echo(f"{rotated.ring.used} seals; {rotated.sealed_anew} secrets were sealed anew.")
    if rotated.retired:
        _tell_retired(rotated.retired, rotated.ring, session)
    elif rotated.ring.old:
        click.echo("The old key stays until: pam-mfa seal rotate --finish")


def _tell_retired(names: tuple[str, ...], ring: KeyRing, session: Session) -> None:
    if not names:
        click.echo(f"There is no old key; {ring.used} seals.")
        return
    click.echo(
        f"The key {', '.join(names)} is destroyed: it is no longer in {session.layout.seal_key}. "
        "Back /var/lib/pam_mfa up again; an older backup opens with its own seal.key only."
    )


def _read_ring(source: Path) -> KeyRing:
    """Read another host's ring, as root, before rights are dropped."""
    if str(source) == "-":
        if sys.stdin.isatty():
            raise RefusedError("a ring of keys is not typed", hint="Pipe it in from seal export.")
        return parse_ring(sys.stdin.buffer.read(RING_BYTES_MAX + 1), "standard input")
    try:
        data = read_file(source, owners={0}, forbidden=0o077, size_max=RING_BYTES_MAX)
    except FileNotFoundError as error:
        raise RefusedError(f"there is no file {source}") from error
    return parse_ring(data, str(source))


def _print_ring(data: bytes) -> None:
    if sys.stdout.isatty():
        raise RefusedError(
            "the keys are not shown on a terminal", hint="Send them through a pipe, as to ssh."
        )
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _rows(ring: KeyRing, census: Census) -> list[dict[str, object]]:
    names = [*ring.names, *sorted(set(census.counts) - set(ring.names))]
    rows: list[dict[str, object]] = []
    for name in names:
        counts = census.counts.get(name, Counter())
        holders = [one.words for one in census.holders.get(name, [])]
        is_lost = name not in ring.names
        rows.append(
            {
                "key": name or "none",
                "standing": _standing(ring, name),
                "devices": counts["devices"],
                "tokens": counts["tokens"],
                "others": counts["keys"],
                "holders": ", ".join(holders) if is_lost else "",
            }
        )
    return rows


def _standing(ring: KeyRing, name: str) -> str:
    if name == ring.used:
        return "seals"
    if name in ring.staged:
        return "staged"
    return "old" if name in ring.old else "not in the ring"
