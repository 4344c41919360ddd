# SPDX-License-Identifier: Apache-2.0
"""Verifiers that are killed under parallel logins: the audit log has each login exactly once."""

from installed import DataRoot
from kills import Campaign

KILLS = 40  # python tests/faults/kills.py --kills 1000 is the long one


def test_kills_at_random_points(root: DataRoot) -> None:
    """Whatever is killed, and however often the log is rotated, no login is lost or doubled."""
    result = Campaign(root, KILLS, seed=7).run()
    assert (result.kills, result.told > 0, result.records > result.told) == (KILLS, True, True)
