# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the fleet layer: one database for the run, empty for every test."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from database import Database, running_database
from hosts import Hosts


@pytest.fixture(scope="session")
def server() -> Iterator[Database]:
    """Start the database once."""
    with running_database() as database:
        database.fill()
        yield database


@pytest.fixture
def database(server: Database) -> Database:
    """Return the database with nothing in it."""
    server.empty()
    return server


@pytest.fixture
def hosts(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """Give what makes hosts of the fleet."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with contextlib.ExitStack() as stack:
        yield Hosts(database, tmp_path, stack)
