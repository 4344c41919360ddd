# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the layer vm: one guest for the whole run, with the product in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from package.fresh_root import build_package, make_newer

from vm.console import Console
from vm.guest import Guest
from vm.packaged import Packaged
from vm.product import Product, install_product, made_for_guests


@pytest.fixture(scope="session")
def made() -> Iterator[Path]:
    """Install once for all guests, in a folder of this machine."""
    with made_for_guests() as folder:
        yield folder


@pytest.fixture(scope="session")
def guest(made: Path) -> Iterator[Guest]:
    """Boot a guest whose sshd, sudo and login ask for a password and a code."""
    with Guest() as started:
        install_product(started, made)
        yield started


@pytest.fixture(scope="session")
def secret(guest: Guest) -> str:
    """Enroll alice once for the whole run; return her device's secret."""
    product = Product(guest)
    secret = product.enroll("alice")
    product.save()
    return secret


@pytest.fixture
def product(guest: Guest, secret: str) -> Product:
    """Hand out the product: alice enrolled, sockets listening, no verifier running, no records."""
    del secret
    product = Product(guest)
    product.restore()
    return product


@pytest.fixture
def console(guest: Guest) -> Iterator[Console]:
    """Stand somebody before tty1's login prompt."""
    with Console(guest) as opened:
        yield opened


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the Debian package."""
    return build_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def newer(package: Path) -> Path:
    """Give the package of a newer version."""
    return make_newer(package, package.parent)


@pytest.fixture(scope="session")
def packaged(package: Path) -> Iterator[Packaged]:
    """Boot a second guest, and install the package there."""
    with Guest() as started:
        yield Packaged.install(started, package)
