# SPDX-License-Identifier: Apache-2.0
"""A private host with Alice's account, and her phone."""

from collections.abc import Iterator

import pytest
from alice import ALICE, NAME
from installed import DataRoot
from phone import Phone
from private_host import PrivateHost


@pytest.fixture
def host() -> Iterator[PrivateHost]:
    """A private host with Alice's account."""
    with PrivateHost([ALICE]) as started:
        yield started


@pytest.fixture
def phone(root: DataRoot) -> Phone:
    """Alice's phone."""
    return Phone(root, NAME)
