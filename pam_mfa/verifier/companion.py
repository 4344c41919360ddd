# SPDX-License-Identifier: Apache-2.0
"""The two processes of the daemon, and how each knows that the other is there.

Callers that are not root are served by a process of their own. Whoever may send a packet may
send descriptors along, and dropping the last reference to a hostile one blocks (a TCP connection
with SO_LINGER, a FUSE file): in one process that would keep root's logins waiting.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

from pam_mfa.verifier.journal import tell_error

_RESTART_PAUSE = 1.0  # seconds


class Companion(Protocol):
    """The other process."""

    def watch(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        """Start to watch it; call ``stop`` where this process must not go on without it."""

    def stop(self) -> None:
        """End it, where it is this process's to end."""

    async def retire(self, patience: float) -> None:
        """Have it end when nobody is at a prompt of its; wait for that, so many seconds at most."""


class Child:
    """The process for callers that are not root; started again when it ends."""

    def __init__(self, listener: socket.socket, root: str) -> None:
        """Take the socket that it is to serve."""
        self._listener = listener
        self._root = root
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._retired: asyncio.Future[None] | None = None

    def watch(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        """Start it; it is never a reason to stop."""
        del stop
        self._loop = loop
        self._start()

    def stop(self) -> None:
        """Let it end: its standard input closes."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    async def retire(self, patience: float) -> None:
        """Have it end when nobody is at a prompt of its, and start no other one."""
        process, self._process = self._process, None
        if self._loop is None or process is None or process.poll() is not None:
            return
        self._retired = self._loop.create_future()
        process.send_signal(signal.SIGHUP)
        await asyncio.wait([self._retired], timeout=patience)

    def _start(self) -> None:
        if self._loop is None:
            return
        number = self._listener.fileno()
        command = [sys.executable, "-IS", sys.argv[0], "--serve", str(number)]
        self._process = subprocess.Popen(  # noqa: S603 - this very program
            [*command, "--root", self._root], stdin=subprocess.PIPE, pass_fds=(number,)
        )
        watcher = os.pidfd_open(self._process.pid)
        self._loop.add_reader(watcher, self._ended, watcher)

    def _ended(self, watcher: int) -> None:
        if self._loop is None:
            return
        self._loop.remove_reader(watcher)
        os.close(watcher)
        if self._retired is not None and not self._retired.done():
            self._retired.set_result(None)
        elif self._process is not None:
            self._process.wait()
            tell_error("the process for callers that are not root ended; starting it again")
            self._loop.call_later(_RESTART_PAUSE, self._restart)

    def _restart(self) -> None:
        if self._process is not None:
            self._start()


class Parent:
    """The process that started this one; this one does not outlive it."""

    def watch(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        """Stop when standard input closes, which the parent's end does."""
        loop.add_reader(0, stop)

    def stop(self) -> None:
        """Nothing: it is not this process's to end."""

    async def retire(self, patience: float) -> None:
        """Nothing, for the same reason."""
        del patience
