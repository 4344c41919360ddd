# SPDX-License-Identifier: Apache-2.0
"""What is remembered for MFA age, forged by others than the host that it is for."""

import pytest
from database import Database
from hosts import Hosts
from store_behaviour import NOW, decide, known_of, remember

from pam_mfa.store.seal import load_sealer
from pam_mfa.store.signing import load_signing_key

pytest_plugins = ["fleet_fixtures"]

_COLUMNS = """host, type, serial_number, device_hash, service, tty, login, parent, session, boot,
    source"""


@pytest.mark.parametrize(
    ("user_key", "at", "words"),
    [
        ("'bob'", "at", ""),
        ("user_key", "at + 1", ""),
        ("user_key", "at", "source = '4:1'"),
        ("user_key", "at", "session = 'audit:99'"),
        ("user_key", "at", "type = 'fido'"),
        ("user_key", "at", "device_hash = split_part(device_hash, '.', 1)"),
    ],
)
def test_forged_by_the_owner(
    hosts: Hosts, database: Database, user_key: str, at: str, words: str
) -> None:
    """A verification that the database's owner makes or changes counts for nobody."""
    store = hosts.serving()
    store.commit([decide(remember(NOW))])
    assert len(known_of(store).remembered) == 1
    if words:
        database.execute(f"UPDATE pam_mfa.mfa_session SET {words}")  # noqa: S608
    else:
        database.execute(
            f"INSERT INTO pam_mfa.mfa_session(fleet, user_key, at, {_COLUMNS}) "  # noqa: S608
            f"SELECT fleet, {user_key}, {at}, {_COLUMNS} FROM pam_mfa.mfa_session"
        )
    known = (*known_of(store).remembered, *known_of(store, "bob").remembered)
    assert len(known) == (0 if words else 1)


def test_forged_by_another_host(hosts: Hosts) -> None:
    """A host that has the fleet's key makes no verification that counts at another host."""
    hosts.found()
    layouts = [hosts.make(), hosts.make()]
    for layout in layouts:
        load_signing_key(layout, load_sealer(layout))
    victim, broken_into = map(hosts.serving_on, layouts)
    broken_into.commit([decide(remember(NOW))])  # under the same host's name
    own, stolen = known_of(broken_into).remembered, known_of(victim).remembered
    assert (len(own), stolen) == (1, ())
