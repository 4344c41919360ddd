# SPDX-License-Identifier: Apache-2.0
"""Asking several attached keys at once, each by a thread of its own.

Knows nothing of keys: a key that hangs keeps no other waiting, and the first answer ends the rest.
"""

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ask_each(items: Sequence[_Item], ask: Callable[[_Item], _Result]) -> list[_Result]:
    """Ask all at once; return the answers in the items' order."""
    answers: list[_Result | None] = [None] * len(items)

    def keep(index: int, item: _Item) -> None:
        answers[index] = ask(item)

    threads = [Thread(target=keep, args=pair, daemon=True) for pair in enumerate(items)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answer for answer in answers if answer is not None]


def ask_first(
    items: Sequence[_Item], ask: Callable[[_Item, Event], _Result | None], canceled: Event
) -> _Result | None:
    """Ask all at once; return the first answer that is one, and cancel the others."""
    ended = _Either(canceled)
    answers: SimpleQueue[_Result | None] = SimpleQueue()

    def put(item: _Item) -> None:
        answers.put(ask(item, ended))

    for item in items:
        Thread(target=put, args=(item,), daemon=True).start()
    found = None
    for _ in items:
        answer = answers.get()
        if answer is not None and found is None:
            found = answer
            ended.set()
    return found


class _Either(Event):
    """An event that is also set when another one is."""

    def __init__(self, other: Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        """Whether this event or the other one is set."""
        return super().is_set() or self._other.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for this one, for at most a turn, and look at the other one."""
        super().wait(timeout)
        return self.is_set()
