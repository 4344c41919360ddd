# SPDX-License-Identifier: Apache-2.0
"""Touches through the verifier on demand."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from doubles import NONCE, encode_answer
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
from pam_mfa.errors import BrokenSystemError
from pam_mfa.policy import UserVerification
from pam_mfa.verification import Work
from pam_mfa.verifier import once
from pam_mfa.verifier.conversation import Services
from pam_mfa.wire import Style, build_prompt


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


class OnDemand:
    """A verifier that was started for one login, in a thread, and the module's end."""

    def __init__(self, services: Services) -> None:
        """Connect the two and start."""
        self.module, verifier = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.module.settimeout(PATIENCE)
        self._thread = threading.Thread(target=self._serve, args=(verifier, services))
        self._thread.start()

    def _serve(self, connection: socket.socket, services: Services) -> None:
        with connection, contextlib.suppress(OSError, BrokenSystemError):
            once.serve_once(connection, services)

    def receive(self) -> bytes:
        """Return the next frame; ``b""`` when the verifier has ended."""
        return self.module.recv(40000)

    def end(self) -> None:
        """Hang up and wait for the verifier to end."""
        self.module.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture
def start(login: Login) -> Iterator[Callable[[bytes], OnDemand]]:
    """Start verifiers on demand; they end with the test."""
    with contextlib.ExitStack() as stack:

        def run(request: bytes) -> OnDemand:
            verifier = OnDemand(make_services(login))
            stack.callback(verifier.end)
            verifier.module.send(request)
            return verifier

        yield run


Start = Callable[[bytes], OnDemand]


def test_touch_on_demand(login: Login, start: Start) -> None:
    """A touch logs in without a daemon, too."""
    give_key(login)
    verifier = start(console_request())
    assert [TOUCH_FRAME, SUCCESS, b""] == [verifier.receive() for _ in range(3)]


def test_pin_on_demand(login: Login, start: Start) -> None:
    """A PIN is asked for without a daemon, too."""
    give_key(login, pin=PIN)
    login.use(user_verification=UserVerification.REQUIRED)
    verifier = start(console_request())
    assert build_prompt(NONCE, Style.ECHO_OFF, PIN_PROMPT) == verifier.receive()
    verifier.module.send(encode_answer(PIN))
    assert [TOUCH_FRAME, SUCCESS] == [verifier.receive() for _ in range(2)]


def test_untouched_on_demand(login: Login, start: Start) -> None:
    """A key that nobody touches is followed by a code, without a daemon, too."""
    give_key(login).person.touch = Touch.WAIT
    login.use(touch=0.2)
    verifier = start(console_request())
    frames = [verifier.receive() for _ in range(3)]
    assert (TOUCH_FRAME, CODE_FRAME) == (frames[0], frames[2])
    verifier.module.send(encode_answer(CODE))
    assert SUCCESS == verifier.receive()


@pytest.mark.parametrize("is_u2f", [False, True])
def test_caller_that_is_gone_on_demand(login: Login, start: Start, *, is_u2f: bool) -> None:
    """Ctrl-C ends the blinking and the verifier, without a daemon, too, and leaves a record."""
    key = give_u2f_key(login) if is_u2f else give_key(login)
    key.person.touch = Touch.WAIT
    verifier = start(console_request())
    assert TOUCH_FRAME == verifier.receive()
    assert wait_until(lambda: key.counters["u2f"] > 2 if is_u2f else is_asked(key))
    verifier.end()
    assert wait_until(lambda: is_left(key))
    assert [Reason.ABANDONED] == login.reasons()


def test_time_runs_out_on_demand(
    login: Login, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the module's time is over in the touch, it is denied, without a daemon, too."""
    monkeypatch.setattr(once, "LONGEST", 0.2)
    key = give_key(login)
    key.person.touch = Touch.WAIT
    verifier = start(console_request())
    frames = [verifier.receive() for _ in range(4)]
    assert (TOUCH_FRAME, CODE_FRAME, DENIED) == (frames[0], frames[2], frames[3])
    assert wait_until(lambda: is_left(key))


def test_fault_on_demand_prints_nothing(
    start: Start,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A fault in the thread of a touch prints no traceback, which could quote a PIN."""

    def fail(_: threading.Event) -> object:
        raise ValueError(PIN)

    def converse(*_: object) -> Iterator[Work]:
        yield Work(fail)

    monkeypatch.setattr(once, "converse", converse)
    verifier = start(console_request())
    assert b"" == verifier.receive()
    verifier.end()
    assert ("", "") == capfd.readouterr()
    assert ["ValueError('4711')"] == told  # by its kind and place alone, see ``journal``
    told.clear()
