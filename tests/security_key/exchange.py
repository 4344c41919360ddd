# SPDX-License-Identifier: Apache-2.0
"""How a command asks for its person: it yields a need and is sent a gesture.

So the commands are free of clocks, threads and devices. Whoever drives them keeps the time.
"""

from collections.abc import Generator
from enum import Enum, auto
from typing import TypeAlias, TypeVar

from security_key.status import Status, StatusError


class Need(Enum):
    """What a command waits for."""

    TOUCH = auto()  # until the person touches, or time runs out
    FINGER = auto()  # the same, with the finger that is enrolled
    GLIMPSE = auto()  # a touch now or never: U2F hosts ask again
    PROCESSING = auto()  # the key's own slowness
    SILENCE = auto()  # a bad key: no word any more
    FOREVER = auto()  # a bad key: keepalives without end


class Gesture(Enum):
    """What came of it."""

    GIVEN = auto()
    WRONG_FINGER = auto()
    REFUSED = auto()
    TIMED_OUT = auto()
    CANCELLED = auto()


Result = TypeVar("Result")
Step: TypeAlias = Generator[Need, Gesture, Result]

ENDS = {
    Gesture.WRONG_FINGER: Status.UV_INVALID,
    Gesture.REFUSED: Status.OPERATION_DENIED,
    Gesture.TIMED_OUT: Status.USER_ACTION_TIMEOUT,
    Gesture.CANCELLED: Status.KEEPALIVE_CANCEL,
}


def require_gesture(need: Need) -> Step[None]:
    """Wait for a person's consent; whatever else comes ends the command."""
    gesture = yield need
    if gesture in ENDS:
        raise StatusError(ENDS[gesture])


def finish(step: Step[Result], gesture: Gesture = Gesture.GIVEN) -> Result:
    """Run a command to its end with a person who always does the same."""
    try:
        next(step)
        while True:
            step.send(gesture)
    except StopIteration as end:
        result: Result = end.value
        return result
