# SPDX-License-Identifier: Apache-2.0
"""A key that is plugged into the test, and pulled out after it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from security_key.injected import InjectedKey
from security_key.key import SecurityKey
from security_key.memory import Memory
from security_key.model import Model

PATIENCE = 10.0  # seconds that no answer takes; a test that waits this long has failed

PlugIn = Callable[..., InjectedKey]


@pytest.fixture
def plug_in() -> Iterator[PlugIn]:
    """Plug keys of any model in, for this test."""
    with ExitStack() as stack:

        def plug(
            model: Model | None = None, memory: Memory | None = None, patience: float = PATIENCE
        ) -> InjectedKey:
            return stack.enter_context(InjectedKey(SecurityKey(model, memory), patience))

        yield plug


@pytest.fixture
def injected(plug_in: PlugIn) -> InjectedKey:
    """The usual key."""
    return plug_in()
