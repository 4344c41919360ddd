# SPDX-License-Identifier: Apache-2.0
"""Bringing a database to this program's version, and letting roles into a fleet.

Done by the database's owner, who is nobody that a login is verified as. Each step of the schema is
one transaction under an advisory lock, so that two who migrate at once do it once.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import errors, sql

from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.store.postgresql.schema import (
    ADMINISTRATOR,
    GROUPS,
    HOST,
    LOCK,
    MIGRATIONS,
    VERSION,
)

_Connection = psycopg.Connection[tuple[Any, ...]]


class Admission(NamedTuple):
    """A role that is to be of a fleet."""

    role: str
    is_administrator: bool


def migrate(url: str) -> Iterator[int]:
    """Bring the database up to date, and go through the versions that were reached.

    Args:
        url: a libpq address, as the owner of the schema; its password comes from the environment.

    Raises:
        RefusedError: the database is of a newer version.
        BrokenSystemError: it cannot be changed; the versions told stand.
    """
    with _owner(url) as connection:
        while True:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
                version = find_version(connection)
                if version > VERSION:
                    raise RefusedError(
                        f"the database is of version {version}, and this program knows {VERSION}",
                        hint="Install the version of pam-mfa that migrated it, or a newer one.",
                    )
                if version == VERSION:
                    return
                connection.execute(GROUPS.encode())
                connection.execute(MIGRATIONS[version].encode())
            yield version + 1


def admit(url: str, fleet: str, admissions: list[Admission]) -> None:
    """Make a fleet where there is none of the name, and let roles into it.

    Raises:
        RefusedError: a role does not exist, or is of another fleet.
        BrokenSystemError: the database cannot be changed.
    """
    with _owner(url) as connection, connection.transaction():
        connection.execute(
            "INSERT INTO pam_mfa.fleet(fleet) VALUES (%s) ON CONFLICT DO NOTHING", (fleet,)
        )
        for one in admissions:
            _admit(connection, fleet, one)


def _admit(connection: _Connection, fleet: str, one: Admission) -> None:
    role = sql.Identifier(one.role)
    group = sql.Identifier(ADMINISTRATOR if one.is_administrator else HOST)
    found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (one.role,)).fetchone()
    if found is None:
        raise RefusedError(
            f"the database has no role {one.role}",
            hint=f"Make it: createuser {one.role}; then let it in by a certificate or password.",
        )
    connection.execute(sql.SQL("GRANT {} TO {}").format(group, role))
    # A used code that the database may lose is good again.
    connection.execute(sql.SQL("ALTER ROLE {} SET synchronous_commit = on").format(role))
    connection.execute(
        "INSERT INTO pam_mfa.fleet_role(role, fleet) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (one.role, fleet),
    )
    row = connection.execute(
        "SELECT fleet FROM pam_mfa.fleet_role WHERE role = %s", (one.role,)
    ).fetchone()
    if row is None or row[0] != fleet:
        raise RefusedError(
            f"the role {one.role} is of the fleet {row[0] if row else '?'} already",
            hint="A role is of one fleet: make another for this one.",
        )


def find_version(connection: _Connection) -> int:
    """Return the schema's version; 0 where there is none yet."""
    found = connection.execute("SELECT to_regclass('pam_mfa.schema_version')").fetchone()
    if found is None or found[0] is None:
        return 0
    row = connection.execute("SELECT version FROM pam_mfa.schema_version").fetchone()
    return int(row[0]) if row else 0


class _Owner:
    """The owner's connection; what fails is told in our words."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: _Connection | None = None

    def __enter__(self) -> _Connection:
        try:
            self._connection = psycopg.connect(
                self._url, autocommit=True, prepare_threshold=None, connect_timeout=10
            )
        except psycopg.Error as error:
            raise _translate(error) from error
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._connection is not None:
            self._connection.close()
        if isinstance(error, psycopg.Error):
            raise _translate(error) from error


def _owner(url: str) -> _Owner:
    return _Owner(url)


def _translate(error: psycopg.Error) -> BrokenSystemError:
    if isinstance(error, errors.InsufficientPrivilege):
        return BrokenSystemError(
            f"the database does not let this role change it: {error.diag.message_primary}",
            hint="Migrate as the database's owner, who may make roles: --url postgresql:///NAME as "
            "the user postgres.",
        )
    text = error.diag.message_primary or " ".join(str(error).split())
    return BrokenSystemError(f"the database could not be changed: {text}", hint="See --url.")
