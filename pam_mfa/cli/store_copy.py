# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa store copy``: all that one store keeps, copied into another."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click

from pam_mfa.actor import Actor, current_actor
from pam_mfa.cli.session import Session, json_option, pass_session
from pam_mfa.cli.terminal import show_progress
from pam_mfa.errors import RefusedError
from pam_mfa.lifecycle import require_root
from pam_mfa.moving import Move, Side, Stage, Summary
from pam_mfa.policy import Engine, StoreRules
from pam_mfa.store import AdministratorsStore, Change, Claim
from pam_mfa.store.layout import Layout, drop_privileges, make_directories, make_own_directories
from pam_mfa.store.opening import open_engine
from pam_mfa.store.policies import read_store_rules
from pam_mfa.store.retiring import collect, is_retired, retire, return_to_service
from pam_mfa.store.rows import rows_of

_ENGINES = click.Choice([one.value for one in Engine])
_STILL = (
    "This host's own store is still in service, and what is used there from now on the other one "
    "does not know. When logins are to move: the same command with --close, then the policy."
)
_CLOSED = (
    "This host's own store is out of service: logins are refused until the policy has "
    "store: engine: postgresql. Its devices are kept in {library}/devices.moved-*."
)
_BACK = "This host's own store has it all now. Logins ask it once the policy names no other store."


class _Ends(NamedTuple):
    """Both stores, and what closes the source in the end."""

    source: Side
    target: Side
    close: Callable[[], None] | None


@click.command("copy")
@click.option("--from", "source", type=_ENGINES, required=True, help="The store to copy.")
@click.option("--to", "target", type=_ENGINES, required=True, help="The store to copy it into.")
@click.option(
    "--policy", "policy", metavar="FILE", type=click.Path(path_type=Path),
    help="Take the database from this policy, which need not be in force yet.",
)  # fmt: skip
@click.option(
    "--close", "is_closing", is_flag=True,
    help="In the end take this host's own store out of service; goes with --from embedded.",
)  # fmt: skip
@json_option
@pass_session
def copy(  # noqa: PLR0913 - options
    session: Session,
    *,
    source: str,
    target: str,
    policy: Path | None,
    is_closing: bool,
    as_json: bool,
) -> None:
    """Copy devices, used codes, locks, tokens and sessions; nobody enrolls again.

    It may be run again, after a kill too: what is there already is not copied. Users whose devices
    differ in both stores are named, and then nothing is copied.
    """
    if source == target:
        raise click.UsageError("--from and --to are the same store.")
    if is_closing and source != Engine.EMBEDDED:
        raise click.UsageError(
            "--close goes with --from embedded: a fleet's store is others', too."
        )
    require_root()
    layout, actor = session.layout, current_actor()
    rules = read_store_rules(policy or layout.policy)
    if rules.engine is Engine.EMBEDDED:
        raise RefusedError(
            f"{policy or layout.policy} names no database",
            hint="Write a policy with store: engine: postgresql into a file of its own, and give "
            "it with --policy.",
        )
    make_directories(layout)
    drop_privileges()
    make_own_directories(layout)
    if source == Engine.EMBEDDED:
        with _leaving(layout, rules, is_closing=is_closing) as ends:
            summary = _move(ends, actor)
        last = _CLOSED.format(library=layout.library) if is_closing else _STILL
    else:
        with _returning(layout, rules) as ends:
            summary = _move(ends, actor)
        if is_retired(layout):
            return_to_service(layout)
        last = _BACK
    _tell(summary, (source, target), last, as_json=as_json)


@contextlib.contextmanager
def _leaving(layout: Layout, rules: StoreRules, *, is_closing: bool) -> Iterator[_Ends]:
    """Open this host's own store and the fleet's."""
    with _open(layout, StoreRules()) as own, _open(layout, rules) as fleet:
        source = Side(Engine.EMBEDDED.value, own, is_retired(layout))
        close = (lambda: retire(layout, rules.engine.value)) if is_closing else None
        yield _Ends(source, Side(rules.engine.value, fleet), close)


@contextlib.contextmanager
def _returning(layout: Layout, rules: StoreRules) -> Iterator[_Ends]:
    """Open the fleet's store, and this host's own; where that was closed, it begins anew."""
    place, is_new = collect(layout) if is_retired(layout) else (layout, False)
    with _open(layout, rules) as fleet, _open(place, StoreRules()) as own:
        if is_new:
            nothing = Change(accepted=False, events=())
            forget = Claim(
                "", (), lambda _: nothing, lambda inventory: rows_of(inventory).drop_inventory()
            )
            own.commit([forget])
        yield _Ends(Side(rules.engine.value, fleet), Side(Engine.EMBEDDED.value, own), None)


@contextlib.contextmanager
def _open(layout: Layout, rules: StoreRules) -> Iterator[AdministratorsStore]:
    store = open_engine(layout, rules)
    store.follow_file(layout.policy)
    try:
        yield store
    finally:
        store.close()


def _move(ends: _Ends, actor: Actor) -> Summary:
    with contextlib.ExitStack() as shown:

        def watch(stage: Stage) -> Callable[[int], None]:
            shown.close()  # one bar at a time
            return shown.enter_context(show_progress(stage.name, stage.total))

        return Move(ends.source, ends.target, actor, watch).run(ends.close)


def _tell(summary: Summary, names: tuple[str, str], last: str, *, as_json: bool) -> None:
    if as_json:
        row = {"from": names[0], "to": names[1], "copied": summary.copied,
               "verified": summary.held, "sha256": summary.digest}  # fmt: skip
        click.echo(json.dumps(row, indent=2))
        return
    copied = [f"{count} {what}" for what, count in summary.copied.items() if count]
    click.echo(
        f"Copied from {names[0]} to {names[1]}: {', '.join(copied)}."
        if copied
        else f"Nothing to copy: {names[1]} has all that {names[0]} has."
    )
    held = ", ".join(f"{count} {what}" for what, count in summary.held.items())
    click.echo(f"Verified: {held}; SHA-256 {summary.digest} on both sides.")
    click.echo(last)
