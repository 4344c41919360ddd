# SPDX-License-Identifier: Apache-2.0
"""Serves a lossy disk to QEMU, by the NBD protocol (doc/proto.md of NetworkBlockDevice/nbd).

One request after the other, so that the order in the disk's history is the order in which the guest
was answered. QEMU's own log of writes (blklogwrites) does not tell when a flush began.
"""

import contextlib
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from vm.lossy_disk import LossyDisk

_OPTION_MAGIC, _OPTION_REPLY = b"IHAVEOPT", 0x3E889045565A9
_REQUEST, _REPLY = 0x25609513, 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_GO = 7
_ACK, _INFO, _UNSUPPORTED = 1, 3, 0x80000001
_EXPORT = 0
_FLAGS = 1 | 4  # there are flags; flushes are understood
_READ, _WRITE, _DISCONNECT, _FLUSH = range(4)
_END_SECONDS = 10.0


class DiskServer:
    """A disk behind a socket, for one QEMU; enter it as a context manager."""

    def __init__(self, disk: LossyDisk, path: Path) -> None:
        """Listen at a path."""
        self._disk = disk
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        """Wait for QEMU, in a thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; a QEMU that was served has ended before."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(_END_SECONDS)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):  # QEMU was killed, or never came
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as requests:
                _negotiate(connection, requests, self._disk.size)
                while _answer(connection, requests, self._disk):
                    pass


def _take(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _negotiate(connection: socket.socket, requests: IO[bytes], size: int) -> None:
    """Agree on the one export; every option but that is declined."""
    flags = struct.pack(">H", _FIXED_NEWSTYLE | _NO_ZEROES)
    connection.sendall(b"NBDMAGIC" + _OPTION_MAGIC + flags)
    _take(requests, 4)  # the client's flags: QEMU knows both of ours
    while True:
        magic, option, length = struct.unpack(">8sII", _take(requests, 16))
        if magic != _OPTION_MAGIC:
            raise EOFError
        _take(requests, length)
        if option != _GO:
            _reply(connection, option, _UNSUPPORTED)
            continue
        _reply(connection, option, _INFO, struct.pack(">HQH", _EXPORT, size, _FLAGS))
        _reply(connection, option, _ACK)
        return


def _reply(connection: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
    connection.sendall(struct.pack(">QIII", _OPTION_REPLY, option, kind, len(data)) + data)


def _answer(connection: socket.socket, requests: IO[bytes], disk: LossyDisk) -> bool:
    """Do what one request asks for; return whether there may be another."""
    fields = struct.unpack(">IHHQQI", _take(requests, 28))
    magic, _, kind, cookie, offset, length = fields
    if magic != _REQUEST or kind == _DISCONNECT:
        return False
    data = b""
    if kind == _READ:
        data = disk.read(offset, length)
    elif kind == _WRITE:
        disk.write(offset, _take(requests, length))
    elif kind == _FLUSH:
        disk.flush()
    else:
        raise EOFError
    connection.sendall(struct.pack(">IIQ", _REPLY, 0, cookie) + data)
    return True
