# SPDX-License-Identifier: Apache-2.0
"""A link without a kernel device: sockets of whole packets, shared as hidraw is shared.

Every host that has the key open gets every packet of the key, as with /dev/hidraw. After unplug a
read gives the end of the file (hidraw gives EIO).
"""

import errno
import socket

from security_key.server import strip_report_number

TAKEN_WITHIN = 1.0
ROOM = 128


class Wire:
    """The connections of the hosts in this process."""

    def __init__(self) -> None:
        """Begin unplugged."""
        self.ends: dict[int, socket.socket] = {}
        self.slow: set[int] = set()
        self.is_plugged = False

    def plug(self) -> None:
        """Let hosts connect."""
        self.is_plugged = True

    def unplug(self) -> None:
        """End all connections."""
        self.is_plugged = False
        for end in self.ends.values():
            end.close()
        self.ends.clear()
        self.slow.clear()

    def close(self) -> None:
        """Leave nothing behind."""

    def connect(self) -> socket.socket:
        """Open the key and return the host's end."""
        if not self.is_plugged:
            raise OSError(errno.ENOENT, "the key is not plugged in")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends[ours.fileno()] = ours
        return theirs

    def filenos(self) -> list[int]:
        """Return the descriptors."""
        return list(self.ends)

    def receive(self, fileno: int) -> list[bytes]:
        """Return a host's packet, or none where the host has closed the key."""
        try:
            data = self.ends[fileno].recv(ROOM)
        except OSError:
            data = b""
        if not data:
            self.ends.pop(fileno).close()
            self.slow.discard(fileno)
            return []
        return [strip_report_number(data)]

    def send(self, packet: bytes) -> None:
        """Send a packet to every host; one that does not take it misses it."""
        for fileno, end in self.ends.items():
            # One that let the key wait before is not waited for again until it has taken something.
            end.settimeout(0.0 if fileno in self.slow else TAKEN_WITHIN)
            try:
                end.send(packet)
                self.slow.discard(fileno)
            except OSError:
                self.slow.add(fileno)
