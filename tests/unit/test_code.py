# SPDX-License-Identifier: Apache-2.0
"""Proof by a typed code: which codes count, and that each counts once and never after a newer."""

import pytest
from doubles import OTHER_SEED, SEED, START, STEP, code_of, make_device, open_device
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.devices import CodeDevice
from pam_mfa.factors import code
from pam_mfa.factors.code import Match
from pam_mfa.oath import Algorithm, Parameters

PHONE = open_device()
TABLET = open_device("tablet", OTHER_SEED)
SLOW = open_device("slow", OTHER_SEED, Parameters(Algorithm.SHA256, 8, 60))


@pytest.mark.parametrize("window", [0, 1, 2, 10])
def test_window(window: int) -> None:
    """Codes of so many time steps either side count, and no other."""
    expected = code.expect_codes([PHONE], START, window)
    matched = [
        step
        for step in range(STEP - 20, STEP + 21)
        if code.find_matches(code_of(SEED, step), expected)
    ]
    assert list(range(STEP - window, STEP + window + 1)) == matched


def found(device: CodeDevice, step: int) -> Match:
    """Return the match of a device's own code."""
    return Match(device, step, device.serial_number)


def test_window_at_the_beginning_of_time() -> None:
    """At the epoch there is no time step before the first."""
    steps = [step for _, step, _ in code.expect_codes([PHONE], 10.0, 2).codes]
    assert [0, 1, 2] == steps


def test_match() -> None:
    """A match names the device and the time step that the code belongs to."""
    expected = code.expect_codes([PHONE, TABLET], START, 1)
    matches = code.find_matches(code_of(OTHER_SEED, STEP - 1), expected)
    assert (found(TABLET.device, STEP - 1),) == matches


def test_parameters() -> None:
    """A device's own hash, length and period make its codes."""
    expected = code.expect_codes([SLOW], START, 0)
    typed = code_of(OTHER_SEED, STEP // 2, SLOW.device.parameters)
    assert (found(SLOW.device, STEP // 2),) == code.find_matches(typed, expected)


def test_same_seed_twice() -> None:
    """A code that two devices make matches both."""
    twin = open_device("twin", SEED)
    matches = code.find_matches(code_of(SEED, STEP), code.expect_codes([PHONE, twin], START, 0))
    assert (found(PHONE.device, STEP), found(twin.device, STEP)) == matches


@pytest.mark.parametrize(
    "typed", ["", "000000", code_of(SEED, STEP)[:5], code_of(SEED, STEP) + "0"]
)
def test_no_match(typed: str) -> None:
    """No code, another code, and a part of the right one match nothing."""
    assert () == code.find_matches(typed, code.expect_codes([PHONE], START, 1))


def test_no_device() -> None:
    """Without a device nothing matches."""
    assert () == code.find_matches("123456", code.expect_codes([], START, 10))


@given(st.integers(-1, 40), st.sets(st.integers(0, 40), min_size=1))
def test_fresh(used: int, steps: set[int]) -> None:
    """The first match that counts is the first that is later than the last accepted step."""
    device = make_device()
    matches = [found(device, step) for step in sorted(steps)]
    later = [match for match in matches if match.step > used]
    expected = later[0] if later else None
    assert expected == code.find_fresh(matches, {device.serial_number: used})


def test_fresh_of_new_device() -> None:
    """A device that has had nothing accepted takes any match, the step 0 too."""
    match = found(make_device(), 0)
    assert match == code.find_fresh([match], {})


def test_fresh_by_device() -> None:
    """What one device has had accepted says nothing of another."""
    phone, tablet = found(make_device("phone"), 5), found(make_device("tablet"), 5)
    assert tablet == code.find_fresh([phone, tablet], {phone.device.serial_number: 5})


@given(st.integers(0, 7200), st.integers(0, 10))
def test_clock_that_jumps_back(seconds: int, window: int) -> None:
    """After a clock was set back, no code of a step up to the last accepted one counts."""
    used = {PHONE.device.serial_number: STEP}
    expected = code.expect_codes([PHONE], START - seconds, window)
    accepted = [
        fresh.step
        for _, _, typed in expected.codes
        if (fresh := code.find_fresh(code.find_matches(typed.decode(), expected), used))
    ]
    assert all(step > STEP for step in accepted)


def test_clock_an_hour_back() -> None:
    """With the clock an hour back, nothing at all counts until it has caught up."""
    used = {PHONE.device.serial_number: STEP}
    expected = code.expect_codes([PHONE], START - 3600, 1)
    fresh = [
        code.find_fresh(code.find_matches(typed.decode(), expected), used)
        for _, _, typed in expected.codes
    ]
    assert [None, None, None] == fresh


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("123456", "123456"), (" 123456", "123456"), ("123 456", "123456"),
        ("1 2 3 4 5 6 7 8", "12345678"), ("123456   ", "123456"), ("1234567", "1234567"),
        ("", ""), ("   ", ""), ("12345", ""), ("123456789", ""), ("password", ""),
        ("12345x", ""), ("-123456", ""), ("0x123456", ""), ("123456\0", ""),
        ("١٢٣٤٥٦", ""), ("１２３４５６", ""), ("१२३४५६", ""), ("𝟏𝟐𝟑𝟒𝟓𝟔", ""), ("12345６", ""),
        ("\udcff23456", ""), ("1" * 1024, ""),
    ],
)  # fmt: skip
def test_answers(answer: str, expected: str) -> None:
    """An answer is a code if 6 to 8 ASCII digits are left without its spaces."""
    assert expected == code.parse_answer(answer)


@given(st.text())
def test_any_answer(answer: str) -> None:
    """Whatever was typed, what is compared is ASCII digits or nothing."""
    typed = code.parse_answer(answer)
    assert typed == "" or (typed.isascii() and typed.isdigit() and 6 <= len(typed) <= 8)


@pytest.mark.parametrize(
    ("seconds", "is_same"), [(0, True), (24, True), (25, False), (-5, True), (-6, False)]
)
def test_moment(seconds: int, is_same: bool) -> None:  # noqa: FBT001 - a table's column
    """Codes stay the same until a device's time step ends."""
    devices = [PHONE, SLOW]
    moment = code.expect_codes(devices, START, 1).moment
    assert is_same is (moment == code.moment_of(devices, START + seconds))
