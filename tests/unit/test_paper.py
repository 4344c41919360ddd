# SPDX-License-Identifier: Apache-2.0
"""Codes on paper: 80 bits, typed as people type, good for one user's one set and for a time."""

import datetime
import string
from collections.abc import Sequence

import pytest
from doubles import START
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.devices import Bypass, RecoveryCodes, VirtualDevice
from pam_mfa.factors import code, paper
from pam_mfa.oath import Parameters
from pam_mfa.secret import Secret
from pam_mfa.store.key_ring import ring_of
from pam_mfa.store.seal import Sealer

SEALER = Sealer(ring_of(Secret(bytes(range(32)))))
CODES = ["ABCD-EFGH-IJKL-MNOP", "2345-6723-4567-ABCD", "AAAA-AAAA-AAAA-AAAB"]
PLAIN = [code.replace("-", "") for code in CODES]
ENABLED = datetime.datetime.fromtimestamp(START - 100, datetime.UTC)
RANDOM = st.binary(min_size=10, max_size=10)


def hash_for(user: str, typed: str, serial_number: str) -> str:
    """Return the hash that is kept of a user's code."""
    return SEALER.code_hash(typed, user, serial_number)


def make_set(user: str = "alice", mark: str = "1", plain: Sequence[str] = PLAIN) -> RecoveryCodes:
    """Return a set of recovery codes."""
    serial_number = f"recovery/{user}/{mark}"
    hashes = tuple(hash_for(user, one, serial_number) for one in plain)
    return RecoveryCodes(serial_number, "recovery", ENABLED, hashes)


def make_bypass(seconds: float = 60.0) -> Bypass:
    """Return Alice's bypass by the first code, which ends so many seconds after START."""
    expires_at = datetime.datetime.fromtimestamp(START + seconds, datetime.UTC)
    hashes = (hash_for("alice", PLAIN[0], "bypass/alice/1"),)
    return Bypass("bypass/alice/1", "bypass", ENABLED, expires_at, hashes)


def keys_of(
    typed: str, *devices: RecoveryCodes | Bypass | VirtualDevice, user: str = "alice"
) -> list[str]:
    """Return the keys under which a typed code's matches are used up."""
    found = paper.find_matches(
        typed, devices, START, lambda one, serial_number: hash_for(user, one, serial_number)
    )
    return [match.key for match in found]


@given(RANDOM)
def test_form(random: bytes) -> None:
    """A code is four groups of four letters and digits that cannot be mistaken."""
    made = paper.make_code(random)
    groups = made.split("-")
    assert [len(group) for group in groups] == [4, 4, 4, 4]
    assert set("".join(groups)) <= set(string.ascii_uppercase + "234567")


@given(RANDOM)
def test_eighty_bits(random: bytes) -> None:
    """All 80 random bits are in the code: they can be read back from it."""
    number = 0
    for letter in paper.make_code(random).replace("-", ""):
        number = number * 32 + (string.ascii_uppercase + "234567").index(letter)
    assert (paper.CODE_BYTES * 8, number.to_bytes(10, "big")) == (80, random)


@given(RANDOM)
def test_made_code_is_read(random: bytes) -> None:
    """A code is read as it was made, and is no code of a device."""
    made = paper.make_code(random)
    assert paper.parse_answer(made) == made.replace("-", "")
    assert code.parse_answer(made) == ""


@pytest.mark.parametrize(
    "typed",
    [
        "ABCD-EFGH-IJKL-MNOP", "abcd-efgh-ijkl-mnop", "ABCDEFGHIJKLMNOP", "abcd efgh ijkl mnop",
        " ABCD-EFGH-IJKL-MNOP ", "AbCd-EfGh IjKlMnOp", "A-B-C-D-E-F-G-H-I-J-K-L-M-N-O-P",
        "ABCD - EFGH - IJKL - MNOP",
    ],
)  # fmt: skip
def test_typed_forms(typed: str) -> None:
    """Case, spaces and dashes do not matter."""
    assert paper.parse_answer(typed) == "ABCDEFGHIJKLMNOP"


@pytest.mark.parametrize(
    "typed",
    [
        "", " ", "-", "123456", "1234567", "123456789", "1234567\u0668",
        "ABCD-EFGH-IJKL-MNO", "ABCD-EFGH-IJKL-MNOPQ",
        "ABCD-EFGH-IJKL-MNO0", "ABCD-EFGH-IJKL-MNO1", "ABCD-EFGH-IJKL-MN8O", "ABCD_EFGH_IJKL_MNOP",
        "ABCD-EFGH-IJKL-MNOP\n", "ABCD-EFGH-IJKL-MNO\uff21", "\uff21BCD-EFGH-IJKL-MNOP",
        "ABCD-EFGH-IJKL-MNO\udcff", "ABCD\u2013EFGH\u2013IJKL\u2013MNOP", "A" * 1024,
    ],
)  # fmt: skip
def test_no_code(typed: str) -> None:
    """What has another length or other characters is no code on paper."""
    assert paper.parse_answer(typed) == ""


@given(st.text())
def test_any_answer(typed: str) -> None:
    """Whatever was typed, what is compared is sixteen ASCII characters, eight, or nothing."""
    plain = paper.parse_answer(typed)
    assert plain.isascii()
    assert len(plain) in {0, 8, 16}


@pytest.mark.parametrize("typed", ["61024008", " 6102 4008 ", "6102-4008"])
def test_scratch_code(typed: str) -> None:
    """A scratch code of eight digits is a code on paper, and may be one of a device, too."""
    assert paper.parse_answer(typed) == "61024008"
    assert code.parse_answer(typed) in {"61024008", ""}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_match(number: int) -> None:
    """Each code of a set matches, under a key of its own."""
    made = make_set()
    assert keys_of(PLAIN[number], made) == [paper.used_keys(made)[number]]


def test_match_is_fresh_once() -> None:
    """A code counts until it was used, and its use says nothing of the others."""
    made = make_set()
    hash_code = lambda one, serial_number: hash_for("alice", one, serial_number)  # noqa: E731
    first, second = (paper.find_matches(PLAIN[n], [made], START, hash_code) for n in (0, 1))
    used = {first[0].key: first[0].step}
    assert code.find_fresh(first, {}) == first[0]
    assert (code.find_fresh(first, used), code.find_fresh(second, used)) == (None, second[0])


@pytest.mark.parametrize("typed", ["", "AAAAAAAAAAAAAAAA", "A" * 15, PLAIN[0].lower()])
def test_no_match(typed: str) -> None:
    """What is no code of the set matches nothing."""
    assert keys_of(typed, make_set()) == []


def test_other_user() -> None:
    """A set that is copied into another user's file is good for nothing there."""
    assert keys_of(PLAIN[0], make_set("alice"), user="bob") == []


def test_other_set() -> None:
    """A hash that is copied into another set, or an older set's code, matches nothing."""
    old = make_set(mark="1")
    copied = make_set(mark="2", plain=())._replace(hashes=old.hashes)
    assert keys_of(PLAIN[0], copied) == []


def test_two_sets() -> None:
    """A code matches in the set that it belongs to."""
    other = make_set(mark="2", plain=["BBBBBBBBBBBBBBBB"])
    assert keys_of(PLAIN[1], other, make_set()) == ["recovery/alice/1#1"]


def test_device_with_seed_is_passed_over() -> None:
    """A device that makes codes has none on paper."""
    phone = VirtualDevice("virtual/alice/phone", "phone", ENABLED, Parameters(), PLAIN[0])
    assert keys_of(PLAIN[0], phone) == []


@pytest.mark.parametrize(
    ("seconds", "is_good"), [(60.0, True), (1.0, True), (0.0, False), (-1.0, False), (-9e8, False)]
)
def test_expiry(seconds: float, is_good: bool) -> None:  # noqa: FBT001 - a table's column
    """A bypass counts until its moment, and from that moment on no more."""
    bypass = make_bypass(seconds)
    assert paper.is_expired(bypass, START) is not is_good
    assert keys_of(PLAIN[0], bypass) == (["bypass/alice/1#0"] if is_good else [])


def test_recovery_codes_do_not_expire() -> None:
    """A set of recovery codes is good in a hundred years."""
    assert not paper.is_expired(make_set(), START + 100 * 366 * 86400)


def test_keys() -> None:
    """Every code of a set has a key of its own, and no two sets share one."""
    keys = [*paper.used_keys(make_set(mark="1")), *paper.used_keys(make_set(mark="2"))]
    assert len(set(keys)) == 6
