# SPDX-License-Identifier: Apache-2.0
"""Ledgers of one root, opened as processes do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import make_layout
from ledgers import Opener

from pam_mfa.store.layout import Layout
from pam_mfa.store.ledger import Ledger


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty root."""
    return make_layout(tmp_path)


@pytest.fixture
def open_ledger(layout: Layout) -> Iterator[Opener]:
    """Opens ledgers as processes do, each its own."""
    opened: list[Ledger] = []

    def open_one() -> Ledger:
        opened.append(Ledger(layout))
        return opened[-1]

    yield open_one
    for ledger in opened:
        ledger.close()
