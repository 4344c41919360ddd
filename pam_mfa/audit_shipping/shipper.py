# SPDX-License-Identifier: Apache-2.0
"""One host's records, put where a target lacks them: each once, resumed after any kill.

The target is asked what it has, so a kill between two writes loses and doubles nothing. Where the
two do not follow each other, a new chain is begun there beside the old one and it is said why:
shipping goes on, for what it ships may be the evidence.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from pam_mfa.audit import Head
from pam_mfa.audit_shipping.hosts import SignOfLife, now_text
from pam_mfa.audit_shipping.position import Positions
from pam_mfa.audit_shipping.sinks import CHAINS_MAX, Chain, RecordSink
from pam_mfa.audit_shipping.source import (
    Entry,
    Found,
    LogRecords,
    Source,
    Spot,
    Stand,
    Standing,
)
from pam_mfa.errors import BrokenSystemError

_LINES_MAX: Final = 500  # that are put at once
_BYTES_MAX: Final = 1 << 19
SIGN_EVERY: Final = 300.0  # seconds between signs of life where nothing happens
_KEEP: Final = "Copy both, the log and what the target has, before anything else is done."


class Shipper:
    """Ships one host's log to one target."""

    def __init__(
        self, log: Path, sink: RecordSink, positions: Positions, tell: Callable[[str], None]
    ) -> None:
        """Take the log, the target, what is remembered of it, and what is told what is wrong."""
        self.shipped = 0  # records, by this process
        self._source = Source(log)
        self._sink = sink
        self._positions = positions
        self._tell = tell
        self._chain: Chain | None = None  # that is added to
        self._log_end = Head()
        self._is_short = False  # whether the log was found to end before what the target has
        self._looked: Stand | None = None  # how the log was then
        self._signed_at = 0.0  # by time.monotonic; 0: not yet

    @property
    def skipped(self) -> int:
        """Lines of the log that are no records, and were left where they are."""
        return self._source.skipped

    @property
    def chain(self) -> Chain | None:
        """The chain that is added to, with its last record; None before the first one."""
        return self._chain

    def ship(self) -> int:
        """Put there what is missing; return how many records that were.

        Raises:
            RefusedError: the log may not be read.
            BrokenSystemError: the log, or the target, does not work; try again later.
        """
        before = self.shipped
        try:
            fresh = self._fresh()
            if fresh is not None:
                self._put_all(fresh)
            elif not self._is_short or self._source.mark() != self._looked:
                self._ship_anew()
        except BaseException:
            self._source.stand = None  # what was read may not have been put
            raise
        is_due = time.monotonic() - self._signed_at >= SIGN_EVERY or not self._signed_at
        if self.shipped != before or is_due:
            self._give_sign()
        return self.shipped - before

    def _fresh(self) -> Iterator[Entry] | None:
        """Return what was written behind what was read; None where that has to be looked for.

        A log that was rotated, packed and made anew may have got the number of the old file on
        the disk: what does not follow the last record is not what was written behind it.
        """
        fresh = self._source.fresh() if self._chain is not None else None
        if fresh is None or self._chain is None:
            return None
        first = next(fresh, None)
        if first is None:
            return iter(())
        if f'"previous":"{self._chain.head.hash}"'.encode() not in first.line:
            self._source.stand = None
            return None
        return itertools.chain((first,), fresh)

    def _ship_anew(self) -> None:
        """Ask the target what it has, find that in the log, and go on behind it."""
        chains = list(self._sink.chains())
        remembered = self._positions.get()
        if not self._sink.has_records:
            chains = [remembered] if remembered else []
        with self._source.open() as records:
            if not chains:
                self._chain = None
                self._put_all(records.behind(Spot()))
                return
            self._note_loss(chains, remembered)
            # The one that this host has added to, then the newest: two machines that are copies
            # of each other, ids and all, must not begin chains in turns.
            own = remembered.number if remembered else 0
            chains.sort(key=lambda chain: (chain.number == own, chain.number), reverse=True)
            self._go_on(records, chains)

    def _go_on(self, records: LogRecords, chains: list[Chain]) -> None:
        """Go on with the first chain that fits."""
        best: tuple[Chain, Found] | None = None
        for chain in chains:
            found = records.find(chain.head)
            if found.standing is Standing.JOINED:
                best = (chain, found)
                break
            if found.standing is Standing.GAP and best is None:
                best = (chain, found)
        newest = max(chains)
        found = records.find(newest.head) if best is None else best[1]
        if best is None and found.standing is Standing.SHORTER and self._is_cut(newest, found):
            self._chain, self._log_end = newest, found.last
            self._source.stand = None
            self._is_short, self._looked = True, self._source.mark()
            self._signed_at = 0.0
            self._tell(
                f"the log ends with record {found.last.sequence}, and the target has this host's "
                f"records up to {newest.head.sequence}: the log was cut off here. {_KEEP}"
            )
            return
        self._is_short = False
        if best is None:
            self._chain = self._begin(newest)
            self._put_all(records.behind(Spot()))
            return
        self._chain, found = best
        if found.standing is Standing.GAP:
            self._tell(
                f"the records that follow {self._chain.head.sequence} are no longer in the log: "
                "they were rotated away before they were shipped. Ship more often, or keep more "
                "files in logrotate's settings."
            )
        self._put_all(records.behind(found.spot, self._chain.head.sequence))

    def _is_cut(self, chain: Chain, found: Found) -> bool:
        """Whether the log's last record is one that the target has, or there is none at all."""
        if not found.last.sequence or not self._sink.has_records:
            return True
        return self._sink.hash_of(chain.number, found.last.sequence) == found.last.hash

    def _begin(self, newest: Chain) -> Chain:
        """Begin another chain at the target.

        Raises:
            BrokenSystemError: there are too many.
        """
        if newest.number >= CHAINS_MAX:
            raise BrokenSystemError(
                f"the target has {newest.number} chains of this host already",
                hint="See: pam-mfa audit verify --fleet. Move those that are looked at elsewhere.",
            )
        self._tell(
            f"the log does not follow what the target has, which ends with record "
            f"{newest.head.sequence}: this host's log or state was made anew or set back, or the "
            f"target was changed. Chain {newest.number + 1} is begun there, the old one stays. "
            f"{_KEEP}"
        )
        return Chain(newest.number + 1, Head())

    def _note_loss(self, chains: list[Chain], remembered: Chain | None) -> None:
        """Say it where the target has lost what was put there; it is put there again."""
        if remembered is None or not self._sink.has_records:
            return
        now = next((one for one in chains if one.number == remembered.number), None)
        if now is None or now.head.sequence < remembered.head.sequence:
            left = now.head.sequence if now is not None else 0
            self._tell(
                f"the target has this host's records up to {left}, and had them up to "
                f"{remembered.head.sequence}: they were taken away there. What this host still has "
                "is put there again."
            )

    def _put_all(self, entries: Iterable[Entry]) -> None:
        for batch in _batches(entries):
            chain = self._chain or Chain(1, Head())
            if batch[0].is_start and chain.head.sequence:
                chain = self._begin(chain)
            self._sink.put(chain.number, [entry.line for entry in batch])
            self._chain = Chain(chain.number, batch[-1].head)
            self._log_end = batch[-1].head
            self.shipped += len(batch)
            self._positions.put(self._chain)

    def _give_sign(self) -> None:
        chain = self._chain or Chain(1, Head())
        if not self._is_short:
            self._log_end = chain.head
        at = now_text(time.time())
        self._sink.tell_alive(SignOfLife(at, chain.number, chain.head, self._log_end))
        self._signed_at = time.monotonic()


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Take records together; one that begins a chain begins a batch."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if batch and (entry.is_start or len(batch) >= _LINES_MAX or size > _BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += len(entry.line)
    if batch:
        yield batch
