# SPDX-License-Identifier: Apache-2.0
"""The seal keys of a fleet rotated, host by host: every host opens all the time."""

import time

from database import Database
from hosts import Hosts
from store_behaviour import SEED, device_of, give

from pam_mfa.lifecycle import Actor
from pam_mfa.oath import Parameters
from pam_mfa.seal_rotation import SealRotation
from pam_mfa.secret import Secret
from pam_mfa.store import AdministratorsStore, ServingStore
from pam_mfa.store.key_ring import format_ring, parse_ring
from pam_mfa.store.layout import Layout
from pam_mfa.token_stock import TokenStock
from pam_mfa.tokens import Delivery, Token

pytest_plugins = ["fleet_fixtures"]
ACTOR = Actor(0, 1, None)


def rotation_on(store: AdministratorsStore, layout: Layout) -> SealRotation:
    """Return what may be done to a host's keys."""
    return SealRotation(store, layout, time.time, ACTOR)


def opens(store: ServingStore) -> bool:
    """Whether Alice's phone opens on a host."""
    return [one.seed for one in store.read_enrollment("alice").devices] == [SEED]


def test_host_by_host(hosts: Hosts, database: Database) -> None:
    """Staged everywhere, used everywhere, finished everywhere; no host ever lacks a key."""
    policy = database.policy().partition("  administrator:")[0]
    desk_layout, host_layout = hosts.make(), hosts.make(policy=policy)
    desk = hosts.administration_on(desk_layout)
    give(desk, device_of(desk))
    token = Token("A-1", "Acme", Parameters(), 0, Secret(b"a token's own seed.."), 2)
    TokenStock(desk, time.time, ACTOR).take_in(Delivery("f", (token,), ()), "f")
    serving = hosts.serving_on(host_layout)
    at_desk = rotation_on(desk, desk_layout)
    at_host = rotation_on(hosts.administration_on(host_layout), host_layout)
    assert opens(serving)
    ring = parse_ring(format_ring(at_desk.stage()), "r")
    assert at_host.stage(ring).staged == ring.staged
    assert at_desk.use().sealed_anew == 2
    assert opens(serving)
    assert at_host.use().ring.used == ring.staged[0]
    assert opens(serving)
    for rotation in (at_host, at_desk):
        assert len(rotation.finish().keys) == 1
        assert opens(serving)
    assert at_desk.ring == at_host.ring


def test_host_that_lacks_the_key(hosts: Hosts) -> None:
    """A host that was left out says which key it needs and how to get it."""
    desk_layout, host_layout = hosts.make(), hosts.make()
    desk = hosts.administration_on(desk_layout)
    give(desk, device_of(desk))
    serving = hosts.serving_on(host_layout)
    assert opens(serving)
    rotated = rotation_on(desk, desk_layout).rotate()
    problem = serving.read_enrollment("alice").problem
    assert f"sealed by the key {rotated.ring.used}, which is not in this host's ring" in problem
