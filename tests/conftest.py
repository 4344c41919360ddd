# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every layer."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import DataRoot, install


@pytest.fixture(scope="session")
def prefix() -> Iterator[Path]:
    """Install once for the whole run, where the verifier's user can read it."""
    directory = Path(tempfile.mkdtemp(prefix="pam-mfa-prefix-", dir="/var/tmp"))
    directory.chmod(0o755)
    try:
        install(directory / "prefix")
        yield directory / "prefix"
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def root(prefix: Path) -> Iterator[DataRoot]:
    """Give a test a data root of its own."""
    data = DataRoot(prefix)
    yield data
    data.remove()
