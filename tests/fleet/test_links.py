# SPDX-License-Identifier: Apache-2.0
"""Connections that several threads share: each is one thread's at a time, and few are made."""

import sys

from database import Database
from hosts import Hosts
from store_behaviour import at_once

from pam_mfa.policy import parse_store
from pam_mfa.store.postgresql.links import Links, Question

pytest_plugins = ["fleet_fixtures"]
THREADS, ROUNDS = 8, 1500


def test_connection_is_one_threads(hosts: Hosts, database: Database) -> None:
    """No thread closes or uses what another one was lent, however often they change hands."""
    hosts.found()
    rules = parse_store(database.policy().encode(), "policy.yaml")._replace(connections=4)
    links = Links(rules, rules.account)
    lent: set[int] = set()
    seen: set[int] = set()

    def use(number: int) -> bool:
        for round_ in range(ROUNDS):
            with links.lend(30.0) as link:
                assert id(link) not in lent
                lent.add(id(link))
                seen.add(link.info.backend_pid)
                if round_ % 100 == 0:
                    assert link.ask(Question("SELECT %s", (number,))) == [[(number,)]]
                assert not link.closed
                lent.discard(id(link))
        return True

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns between any two steps
    try:
        assert all(at_once(THREADS, use))
    finally:
        sys.setswitchinterval(interval)
    links.drop_idle()
    assert len(seen) <= rules.connections
