# SPDX-License-Identifier: Apache-2.0
"""Inside the guest: types at a virtual terminal and shows its screen, as `console.py` asks.

Each line on standard input is a JSON string to type, after the screen was cleared. Each line on
standard output is a JSON list: how many strings were typed so far, and the screen up to the cursor.
Ends when standard input does.
"""

import fcntl
import json
import os
import select
import sys
import termios

CLEAR = b"\033[2J\033[H"


def main() -> None:
    """Serve the terminal of this number until standard input ends."""
    number = sys.argv[1]
    screen = os.open(f"/dev/vcsa{number}", os.O_RDONLY)
    typed = 0
    shown = ""
    poll = select.poll()
    poll.register(screen, select.POLLPRI)
    poll.register(sys.stdin, select.POLLIN)
    while True:
        text = read_screen(screen)
        if text != shown:
            shown = text
            report(typed, text)
        ready = [descriptor for descriptor, _ in poll.poll()]
        if sys.stdin.fileno() in ready:
            line = sys.stdin.readline()
            if not line:
                return
            clear_and_type(f"/dev/tty{number}", json.loads(line))
            typed += 1
            shown = ""


def report(typed: int, text: str) -> None:
    """Tell what the screen shows."""
    sys.stdout.write(json.dumps([typed, text]) + "\n")
    sys.stdout.flush()


def read_screen(screen: int) -> str:
    """Return the lines down to the cursor, and the cursor's own up to it: a prompt's end."""
    content = os.pread(screen, 4 + 2 * 255 * 255, 0)  # vcs(4): lines, columns, x, y, then cells
    _, columns, x, y = content[:4]
    characters = content[4::2].decode("cp437")
    rows = [characters[at : at + columns] for at in range(0, y * columns, columns)]
    last = characters[y * columns : y * columns + x]
    return "\n".join([*(row.rstrip() for row in rows), last])


def clear_and_type(path: str, text: str) -> None:
    """Clear the screen, then put characters where the keyboard puts them.

    The terminal is opened each time, since a getty that starts hangs up all that hold it.
    """
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(terminal, CLEAR)
        for byte in text.encode():
            fcntl.ioctl(terminal, termios.TIOCSTI, bytes([byte]))
    finally:
        os.close(terminal)


if __name__ == "__main__":
    main()
