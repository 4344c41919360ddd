# SPDX-License-Identifier: Apache-2.0
"""QR codes as text: two modules a character, one above the other. Pure.

A code is dark on light; many cameras do not read one the other way round. Plain text has the
colors of the terminal that shows it, so it is right on a dark one and wrong on a light one. Where
colors can be set they are, by numbers that no theme changes; where they cannot (a PAM message),
the picture can be had either way.
"""

from typing import Final

BORDER: Final = 4  # light modules around it: ISO/IEC 18004, quiet zone
# By upper and lower half; 1 is the background, which is dark where letters are light.
_BLOCKS: Final = {(0, 0): "\u2588", (0, 1): "\u2580", (1, 0): "\u2584", (1, 1): " "}
# White on black of the 16 colors, then those of the 256 that themes leave as they are.
_PAINT: Final = "\x1b[97;40m\x1b[38;5;231;48;5;16m"
_PLAIN: Final = "\x1b[0m"


def draw_lines(
    text: str, *, border: int = BORDER, is_inverted: bool = False, is_painted: bool = False
) -> list[str]:
    """Return a picture of a text, line by line.

    Args:
        text: to be read by a camera.
        border: light modules around it.
        is_inverted: for dark letters on a light terminal.
        is_painted: set the colors, whatever the terminal's are.
    """
    import segno  # noqa: PLC0415 - not what a login needs

    # A screen has no dirt: as small as can be, and as redundant as that size allows.
    matrix = segno.make(text, micro=False, error="l").matrix_iter(scale=1, border=border)
    ink = (1, 0) if is_inverted else (0, 1)
    rows = [[ink[1] if module else ink[0] for module in row] for row in matrix]
    # Its height is odd. What stands for the half line below it has the terminal's background.
    rows.append([1] * len(rows[0]))
    lines = [
        "".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    ]
    return [f"{_PAINT}{line}{_PLAIN}" for line in lines] if is_painted else lines
