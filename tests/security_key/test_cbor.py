# SPDX-License-Identifier: Apache-2.0
"""CBOR, judged by python-fido2's."""

import pytest
from fido2 import cbor as judge
from hypothesis import given
from hypothesis import strategies as st

from security_key.cbor import CborError, Item, decode, encode

LEAVES = st.one_of(
    st.booleans(),
    st.integers(-(2**64), 2**64 - 1),
    st.binary(max_size=300),
    st.text(max_size=300),
)
ITEMS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.integers(-300, 300), inner, max_size=4),
        st.dictionaries(st.text(max_size=30), inner, max_size=4),
    ),
    max_leaves=8,
)


@given(ITEMS)
def test_bytes(item: Item) -> None:
    """An item has the bytes that python-fido2 gives it."""
    assert judge.encode(item) == encode(item)


@given(LEAVES)
def test_round_trip(item: Item) -> None:
    """What was encoded is decoded, within the four levels that CTAP2 allows."""
    nested: Item = {1: [{"key": [item]}]}
    assert nested == decode(encode(nested))


@pytest.mark.parametrize(
    "text",
    ["", "1801", "190001", "a20200 0100", "a2010001 00", "5f4100ff", "f6", "f90000", "0000",
     "62c328", "9b4000000000000000", "818181818100", "a1f500", "1c", "41"],
)  # fmt: skip
def test_not_canonical(text: str) -> None:
    """What is not in canonical form, or not of CTAP2, or not whole, is refused."""
    with pytest.raises(CborError):
        decode(bytes.fromhex(text))
