# SPDX-License-Identifier: Apache-2.0
"""Commits shared by whoever waits: one transaction and one sync for all claims of a moment."""

import asyncio
from collections.abc import Callable

from pam_mfa.errors import BrokenSystemError, StateError
from pam_mfa.store import Change, Claim, ServingStore
from pam_mfa.verifier.journal import tell_fault

Done = Callable[[Change | BrokenSystemError], None]


class Committer:
    """Gathers the claims of one turn of the event loop and commits them together.

    While a commit is under way its disk sync blocks the loop; the answers that arrive meanwhile
    wait in their sockets and share the next one.
    """

    def __init__(self, store: ServingStore, loop: asyncio.AbstractEventLoop) -> None:
        """Take the store that all claims go to."""
        self._store = store
        self._loop = loop
        self._waiting: list[tuple[Claim, Done]] = []

    def submit(self, claim: Claim, done: Done, *, is_alone: bool) -> None:
        """Commit a claim; ``done`` is called with its change once that is durable.

        Where it could not be made durable, ``done`` is called with the reason instead. A claim
        that is alone has no others to wait for.
        """
        self._waiting.append((claim, done))
        if is_alone:
            self._flush()
        elif len(self._waiting) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        try:
            changes = self._store.commit([claim for claim, _ in batch])
        except BrokenSystemError as error:
            for _, done in batch:
                done(error)
            return
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            tell_fault(error)
            for _, done in batch:
                done(StateError("the commit failed by a fault of this program"))
            return
        for (_, done), change in zip(batch, changes, strict=True):
            done(change)
        self._store.follow_up()  # verdicts are out, so nobody waits for it
