# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor: commands and events as JSON on a socket (docs/interop/qmp-spec of QEMU)."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vm.host_commands import HostError

_SECONDS = 120.0  # for an answer, or for a reboot on a loaded machine


class Monitor:
    """A connection to the monitor of one QEMU."""

    def __init__(self, path: Path, require_running: Callable[[], None]) -> None:
        """Connect as soon as the socket is there.

        Raises:
            HostError: by `require_running`, called while waiting; or it closed.
        """
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SECONDS)
        self._lines = self._socket.makefile("rb")
        self._events: list[str] = []  # since the latest command
        try:
            deadline = time.monotonic() + _SECONDS
            while not self._is_connected(path):
                require_running()
                if time.monotonic() > deadline:
                    raise HostError("QEMU opened no monitor")
                time.sleep(0.01)
            self._await("QMP")
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, **arguments: str) -> Any:  # noqa: ANN401 - JSON
        """Run a command and return what it returned.

        Raises:
            HostError: it was refused, or the monitor closed.
        """
        self._events.clear()
        request = json.dumps({"execute": command, "arguments": arguments})
        try:
            self._socket.sendall(f"{request}\n".encode())
        except OSError as error:
            raise HostError("QEMU's monitor closed") from error
        answer = self._await("return", "error")
        if "error" in answer:
            raise HostError(f"QEMU refuses {command}: {answer['error']['desc']}")
        return answer["return"]

    def await_event(self, name: str) -> None:
        """Wait for an event since the latest command, which must be sure to come."""
        while name not in self._events:
            self._await("event")
        self._events.remove(name)

    def _is_connected(self, path: Path) -> bool:
        try:
            self._socket.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def _await(self, *kinds: str) -> dict[str, Any]:
        """Return the next message of one of these kinds."""
        while True:
            try:
                line = self._lines.readline()
            except OSError as error:
                raise HostError("QEMU's monitor closed, or kept silent") from error
            if not line:
                raise HostError("QEMU's monitor closed")
            message: dict[str, Any] = json.loads(line)
            if "event" in message:  # it may come before the answer to what has caused it
                self._events.append(str(message["event"]))
            if any(kind in message for kind in kinds):
                return message
