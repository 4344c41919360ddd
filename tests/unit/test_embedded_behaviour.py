# SPDX-License-Identifier: Apache-2.0
"""The embedded store does what any store must."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import make_layout
from store_behaviour import StoreBehaviour

from pam_mfa.store import AdministratorsStore, ServingStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.opening import open_administrators_store, open_serving_store


class OneHost:
    """The processes of one host."""

    def __init__(self, layout: Layout, stack: contextlib.ExitStack) -> None:
        """Take the root, and what closes the stores."""
        self._layout = layout
        self._stack = stack

    def serving(self) -> ServingStore:
        """Return a verifier's store."""
        store = open_serving_store(self._layout)
        self._stack.callback(store.close)
        return store

    def administration(self) -> AdministratorsStore:
        """Return an administrator's store."""
        store = open_administrators_store(self._layout)
        self._stack.callback(store.close)
        return store

    def logs(self) -> list[Path]:
        """Return the one audit log."""
        return [self._layout.audit_log]


class TestEmbedded(StoreBehaviour):
    """All that any store must do, by files and SQLite."""

    @pytest.fixture
    def fleet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneHost]:
        """A host that nobody has used."""
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        with contextlib.ExitStack() as stack:
            yield OneHost(make_layout(tmp_path), stack)
