# SPDX-License-Identifier: Apache-2.0
"""A ring of keys is read back as it was written, and what is no whole ring is no ring."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.secret import Secret
from pam_mfa.store.key_ring import (
    KEY_BYTES,
    KEYS_MAX,
    KeyRing,
    format_ring,
    join,
    parse_ring,
    retire,
    ring_of,
    stage,
    unstage,
    use_newest,
)


def key(number: int) -> Secret:
    """Return a key of its own for each number."""
    return Secret(number.to_bytes(32, "big"))


RING = ring_of(key(1))
STAGED = stage(RING, key(2))
USED = use_newest(STAGED)
FINISHED = retire(USED)
TEXT = format_ring(stage(USED, key(3)))


@pytest.mark.parametrize(
    "ring", [RING, STAGED, USED, FINISHED, unstage(STAGED), stage(USED, key(3))]
)
def test_round_trip(ring: KeyRing) -> None:
    """Every ring is read back as it was."""
    assert ring == parse_ring(format_ring(ring), "r")


def test_key_alone_is_a_ring() -> None:
    """The key of a host that has never rotated is read as a ring of it."""
    assert RING == parse_ring(key(1).reveal(), "r")


def test_steps() -> None:
    """A key is staged, used, and then the one before it is old, until it is retired."""
    assert [((), ()), ((), STAGED.names[1:]), (RING.names, ()), ((), ())] == [
        (ring.old, ring.staged) for ring in (RING, STAGED, USED, FINISHED)
    ]
    assert ([RING.first, RING.first, RING.first, ""], RING) == (
        [ring.first for ring in (RING, STAGED, USED, FINISHED)], unstage(STAGED),
    )  # fmt: skip


def test_steps_twice() -> None:
    """A step that was taken already changes nothing."""
    assert (USED, FINISHED, RING) == (use_newest(USED), retire(FINISHED), unstage(RING))


def test_full_ring() -> None:
    """A ring takes so many keys and no more."""
    ring = RING
    for number in range(2, KEYS_MAX + 1):
        ring = stage(ring, key(number))
    assert ring == parse_ring(format_ring(ring), "r")
    with pytest.raises(RefusedError, match="16 keys"):
        stage(ring, key(100))


def test_join() -> None:
    """Another host's new key is staged here; what seals here stays what it is."""
    assert STAGED == join(RING, STAGED)
    assert (STAGED, STAGED, USED) == (join(STAGED, RING), join(RING, USED), join(USED, STAGED))
    assert FINISHED.names == join(RING, FINISHED).staged


def test_join_another_fleet() -> None:
    """A ring of another fleet is refused, though it has a key that would fit."""
    with pytest.raises(RefusedError, match="another fleet"):
        join(RING, stage(ring_of(key(9)), key(1)))


def test_join_two_staged_keys() -> None:
    """Two hosts that each staged a key do not end with two orders of keys."""
    with pytest.raises(RefusedError, match="staged key"):
        join(STAGED, stage(RING, key(3)))


@given(st.integers(0, len(TEXT) - 1))
def test_cut(length: int) -> None:
    """A ring that is cut anywhere is none, and not a key of 32 bytes either."""
    with pytest.raises(BrokenSystemError):
        parse_ring(TEXT[:length], "r")


@given(st.integers(0, len(TEXT) - 1), st.integers(1, 255))
def test_turned_bits(place: int, change: int) -> None:
    """With any byte changed it is another ring by nobody's notice only where a hash's key is."""
    data = bytearray(TEXT)
    data[place] ^= change
    try:
        ring = parse_ring(bytes(data), "r")
    except BrokenSystemError:
        return
    assert parse_ring(TEXT, "r").keys == ring.keys


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Bytes that are no key and no ring are refused with a sentence."""
    if len(data) != KEY_BYTES:
        with pytest.raises(BrokenSystemError, match=r"^r") as caught:
            parse_ring(data, "r")
        assert "backup" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"used", b"uses", "line 4: this is no line of a ring of keys"),
        (b"hash code", b"hash card", "this is no line"),
        (f"used {RING.used}".encode(), b"used 00000000", "is no whole ring"),
        (b"key ", b"key 00000000 ", "this is no line"),
        (f"used {USED.used}\n".encode(), b"", "is no whole ring"),
        (b"ring 1", b"ring 2", "neither a key of 32 bytes nor a whole ring"),
        (b"\nkey", b"\nkey x 00\nkey", "line 2: this is no key of 32 bytes"),
    ],
)  # fmt: skip
def test_wrong_line(old: bytes, new: bytes, words: str) -> None:
    """The error names the line and quotes nothing of it."""
    data = format_ring(USED).replace(old, new)
    if data == format_ring(USED):
        data = format_ring(STAGED).replace(old, new)
    with pytest.raises(BrokenSystemError, match=words) as caught:
        parse_ring(data, "r")
    assert key(1).reveal().hex()[:8] not in f"{caught.value}"


def test_no_key_is_printed() -> None:
    """What is printed of a ring has no key in it."""
    assert ("Secret(redacted)", False) == (f"{USED.keys[1].secret}", "\\x02" in f"{USED}")
