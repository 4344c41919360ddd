# SPDX-License-Identifier: Apache-2.0
"""The stock of hardware tokens: bringing deliveries in, and who has which.

A delivery is taken in batches, each one transaction, and every batch may be taken again: an
interrupted import goes on where it stopped.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pam_mfa.audit import EventName
from pam_mfa.errors import RefusedError
from pam_mfa.lifecycle import Actor
from pam_mfa.store import AdministratorsStore, Change, Claim, Inventory, StoredToken
from pam_mfa.tokens import BadEntry, Delivery, Token

BATCH = 1000


class Intake(NamedTuple):
    """What became of a delivery."""

    added: int
    present: int  # with the same seed, from an earlier import
    bad: tuple[BadEntry, ...]


class TokenStock:
    """The tokens of one store."""

    def __init__(
        self, store: AdministratorsStore, clock: Callable[[], float], actor: Actor
    ) -> None:
        """Take the store, the clock (seconds since the epoch) and who acts."""
        self._store = store
        self._clock = clock
        self._actor = actor

    def list_tokens(self) -> list[StoredToken]:
        """Return every token, by serial number."""
        return self._store.read_inventory(lambda db: list(db.list_tokens()))

    def take_in(
        self,
        delivery: Delivery,
        source: str,
        *,
        skip_bad: bool = False,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> Intake:
        """Put a delivery's tokens into the stock.

        Args:
            delivery: what a file says.
            source: the file's name, for the record.
            skip_bad: take the good entries although there are bad ones.
            progress: told how many entries each batch had.

        Raises:
            RefusedError: there are bad entries and ``skip_bad`` is not said; nothing was taken.
        """
        clashes = self._find_clashes(delivery.tokens)
        bad = (*delivery.bad, *clashes)
        if bad and not skip_bad:
            raise BadDeliveryError(source, bad)
        unwanted = {entry.serial_number for entry in clashes}
        good = [token for token in delivery.tokens if token.serial_number not in unwanted]
        added = 0
        for batch in _batches(good):
            added += self._add(batch)
            progress(len(batch))
        self._record(source, added)
        return Intake(added, len(good) - added, bad)

    def _find_clashes(self, tokens: Iterable[Token]) -> list[BadEntry]:
        """Return the tokens whose seed or serial number another one has already."""

        def look(inventory: Inventory) -> list[BadEntry]:
            seen: dict[str, str] = {}
            clashes = []
            for token in tokens:
                print_ = self._store.sealer.fingerprint(token.seed)
                owner = inventory.find_owner(print_) or seen.get(print_)
                seen.setdefault(print_, token.serial_number)
                if owner not in (None, token.serial_number):
                    clashes.append(_clash(token, "its seed is another device's already"))
                elif owner is None and inventory.find_token(token.serial_number):
                    clashes.append(_clash(token, "it is in stock with another seed"))
            return clashes

        return self._store.read_inventory(look)

    def _add(self, batch: list[Token]) -> int:
        # Sealed and stored under the lock that rotations of the seal keys take.
        with self._store.documents.lock():
            return self._add_locked(batch)

    def _add_locked(self, batch: list[Token]) -> int:
        sealed = [
            (token, self._store.sealer.seal(token.seed, "", token.serial_number)) for token in batch
        ]
        added: list[str] = []

        def add(inventory: Inventory) -> None:
            added.clear()
            for token, sealed_seed in sealed:
                if inventory.find_token(token.serial_number):
                    continue
                print_ = self._store.sealer.fingerprint(token.seed)
                stored = StoredToken(
                    token.serial_number,
                    token.manufacturer,
                    token.parameters,
                    token.counter,
                    sealed_seed,
                    None,
                )
                inventory.add_token(stored)
                inventory.add_fingerprint(print_, token.serial_number)
                added.append(token.serial_number)

        nothing = Change(accepted=True, events=())
        self._store.commit([Claim("", (), lambda _: nothing, add)])
        return len(added)

    def _record(self, source: str, added: int) -> None:
        event = self._actor.tell(
            EventName.IMPORT_DEVICES, self._clock(), f"{added} tokens from {source}"
        )
        change = Change(accepted=True, events=(event,))
        self._store.commit([Claim("", (), lambda _: change)])


class BadDeliveryError(RefusedError):
    """A file has entries that cannot be taken; ``entries`` says which and why."""

    def __init__(self, source: str, entries: tuple[BadEntry, ...]) -> None:
        """Name the file, and each entry's line and reason."""
        super().__init__(
            f"{source} has {len(entries)} bad entries; nothing was imported",
            hint="Have them corrected, or take the others only: --skip-bad",
        )
        self.entries = entries


def _clash(token: Token, reason: str) -> BadEntry:
    return BadEntry(token.line, token.serial_number, reason)


def _batches(tokens: Iterable[Token]) -> Iterable[list[Token]]:
    iterator = iter(tokens)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch
