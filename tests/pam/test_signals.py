# SPDX-License-Identifier: Apache-2.0
"""Signals to a host while a key's touch is waited for: what ends programs ends the wait, too.

The verifier is one that says what it wants touched and then waits, as the real one does.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_program import Host, Login, Status, exact_service, running
from installed import DataRoot
from lying_verifier import PROMPT, SUCCESS, Exchange, Script, lying, prompt_fields

PATIENCE = 30.0  # seconds
SOON = 30.0  # seconds, on a busy machine; the module's own deadline is 110 s away
ENDINGS = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM]


class Touch:
    """A touch that is waited for: `given` has the verifier say success."""

    def __init__(self) -> None:
        """Begin untouched."""
        self.given = threading.Event()
        self.left = threading.Event()  # set when the module has gone away

    @property
    def script(self) -> Script:
        """The verifier's side."""
        return self._serve

    def _serve(self, exchange: Exchange) -> None:
        try:
            exchange.send(PROMPT, prompt_fields(b"Touch your security key (blue-key).", 4, 0))
        except ConnectionError:  # the signal came while the module waited for this first message
            self.left.set()
            return
        exchange.connection.settimeout(0.05)
        while not self.given.is_set():
            with contextlib.suppress(TimeoutError):
                if _is_gone(exchange.connection):
                    self.left.set()
                    return
        exchange.verdict(SUCCESS)


def _is_gone(connection: socket.socket) -> bool:
    """Whether the other side closes; it may do so before it has read what was sent."""
    try:
        return not connection.recv(1)
    except ConnectionResetError:
        return True


@pytest.fixture
def touch(root: DataRoot) -> Iterator[Touch]:
    """Have every login wait for a touch."""
    waiting = Touch()
    with lying(root, waiting.script):
        yield waiting
        waiting.given.set()


def await_wait(host: Host) -> None:
    """Wait until the module waits for the verifier: SIGINT is blocked then."""
    status = Path(f"/proc/{host.pid}/status")
    deadline = time.monotonic() + PATIENCE
    while "\nSigBlk:\t" in (text := status.read_text("ascii")):
        blocked = int(text.split("\nSigBlk:")[1].split()[0], 16)
        state = text.split("\nState:")[1].split()[0]
        if blocked >> (signal.SIGQUIT - 1) & 1 and state == "S":
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", ENDINGS)
def test_blocked_signal_ends_the_wait(root: DataRoot, touch: Touch, number: signal.Signals) -> None:
    """Where the host blocks a signal, as sudo does Ctrl-C, it ends the wait all the same."""
    wrapper = ["env", f"--block-signal={number.name.removeprefix('SIG')}"]
    with running(Login(root, "alice", exact_service(root), wrapper=wrapper)) as host:
        await_wait(host)
        os.kill(host.pid, number)
        assert touch.left.wait(SOON)
        outcome = host.finish()
    assert (outcome.status, outcome.changed) == (Status.AUTHINFO_UNAVAIL, ())


def test_handled_signal_ends_the_wait(root: DataRoot, touch: Touch) -> None:
    """Where the host only notes a signal, the wait ends, and the host's handler has run once."""
    with running(Login(root, "alice", exact_service(root), options=["count-sigint"])) as host:
        await_wait(host)
        os.kill(host.pid, signal.SIGINT)
        assert touch.left.wait(SOON)
        outcome = host.finish()
    assert (outcome.status, outcome.changed) == (Status.AUTHINFO_UNAVAIL, ())
    assert host.interrupts == 1


@pytest.mark.parametrize("number", ENDINGS)
def test_host_that_a_signal_ends(root: DataRoot, touch: Touch, number: signal.Signals) -> None:
    """Where a signal ends the host, as Ctrl-C does login, it does so at once."""
    with running(Login(root, "alice")) as host:
        await_wait(host)
        os.kill(host.pid, number)
        assert touch.left.wait(SOON)
        assert host.wait() == -number


def test_ignored_signal_changes_nothing(root: DataRoot, touch: Touch) -> None:
    """Where the host ignores a signal, the touch is waited for on."""
    wrapper = ["env", "--ignore-signal=INT"]
    with running(Login(root, "alice", exact_service(root), wrapper=wrapper)) as host:
        await_wait(host)
        os.kill(host.pid, signal.SIGINT)
        touch.given.set()
        assert host.finish().status == Status.SUCCESS


def test_stopped_and_continued(root: DataRoot, touch: Touch) -> None:
    """A host that was stopped, as by Ctrl-Z, waits on when it is continued."""
    with running(Login(root, "alice", exact_service(root))) as host:
        await_wait(host)
        os.kill(host.pid, signal.SIGSTOP)
        os.waitpid(host.pid, os.WUNTRACED)
        os.kill(host.pid, signal.SIGCONT)
        touch.given.set()
        assert host.finish().status == Status.SUCCESS
