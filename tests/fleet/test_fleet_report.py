# SPDX-License-Identifier: Apache-2.0
"""Everybody of a fleet, from any administrator's host: reported, shown, unlocked, deactivated."""

import json
import sys
from collections.abc import Callable

import pytest
from database import Database
from hosts import Hosts
from moved_hosts import KeptStore

from pam_mfa import lifecycle
from pam_mfa.cli.__main__ import main
from pam_mfa.store.layout import Layout
from pam_mfa.store.postgresql.links import Link, Question, Row

pytest_plugins = ["fleet_fixtures"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def desk(hosts: Hosts) -> Layout:
    """An administrator's host, of a fleet that another one's administrator has filled."""
    KeptStore(hosts.administration()).fill()
    return hosts.make()


@pytest.fixture
def run(desk: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``pam-mfa`` on the administrator's host."""
    monkeypatch.setattr(lifecycle, "drop_privileges", lambda: None)
    monkeypatch.setattr(lifecycle, "require_root", lambda: None)

    def run_one(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pam-mfa", "--root", str(desk.root), *arguments])
        status: object = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return run_one


def test_report(run: Run) -> None:
    """The report has everybody who has devices, and says nothing of accounts."""
    status, out, err = run("report", "--fleet", "--format", "json")
    rows = {row["user"]: row for row in json.loads(out)}
    assert (status, err, sorted(rows)) == (0, "", ["alice", "bob", "c/../d"])
    assert (rows["alice"]["account"], rows["alice"]["mfa_active"]) == ("no_information", True)
    assert (rows["alice"]["recovery_codes_left"], rows["bob"]["device_2_type"]) == (9, "token")


def test_few_questions(run: Run, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many users there are, the database is asked as often."""
    asked: list[str] = []
    ask = Link.ask

    def count(self: Link, *questions: Question) -> list[list[Row]]:
        asked.extend(one.query for one in questions if "device_document" in one.query
                     or "used_step" in one.query or "lock_state" in one.query)  # fmt: skip
        return ask(self, *questions)

    monkeypatch.setattr(Link, "ask", count)
    run("report", "--fleet")
    first, asked[:] = len(asked), []
    store = KeptStore(hosts.administration())
    for number in range(20):
        store.enable(f"user{number}")
    asked.clear()
    status, out, _ = run("report", "--fleet")
    assert (status, out.count("\n"), len(asked)) == (0, 24, first)
    assert first == 3


def test_row_of_somebody_else(run: Run, database: Database) -> None:
    """A row that this fleet has not written is told in its place, and ends nothing."""
    database.execute(
        "UPDATE pam_mfa.device_document SET document = replace(document, 'phone', 'other') "
        "WHERE user_key = 'bob'"
    )
    status, out, _ = run("report", "--fleet", "--json")
    rows = {row["user"]: row for row in json.loads(out)}
    assert (status, sorted(rows)) == (0, ["alice", "bob", "c/../d"])
    assert "were not written by this fleet" in rows["bob"]["problem"]
    assert rows["bob"]["mfa_active"] == "no_information"


def test_status_unlock_deactivate(run: Run, hosts: Hosts) -> None:
    """What one administrator's host changes, all hosts have."""
    status, out, _ = run("status", "bob", "--json")
    assert (status, json.loads(out)[0]["standing"]) == (0, "enrolled")
    assert run("unlock", "bob")[:2] == (0, "Unlocked bob.\n")
    assert run("deactivate", "alice", "virtual/alice/phone", "--leave-none")[0] == 0
    other = KeptStore(hosts.administration())
    assert other.store.read_locks(["bob"]) == {}
    assert [one.type for one in other.life.list_devices("alice")] == ["recovery"]


def test_wrong_usage(run: Run) -> None:
    """Whom policy would refuse is asked of one host's log."""
    assert run("report", "--fleet", "--would-refuse")[0] == 2
