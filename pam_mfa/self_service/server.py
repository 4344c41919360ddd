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
from typing import NamedTuple, NoReturn

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
        self._closers: list[int] = []  # process ids
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
            self._tidy(now)
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
        uid = peer_of(accepted).uid
        if self._budget.open(uid, time.monotonic()):
            with accepted:
                self._start(accepted, uid)
        else:
            self._turn_away(accepted)

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

    def _turn_away(self, accepted: socket.socket) -> None:
        """Close a connection that is not served, in a process that ends with that.

        With it goes what was sent along: a TCP socket that lingers would hold up this process,
        and so everybody. The kernel does not let it hold up a process on its way out.
        """
        with accepted, contextlib.suppress(OSError):  # no process: the close must do
            reader, writer = os.pipe()
            try:
                closer = os.fork()
                if closer == 0:
                    _end_after(reader, writer)
                self._closers.append(closer)
                accepted.close()  # not the last one: the closer's is
            finally:
                os.close(reader)
                os.close(writer)

    def _ended(self, watcher: int) -> None:
        self._poll.unregister(watcher)
        os.close(watcher)
        desk = self._desks.pop(watcher)
        desk.process.wait()
        self._budget.close(desk.uid)

    def _tidy(self, now: float) -> None:
        self._closers = [one for one in self._closers if _is_running(one)]
        for desk in self._desks.values():
            if now > desk.ends_at:  # blocked by what its user sent along
                with contextlib.suppress(PermissionError):  # it is not root any more
                    desk.process.kill()


def _end_after(reader: int, writer: int) -> NoReturn:
    """End this process when its parent has closed its end of a pipe."""
    try:
        os.close(writer)
        os.read(reader, 1)
    finally:
        os._exit(0)


def _is_running(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


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
