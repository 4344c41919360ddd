# SPDX-License-Identifier: Apache-2.0
"""Proof by a typed code: which devices a code belongs to, and whether it still counts.

Pure: the time comes as an argument, what was used before comes from the store.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pam_mfa import oath
from pam_mfa.devices import Device
from pam_mfa.store.enrollment import OpenDevice

RESYNC_SECONDS = 86400  # of time drift that two consecutive codes may mend
RESYNC_COUNTERS = 1000
LOOK_AHEAD = 10  # counters after the last used one, unless policy says otherwise


class Match(NamedTuple):
    """A device that makes the typed code at a time step within the window."""

    device: Device
    step: int
    key: str  # under which the state notes what was used
    drift: int | None = None  # time steps that the device is off, where a pair has shown it


def noted_step(match: Match) -> int:
    """Return what a record has of an accepted code: on paper its number, for every step is 1."""
    _, separator, number = match.key.removeprefix(match.device.serial_number).rpartition("#")
    return int(number) if separator else match.step


def parse_answer(answer: str) -> str:
    """Return the code in an answer, without the spaces that people type; "" if it is none."""
    compact = answer.replace(" ", "")
    return compact if oath.is_code(compact) else ""


class Expected(NamedTuple):
    """All codes that count at one moment, made before the answer is there."""

    moment: tuple[int, ...]  # each device's time step at that moment
    codes: tuple[tuple[Device, int, bytes], ...]  # device, time step, code


def expect_codes(
    devices: Sequence[OpenDevice], now: float, window: int, look_ahead: int = LOOK_AHEAD
) -> Expected:
    """Make every code of every device within the window, whichever will be typed."""
    codes = []
    for opened in devices:
        parameters = opened.device.parameters
        steps = _accepted_steps(opened, now, window, look_ahead)
        for step, text in zip(steps, oath.codes(opened.seed, parameters, steps), strict=True):
            codes.append((opened.device, step, text.encode("ascii")))
    return Expected(moment_of(devices, now), tuple(codes))


def _accepted_steps(opened: OpenDevice, now: float, window: int, look_ahead: int) -> range:
    parameters, state = opened.device.parameters, opened.state
    if parameters.is_event_based:  # RFC 4226, section 7.4: the look-ahead window
        return range(state.step + 1, state.step + 1 + look_ahead)
    current = oath.time_step(now, parameters.period) + state.drift
    return range(max(0, current - window), current + window + 1)


def moment_of(devices: Sequence[OpenDevice], now: float) -> tuple[int, ...]:
    """Return each device's time step; codes made at another moment are made anew."""
    return tuple(_time_step(opened, now) for opened in devices)


def find_pair(
    pair: tuple[str, str], devices: Sequence[OpenDevice], now: float
) -> tuple[Match, ...]:
    """Return the device of which these are two consecutive codes, far outside its window.

    Two codes are asked for because one of thousands would be guessed: RFC 4226, section 7.4.
    Every device is searched through, whichever it is.
    """
    found = []
    for opened in devices:
        parameters = opened.device.parameters
        steps = resync_steps(opened, now)
        step = oath.find_pair(opened.seed, parameters, pair, steps)
        if step is not None:
            drift = None if parameters.is_event_based else step - _time_step(opened, now)
            found.append(Match(opened.device, step, opened.device.serial_number, drift))
    return tuple(found)


def resync_steps(opened: OpenDevice, now: float) -> range:
    """Return the steps that a pair of codes may lie in: a day either side, or 1,000 counters."""
    parameters = opened.device.parameters
    if parameters.is_event_based:
        return range(opened.state.step + 1, opened.state.step + 1 + RESYNC_COUNTERS)
    current = oath.time_step(now, parameters.period)
    reach = RESYNC_SECONDS // parameters.period
    return range(max(0, current - reach), current + reach + 1)


def _time_step(opened: OpenDevice, now: float) -> int:
    parameters = opened.device.parameters
    return 0 if parameters.is_event_based else oath.time_step(now, parameters.period)


def find_matches(code: str, expected: Expected) -> tuple[Match, ...]:
    """Return every device and time step whose code it is.

    Each comparison takes the same time and all are made: neither the match nor its place can be
    timed.
    """
    typed = code.encode("ascii")
    return tuple(
        Match(device, step, device.serial_number)
        for device, step, made in expected.codes
        if hmac.compare_digest(made, typed)
    )


def find_fresh(matches: Iterable[Match], used_steps: Mapping[str, int]) -> Match | None:
    """Return the first match that is later than all its device has had accepted.

    Later, and not only unused (RFC 6238, section 5.2): an older code that somebody saw and that
    was never sent must not count after a newer one.
    """
    for match in matches:
        if match.step > used_steps.get(match.key, -1):
            return match
    return None
