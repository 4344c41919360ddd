# SPDX-License-Identifier: Apache-2.0
"""How fast Python is on a machine, so that a guest's times can be compared with its host's."""

from time import perf_counter

LOOPS = 300_000
TRIES = 5


def calculate() -> float:
    """Return the seconds of a calculation, the fastest of a few."""
    return min(_calculate_once() for _ in range(TRIES))


def _calculate_once() -> float:
    began = perf_counter()
    total = 0
    for number in range(LOOPS):
        total += number * number % 7
    return perf_counter() - began
