# SPDX-License-Identifier: Apache-2.0
"""The two ways in which a login comes to a verifier."""

import contextlib
from collections.abc import Iterator

import pytest
from installed import DataRoot

DAEMON = "daemon"
ON_DEMAND = "on-demand"
each_way = pytest.mark.parametrize("way", [DAEMON, ON_DEMAND])


@contextlib.contextmanager
def serving(root: DataRoot, way: str) -> Iterator[None]:
    """Have the daemon run, or none, so that each login starts its own verifier."""
    if way == DAEMON:
        with root.daemon():
            yield
    else:
        yield
