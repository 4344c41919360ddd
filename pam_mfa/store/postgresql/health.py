# SPDX-License-Identifier: Apache-2.0
"""Whether the database of a fleet can be used from this host, and how fast it answers."""

import time
from typing import NamedTuple

from pam_mfa.errors import BrokenSystemError
from pam_mfa.policy import StoreRules
from pam_mfa.store.layout import Layout
from pam_mfa.store.postgresql.fleet import FleetStore
from pam_mfa.store.postgresql.links import Question
from pam_mfa.store.postgresql.schema import VERSION


class Answer(NamedTuple):
    """What came of asking it."""

    place: str
    fleet: str = ""
    version: int = 0
    milliseconds: float = 0.0  # of one question, on a connection that is there already
    problem: str = ""
    hint: str = ""


def ask_fleet(layout: Layout, rules: StoreRules) -> Answer:
    """Ask the database as a verifier does."""
    store = FleetStore(layout, rules, is_administrator=False)
    try:
        store.open()
        began = time.monotonic()
        store.ask(Question("SELECT 1"))
        milliseconds = round((time.monotonic() - began) * 1000, 2)
        return Answer(store.place, store.fleet, VERSION, milliseconds)
    except BrokenSystemError as error:
        return Answer(store.place, problem=str(error), hint=error.hint)
    finally:
        store.close()
