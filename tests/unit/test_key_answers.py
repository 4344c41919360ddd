# SPDX-License-Identifier: Apache-2.0
"""Answers of keys with values of wrong types, which fido2 would make bytes of."""

import pytest
from fido2 import cbor

from pam_mfa.hardware.answers import find_wrong_field

MAKE, ASSERT, INFO, PIN = 0x01, 0x02, 0x04, 0x06
HUGE = 2**40
GOOD = {1: {"id": b"x", "type": "public-key"}, 2: bytes(37), 3: b"s", 4: {"id": b"u"}}


def answer(**changes: object) -> bytes:
    """Return a getAssertion's answer with some fields changed: ``_2=...``."""
    return b"\0" + cbor.encode(GOOD | {int(key[1:]): value for key, value in changes.items()})


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        (ASSERT, GOOD),
        (ASSERT, {1: GOOD[1], 2: b"", 3: b"", 5: HUGE, 6: True}),
        (MAKE, {1: "packed", 2: b"", 3: {}}),
        (INFO, {1: ["FIDO_2_1"], 3: bytes(16), 4: {"uv": True}, 5: HUGE, 14: HUGE}),
        (PIN, {3: 8, 4: False}),
        (PIN, {2: bytes(32)}),
        (0x40, {1: HUGE, 2: HUGE}),
    ],
)
def test_good_answer(command: int, fields: dict[int, object]) -> None:
    """What the standard allows passes, large numbers where numbers belong included."""
    assert find_wrong_field(command, b"\0" + cbor.encode(fields)) is None


@pytest.mark.parametrize("data", [b"", b"\x2e", b"\0", b"\x2e\xff", b"\0" + cbor.encode([1])])
def test_no_map(data: bytes) -> None:
    """What is no map is left for fido2."""
    assert find_wrong_field(ASSERT, data) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [(1, HUGE), (1, b""), (2, HUGE), (2, "text"), (3, HUGE), (3, [1] * 20), (4, HUGE), (7, HUGE),
     (1, {"id": HUGE}), (4, {"id": HUGE}), (4, {"id": [1]})],
)  # fmt: skip
def test_number_in_the_place_of_bytes(field: int, value: object) -> None:
    """A number, a text or a list where bytes belong is found before bytes are made of it."""
    assert field == find_wrong_field(ASSERT, answer(**{f"_{field}": value}))


@pytest.mark.parametrize(
    ("command", "field", "value"),
    [(INFO, 3, HUGE), (INFO, 25, HUGE), (INFO, 28, HUGE), (INFO, 30, HUGE), (MAKE, 2, HUGE),
     (PIN, 3, "many"), (PIN, 3, True), (PIN, 2, HUGE), (PIN, 4, "yes")],
)  # fmt: skip
def test_other_commands(command: int, field: int, value: object) -> None:
    """The other commands' fields are looked at, too."""
    assert field == find_wrong_field(command, b"\0" + cbor.encode({field: value}))
