# SPDX-License-Identifier: Apache-2.0
"""A database whose disk is full: logins are refused, and no code is lost or good twice by it.

What logins write has a disk of its own here, small and real.
"""

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from database import Database
from doubles import NONCE, make_request
from hosts import Hosts
from store_behaviour import device_of, give
from test_faults import current_code, used_step
from test_outage_records import failures, log_in_once

from pam_mfa.wire import Result, build_verdict

pytest_plugins = ["fleet_fixtures"]
TABLES = ("used_step", "lock_state")  # and their keys' indexes


class Disk:
    """A small disk of the database."""

    def __init__(self, path: Path) -> None:
        """Take where it is mounted."""
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave no room on it."""
        with self._filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(bytes(4096))

    def clear(self) -> None:
        """Make room again."""
        self._filler.unlink()


@pytest.fixture
def disk(database: Database) -> Iterator[Disk]:
    """Have what logins write be on a disk of its own."""
    path = database.folder / "small-disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", path], check=True, timeout=30)
    try:
        owner = pwd.getpwnam("postgres")
        os.chown(path, owner.pw_uid, owner.pw_gid)
        database.execute(f"CREATE TABLESPACE small LOCATION '{path}'")
        move(database, "small")
        yield Disk(path)
        database.empty()
        move(database, "pg_default")
        database.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=30)
        path.rmdir()


def move(database: Database, space: str) -> None:
    """Have the tables and their indexes in a tablespace."""
    query = """SELECT indexrelid::regclass::text FROM pg_index
        WHERE indrelid = %s::regclass"""
    for table in TABLES:
        database.execute(f"ALTER TABLE pam_mfa.{table} SET TABLESPACE {space}")
        for (index,) in database.execute(query, (f"pam_mfa.{table}",)):
            database.execute(f"ALTER INDEX {index} SET TABLESPACE {space}")


def test_full_disk_refuses_and_loses_nothing(hosts: Hosts, database: Database, disk: Disk) -> None:
    """Refused with the reason; with room again, the same code is good, and good once in all."""
    desk = hosts.administration()
    give(desk, device_of(desk))
    here, elsewhere = hosts.make(), hosts.make()
    request, code = make_request("alice"), current_code()
    disk.fill()
    for _ in range(2):
        assert build_verdict(NONCE, Result.UNAVAILABLE) == log_in_once(here, request, code)
    details = [one["detail"] for one in failures(here)]
    assert details == ["the database fleet at localhost: its disk is full"] * 2
    assert used_step(database) == []
    disk.clear()
    success = build_verdict(NONCE, Result.SUCCESS)
    assert success == log_in_once(here, request, code)
    assert success != log_in_once(here, request, code)
    assert success != log_in_once(elsewhere, request, code)


def test_used_code_stays_used_when_the_disk_fills(
    hosts: Hosts, database: Database, disk: Disk
) -> None:
    """A code that was taken while there was room is good at no host, full or with room again."""
    desk = hosts.administration()
    give(desk, device_of(desk))
    here, elsewhere = hosts.make(), hosts.make()
    request, code = make_request("alice"), current_code()
    success = build_verdict(NONCE, Result.SUCCESS)
    assert success == log_in_once(here, request, code)
    (step,) = used_step(database)
    disk.fill()
    assert success not in {log_in_once(host, request, code) for host in (here, elsewhere)}
    disk.clear()
    assert success not in {log_in_once(host, request, code) for host in (here, elsewhere)}
    assert used_step(database) == [step]
