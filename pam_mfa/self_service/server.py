# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa-selfd``: accepts petitions and starts a process for each. Owns limits and the end.

It is root and reads nothing that a user sends; the process that does ends with its petition.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

from pam_mfa.self_service.desk import LONGEST
from pam_mfa.verifier.budget import Budget, Limits
from pam_mfa.verifier.journal import tell_error
from pam_mfa.verifier.packets import peer_of

# A change takes a person a minute; a password is asked for at each.
LIMITS = Limits(connections=64, connections_each=2, starts_each=12, starts=240)
IDLE = 60.0  # seconds after which a service that systemd starts again on demand ends
_OVERTIME = 30.0  # seconds that a petition's process has beyond its own deadline
_TURN = 5.0  # seconds between looks at the clock


class _Desk(NamedTuple):
    """A petition's process."""

    process: subprocess.Popen[bytes]
    uid: int
    ends_at: float  # on the monotonic clock


class Server:
    """Serves one listening socket, one process a petition."""

    def __init__(self, listener: socket.socket, root: str, *, idle: float | None) -> None:
        """Take a listening socket; ``idle`` is after how long to end, None: never."""
        self._listener = listener
        self._root = root
        self._idle = idle
        self._budget = Budget(LIMITS, time.monotonic())
        self._desks: dict[int, _Desk] = {}  # by the pidfd
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._signals = _pipe_of_signals()
        self._poll.register(self._signals, select.POLLIN)

    def serve(self) -> None:
        """Serve until stopped or idle; petitions under way are let come to their end."""
        quiet_since = time.monotonic()
        while True:
            for number, _ in self._poll.poll(_TURN * 1000):
                if number == self._signals:
                    return
                if number == self._listener.fileno():
                    self._accept()
                else:
                    self._ended(number)
            now = time.monotonic()
            self._end_late(now)
            quiet_since = now if self._desks else quiet_since
            if self._idle is not None and now - quiet_since > self._idle:
                return

    def _accept(self) -> None:
        try:
            accepted, _address = self._listener.accept()
        except OSError as error:
            tell_error(f"a petition could not be accepted: {error.strerror}")
            time.sleep(0.1)
            return
        with accepted:
            uid = peer_of(accepted).uid
            if self._budget.open(uid, time.monotonic()):
                self._start(accepted, uid)

    def _start(self, accepted: socket.socket, uid: int) -> None:
        number = accepted.fileno()
        command = [sys.executable, "-IS", sys.argv[0], "--serve", str(number)]
        try:
            process = subprocess.Popen(  # noqa: S603 - this very program
                [*command, "--root", self._root], stdin=subprocess.DEVNULL, pass_fds=(number,)
            )
            watcher = os.pidfd_open(process.pid)
        except OSError as error:
            tell_error(f"a petition's process could not be started: {error.strerror}")
            self._budget.close(uid)
            return
        self._desks[watcher] = _Desk(process, uid, time.monotonic() + LONGEST + _OVERTIME)
        self._poll.register(watcher, select.POLLIN)

    def _ended(self, watcher: int) -> None:
        self._poll.unregister(watcher)
        os.close(watcher)
        desk = self._desks.pop(watcher)
        desk.process.wait()
        self._budget.close(desk.uid)

    def _end_late(self, now: float) -> None:
        for desk in self._desks.values():
            if now > desk.ends_at:  # blocked by what its user sent along
                desk.process.kill()


def serve_until_stopped(listener: socket.socket, root: str, *, idle: float | None) -> None:
    """Serve until SIGTERM or SIGINT, or until nobody has come for the idle time."""
    with contextlib.closing(listener):
        Server(listener, root, idle=idle).serve()


def _pipe_of_signals() -> int:
    """Return a descriptor that can be read when this process is told to end."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return reader
