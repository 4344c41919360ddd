# SPDX-License-Identifier: Apache-2.0
"""The package is built once, a fresh root made once; who changes one has a copy of it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from package.fresh_root import FreshRoot, build_package, make_base, make_newer


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """Give the run a directory that everybody may look into."""
    directory = Path(tempfile.mkdtemp(prefix="pam-mfa-package-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def package(scratch: Path) -> Path:
    """Build the package."""
    return build_package(scratch / "build")


@pytest.fixture(scope="session")
def newer(package: Path, scratch: Path) -> Path:
    """Give the package of a newer version."""
    return make_newer(package, scratch)


@pytest.fixture(scope="session")
def base(scratch: Path) -> Path:
    """Make a fresh root without the package; not to be changed."""
    make_base(scratch / "base")
    return scratch / "base"


@pytest.fixture(scope="session")
def installed(base: Path, package: Path) -> Iterator[FreshRoot]:
    """Give a root with the package; not to be changed."""
    root = FreshRoot(base)
    root.install(package)
    yield root
    root.remove()


@pytest.fixture
def machine(installed: FreshRoot) -> Iterator[FreshRoot]:
    """Give a test a root of its own with the package."""
    root = FreshRoot(installed.path)
    yield root
    root.remove()
