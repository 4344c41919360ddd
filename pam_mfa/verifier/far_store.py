# SPDX-License-Identifier: Apache-2.0
"""Threads that wait for a store that is far away, so that the event loop waits for nothing.

A few, however many logins there are: what has waited for its thread as long as an answer may take
fails without having been asked.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pam_mfa.errors import BrokenSystemError, StateError
from pam_mfa.verifier.journal import tell_fault

THREADS = 16  # more than the connections to a database; who gets one, its links settle
Done = Callable[[object], None]


class FarStore:
    """Does what blocks in a thread, and hands what came of it to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the loop; no thread is made before there is something to do."""
        self._loop = loop
        self._threads: ThreadPoolExecutor | None = None

    def do(self, act: Callable[[], object], done: Done, patience: float) -> None:
        """Have something done; ``done`` is called in the loop with its result, or its error."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        began_by = time.monotonic() + patience
        self._threads.submit(self._run, act, done, began_by)

    def _run(self, act: Callable[[], object], done: Done, began_by: float) -> None:
        result: object
        try:
            if time.monotonic() > began_by:
                raise StateError(
                    "the store is too slow for the logins that there are",
                    hint="See: pam-mfa store status",
                )
            result = act()
        except BrokenSystemError as error:
            result = error
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            tell_fault(error)
            result = StateError("the store failed by a fault of this program")
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(done, result)

    def close(self) -> None:
        """Begin nothing any more."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
