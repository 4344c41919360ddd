# SPDX-License-Identifier: Apache-2.0
"""What a host is told wrongly, or a database holds wrongly: a clear sentence, and nobody in."""

from pathlib import Path

import psycopg
import pytest
from database import HOST_ROLE, OTHER_ROLE, PASSWORD, PASSWORD_ROLE, Authority, Database
from hosts import Hosts
from psycopg import errors
from store_behaviour import device_of, event_of, give, known_of, look, records, take_step

from pam_mfa.errors import BrokenSystemError, StateError
from pam_mfa.store import Change, Claim, Standing
from pam_mfa.store.opening import open_administrators_store, open_serving_store

pytest_plugins = ["fleet_fixtures"]


def by_password(database: Database, folder: Path, password: str) -> str:
    """Return a policy of a host whose role is known by a password."""
    path = folder / "passfile"
    path.write_text(f"*:*:*:*:{password}\n", "ascii")
    path.chmod(0o600)
    lines = database.policy(PASSWORD_ROLE).splitlines()
    tls = [line for line in lines if PASSWORD_ROLE not in line or "url:" in line]
    return "\n".join(tls).replace("  timeout:", f"  passfile: {path}\n  timeout:")


def connect(database: Database, role: str) -> "psycopg.Connection[tuple[object, ...]]":
    """Return a connection as a role, past all that this program does."""
    folder = database.folder
    return psycopg.connect(
        f"host=localhost port={database.port} dbname=fleet user={role} sslmode=verify-full "
        f"sslrootcert={folder}/ca.crt sslcert={folder}/{role}.crt sslkey={folder}/{role}.key",
        autocommit=True,
    )


def test_password(hosts: Hosts, database: Database, tmp_path: Path) -> None:
    """A host may be known by a password from a file; a wrong one is refused with a sentence."""
    hosts.found()
    good = hosts.serving_on(hosts.make(policy=by_password(database, tmp_path, PASSWORD)))
    assert good.commit([take_step(7)])[0].accepted
    bad = hosts.serving_on(hosts.make(policy=by_password(database, tmp_path, "wrong")))
    with pytest.raises(StateError, match="password authentication failed") as error:
        bad.commit([take_step(8)])
    assert "store: passfile" in error.value.hint


def test_expired_certificate(hosts: Hosts, database: Database) -> None:
    """A host whose certificate has expired is refused, and told to renew it."""
    hosts.found()
    database.authority.sign("late", HOST_ROLE, days=-1)
    policy = database.policy().replace(f"/{HOST_ROLE}.", "/late.")
    with pytest.raises(StateError, match="expired") as error:
        known_of(hosts.serving_on(hosts.make(policy=policy)))
    assert "Renew" in error.value.hint


def test_impostor(hosts: Hosts, database: Database, tmp_path: Path) -> None:
    """A database whose certificate somebody else has signed is told nothing."""
    hosts.found()
    Authority(tmp_path)
    policy = database.policy().replace(
        f"root_certificate: {database.folder}", f"root_certificate: {tmp_path}"
    )
    with pytest.raises(StateError, match="certificate verify failed"):
        known_of(hosts.serving_on(hosts.make(policy=policy)))


@pytest.mark.parametrize(("version", "word"), [(0, "older"), (99, "newer")])
def test_other_version(hosts: Hosts, database: Database, version: int, word: str) -> None:
    """A schema that is too old or too new is not touched, and what to do is said."""
    hosts.found()
    database.execute("UPDATE pam_mfa.schema_version SET version = %s", (version,))
    try:
        with pytest.raises(StateError, match=f"version {version}, {word}") as error:
            known_of(hosts.serving_on(hosts.make()))
    finally:
        database.execute("UPDATE pam_mfa.schema_version SET version = 1")
    assert error.value.hint


def test_role_of_no_fleet(hosts: Hosts, database: Database) -> None:
    """A role that nobody has let into a fleet is told so, or what it may not do."""
    hosts.found()
    with pytest.raises(StateError, match="the role stranger"):
        known_of(hosts.serving_on(hosts.make(policy=database.policy("stranger"))))


def test_other_key(hosts: Hosts) -> None:
    """A host with another key than its fleet's opens nothing and makes nothing."""
    hosts.found()
    with pytest.raises(BrokenSystemError, match="is not that of the fleet production"):
        known_of(hosts.serving_on(hosts.make(key=bytes(32))))


def test_no_key(hosts: Hosts) -> None:
    """A host without a key does not make one: it would not be the fleet's."""
    hosts.found()
    layout = hosts.make(key=b"")
    with pytest.raises(BrokenSystemError, match="there is no seal key"):
        known_of(hosts.serving_on(layout))
    assert not layout.seal_key.exists()


@pytest.mark.parametrize(
    "tampering",
    [
        "document = replace(document, 'virtual', 'virtuaI')",
        "version = version + 1",
        "mac = repeat('0', 64)",
        "mac = ''",
    ],
)
def test_tampered_row(hosts: Hosts, database: Database, tampering: str) -> None:
    """Devices that somebody without the fleet's key has changed are refused, and recorded."""
    desk = hosts.administration()
    give(desk, device_of(desk))
    give(desk, device_of(desk, "bob"), user="bob")
    change = f"UPDATE pam_mfa.device_document SET {tampering} WHERE user_key = 'alice'"  # noqa: S608
    database.execute(change)
    store = hosts.serving_on(hosts.make())
    found = store.read_enrollment("alice")
    assert (
        found.standing, found.all_devices(), "were not written by this fleet" in found.problem,
    ) == (Standing.UNREADABLE, (), True)  # fmt: skip
    assert Standing.ENROLLED is store.read_enrollment("bob").standing


def test_row_of_somebody_else(hosts: Hosts, database: Database) -> None:
    """Devices that were copied to another user's row are nobody's there."""
    desk = hosts.administration()
    give(desk, device_of(desk))
    database.execute(
        "INSERT INTO pam_mfa.device_document SELECT fleet, 'bob', version, document, mac "
        "FROM pam_mfa.device_document"
    )
    found = hosts.serving_on(hosts.make()).read_enrollment("bob")
    assert Standing.UNREADABLE is found.standing


def test_row_of_another_fleet(hosts: Hosts, database: Database) -> None:
    """Another fleet's rows are not seen; copied into it, they do not count."""
    desk = hosts.administration()
    give(desk, device_of(desk))
    with connect(database, OTHER_ROLE) as other:
        seen = other.execute("SELECT count(*) FROM pam_mfa.device_document").fetchone()
    database.execute("UPDATE pam_mfa.fleet SET key_check = 'x' WHERE fleet = 'staging'")
    database.execute(
        "INSERT INTO pam_mfa.device_document SELECT 'staging', user_key, version, document, mac "
        "FROM pam_mfa.device_document"
    )
    other_host = hosts.serving_on(hosts.make(policy=database.policy(OTHER_ROLE)))
    with pytest.raises(BrokenSystemError, match="is not that of the fleet staging"):
        other_host.read_enrollment("alice")
    assert seen == (0,)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM pam_mfa.device_document",
        "INSERT INTO pam_mfa.device_document VALUES ('production', 'eve', 1, '', '')",
        "UPDATE pam_mfa.device_document SET document = ''",
        "DELETE FROM pam_mfa.used_step",
        "DELETE FROM pam_mfa.lock_state",
        "SELECT * FROM pam_mfa.token",
        "INSERT INTO pam_mfa.fingerprint(seed, owner) VALUES ('f', 'x')",
        "SELECT * FROM pam_mfa.fleet_role",
        "UPDATE pam_mfa.fleet SET key_check = ''",
        "INSERT INTO pam_mfa.used_step(fleet, serial_number, step) VALUES ('staging', 'x', 1)",
        "UPDATE pam_mfa.used_step SET fleet = 'staging'",
        "SET ROLE pam_mfa_administrator",
        "ALTER TABLE pam_mfa.used_step DISABLE TRIGGER ALL",
    ],
)
def test_hosts_rights(hosts: Hosts, database: Database, query: str) -> None:
    """A host's role changes no devices, takes no step or lock away, and sees no other fleet."""
    hosts.serving().commit([take_step(7)])
    with connect(database, HOST_ROLE) as host, pytest.raises(psycopg.Error) as error:
        host.execute(query.encode())
    kinds = (errors.InsufficientPrivilege, errors.RaiseException)
    assert isinstance(error.value, kinds) or error.value.sqlstate == "P0M01"


@pytest.mark.parametrize("role", [HOST_ROLE, "owner"])
def test_step_does_not_go_back(hosts: Hosts, database: Database, role: str) -> None:
    """A used step cannot be moved back by a host, nor by mistake of the owner's."""
    hosts.serving().commit([take_step(7)])
    query = b"UPDATE pam_mfa.used_step SET step = 6"
    host = psycopg.connect(database.owner) if role == "owner" else connect(database, role)
    with host, pytest.raises(psycopg.Error, match="a used step cannot go back"):
        host.execute(query)


def test_host_changes_no_devices(hosts: Hosts, database: Database) -> None:
    """On a host without administrators, a change is refused with what to do, and not made."""
    hosts.found()
    policy = database.policy().partition("  administrator:")[0]
    desk = hosts.administration_on(hosts.make(policy=policy))
    with pytest.raises(BrokenSystemError, match=f"the role {HOST_ROLE} has no right") as error:
        give(desk, device_of(desk))
    assert "store: administrator" in error.value.hint
    assert database.execute("SELECT 1 FROM pam_mfa.device_document") == []


def test_change_and_record_are_one(hosts: Hosts, database: Database) -> None:
    """What fails under the documents' lock leaves nothing: no device, no seed, no record."""
    desk = hosts.administration()

    def change() -> None:
        with desk.documents.lock():
            desk.documents.write("alice", (device_of(desk),))
            look(desk, lambda inventory: inventory.add_fingerprint("f", "x"))
            told = Change(accepted=True, events=(event_of(),))
            desk.commit([Claim("alice", (), lambda _: told)])
            raise StateError("the process was told to stop")

    with pytest.raises(StateError, match="told to stop"):
        change()
    left = database.execute("SELECT 1 FROM pam_mfa.fingerprint")
    left += database.execute("SELECT 1 FROM pam_mfa.device_document")
    assert ([], "alice" in records(hosts)) == (left, True)  # a refusal is recorded all the same


@pytest.mark.parametrize("section", ["store: {engine: postgresq1}", "store: {engine: postgresql}"])
def test_no_other_store_takes_the_place(hosts: Hosts, section: str) -> None:
    """Where policy names a store that is none, the embedded one is not asked instead."""
    layout = hosts.make(policy=f"version: 1\n{section}\n")
    with pytest.raises(BrokenSystemError, match="store"):
        open_administrators_store(layout)
    assert not layout.state.exists()


def test_store_of_a_policy_that_changed(hosts: Hosts) -> None:
    """A verifier goes on with the store that the policy names now."""
    desk = hosts.administration()
    give(desk, device_of(desk))
    layout = hosts.make()
    layout.devices.mkdir(0o700)
    store = open_serving_store(layout)
    embedded = store.read_enrollment("alice").standing
    fleet = hosts.serving_on(layout).read_enrollment("alice").standing
    store.close()
    assert (embedded, fleet) == (Standing.NOT_ENROLLED, Standing.ENROLLED)
