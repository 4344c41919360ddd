# SPDX-License-Identifier: Apache-2.0
"""What stands between a host and its database: a network that can be cut, or hold answers back."""

import contextlib
import socket
import threading


class Relay:
    """Hands bytes on, both ways, until it is told otherwise."""

    def __init__(self, port: int) -> None:
        """Listen on a port of its own for the one given."""
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_answers(self) -> None:
        """Keep what the database says from now on."""
        self._may_answer.clear()

    def cut(self) -> None:
        """End every connection, and let no new one through."""
        self._is_cut = True
        self._may_answer.set()
        self._drop()

    def mend(self) -> None:
        """Let connections through again, and answers too."""
        self._is_cut = False
        self._may_answer.set()

    def _drop(self) -> None:
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_cut:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [client, server]
                for pair in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._hand_on, args=pair, daemon=True).start()

    def _hand_on(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:  # noqa: FBT001 - a thread's argument
        with source, contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_answer:
                    self._may_answer.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
