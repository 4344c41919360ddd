# SPDX-License-Identifier: Apache-2.0
"""The person beside the key: touches it, refuses, or does nothing until told."""

from collections import Counter
from enum import StrEnum

from security_key.exchange import Gesture, Need

FORGOTTEN = 3.0  # seconds after which a U2F host that asks again is another host


class Touch(StrEnum):
    """What the person does when the key asks."""

    YES = "yes"
    NO = "no"  # presses the button that refuses
    WAIT = "wait"  # nothing, until told otherwise
    ONCE = "once"  # touches once, then waits


class Person:
    """Somebody with a finger; ``delay`` is the seconds it takes to move."""

    def __init__(self, counters: Counter[str]) -> None:
        """Begin with a person who touches at once, with the right finger."""
        self.touch = Touch.YES
        self.delay = 0.0
        self.is_finger_right = True
        self.counters = counters
        self._asked_at: float | None = None
        self._last_asked = 0.0

    def find_gesture(self, need: Need, now: float) -> Gesture | None:
        """Return what the person has done by now about what the key asks; None is nothing yet."""
        if self._asked_at is None or now - self._last_asked > FORGOTTEN:
            self._asked_at = now
        self._last_asked = now
        if self.touch is Touch.WAIT or now - self._asked_at < self.delay:
            return None
        self.forget()
        if self.touch is Touch.NO:
            return Gesture.REFUSED
        self.counters["touches"] += 1
        if self.touch is Touch.ONCE:
            self.touch = Touch.WAIT
        is_wrong = need is Need.FINGER and not self.is_finger_right
        return Gesture.WRONG_FINGER if is_wrong else Gesture.GIVEN

    def forget(self) -> None:
        """Be asked anew the next time."""
        self._asked_at = None
