# SPDX-License-Identifier: Apache-2.0
"""A syslog of a private host: keeps what its programs and PAM modules log, for a test to read.

The socket is a stream, which syslog(3) falls back to: the kernel keeps the messages until they are
read, so no thread or process has to read along. It must not pass anything to the machine's log.
"""

import contextlib
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

# Connections that may wait unread; each program that logs makes one.
BACKLOG = 1024
READ_SIZE = 65536


class SyslogSocket:
    """A listening syslog socket at `path`, which every user may write to."""

    def __init__(self, path: Path) -> None:
        """Remember where the socket is to be; entering the context makes it."""
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connections: dict[socket.socket, bytearray] = {}

    def __enter__(self) -> Self:
        """Listen."""
        self._listener.bind(str(self._path))
        self._path.chmod(0o666)
        self._listener.listen(BACKLOG)
        self._listener.setblocking(False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every socket; what was read so far stays readable."""
        self.text()
        for connection in self._connections:
            connection.close()
        self._listener.close()

    def text(self) -> str:
        """Return every message logged so far, one a line, each program's together."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._connections[connection] = bytearray()
        for connection, received in self._connections.items():
            _receive(connection, received)
        everything = b"".join(self._connections.values())
        return everything.replace(b"\0", b"\n").decode(errors="replace")


def _receive(connection: socket.socket, received: bytearray) -> None:
    """Append what has arrived, without waiting for more."""
    with contextlib.suppress(OSError):
        while chunk := connection.recv(READ_SIZE):
            received += chunk
