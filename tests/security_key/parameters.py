# SPDX-License-Identifier: Apache-2.0
"""A command's parameters: a map from outside, each value of the type that it must have."""

from collections.abc import Mapping
from typing import TypeVar

from security_key.cbor import CborError, Item, decode
from security_key.status import Status, StatusError

Kind = TypeVar("Kind", int, bool, str, bytes)
Key = int | str


class Parameters:
    """One map of a request."""

    def __init__(self, items: Mapping[Key, Item]) -> None:
        """Keep the map."""
        self.items = items

    def has(self, key: Key) -> bool:
        """Whether there is such a parameter."""
        return key in self.items

    def find(self, key: Key, kind: type[Kind]) -> Kind | None:
        """Return a value, or None where it is not given."""
        value = self.items.get(key)
        if value is not None and type(value) is not kind:
            raise StatusError(Status.CBOR_UNEXPECTED_TYPE)
        return value

    def require(self, key: Key, kind: type[Kind]) -> Kind:
        """Return a value that must be given."""
        value = self.find(key, kind)
        if value is None:
            raise StatusError(Status.MISSING_PARAMETER)
        return value

    def find_map(self, key: Key) -> "Parameters":
        """Return a map within; an empty one where it is not given."""
        return as_parameters(self.items.get(key, {}))

    def require_map(self, key: Key) -> "Parameters":
        """Return a map within that must be given."""
        if not self.has(key):
            raise StatusError(Status.MISSING_PARAMETER)
        return self.find_map(key)

    def find_maps(self, key: Key) -> list["Parameters"]:
        """Return an array of maps; an empty one where it is not given."""
        value = self.items.get(key, [])
        if not isinstance(value, list):
            raise StatusError(Status.CBOR_UNEXPECTED_TYPE)
        return [as_parameters(each) for each in value]


def as_parameters(item: Item) -> Parameters:
    """Return an item as a map, which it must be."""
    if not isinstance(item, dict):
        raise StatusError(Status.CBOR_UNEXPECTED_TYPE)
    return Parameters(item)


def parse_parameters(data: bytes) -> Parameters:
    """Return the parameters of a command; no bytes are no parameters."""
    if not data:
        return Parameters({})
    try:
        return as_parameters(decode(data))
    except CborError as error:
        raise StatusError(Status.INVALID_CBOR) from error
