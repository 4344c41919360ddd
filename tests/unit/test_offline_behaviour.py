# SPDX-License-Identifier: Apache-2.0
"""An engine that hosts may go on without does, while it answers, what any store must."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import make_layout
from store_behaviour import StoreBehaviour

from pam_mfa.policy import Offline, StoreRules
from pam_mfa.store import AdministratorsStore, EngineStore, ServingStore
from pam_mfa.store.chosen import ChosenStore
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.offline.store import OfflineStore

RULES = Offline(("virtual",), 3600.0)


class Hosts:
    """Hosts of a fleet, whose database is an embedded store under a root of its own."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        """Take where roots are to be, and what closes the stores."""
        self._folder = folder
        self._stack = stack
        self._database = self._make("database")
        self._count = 0

    def _make(self, name: str) -> Layout:
        layout = make_layout(self._folder / name)
        layout.seal_key.write_bytes(bytes(range(32)))
        layout.seal_key.chmod(0o600)
        return layout

    def serving(self) -> ServingStore:
        """Return a verifier's store, on a host of its own."""
        self._count += 1
        layout = self._make(f"host-{self._count}")

        def open_engine(_rules: StoreRules) -> EngineStore:
            return OfflineStore(EmbeddedStore(self._database), layout, RULES)

        store = ChosenStore(open_engine)
        self._stack.callback(store.close)
        return store

    def administration(self) -> AdministratorsStore:
        """Return an administrator's store."""
        store = EmbeddedStore(self._database)
        self._stack.callback(store.close)
        return store

    def logs(self) -> list[Path]:
        """Return the one log of the database."""
        return [self._database.audit_log]


class TestOffline(StoreBehaviour):
    """All that any store must do."""

    @pytest.fixture
    def fleet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
        """A fleet that nobody has used."""
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        with contextlib.ExitStack() as stack:
            yield Hosts(tmp_path, stack)
