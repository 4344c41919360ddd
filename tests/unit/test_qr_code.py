# SPDX-License-Identifier: Apache-2.0
"""The QR code as a camera sees it on terminals of either kind."""

import re

import pytest
import segno

from pam_mfa.qr_code import draw_lines

URI = "otpauth://totp/web1:alice?secret=AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQT&issuer=web1"
HALVES = {" ": (0, 0), "\u2580": (1, 0), "\u2584": (0, 1), "\u2588": (1, 1)}
PAINT = re.compile(r"\x1b\[97;40m\x1b\[38;5;231;48;5;16m([^\x1b]*)\x1b\[0m")


def see(lines: list[str], *, has_dark_letters: bool) -> list[list[bool]]:
    """Return what is dark on a terminal with letters and background of these kinds."""
    return [
        [bool(HALVES[one][half]) is has_dark_letters for one in line]
        for line in lines
        for half in (0, 1)
    ]


def wanted(border: int) -> list[list[bool]]:
    """Return what must be dark, by the library that encodes."""
    made = segno.make(URI, micro=False, error="l")
    return [[bool(one) for one in row] for row in made.matrix_iter(scale=1, border=border)]


@pytest.mark.parametrize("border", [2, 4])
@pytest.mark.parametrize("is_inverted", [False, True])
def test_dark_on_light(*, is_inverted: bool, border: int) -> None:
    """Plain on a dark terminal, inverted on a light one, it is dark on light with its border."""
    lines = draw_lines(URI, border=border, is_inverted=is_inverted)
    seen = see(lines, has_dark_letters=is_inverted)
    assert (wanted(border), [not is_inverted] * len(seen[0])) == (seen[:-1], seen[-1])


def test_painted_for_any_terminal() -> None:
    """With its own colors each line is white on black from end to end, and leaves none behind."""
    painted = draw_lines(URI, is_painted=True)
    plain = [PAINT.fullmatch(line) for line in painted]
    assert draw_lines(URI) == [one[1] if one else "" for one in plain]
