# SPDX-License-Identifier: Apache-2.0
"""Hosts of a fleet: each a root of its own, with the fleet's key and a policy that names it."""

import contextlib
from pathlib import Path

from database import HOST_ROLE, Database

from pam_mfa.policy import parse_store
from pam_mfa.store import AdministratorsStore, ServingStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.opening import open_administrators_store, open_serving_store

KEY = bytes(range(32))


class Hosts:
    """Makes hosts, and stores on them; closes them all."""

    def __init__(self, database: Database, folder: Path, stack: contextlib.ExitStack) -> None:
        """Take the database, where roots are to be, and what closes the stores."""
        self.database = database
        self._folder = folder
        self._stack = stack
        self._layouts: list[Layout] = []

    def make(self, *, key: bytes = KEY, policy: str = "") -> Layout:
        """Return a new host's root."""
        layout = Layout(self._folder / f"host-{len(self._layouts)}")
        layout.library.mkdir(0o700, parents=True)
        for path in (layout.audit_log.parent, layout.policy.parent):
            path.mkdir(parents=True)
        if key:
            layout.seal_key.write_bytes(key)
            layout.seal_key.chmod(0o600)
        layout.policy.write_text(policy or self.database.policy(), "utf-8")
        layout.policy.chmod(0o644)
        self._layouts.append(layout)
        return layout

    def serving_on(self, layout: Layout) -> ServingStore:
        """Return a verifier's store on a host."""
        store = open_serving_store(layout)
        store.choose(parse_store(layout.policy.read_bytes(), str(layout.policy)))
        self._stack.callback(store.close)
        return store

    def administration_on(self, layout: Layout) -> AdministratorsStore:
        """Return an administrator's store on a host."""
        store = open_administrators_store(layout)
        self._stack.callback(store.close)
        return store

    def found(self) -> None:
        """Have a first administrator make the fleet's key known."""
        self.administration().read_locks([])
        self.administration().pseudonym("")

    def serving(self) -> ServingStore:
        """Return a verifier's store, on a host of its own."""
        self.found()
        return self.serving_on(self.make())

    def administration(self) -> AdministratorsStore:
        """Return an administrator's store, on a host of its own."""
        return self.administration_on(self.make())

    def logs(self) -> list[Path]:
        """Return the audit logs of all hosts."""
        return [layout.audit_log for layout in self._layouts]


__all__ = ["HOST_ROLE", "KEY", "Hosts"]
