# SPDX-License-Identifier: Apache-2.0
"""CBOR in CTAP2's canonical form (section 8): integers, strings, arrays, maps and booleans."""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import TypeAlias

Item: TypeAlias = (
    "int | str | bytes | bool | Sequence[Item] | Mapping[int, Item] | Mapping[str, Item]"
)

DEEPEST = 4  # levels of nesting that a message may have
LENGTH_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}  # by the low five bits of a head
FALSE, TRUE = b"\xf4", b"\xf5"


class Major(IntEnum):
    """Major types (RFC 8949, section 3.1)."""

    UNSIGNED = 0
    NEGATIVE = 1
    BYTES = 2
    TEXT = 3
    ARRAY = 4
    MAP = 5
    SIMPLE = 7


class CborError(ValueError):
    """The bytes are not one item in canonical form."""


def encode_head(major: Major, value: int) -> bytes:
    """Return a head with its value in the fewest bytes."""
    if value < min(LENGTH_BYTES):
        return bytes((major << 5 | value,))
    for low, size in LENGTH_BYTES.items():
        if value < 1 << 8 * size:
            return bytes((major << 5 | low,)) + value.to_bytes(size, "big")
    raise CborError(f"{value} does not fit in 64 bits")


def encode(item: Item) -> bytes:
    """Return an item's canonical bytes."""
    if isinstance(item, bool):
        return TRUE if item else FALSE
    if isinstance(item, int):
        major = Major.UNSIGNED if item >= 0 else Major.NEGATIVE
        return encode_head(major, item if item >= 0 else -1 - item)
    if isinstance(item, bytes):
        return encode_head(Major.BYTES, len(item)) + item
    if isinstance(item, str):
        text = item.encode()
        return encode_head(Major.TEXT, len(text)) + text
    if isinstance(item, Mapping):
        pairs = [(encode(key), encode(value)) for key, value in item.items()]
        # By major type, then the shorter, then the lower bytes.
        pairs.sort(key=lambda pair: (pair[0][0] >> 5, len(pair[0]), pair[0]))
        return encode_head(Major.MAP, len(pairs)) + b"".join(key + value for key, value in pairs)
    return encode_head(Major.ARRAY, len(item)) + b"".join(encode(each) for each in item)


class Reader:
    """Takes items off the front of bytes that somebody else wrote."""

    def __init__(self, data: bytes) -> None:
        """Start at the first byte."""
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        if size > len(self.data) - self.at:
            raise CborError("the bytes end within an item")
        self.at += size
        return self.data[self.at - size : self.at]

    def take_head(self) -> tuple[int, int]:
        """Return a head's major type and value."""
        first = self.take(1)[0]
        major, low = first >> 5, first & 0x1F
        if low in LENGTH_BYTES and major != Major.SIMPLE:
            return major, int.from_bytes(self.take(LENGTH_BYTES[low]), "big")
        if low >= min(LENGTH_BYTES):
            raise CborError(f"unknown head {first:#04x}")
        return major, low

    def take_item(self, depth: int = 0) -> Item:
        """Return the next item."""
        if depth > DEEPEST:
            raise CborError("nested too deep")
        major, value = self.take_head()
        if major in (Major.UNSIGNED, Major.NEGATIVE):
            return value if major == Major.UNSIGNED else -1 - value
        if major in (Major.BYTES, Major.TEXT):
            return self.take(value) if major == Major.BYTES else self.take_text(value)
        if major == Major.ARRAY:
            return [self.take_item(depth + 1) for _ in range(value)]
        if major == Major.MAP:
            return self.take_map(value, depth + 1)
        if major == Major.SIMPLE and value in (20, 21):
            return value == 21
        raise CborError(f"no such item in CTAP2: major type {major}, value {value}")

    def take_text(self, size: int) -> str:
        """Return a text of this many bytes."""
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            raise CborError("a text is not UTF-8") from error

    def take_map(self, size: int, depth: int) -> Item:
        """Return a map of this many pairs."""
        found: dict[int | str, Item] = {}
        for _ in range(size):
            key = self.take_item(depth)
            if isinstance(key, bool) or not isinstance(key, int | str) or key in found:
                raise CborError("a map's key is no number or text, or stands twice")
            found[key] = self.take_item(depth)
        return found  # type: ignore[return-value]  # its keys are of one kind in CTAP2


def decode(data: bytes) -> Item:
    """Return the item that these bytes are, all of them."""
    reader = Reader(data)
    item = reader.take_item()
    if encode(item) != data:
        raise CborError("not in canonical form, or more than one item")
    return item
