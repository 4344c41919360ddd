# SPDX-License-Identifier: Apache-2.0
"""A database whose replica takes its place: no code is good twice, and no lock is lost."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from database import Database, free_port, running_database
from hosts import Hosts
from store_behaviour import device_of, give, known_of, take_step

from pam_mfa.errors import StateError
from pam_mfa.lockout import LockState
from pam_mfa.store import Change, Claim, Standing


@pytest.fixture
def pair() -> Iterator[tuple[Database, Database]]:
    """Give a database and its replica, which it waits for at each commit."""
    with running_database() as primary:
        primary.fill()
        replica = Database(primary.folder, primary.authority, free_port())
        replica.data = primary.folder / "replica"
        replica.follow(primary)
        try:
            yield primary, replica
        finally:
            replica.stop("immediate")


def test_replica_is_promoted(
    pair: tuple[Database, Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While there is only a replica nobody is in; once it is promoted, all is as it was before."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    primary, replica = pair
    lock = LockState((1.5,), 2.5)
    locked = Change(accepted=False, events=(), lock=lock)
    with contextlib.ExitStack() as stack:
        hosts = Hosts(primary, tmp_path, stack)
        desk = hosts.administration()
        give(desk, device_of(desk))
        servers = f"localhost:{primary.port},localhost:{replica.port}"
        policy = primary.policy().replace(f"localhost:{primary.port}", servers)
        store = hosts.serving_on(hosts.make(policy=policy))
        assert store.commit([take_step(7)])[0].accepted
        store.commit([Claim("bob", (), lambda _: locked)])
        primary.stop("immediate")
        with pytest.raises(StateError, match="the database fleet at localhost,localhost"):
            store.commit([take_step(8)])
        replica.promote()
        taken = [store.commit([take_step(step)])[0].accepted for step in (7, 8, 8)]
        assert taken == [False, True, False]
        assert (lock, Standing.ENROLLED) == (
            known_of(store, "bob").lock, store.read_enrollment("alice").standing,
        )  # fmt: skip
