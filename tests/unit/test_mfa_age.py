# SPDX-License-Identifier: Apache-2.0
"""MFA age: what counts where and for how long; pure."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.mfa_age import (
    LOGIN_LONGEST,
    Place,
    Scope,
    Verified,
    Wish,
    find_fresh,
    find_same_login,
)

NOW = 1_700_000_045.0
PLACE = Place("10:1", "", "audit:3", "boot", "4:c0000207")
OTHER = Place("11:2", "", "audit:4", "other boot", "4:c0000208")
UNKNOWN = Place()


def verified(place: Place = PLACE, age: float = 60.0, kind: str = "virtual") -> Verified:
    """Return a verification."""
    return Verified("alice", kind, "virtual/alice/phone", "hash", "sudo", "pts/0", place, NOW - age)


def wish(place: Place = PLACE, scope: Scope = Scope.SESSION, **more: Any) -> Wish:  # noqa: ANN401
    """Return what a call could be answered by, within 15 minutes."""
    made = Wish(place, "sudo", ("virtual",), 900.0, scope, is_first=True, is_arrival=False)
    return made._replace(**more)


@pytest.mark.parametrize(
    ("age", "expected"),
    [(0.0, True), (899.0, True), (900.0, False), (901.0, False), (-0.5, False), (-9e9, False)],
)
def test_age(age: float, expected: bool) -> None:  # noqa: FBT001
    """It counts until its age is reached; what is from the future does not."""
    assert expected == bool(find_fresh([verified(age=age)], wish(), NOW))


@pytest.mark.parametrize(
    ("kind", "expected"), [("virtual", True), ("fido", False), ("bypass", False)]
)
def test_type(kind: str, expected: bool) -> None:  # noqa: FBT001
    """Only types that the rule asks for count; a bypass never does."""
    assert expected == bool(find_fresh([verified(kind=kind)], wish(), NOW))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"login": "99:9", "source": ""}, True),
        ({"session": "audit:4"}, False),
        ({"session": "leader:3"}, False),
        ({"session": ""}, False),
        ({"boot": "the next"}, False),
        ({"boot": ""}, False),
    ],
)
def test_session(change: dict[str, str], expected: bool) -> None:  # noqa: FBT001
    """By session only the same session of the same boot counts."""
    assert expected == bool(find_fresh([verified()], wish(PLACE._replace(**change)), NOW))


def test_unknown_is_not_the_same() -> None:
    """Two sessions, sources and logins of which nothing is known are not the same."""
    for scope in Scope:
        assert [] == find_fresh([verified(UNKNOWN)], wish(UNKNOWN, scope), NOW)
    assert [] == find_same_login([verified(UNKNOWN)], wish(UNKNOWN, is_first=False), NOW)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"session": "audit:4", "boot": "the next"}, True),
        ({"source": "4:c0000208"}, False),
        ({"source": "console"}, False),
        ({"source": ""}, True),
        ({"source": "", "session": "audit:4"}, False),
    ],
)
def test_host(change: dict[str, str], expected: bool) -> None:  # noqa: FBT001
    """By host only the same address counts; without an address only the same session."""
    asked = wish(PLACE._replace(**change), Scope.HOST)
    assert expected == bool(find_fresh([verified()], asked, NOW))


def test_arrival_is_in_no_session() -> None:
    """Who comes in now has no session: what its daemon was started in is nobody's."""
    assert [] == find_fresh([verified()], wish(is_arrival=True), NOW)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"session": "audit:9"}, True),
        ({"login": "10:2"}, False),
        ({"login": ""}, False),
        ({"boot": "the next"}, False),
        ({"source": "4:c0000208"}, False),
    ],
)
def test_same_login(change: dict[str, str], expected: bool) -> None:  # noqa: FBT001
    """An earlier phase counts by its process and start, of the same boot and source."""
    asked = wish(PLACE._replace(**change), is_first=False)
    assert expected == bool(find_same_login([verified()], asked, NOW))


def test_parent_of_the_same_login() -> None:
    """What a child of sshd has verified, its parent sees, and no child of the parent's."""
    child = verified(Place("20:5", "10:1", "", "boot", "4:c0000207"))
    assert [child] == find_same_login([child], wish(is_first=False), NOW)
    sibling = PLACE._replace(login="21:6", parent="10:1")
    assert [] == find_same_login([child], wish(sibling, is_first=False), NOW)


@pytest.mark.parametrize(
    "more",
    [{"is_first": True}, {"is_first": False, "service": "su"}],
)
def test_other_login(more: dict[str, Any]) -> None:
    """A login's first phase has no earlier one, and another service's is no phase of it."""
    assert [] == find_same_login([verified()], wish(**more), NOW)


@pytest.mark.parametrize("age", [LOGIN_LONGEST, -1.0])
def test_login_that_lasts(age: float) -> None:
    """A process that goes on serves other logins later."""
    assert [] == find_same_login([verified(age=age)], wish(is_first=False), NOW)


def test_latest_first() -> None:
    """Of several the latest comes first."""
    found = [verified(age=age) for age in (50.0, 10.0, 30.0)]
    fresh = find_fresh(found, wish(), NOW)
    assert [10.0, 30.0, 50.0] == [NOW - one.at for one in fresh]


PLACES = st.builds(
    Place,
    *[st.sampled_from(["", "a", "b"])] * 5,
)


@given(PLACES, PLACES, st.sampled_from(Scope), st.floats(-2000, 2000), st.booleans())
def test_nothing_counts_elsewhere(
    made: Place, asked: Place, scope: Scope, age: float, is_arrival: bool  # noqa: FBT001
) -> None:  # fmt: skip
    """Whatever counts is of an age within the rule's, and shares a session or an address."""
    found = find_fresh([verified(made, age)], wish(asked, scope, is_arrival=is_arrival), NOW)
    if found:
        assert 0 <= NOW - found[0].at < 900
        is_same_session = bool(made.session and made.boot) and made[2:4] == asked[2:4]
        is_same_source = bool(made.source) and made.source == asked.source
        assert is_same_source if scope is Scope.HOST and asked.source else is_same_session
