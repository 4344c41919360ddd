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


class Match(NamedTuple):
    """A device that makes the typed code at a time step within the window."""

    device: Device
    step: int


def parse_answer(answer: str) -> str:
    """Return the code in an answer, without the spaces that people type; "" if it is none."""
    compact = answer.replace(" ", "")
    return compact if oath.is_code(compact) else ""


class Expected(NamedTuple):
    """All codes that count at one moment, made before the answer is there."""

    moment: tuple[int, ...]  # each device's time step at that moment
    codes: tuple[tuple[Device, int, bytes], ...]  # device, time step, code


def expect_codes(devices: Sequence[OpenDevice], now: float, window: int) -> Expected:
    """Make every code of every device within the window, whichever will be typed."""
    codes = []
    for opened in devices:
        parameters = opened.device.parameters
        current = oath.time_step(now, parameters.period)
        steps = range(max(0, current - window), current + window + 1)
        for step, text in zip(steps, oath.codes(opened.seed, parameters, steps), strict=True):
            codes.append((opened.device, step, text.encode("ascii")))
    return Expected(moment_of(devices, now), tuple(codes))


def moment_of(devices: Sequence[OpenDevice], now: float) -> tuple[int, ...]:
    """Return each device's time step; codes made at another moment are made anew."""
    return tuple(oath.time_step(now, opened.device.parameters.period) for opened in devices)


def find_matches(code: str, expected: Expected) -> tuple[Match, ...]:
    """Return every device and time step whose code it is.

    Each comparison takes the same time and all are made: neither the match nor its place can be
    timed.
    """
    typed = code.encode("ascii")
    return tuple(
        Match(device, step)
        for device, step, made in expected.codes
        if hmac.compare_digest(made, typed)
    )


def find_fresh(matches: Iterable[Match], used_steps: Mapping[str, int]) -> Match | None:
    """Return the first match that is later than all its device has had accepted.

    Later, and not only unused (RFC 6238, section 5.2): an older code that somebody saw and that
    was never sent must not count after a newer one.
    """
    for match in matches:
        if match.step > used_steps.get(match.device.serial_number, -1):
            return match
    return None
