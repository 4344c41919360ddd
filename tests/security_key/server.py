# SPDX-License-Identifier: Apache-2.0
"""The loop around a key: packets of a link, the person's time, and what a test asks for.

One thread runs it and alone touches the link; others use ``submit``.
"""

import contextlib
import os
import select
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol, TypeVar

from security_key.ctaphid import PACKET, Engine
from security_key.key import SecurityKey
from security_key.memory import write_state

Result = TypeVar("Result")
REPLY_WITHIN = 20.0


class Link(Protocol):
    """How hosts see the key."""

    def plug(self) -> None:
        """Let hosts see it."""

    def unplug(self) -> None:
        """Take it away from them."""

    def close(self) -> None:
        """Leave nothing behind; it is unplugged by then."""

    def filenos(self) -> list[int]:
        """Return descriptors that packets may come from."""

    def receive(self, fileno: int) -> list[bytes]:
        """Return the packets of a descriptor that is ready."""

    def send(self, packet: bytes) -> None:
        """Send a packet to the hosts, or raise OSError where nobody takes it."""


class Side(Protocol):
    """Something else that the loop listens to."""

    def filenos(self) -> list[int]:
        """Return its descriptors."""

    def attend(self, fileno: int) -> None:
        """Do what is to be done where one is ready."""

    def close(self) -> None:
        """Close the descriptors."""


def strip_report_number(data: bytes) -> bytes:
    """Return a packet without the zero that hidraw has hosts put before it."""
    return data[1:] if len(data) == PACKET + 1 else data


class Server:
    """A key on a link."""

    def __init__(self, key: SecurityKey, link: Link, state: Path | None = None) -> None:
        """Begin unplugged; what the key keeps goes to the state file after every answer."""
        self.key = key
        self.link = link
        self.state = state
        self.engine = Engine(key)
        self.sides: list[Side] = []
        self.is_plugged = False
        self.is_over = False
        self.saved = ""
        self._actions: deque[Callable[[], None]] = deque()
        self._wake_end, self._wake = os.pipe()

    def run(self) -> None:
        """Serve until stop()."""
        try:
            while not self.is_over:
                self._step()
        finally:
            self.unplug()
            self.link.close()
            for side in self.sides:
                side.close()
            os.close(self._wake_end)
            os.close(self._wake)

    def stop(self) -> None:
        """Have run() return."""
        self.is_over = True

    def plug(self) -> None:
        """Plug the key in."""
        if not self.is_plugged:
            self.engine.power_cycle()
            self.link.plug()
            self.is_plugged = True

    def unplug(self) -> None:
        """Pull the key out, whatever it was doing."""
        if self.is_plugged:
            self.is_plugged = False
            self.link.unplug()
            self.engine.power_cycle()
        self._save()

    def submit(self, action: Callable[[], Result]) -> Result:
        """Have the loop's thread do something, and return what came of it."""
        future: Future[Result] = Future()

        def act() -> None:
            try:
                future.set_result(action())
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                future.set_exception(error)

        self._actions.append(act)
        os.write(self._wake, b"!")
        return future.result(REPLY_WITHIN)

    def _step(self) -> None:
        """Wait for something and do it."""
        owners: dict[int, Link | Side] = dict.fromkeys(self.link.filenos(), self.link)
        for side in self.sides:
            owners.update(dict.fromkeys(side.filenos(), side))
        patience = self.engine.find_patience()
        ready = select.select([*owners, self._wake_end], [], [], patience)[0]
        for fileno in ready:
            self._attend(fileno, owners)
        self._send(self.engine.tick())
        self._save()

    def _attend(self, fileno: int, owners: dict[int, Link | Side]) -> None:
        """Do what a descriptor is ready for."""
        if fileno == self._wake_end:
            os.read(fileno, select.PIPE_BUF)
            while self._actions:
                self._actions.popleft()()
        elif owners[fileno] is self.link:
            if fileno in self.link.filenos():  # an action before may have unplugged it
                for packet in self.link.receive(fileno):
                    self._send(self.engine.receive(packet))
        else:
            for side in self.sides:
                if owners[fileno] is side:
                    side.attend(fileno)

    def _send(self, packets: list[bytes]) -> None:
        """Send packets; where one is not taken, those after it are of no use."""
        with contextlib.suppress(OSError):
            for packet in packets:
                if self.is_plugged:
                    self.link.send(packet)

    def _save(self) -> None:
        """Write the state file if there is something new."""
        if self.state is None:
            return
        text = self.key.dump()
        if text != self.saved:
            write_state(self.state, text)
            self.saved = text
