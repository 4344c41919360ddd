# SPDX-License-Identifier: Apache-2.0
"""Records shipped to the fleet's database: each once, and no host can take them back."""

import sys
import time

import psycopg
import pytest
from audit_records import require_chain
from database import HOST_ROLE, OTHER_ROLE, Database
from hosts import Hosts
from moved_hosts import STEP, KeptStore

from pam_mfa.audit_shipping import FleetKind, HostReport, Measures, Shipper, check_fleet
from pam_mfa.audit_shipping.database import DatabaseArchive, DatabaseSink
from pam_mfa.audit_shipping.hosts import Claim
from pam_mfa.audit_shipping.position import Positions
from pam_mfa.cli import audit_fleet, audit_ship
from pam_mfa.cli.__main__ import main
from pam_mfa.errors import RefusedError
from pam_mfa.policy import parse_store
from pam_mfa.store.layout import Layout
from pam_mfa.store.postgresql.links import Links

pytest_plugins = ["fleet_fixtures"]


class Shipping:
    """Hosts that ship to the database, and who checks it."""

    def __init__(self, hosts: Hosts, database: Database) -> None:
        """Take what makes hosts, and the database."""
        self.hosts = hosts
        self.database = database
        self.told: list[str] = []

    def make(self) -> Layout:
        """Return a host that has records."""
        layout = self.hosts.make()
        self.use(layout, STEP)
        return layout

    def use(self, layout: Layout, step: int) -> None:
        """Have a host make records, as a process of its own."""
        store = self.hosts.administration_on(layout)
        kept = KeptStore(store)
        kept.enable(f"user{step}-{layout.root.name}")
        store.close()

    def links(self, role: str = HOST_ROLE, *, is_administrator: bool = False) -> Links:
        """Return connections as a role."""
        rules = parse_store(self.database.policy(role).encode(), "policy")
        return Links(rules, rules.administrator if is_administrator else rules.account)

    def ship(self, layout: Layout, name: str = "web1", machine: str = "0123") -> int:
        """Ship once, as a process of its own; return how many records that were."""
        sink = DatabaseSink(self.links(), Claim(name, machine, "", "2026-11-24T08:00:00.000000Z"))
        positions = Positions(layout.library / "shipped.json", "database")
        try:
            return Shipper(layout.audit_log, sink, positions, self.told.append).ship()
        finally:
            sink.close()

    def check(self) -> list[HostReport]:
        """Check the fleet."""
        archive = DatabaseArchive(self.links(is_administrator=True))
        try:
            return list(check_fleet(archive, Measures(time.time(), 3600.0)))
        finally:
            archive.close()

    def lines(self, host: str = "web1", chain: int = 1) -> list[bytes]:
        """Return the lines of a chain, as the owner sees them."""
        rows = self.database.execute(
            "SELECT line FROM pam_mfa.audit_record WHERE host = %s AND chain = %s ORDER BY id",
            (host, chain),
        )
        return [bytes(row[0]) + b"\n" for row in rows]


@pytest.fixture
def shipping(hosts: Hosts, database: Database) -> Shipping:
    """Hosts that ship."""
    return Shipping(hosts, database)


def test_each_record_once(shipping: Shipping) -> None:
    """The database has each host's log, line for line, and what follows after the next turn."""
    one, two = shipping.make(), shipping.make()
    shipping.ship(one)
    shipping.ship(two, "web2", "4567")
    assert shipping.ship(one) == 0
    shipping.use(one, STEP + 1)
    shipping.ship(one)
    logs = [layout.audit_log.read_bytes().splitlines(keepends=True) for layout in (one, two)]
    assert [shipping.lines(), shipping.lines("web2")] == logs
    require_chain(shipping.lines())
    assert [(each.host, each.findings) for each in shipping.check()] == [("web1", []), ("web2", [])]
    assert shipping.told == []


def test_sent_again(shipping: Shipping) -> None:
    """What comes twice, as after a kill between the commit and its answer, is there once."""
    layout = shipping.make()
    lines = layout.audit_log.read_bytes().splitlines(keepends=True)
    sink = DatabaseSink(shipping.links(), Claim("web1", "0123"))
    sink.put(1, lines[:2])
    sink.put(1, lines)
    sink.close()
    assert shipping.lines() == lines


ADD = "INSERT INTO pam_mfa.audit_record"
REFUSED = (
    "SELECT line FROM pam_mfa.audit_record",
    "UPDATE pam_mfa.audit_record SET line = ''",
    "DELETE FROM pam_mfa.audit_record",
    "TRUNCATE pam_mfa.audit_record",
    "UPDATE pam_mfa.audit_host SET claim = ''",
    "DELETE FROM pam_mfa.audit_host",
    "INSERT INTO pam_mfa.audit_alive(host, sign) VALUES ('web1', '')",
    f"{ADD}(host, chain, sequence, hash, line) VALUES ('other', 1, 1, '', '')",
    f"{ADD}(fleet, host, chain, sequence, hash, line) VALUES ('staging', 'web1', 1, 1, '', '')",
    "INSERT INTO pam_mfa.audit_host(host, role, claim) VALUES ('web9', 'stranger', '')",
)


@pytest.mark.parametrize("query", REFUSED)
def test_what_a_host_may_not_do(shipping: Shipping, query: str) -> None:
    """A host's role takes nothing back, adds to no other's chain, and reads nobody's records."""
    shipping.ship(shipping.make())
    before = shipping.lines()
    with psycopg.connect(shipping.database.owner, autocommit=True) as connection:
        connection.execute(f"SET SESSION AUTHORIZATION {HOST_ROLE}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(query.encode())
    assert shipping.lines() == before


def test_another_role_adds_to_no_chain(shipping: Shipping) -> None:
    """A host with a role of its own cannot go by another's name."""
    layout = shipping.make()
    shipping.ship(layout)
    with pytest.raises(RefusedError, match="another machine's or role's name"):
        DatabaseSink(shipping.links(is_administrator=True), Claim("web1", "0123"))
    (report,) = shipping.check()
    assert [one.kind for one in report.findings] == [FleetKind.SAME_NAME]


def test_two_machines_of_one_name(shipping: Shipping) -> None:
    """A second machine of the same name is refused, and found."""
    shipping.ship(shipping.make())
    with pytest.raises(RefusedError, match="'web1' is another machine's"):
        shipping.ship(shipping.make(), machine="4567")
    (report,) = shipping.check()
    assert [one.kind for one in report.findings] == [FleetKind.SAME_NAME]


def test_other_fleets(shipping: Shipping) -> None:
    """A host of another fleet sees no record, no head and no claim of this one."""
    shipping.ship(shipping.make())
    with psycopg.connect(shipping.database.owner, autocommit=True) as connection:
        connection.execute(f"SET SESSION AUTHORIZATION {OTHER_ROLE}".encode())
        found = connection.execute(b"SELECT * FROM pam_mfa.audit_heads('web1')").fetchall()
        assert found == []
        claims = connection.execute(b"SELECT pam_mfa.audit_claim('web1')").fetchall()
        assert claims == [(None,)]


TAMPERED = {
    "changed": "UPDATE pam_mfa.audit_record SET line = convert_to("
    "replace(convert_from(line, 'UTF8'), 'EnableMfaDevice', 'ResyncMfaDevice'), 'UTF8')",
    "removed": "DELETE FROM pam_mfa.audit_record WHERE sequence = 2",
    "cut off": "DELETE FROM pam_mfa.audit_record WHERE sequence = "
    "(SELECT max(sequence) FROM pam_mfa.audit_record)",
    "moved": "UPDATE pam_mfa.audit_record SET id = DEFAULT WHERE sequence = 1",
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_by_the_owner(shipping: Shipping, name: str) -> None:
    """What the database's owner changes, removes, moves or cuts off is found."""
    shipping.ship(shipping.make())
    shipping.database.execute(TAMPERED[name])
    (report,) = shipping.check()
    assert [one.kind for one in report.findings] == [FleetKind.NOT_INTACT]


def test_begun_anew(shipping: Shipping) -> None:
    """A log that was made anew is another chain beside the first."""
    layout = shipping.make()
    shipping.ship(layout)
    before = shipping.lines()
    layout.audit_log.unlink()
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (layout.library / name).unlink(missing_ok=True)
    shipping.use(layout, STEP + 3)
    shipping.ship(layout)
    assert (shipping.lines(), len(shipping.told)) == (before, 1)
    require_chain(shipping.lines(chain=2))
    (report,) = shipping.check()
    assert [one.kind for one in report.findings] == [FleetKind.BEGUN_ANEW]


def test_in_parts(shipping: Shipping, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long chain is read in parts, whose ends are no gaps."""
    from pam_mfa.audit_shipping import database  # noqa: PLC0415 - only what is patched

    monkeypatch.setattr(database, "_PART", 2)
    shipping.ship(shipping.make())
    (report,) = shipping.check()
    assert (report.findings, report.chains[0][1].records) == ([], len(shipping.lines()))


def test_commands(
    shipping: Shipping, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``audit ship --to database`` and ``verify --fleet database`` take it from the policy."""
    layout = shipping.make()
    for module in (audit_ship, audit_fleet):
        monkeypatch.setattr(module, "drop_privileges", lambda: None)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["pam-mfa", "--root", str(layout.root), *arguments])
        status: object = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        assert isinstance(status, int)
        return status

    assert run("audit", "ship", "--to", "database", "--name", "web1") == 0
    assert run("audit", "verify", "--fleet", "database") == 0
    out = capsys.readouterr().out
    assert f"web1: {len(shipping.lines())} records shipped; database has up to record" in out
    assert "web1: intact, " in out
    layout.policy.write_text("version: 1\n")
    assert run("audit", "ship", "--to", "database") == 1
    assert run("audit", "verify", "--fleet", "database") == 1
    assert capsys.readouterr().err.count("names no database") == 2
