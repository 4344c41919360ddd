# SPDX-License-Identifier: Apache-2.0
"""Networks and addresses as numbers: IPv4 and IPv6, with IPv4-mapped addresses counted as IPv4.

Pure; no name is ever resolved.
"""

import functools
import ipaddress
from typing import NamedTuple

_TEXT_MAX = 64  # characters; the longest address has 45, and a zone
_MAPPED_BITS = 96  # of ::ffff:0:0/96 (RFC 4291, section 2.5.5.2)
_MAPPED = 0xFFFF
_BITS = {4: 32, 6: 128}


class Address(NamedTuple):
    """An address of one version of the Internet protocol."""

    version: int
    number: int


class Network(NamedTuple):
    """A network: an address whose host bits are clear, and how many bits of it count."""

    version: int
    number: int
    bits: int

    def contains(self, address: Address) -> bool:
        """Whether an address is in it."""
        shift = _BITS[self.version] - self.bits
        return address.version == self.version and (address.number ^ self.number) >> shift == 0

    def includes(self, other: "Network") -> bool:
        """Whether every address of another network is in it."""
        return other.bits >= self.bits and self.contains(Address(other.version, other.number))


class HostBitsError(ValueError):
    """A network has host bits set; the text is the network that it lies in."""


def parse_network(text: str) -> Network:
    """Read a network; an address alone is a network of one.

    Raises:
        HostBitsError: host bits are set.
        ValueError: it is neither.
    """
    bits_text = text.partition("/")[2]
    # No zone, and no mask: 10.0.0.0/0.255.255.255 is a mask too, the other way round.
    if "%" in text or not ("/" not in text or (bits_text.isascii() and bits_text.isdigit())):
        raise ValueError(text)
    network = ipaddress.ip_network(text, strict=False)
    if int(ipaddress.ip_interface(text)) != int(network.network_address):
        raise HostBitsError(str(network))
    number, bits = int(network.network_address), network.prefixlen
    if network.version != 4 and bits >= _MAPPED_BITS and number >> 32 == _MAPPED:  # noqa: PLR2004
        return Network(4, number & 0xFFFFFFFF, bits - _MAPPED_BITS)
    return Network(network.version, number, bits)


@functools.lru_cache(maxsize=64)
def _parse_address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    number = int(address)
    if address.version != 4 and number >> 32 == _MAPPED:  # noqa: PLR2004
        return Address(4, number & 0xFFFFFFFF)
    return Address(address.version, number)


def find_address(text: str) -> Address | None:
    """Return a remote host's address; None for a name, for nothing, and for anything else."""
    return _parse_address(text) if 0 < len(text) <= _TEXT_MAX else None
