# SPDX-License-Identifier: Apache-2.0
"""What a target of records must be able to do, whatever it is made of.

A target has chains of a host: one, as long as all is well. Another one is begun where what the
host has does not follow what the target has; so nothing that has come is ever given up.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from pam_mfa.audit import Head
from pam_mfa.audit_shipping.hosts import SignOfLife

CHAINS_MAX: Final = 99  # of one host; whoever can begin chains must not fill the target with files


class Chain(NamedTuple):
    """One chain of a host at a target."""

    number: int  # from 1
    head: Head  # the last record that is there


class RecordSink(Protocol):
    """A target, opened for one host."""

    @property
    def has_records(self) -> bool:
        """Whether the target itself can be asked what it has; else our own word is all there is."""

    def chains(self) -> Sequence[Chain]:
        """Return the host's chains, by number, each with its last record.

        Raises:
            BrokenSystemError: the target cannot be read.
        """

    def hash_of(self, number: int, sequence: int) -> str:
        """Return the hash of a record of a chain; "" where it is not known."""

    def put(self, number: int, lines: Sequence[bytes]) -> None:
        """Add lines to a chain, which begins with them where it is new; durable on return.

        Raises:
            BrokenSystemError: not all of them are there; the next call goes on from what is.
        """

    def tell_alive(self, sign: SignOfLife) -> None:
        """Replace the host's sign of life.

        Raises:
            BrokenSystemError: it cannot be written.
        """

    def close(self) -> None:
        """Let go of the target."""
