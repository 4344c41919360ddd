# SPDX-License-Identifier: Apache-2.0
"""Fixtures of this layer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from strained import Strained, straining
from sweep import record_calls


@pytest.fixture(scope="session")
def calls(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give strace's record of one verification that nothing spoils."""
    trace = tmp_path_factory.mktemp("calls") / "trace"
    record_calls(prefix, trace)
    return trace


@pytest.fixture
def strained(prefix: Path) -> Iterator[Strained]:
    """Give a user, and a verifier on demand that can be made to fail."""
    with straining(prefix) as made:
        yield made
