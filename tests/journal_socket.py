# SPDX-License-Identifier: Apache-2.0
"""A journal of a private host: keeps the entries that programs send it by systemd's protocol."""

import socket
from pathlib import Path
from types import TracebackType
from typing import Self


class JournalSocket:
    """A socket of datagrams, as systemd-journald's at /run/systemd/journal/socket."""

    def __init__(self, path: Path) -> None:
        """Remember where the socket is to be; entering the context makes it."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        """Listen."""
        self._socket.bind(str(self._path))
        self._path.chmod(0o666)
        self._socket.setblocking(False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the socket."""
        self._socket.close()

    def entries(self) -> list[dict[str, str]]:
        """Return the fields of each entry that came since the last time."""
        entries: list[dict[str, str]] = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return entries
            entries.append(dict(line.split("=", 1) for line in data.decode("ascii").splitlines()))
