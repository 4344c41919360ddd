# SPDX-License-Identifier: Apache-2.0
"""Which engine keeps devices and state on this host: the one place that knows the engines."""

from pam_mfa.store import AdministratorsStore
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.ledger import Ledger
from pam_mfa.store.log_state import LogState


def open_administrators_store(layout: Layout) -> AdministratorsStore:
    """Open the store to change devices, as the service user.

    Raises:
        BrokenSystemError: it cannot be opened.
    """
    store = EmbeddedStore(layout)
    store.follow_file(layout.policy)
    return store


def open_serving_store(layout: Layout) -> EmbeddedStore:
    """Return the store to verify logins, opened by the first who needs it, as the service user."""
    return EmbeddedStore(layout, is_patient=True)


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
