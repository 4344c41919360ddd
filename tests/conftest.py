# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every layer."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_records import require_schema
from installed import DataRoot, install

pytest.register_assert_rewrite("store_behaviour")


@pytest.fixture(scope="session")
def prefix() -> Iterator[Path]:
    """Install once for the whole run, where the verifier's user can read it.

    tests/run does it once for all layers, and names the place.
    """
    if shared := os.environ.get("PAM_MFA_TESTS_PREFIX"):
        yield Path(shared)
        return
    directory = Path(tempfile.mkdtemp(prefix="pam-mfa-prefix-", dir="/var/tmp"))
    directory.chmod(0o755)
    try:
        install(directory / "prefix")
        yield directory / "prefix"
    finally:
        shutil.rmtree(directory)


@pytest.fixture(autouse=True)
def records_have_the_schema(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold the schema against every record that a test's own verifiers wrote."""
    uses_path = "tmp_path" in request.fixturenames
    path: Path | None = request.getfixturevalue("tmp_path") if uses_path else None
    yield
    if path is not None:
        require_schema(path)


@pytest.fixture
def root(prefix: Path) -> Iterator[DataRoot]:
    """Give a test a data root of its own."""
    data = DataRoot(prefix)
    yield data
    data.remove()
