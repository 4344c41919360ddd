# SPDX-License-Identifier: Apache-2.0
"""A verifier that says what a test wants: raw frames on the socket where the real one listens.

Frames are made here and not by ``pam_mfa.wire``, so that they can be wrong, and so that somebody
else's reading of the protocol judges the module.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from installed import DataRoot

VERSION = 1
REQUEST, ANSWER, ABORT, PROMPT, VERDICT = 0x01, 0x02, 0x03, 0x81, 0x82
SUCCESS, DENIED, UNAVAILABLE, IGNORE = 1, 2, 3, 4
NONCE = slice(2, 18)
ROOM = 1 << 17
Fields = tuple[tuple[int, bytes], ...]


def fields(*pairs: tuple[int, bytes]) -> bytes:
    """Return fields as they stand in a frame."""
    return b"".join(bytes((tag,)) + len(value).to_bytes(2, "big") + value for tag, value in pairs)


def verdict_fields(result: int) -> bytes:
    """Return a verdict's fields."""
    return fields((1, bytes((result,))))


def prompt_fields(text: bytes, style: int = 1, is_code: int = 1) -> bytes:
    """Return a prompt's fields."""
    return fields((1, bytes((style,))), (2, text), (3, bytes((is_code,))))


class Exchange(NamedTuple):
    """One connection of the module."""

    connection: socket.socket
    request: bytes

    @property
    def nonce(self) -> bytes:
        """The request's nonce."""
        return self.request[NONCE]

    def frame(self, kind: int, content: bytes = b"", *, version: int = VERSION) -> bytes:
        """Return a frame for this request."""
        return bytes((version, kind)) + self.nonce + content

    def send(self, kind: int, content: bytes = b"") -> None:
        """Send a frame for this request."""
        self.connection.send(self.frame(kind, content))

    def verdict(self, result: int) -> None:
        """Send a verdict."""
        self.send(VERDICT, verdict_fields(result))

    def ask(self, text: bytes = b"Verification code: ", style: int = 1, is_code: int = 1) -> bytes:
        """Send a question and return the frame that comes back."""
        self.send(PROMPT, prompt_fields(text, style, is_code))
        return self.connection.recv(ROOM)


Script = Callable[[Exchange], None]


def read_fields(frame: bytes) -> dict[int, bytes]:
    """Return a frame's fields by their tags."""
    found: dict[int, bytes] = {}
    at = 18
    while at < len(frame):
        size = int.from_bytes(frame[at + 1 : at + 3], "big")
        assert frame[at] not in found
        found[frame[at]] = frame[at + 3 : at + 3 + size]
        at += 3 + size
    assert at == len(frame)
    return found


class LyingVerifier:
    """Listens in the real verifier's place, and answers each request by a script."""

    def __init__(self, root: DataRoot, script: Script) -> None:
        """Listen."""
        self._path = root.path / "run/pam_mfa/verify.sock"
        self._path.unlink(missing_ok=True)  # a daemon that stopped leaves it
        self.requests: list[bytes] = []
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self._path))
        self._path.chmod(0o666)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._path.unlink()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(60)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
                request = connection.recv(ROOM)
                self.requests.append(request)
                self._script(Exchange(connection, request))


@contextlib.contextmanager
def lying(root: DataRoot, script: Script) -> Iterator[LyingVerifier]:
    """Have a lying verifier in the place of the real one."""
    verifier = LyingVerifier(root, script)
    try:
        yield verifier
    finally:
        verifier.stop()


def telling(result: int) -> Script:
    """Return the script of an honest verifier that decides so, without a question."""
    return lambda exchange: exchange.verdict(result)
