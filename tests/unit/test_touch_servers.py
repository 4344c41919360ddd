# SPDX-License-Identifier: Apache-2.0
"""Touches through the daemon's real event loop."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles import NONCE, encode_answer, enrolled
from key_bench import (
    CODE,
    PATIENCE,
    PIN,
    PIN_PROMPT,
    Login,
    give_key,
    login_at_bench,
    wait_until,
)
from security_key.faults import Fault
from security_key.person import Touch
from touch_frames import (
    CODE_FRAME,
    DENIED,
    SUCCESS,
    TOUCH_FRAME,
    console_request,
    give_u2f_key,
    hush,
    is_asked,
    is_left,
    make_services,
)

from pam_mfa.audit import Reason
from pam_mfa.errors import StateError
from pam_mfa.policy import UserVerification
from pam_mfa.verifier import connection as connection_module
from pam_mfa.verifier import server
from pam_mfa.verifier.conversation import Services
from pam_mfa.verifier.server import ROOT_LIMITS, Server
from pam_mfa.wire import Result, Style, build_prompt, build_verdict


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told to the system log, which hears nothing of it."""
    return hush(monkeypatch)


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> Iterator[Login]:
    """A user at a machine without keys; the system log is told nothing."""
    with login_at_bench(monkeypatch) as login:
        yield login
    assert [] == told


class Daemon:
    """The daemon's server on a socket, and those who connect to it."""

    def __init__(self, services: Services, directory: Path) -> None:
        """Listen."""
        self._path = str(directory / "verify.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self._path)
        listener.listen(10)
        self.server = Server(listener, services, ROOT_LIMITS)
        self._ends: list[socket.socket] = []
        self._is_stopped = False

    def connect(self, request: bytes) -> socket.socket:
        """Connect and send a request."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        end.setblocking(False)
        end.connect(self._path)
        end.send(request)
        self._ends.append(end)
        return end

    async def receive(self, end: socket.socket) -> bytes:
        """Return the next frame; ``b""`` when the daemon has closed."""
        return await asyncio.get_running_loop().sock_recv(end, 40000)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until something is so."""
        assert await asyncio.to_thread(wait_until, condition)

    async def stop_but(self, kept: socket.socket) -> None:
        """Stop while a caller is still there."""
        self._ends.remove(kept)
        await self.stop()

    async def stop(self) -> None:
        """Close all."""
        for end in self._ends:
            end.close()
        if not self._is_stopped:
            self._is_stopped = True
            await self.server.stop()


Scene = Callable[[Daemon], Coroutine[Any, Any, None]]
Play = Callable[[Scene], None]


@pytest.fixture
def play(login: Login, tmp_path: Path) -> Play:
    """Plays a scene with the daemon."""

    def run(scene: Scene) -> None:
        async def main() -> None:
            daemon = Daemon(make_services(login), tmp_path)
            try:
                await asyncio.wait_for(scene(daemon), 2 * PATIENCE)
            finally:
                await daemon.stop()

        asyncio.run(main())

    return run


def test_touch(login: Login, play: Play) -> None:
    """A touch is told, and success follows it, through the daemon."""
    give_key(login)

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect(console_request())
        assert [TOUCH_FRAME, SUCCESS] == [await daemon.receive(end) for _ in range(2)]

    play(scene)
    assert [Reason.TOUCH_ACCEPTED] == login.reasons()


def test_no_success_before_the_count_is_stored(login: Login, play: Play, told: list[str]) -> None:
    """Where the sign count cannot be stored, a good touch is told to be no success."""
    give_key(login)
    login.store.failure = StateError("the disk is full")

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect(console_request())
        unavailable = build_verdict(NONCE, Result.UNAVAILABLE)
        assert [TOUCH_FRAME, unavailable] == [await daemon.receive(end) for _ in range(2)]

    play(scene)
    assert (["the disk is full"], {}) == (told, login.store.used_steps)
    told.clear()


def test_pin_is_asked_with_echo_off_and_is_no_code(login: Login, play: Play) -> None:
    """The PIN's prompt is a frame with echo off, and not one that forward_pass may split."""
    give_key(login, pin=PIN)
    login.use(user_verification=UserVerification.REQUIRED)

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect(console_request())
        prompt = build_prompt(NONCE, Style.ECHO_OFF, PIN_PROMPT, is_code=False)
        assert prompt == await daemon.receive(end)
        end.send(encode_answer(PIN))
        assert [TOUCH_FRAME, SUCCESS] == [await daemon.receive(end) for _ in range(2)]

    play(scene)


@pytest.mark.parametrize("fault", [None, Fault.HANG, Fault.ENDLESS_KEEPALIVES])
def test_others_are_served_while_a_key_hangs(login: Login, play: Play, fault: Fault | None) -> None:
    """While one login waits for a touch, or for a key that hangs, another one gets in by a code."""
    key = give_key(login)
    key.person.touch = Touch.WAIT
    login.bench.hurry()
    if fault:
        login.bench.before_touch = lambda: key.faults.switch_on(fault)
    login.store.enrollments["bob"] = enrolled()

    async def scene(daemon: Daemon) -> None:
        waiting = daemon.connect(console_request())
        assert TOUCH_FRAME == await daemon.receive(waiting)
        await daemon.until(lambda: is_asked(key))
        other = daemon.connect(console_request(user="bob", rhost="192.0.2.7"))
        assert CODE_FRAME == await daemon.receive(other)
        other.send(encode_answer(CODE))
        assert SUCCESS == await daemon.receive(other)
        assert is_asked(key)
        waiting.close()

    play(scene)


@pytest.mark.parametrize("is_u2f", [False, True])
def test_caller_that_is_gone_cancels_the_key(login: Login, play: Play, *, is_u2f: bool) -> None:
    """Ctrl-C ends the blinking at once, and leaves a record."""
    key = give_u2f_key(login) if is_u2f else give_key(login)
    key.person.touch = Touch.WAIT

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect(console_request())
        assert TOUCH_FRAME == await daemon.receive(end)
        await daemon.until(lambda: key.counters["u2f"] > 2 if is_u2f else is_asked(key))
        end.close()
        await daemon.until(lambda: is_left(key) and bool(login.store.events))

    started = time.monotonic()
    play(scene)
    assert time.monotonic() - started < PATIENCE
    assert [Reason.ABANDONED] == login.reasons()


def test_caller_that_is_gone_leaves_a_u2f_key_that_hangs(login: Login, play: Play) -> None:
    """Ctrl-C ends the asking of a U2F-only key that keeps the line, too."""
    key = give_u2f_key(login)
    login.bench.hurry()
    login.bench.before_touch = lambda: key.faults.switch_on(Fault.ENDLESS_KEEPALIVES)

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect(console_request())
        assert TOUCH_FRAME == await daemon.receive(end)
        await daemon.until(lambda: key.counters["keepalives"] > 1)
        end.close()
        await daemon.until(lambda: not key.wire.ends)

    play(scene)


def test_talking_out_of_turn_gets_no_verdict(login: Login, play: Play) -> None:
    """Who sends something while the key blinks gets no verdict, and the key is canceled."""
    key = give_key(login)
    key.person.touch = Touch.WAIT

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect(console_request())
        assert TOUCH_FRAME == await daemon.receive(end)
        await daemon.until(lambda: is_asked(key))
        end.send(encode_answer(CODE))
        assert b"" == await daemon.receive(end)
        await daemon.until(lambda: is_left(key) and bool(login.store.events))

    play(scene)
    assert [Reason.ABANDONED] == login.reasons()


def test_time_runs_out_in_the_touch(
    login: Login, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the module's time is over in the touch, it is denied then, and the key canceled."""
    monkeypatch.setattr(connection_module, "LONGEST", 0.2)
    key = give_key(login)
    key.person.touch = Touch.WAIT

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect(console_request())
        frames = [await daemon.receive(end) for _ in range(4)]
        assert (TOUCH_FRAME, CODE_FRAME, DENIED) == (frames[0], frames[2], frames[3])

    play(scene)
    assert wait_until(lambda: is_left(key))
    assert [Reason.ABANDONED, Reason.TIMED_OUT] == login.reasons()


def test_daemon_that_stops_leaves_no_key_blinking(
    login: Login, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that is stopped in a touch cancels it."""
    monkeypatch.setattr(server, "_STOP_PATIENCE", 0.05)
    key = give_key(login)
    key.person.touch = Touch.WAIT

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect(console_request())
        assert TOUCH_FRAME == await daemon.receive(end)
        await daemon.until(lambda: is_asked(key))
        end.setblocking(True)
        await daemon.stop_but(end)
        with end:
            assert b"" == end.recv(1)

    play(scene)
    assert wait_until(lambda: is_left(key))
