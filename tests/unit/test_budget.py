# SPDX-License-Identifier: Apache-2.0
"""What callers that are not root may take of the verifier."""

from pam_mfa.verifier.budget import Budget, Limits

ALICE, BOB = 1000, 1001


def test_connections_of_one_user() -> None:
    """A user has so many connections at a time, and another one has as many."""
    budget = Budget(Limits(connections=10, connections_each=2), 0.0)
    assert [True, True, False] == [budget.open(ALICE, 0.0) for _ in range(3)]
    assert budget.open(BOB, 0.0)
    budget.close(ALICE)
    assert budget.open(ALICE, 0.0)


def test_connections_of_all() -> None:
    """All users together have no more than the socket gives."""
    budget = Budget(Limits(connections=3), 0.0)
    assert [True, True, True, False] == [budget.open(uid, 0.0) for uid in range(4)]
    assert budget.connections == 3


def test_starts_of_one_user() -> None:
    """A user who has used a minute's starts up gets them back over a minute."""
    budget = Budget(Limits(connections=10, starts_each=6), 0.0)

    def starts(now: float) -> int:
        count = 0
        while budget.open(ALICE, now):
            budget.close(ALICE)
            count += 1
        return count

    assert [6, 0, 1, 3, 6] == [starts(now) for now in (0.0, 5.0, 10.0, 40.0, 1000.0)]


def test_starts_of_all() -> None:
    """Many users together do not get more starts than one socket gives."""
    budget = Budget(Limits(connections=100, starts_each=5, starts=20), 0.0)
    assert 20 == sum(budget.open(uid, 0.0) for uid in range(50))


def test_users_are_forgotten() -> None:
    """What is remembered of users that are long gone does not grow."""
    budget = Budget(Limits(connections=10, starts_each=5), 0.0)
    for uid in range(10000):
        assert budget.open(uid, float(uid))
        budget.close(uid)
    assert len(budget._buckets) < 2000  # noqa: SLF001 - the memory is what is tested
