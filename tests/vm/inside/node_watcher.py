# SPDX-License-Identifier: Apache-2.0
"""Inside the guest: tells which hidraw nodes are opened, by inotify(7).

Says `watching` on standard output; when standard input ends, the names of all that were opened.
"""

import ctypes
import os
import struct
import sys
from pathlib import Path

IN_OPEN = 0x20
EVENT = struct.Struct("iIII")  # struct inotify_event: watch, mask, cookie, length of a name


def main() -> None:
    """Watch the nodes that there are now."""
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init1(os.O_NONBLOCK)
    names = {}
    for node in sorted(Path("/dev").glob("hidraw*")):
        watch = libc.inotify_add_watch(events, str(node).encode(), IN_OPEN)
        if watch < 0:
            raise OSError(ctypes.get_errno(), f"no watch of {node}")
        names[watch] = node.name
    sys.stdout.write("watching\n")
    sys.stdout.flush()
    sys.stdin.read()
    sys.stdout.write(" ".join(sorted({names[watch] for watch in read_watches(events)})))


def read_watches(events: int) -> list[int]:
    """Return the watch of each event that waits."""
    try:
        data = os.read(events, 1 << 20)
    except BlockingIOError:
        return []
    watches = []
    at = 0
    while at < len(data):
        watch, _, _, length = EVENT.unpack_from(data, at)
        watches.append(watch)
        at += EVENT.size + length
    return watches


if __name__ == "__main__":
    main()
