# SPDX-License-Identifier: Apache-2.0
"""The store of a fleet does what any store must; each verifier is on a host of its own."""

import pytest
from hosts import Hosts
from store_behaviour import StoreBehaviour

pytest_plugins = ["fleet_fixtures"]


class TestFleet(StoreBehaviour):
    """All that any store must do, by PostgreSQL."""

    @pytest.fixture
    def fleet(self, hosts: Hosts) -> Hosts:
        """Hosts that nobody has used."""
        return hosts
