# SPDX-License-Identifier: Apache-2.0
"""A host's own store moved into the fleet's database and back: all of it, once, verified."""

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from database import Database
from hosts import Hosts
from moved_hosts import ACTOR, STEP, KeptHost, KeptStore

from pam_mfa import lifecycle
from pam_mfa.cli import store, store_copy
from pam_mfa.cli.__main__ import main
from pam_mfa.errors import RefusedError
from pam_mfa.moving import Move, Side, Summary
from pam_mfa.store import Change, Claim, Inventory, Standing
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.retiring import collect, is_retired, retire, return_to_service
from pam_mfa.store.rows import rows_of

pytest_plugins = ["fleet_fixtures"]


def forget(inventory: Inventory) -> None:
    """Forget what another store has had in its care."""
    rows_of(inventory).drop_inventory()


class Pair:
    """A host with a store of its own, and the fleet that it is to join."""

    def __init__(self, hosts: Hosts) -> None:
        """Make both on one root; the fleet has the key of the host's store."""
        self.hosts = hosts
        self.layout = hosts.make()
        self.host = KeptHost(self.layout.root)
        self.host.fill()
        self.open()

    def open(self) -> None:
        """Open the fleet's store as another process would."""
        self.fleet = KeptStore(self.hosts.administration_on(self.layout))

    def move(self, *, close: bool = False) -> Summary:
        """Copy the host's store into the fleet's."""
        source = Side("embedded", self.host.store, is_retired(self.layout))
        ending = (lambda: retire(self.layout, "postgresql")) if close else None
        target = Side("postgresql", self.fleet.store)
        return Move(source, target, ACTOR, lambda _: lambda _: None).run(ending)

    def move_back(self) -> Summary:
        """Copy the fleet's store into the host's, which was closed."""
        layout, is_new = collect(self.layout)
        store = EmbeddedStore(layout)
        if is_new:
            store.commit([Claim("", (), lambda _: Change(accepted=False, events=()), forget)])
        sides = (Side("postgresql", self.fleet.store), Side("embedded", store))
        summary = Move(*sides, ACTOR, lambda _: lambda _: None).run()
        store.close()
        return_to_service(self.layout)
        self.host.open()
        return summary


@pytest.fixture
def pair(hosts: Hosts) -> Pair:
    """A host that everybody uses, and a fleet that nobody has used."""
    return Pair(hosts)


def test_there(pair: Pair) -> None:
    """All that a host has is in the database; a second run copies nothing."""
    first = pair.move()
    assert pair.host.everything() == pair.fleet.everything()
    assert first.held == first.copied
    second = pair.move()
    assert (second.is_idle, second.digest) == (True, first.digest)


def test_there_and_back(pair: Pair) -> None:
    """Back again the host has what the fleet had; a code that was used in either is used."""
    pair.host.use(STEP + 5)
    pair.move(close=True)
    assert pair.host.store.read_enrollment("alice").standing is Standing.UNREADABLE
    assert not pair.fleet.use(STEP + 5)
    assert pair.fleet.use(STEP + 6)
    pair.fleet.enable("dora")
    pair.fleet.life.deactivate_all("bob", leave_none=True)
    pair.move_back()
    there, here = pair.fleet.everything(), pair.host.everything()
    assert (there[0], there[3:]) == (here[0], here[3:])
    assert not pair.host.use(STEP + 6)
    assert pair.host.use(STEP + 7)


def test_two_hosts_with_one_user_each(pair: Pair, hosts: Hosts) -> None:
    """Another host's users come besides; a user of both is named, and nothing is copied."""
    pair.move()
    other = KeptHost(hosts.make().root)
    other.enable("eve")
    other.enable("alice")
    before = pair.fleet.everything()
    target = Side("postgresql", hosts.administration_on(other.layout))
    with pytest.raises(RefusedError, match="in embedded: alice; nothing was copied"):
        Move(Side("embedded", other.store), target, ACTOR, lambda _: lambda _: None).run()
    assert pair.fleet.everything() == before
    other.life.deactivate_all("alice", leave_none=True)
    Move(Side("embedded", other.store), target, ACTOR, lambda _: lambda _: None).run()
    assert pair.fleet.life.users() == ["alice", "bob", "c/../d", "eve"]


def run_killed(act: Callable[[], object], number: int) -> bool:
    """Do something in a process that is killed at the so-many-th message to the database."""
    from pam_mfa.store.postgresql.links import Link  # noqa: PLC0415 - patched in the child alone

    child = os.fork()
    if not child:
        try:
            counter, ask = itertools.count(1), Link.ask

            def kill(self: Link, *questions: object) -> object:
                if next(counter) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return ask(self, *questions)  # type: ignore[arg-type]

            Link.ask = kill  # type: ignore[method-assign, assignment]
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_killed_between_messages(hosts: Hosts, database: Database) -> None:
    """A move that is killed before any message to the database is run again, and ends."""
    kills = 0
    for number in itertools.count(2, 7):
        database.empty()
        pair = Pair(hosts)
        before = pair.host.everything()
        pair.host.store.close()

        def act(pair: Pair = pair) -> None:
            pair.host.open()
            pair.open()
            pair.move(close=True)

        was_killed = run_killed(act, number)
        pair.host.open()
        pair.open()
        pair.move(close=True)
        assert pair.fleet.everything() == before
        if not was_killed:
            break
        kills += 1
    assert kills >= 3


def run_main(layout: Layout, *arguments: str) -> int:
    """Run ``pam-mfa`` in this process; return its exit status."""
    sys.argv = ["pam-mfa", "--root", str(layout.root), *arguments]
    status: object = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code
    assert isinstance(status, int)
    return status


@pytest.fixture
def run(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs ``pam-mfa`` under the pair's root, as whoever runs the tests."""
    for module in (store_copy, store, lifecycle):
        monkeypatch.setattr(module, "drop_privileges", lambda: None)
        monkeypatch.setattr(module, "require_root", lambda: None)
    monkeypatch.setattr(sys, "argv", [])

    def run_one(*arguments: str) -> tuple[int, str, str]:
        return run_main(pair.layout, *arguments), *capsys.readouterr()

    return run_one


def test_command(pair: Pair, run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """It says what was copied and verified, and what is next; before policy is changed, too."""
    coming = tmp_path / "coming.yaml"
    pair.layout.policy.rename(coming)
    pair.layout.policy.write_text("version: 1\n")
    there = ("store", "copy", "--from", "embedded", "--to", "postgresql", "--policy", str(coming))
    status, out, err = run(*there)
    assert (status, err) == (0, "")
    assert "Copied from embedded to postgresql: 5 used codes, 1 locks, 2 tokens, 5 seeds, " in out
    assert "Verified: 3 users, " in out
    assert "is still in service" in out
    status, out, _ = run(*there, "--json")
    assert (status, set(json.loads(out)["copied"].values())) == (0, {0})
    assert "is out of service" in run(*there, "--close")[1]
    status, _, err = run("list")
    assert (status, "were moved to postgresql" in err) == (3, True)
    status, _, err = run("store", "status")
    assert (status, "were moved to postgresql" in err) == (3, True)
    coming.rename(pair.layout.policy)
    status, out, err = run("list", "alice")
    assert (status, "virtual/alice/phone" in out) == (0, True)
    assert run("unlock", "bob")[:2] == (0, "Unlocked bob.\n")
    status, out, _ = run("store", "copy", "--from", "postgresql", "--to", "embedded")
    assert (status, "own store has it all now" in out) == (0, True)
    pair.layout.policy.write_text("version: 1\n")
    assert "virtual/alice/phone" in run("list", "alice")[1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--from", "embedded", "--to", "embedded"), "the same store"),
        (("--from", "postgresql", "--to", "embedded", "--close"), "--close goes with"),
        (("--from", "sqlite", "--to", "embedded"), "--from"),
    ],
)
def test_wrong_usage(
    run: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], word: str
) -> None:
    """What does not go together is wrong usage."""
    status, _, err = run("store", "copy", *arguments)
    assert (status, word in err) == (2, True)


def test_policy_that_names_no_database(
    pair: Pair, run: Callable[..., tuple[int, str, str]]
) -> None:
    """Without an address there is nowhere to go."""
    pair.layout.policy.write_text("version: 1\n")
    status, _, err = run("store", "copy", "--from", "embedded", "--to", "postgresql")
    assert (status, "names no database" in err) == (1, True)
