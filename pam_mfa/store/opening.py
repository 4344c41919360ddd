# SPDX-License-Identifier: Apache-2.0
"""Which engine keeps devices and state on this host: the one place that knows the engines."""

import time
from typing import NamedTuple

from pam_mfa.errors import BrokenSystemError
from pam_mfa.policy import Engine, StoreRules
from pam_mfa.store import AdministratorsStore, EngineStore
from pam_mfa.store.chosen import ChosenStore
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.ledger import Ledger
from pam_mfa.store.log_state import LogState
from pam_mfa.store.policies import read_store_rules


def open_administrators_store(layout: Layout) -> AdministratorsStore:
    """Open the store to change devices, as the service user.

    Raises:
        BrokenSystemError: it cannot be opened, or policy does not say in plain words which it is.
    """
    store = open_engine(layout, read_store_rules(layout.policy))
    store.follow_file(layout.policy)
    return store


def open_engine(layout: Layout, rules: StoreRules) -> AdministratorsStore:
    """Open a store to change devices, whatever policy names, as the service user.

    Raises:
        BrokenSystemError: it cannot be opened.
    """
    if rules.engine is Engine.EMBEDDED:
        return EmbeddedStore(layout)
    from pam_mfa.store.postgresql.fleet import FleetStore  # noqa: PLC0415 - where it is named

    return FleetStore(layout, rules, is_administrator=True)


def open_serving_store(layout: Layout) -> ChosenStore:
    """Return the store to verify logins, opened by the first who needs it, as the service user."""
    return ChosenStore(lambda rules: _open_engine(layout, rules))


def _open_engine(layout: Layout, rules: StoreRules) -> EngineStore:
    if rules.engine is Engine.EMBEDDED:
        return EmbeddedStore(layout, is_patient=True)
    from pam_mfa.store.postgresql.fleet import FleetStore  # noqa: PLC0415 - where it is named

    fleet = FleetStore(layout, rules, is_administrator=False)
    if not rules.offline.allow:
        return fleet
    from pam_mfa.store.offline.store import OfflineStore  # noqa: PLC0415 - where policy has it

    return OfflineStore(fleet, layout, rules.offline)


class StoreHealth(NamedTuple):
    """Which store logins ask, and whether it can be used."""

    engine: str
    place: str
    role: str = ""  # as which a database is asked
    fleet: str = ""
    version: int = 0  # of the database's schema
    milliseconds: float = 0.0  # that one question took
    problem: str = ""  # why logins are refused
    hint: str = ""
    standby: str = ""  # what goes on without a database


def examine_store(layout: Layout) -> StoreHealth:
    """Ask the store that policy names, as the service user.

    Raises:
        BrokenSystemError: policy does not say in plain words which it is.
    """
    rules = read_store_rules(layout.policy)
    if rules.engine is Engine.EMBEDDED:
        place, problem, hint = str(layout.library), "", ""
        try:
            embedded = EmbeddedStore(layout)
            embedded.read_devices([""])
            embedded.documents.entries()  # says so where they were moved to another store
            embedded.close()
        except BrokenSystemError as error:
            problem, hint = str(error), error.hint
        return StoreHealth(rules.engine.value, place, problem=problem, hint=hint)
    from pam_mfa.store.offline.health import describe_standby  # noqa: PLC0415 - the same
    from pam_mfa.store.postgresql.health import ask_fleet  # noqa: PLC0415 - where it is named

    answer = ask_fleet(layout, rules)
    standby = describe_standby(layout, rules.offline, time.time())
    return StoreHealth(rules.engine.value, answer.place, rules.account.user, *answer[1:], standby)


def read_log_end(layout: Layout) -> tuple[LogState, list[bytes]]:
    """Return what the state knows of this host's log, and the lines that wait for it.

    Raises:
        BrokenSystemError: it cannot be read.
    """
    ledger = Ledger(layout)
    try:
        return ledger.read_log_end()
    finally:
        ledger.close()
