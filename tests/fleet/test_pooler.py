# SPDX-License-Identifier: Apache-2.0
"""PgBouncer in transaction mode in front: each transaction may have another server connection."""

from collections.abc import Iterator

import pytest
from database import Database
from hosts import Hosts
from pooler import running_pooler
from store_behaviour import at_once, device_of, give, known_of, take_step

from pam_mfa.lockout import LockState
from pam_mfa.store import Change, Claim, Standing

pytest_plugins = ["fleet_fixtures"]


@pytest.fixture
def pooler(database: Database) -> Iterator[int]:
    """Start PgBouncer with two connections for each role, and return its port."""
    with running_pooler(database, 2) as port:
        yield port


def test_store_behind_a_pooler(hosts: Hosts, database: Database, pooler: int) -> None:
    """Devices, steps, locks and changes are what they are without a pooler."""
    policy = database.policy(port=pooler)
    desk = hosts.administration_on(hosts.make(policy=policy))
    give(desk, device_of(desk))
    stores = [hosts.serving_on(hosts.make(policy=policy)) for _ in range(6)]
    assert {Standing.ENROLLED} == {one.read_enrollment("alice").standing for one in stores}
    for step in range(4):
        taken = at_once(
            len(stores),
            lambda n, step=step: stores[n].commit([take_step(step)])[0].accepted,  # type: ignore[misc]
        )
        assert sum(taken) == 1
    lock = LockState((1.5,), 2.5)
    stores[0].commit([Claim("bob", (), lambda _: Change(accepted=False, events=(), lock=lock))])
    assert [lock] * 6 == [known_of(one, "bob").lock for one in stores]


def test_writers_behind_a_pooler(hosts: Hosts, database: Database, pooler: int) -> None:
    """The lock of devices is held by the transaction: nobody's change is lost, none stays held."""
    policy = database.policy(port=pooler)
    desks = [hosts.administration_on(hosts.make(policy=policy)) for _ in range(3)]
    for desk in desks:
        desk.read_locks([])

    def add(number: int) -> bool:
        desk = desks[number]
        with desk.documents.lock():
            devices = desk.documents.read("alice")
            desk.documents.write("alice", (*devices, device_of(desk, name=f"phone-{number}")))
        return True

    at_once(len(desks), add)
    assert len(desks) == len(desks[0].documents.read("alice"))
