# SPDX-License-Identifier: Apache-2.0
"""Commits shared by whoever waits: one transaction and one sync for all claims of a moment."""

import asyncio
from collections.abc import Callable

from pam_mfa.errors import BrokenSystemError, StateError
from pam_mfa.store import Change, Claim, ServingStore
from pam_mfa.verifier.far_store import FarStore
from pam_mfa.verifier.journal import tell_fault

Done = Callable[[Change | BrokenSystemError], None]
_FAR_COMMITS = 2  # at a time


class Committer:
    """Gathers the claims of one turn of the event loop and commits them together.

    While a commit is under way its disk sync blocks the loop; the answers that arrive meanwhile
    wait in their sockets and share the next one. A store that is far away is waited for by
    threads: two commits at a time, so that a row that somebody holds keeps up only one.
    """

    def __init__(self, store: ServingStore, loop: asyncio.AbstractEventLoop) -> None:
        """Take the store that all claims go to."""
        self._store = store
        self._loop = loop
        self._waiting: list[tuple[Claim, Done]] = []
        self._far = FarStore(loop)
        self._under_way = 0  # commits that threads wait for

    def submit(self, claim: Claim, done: Done, *, is_alone: bool) -> None:
        """Commit a claim; ``done`` is called with its change once that is durable.

        Where it could not be made durable, ``done`` is called with the reason instead. A claim
        that is alone has no others to wait for.
        """
        self._waiting.append((claim, done))
        if self._store.patience:
            self._send()
        elif is_alone:
            self._flush()
        elif len(self._waiting) == 1:
            self._loop.call_soon(self._flush)

    def look(self, do: Callable[[], object], done: Callable[[object], None]) -> None:
        """Have something read; ``done`` is called with it, or with the reason why there is none."""
        self._far.do(do, done, self._store.patience)

    def close(self) -> None:
        """Begin nothing any more."""
        self._far.close()

    def _send(self) -> None:
        """Have a thread commit what waits, unless as many are at it as may be."""
        if not self._waiting or self._under_way == _FAR_COMMITS:
            return
        batch, self._waiting = self._waiting, []
        self._under_way += 1
        claims = [claim for claim, _ in batch]

        def finish(result: object) -> None:
            self._under_way -= 1
            if isinstance(result, BrokenSystemError):
                for _, done in batch:
                    done(result)
            elif isinstance(result, list):
                for (_, done), change in zip(batch, result, strict=True):
                    done(change)
                self._store.follow_up()
            self._send()

        self._far.do(lambda: self._store.commit(claims), finish, self._store.patience)

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
