# SPDX-License-Identifier: Apache-2.0
"""The database that policy has as the store, as a target of the audit log."""

from typing import TYPE_CHECKING, Final

from pam_mfa.audit_shipping.hosts import Claim
from pam_mfa.errors import RefusedError
from pam_mfa.policy import Engine, StoreRules
from pam_mfa.store.layout import Layout
from pam_mfa.store.policies import read_store_rules

if TYPE_CHECKING:  # psycopg behind it
    from pam_mfa.audit_shipping.database import DatabaseArchive, DatabaseSink

DATABASE: Final = "database"


def open_database_sink(layout: Layout, claim: Claim) -> "DatabaseSink":
    """Open the database to add this host's records, by its own role.

    Raises:
        RefusedError: policy names no database, or the host's name is another's there.
        BrokenSystemError: it cannot be asked.
    """
    from pam_mfa.audit_shipping.database import DatabaseSink  # noqa: PLC0415 - where it is named
    from pam_mfa.store.postgresql.links import Links  # noqa: PLC0415 - the same

    rules = _require_database(layout)
    return DatabaseSink(Links(rules, rules.account), claim)


def open_database_archive(layout: Layout) -> "DatabaseArchive":
    """Open the database to verify all hosts, by the administrators' role.

    Raises:
        RefusedError: policy names no database, or no administrators' role.
        BrokenSystemError: it cannot be asked.
    """
    from pam_mfa.audit_shipping.database import DatabaseArchive  # noqa: PLC0415 - as above
    from pam_mfa.store.postgresql.links import Links  # noqa: PLC0415 - the same

    rules = _require_database(layout)
    if not rules.administrator.user:
        raise RefusedError(
            "a host's role may not read the records of others",
            hint="Run it where policy has store: administrator.",
        )
    return DatabaseArchive(Links(rules, rules.administrator))


def _require_database(layout: Layout) -> StoreRules:
    rules = read_store_rules(layout.policy)
    if rules.engine is Engine.EMBEDDED:
        raise RefusedError(
            f"{layout.policy} names no database",
            hint="It is the one of store: engine: postgresql. Or ship to a directory or syslog.",
        )
    return rules
