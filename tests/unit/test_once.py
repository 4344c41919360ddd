# SPDX-License-Identifier: Apache-2.0
"""The driver for one login, against a module at the other end of a pair of sockets."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles import (
    NONCE,
    SEED,
    STEP,
    Clock,
    MemoryStore,
    code_of,
    encode_answer,
    encode_frame,
    encode_request,
    enrolled,
    make_request,
)

from pam_mfa import verification
from pam_mfa.audit import Reason
from pam_mfa.errors import StateError, WireError
from pam_mfa.verifier import conversation, once
from pam_mfa.verifier.conversation import Services
from pam_mfa.verifier.packets import Peer
from pam_mfa.verifier.policy_file import PolicyFile
from pam_mfa.wire import Result, Style, build_prompt, build_verdict

REQUEST = encode_request(make_request())
PROMPT = build_prompt(NONCE, Style.ECHO_OFF, verification.PROMPT, is_code=True)
NEXT_PROMPT = build_prompt(NONCE, Style.ECHO_OFF, verification.NEXT_PROMPT, is_code=True)
CODE = code_of(SEED, STEP)


class Login:
    """A verifier that was started for one login, in a thread, and the module's end."""

    def __init__(self, services: Services, store: MemoryStore) -> None:
        """Connect the two."""
        self.store = store
        self.module, verifier = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.module.settimeout(10)
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._serve, args=(verifier, services))

    def start(self) -> None:
        """Start the verifier."""
        self._thread.start()

    def _serve(self, connection: socket.socket, services: Services) -> None:
        with connection:
            try:
                once.serve_once(connection, services)
            except (OSError, WireError) as error:
                self.error = error

    def frames(self) -> list[bytes]:
        """Return what the verifier sends until it closes."""
        return list(iter(lambda: self.module.recv(40000), b""))

    def reasons(self) -> list[Reason]:
        """Return the reasons of the records, when the verifier has ended."""
        self._thread.join(10)
        assert not self._thread.is_alive()
        return [event.reason for event in self.store.events]


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    """A login of Alice by root's program, where policy asks twice."""
    monkeypatch.setattr(once, "peer_of", lambda _: Peer(4321, 0))
    monkeypatch.setattr(conversation, "tell_failure", lambda _: None)
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\ndefaults: {prompts: 2}\n")
    path.chmod(0o644)
    store = MemoryStore(alice=enrolled())
    login = Login(Services(PolicyFile(path, lambda _: None), store, Clock()), store)
    login.start()
    yield login
    login.module.close()
    login.reasons()


def test_success(login: Login) -> None:
    """A right code is answered by success."""
    login.module.send(REQUEST)
    login.module.send(encode_answer(CODE))
    assert [PROMPT, build_verdict(NONCE, Result.SUCCESS)] == login.frames()
    assert [Reason.CODE_ACCEPTED] == login.reasons()


def test_denied(login: Login) -> None:
    """Wrong codes are asked for again as often as policy says, then denied."""
    login.module.send(REQUEST)
    for _ in range(2):
        login.module.send(encode_answer("000000"))
    assert [PROMPT, NEXT_PROMPT, build_verdict(NONCE, Result.DENIED)] == login.frames()
    assert [Reason.WRONG_CODE, Reason.WRONG_CODE] == login.reasons()


def test_abort(login: Login) -> None:
    """Where nobody could be asked, that is recorded and denied."""
    login.module.send(REQUEST)
    login.module.send(encode_frame(3, []))
    assert [PROMPT, build_verdict(NONCE, Result.DENIED)] == login.frames()
    assert [Reason.NO_CONVERSATION] == login.reasons()


def test_hang_up(login: Login) -> None:
    """A module that is gone at the prompt is recorded as such."""
    login.module.send(REQUEST)
    assert PROMPT == login.module.recv(40000)
    login.module.close()
    assert [Reason.ABANDONED] == login.reasons()


@pytest.mark.parametrize("timeout", [0, 1])
def test_timeout(login: Login, timeout: int) -> None:
    """Whoever does not answer in the time that the module gives is denied and recorded."""
    login.module.send(encode_request(make_request(timeout=timeout)))
    assert [PROMPT, build_verdict(NONCE, Result.DENIED)] == login.frames()
    assert [Reason.TIMED_OUT] == login.reasons()


@pytest.mark.parametrize(
    "packet",
    [b"x", REQUEST[:-1], REQUEST + b"\0", encode_answer(CODE), b"\2" + REQUEST[1:],
     REQUEST + b"\3" * 32768],
    ids=["noise", "cut", "more", "answer", "version", "long"],
)  # fmt: skip
def test_no_request(login: Login, packet: bytes) -> None:
    """What is no request is told no verdict."""
    login.module.send(packet)
    assert ([], []) == (login.frames(), login.reasons())
    assert isinstance(login.error, WireError)


@pytest.mark.parametrize(
    "packet", [b"x", encode_answer(CODE, nonce=bytes(16)), REQUEST, encode_answer(CODE)[:-1]]
)
def test_no_answer(login: Login, packet: bytes) -> None:
    """What is no answer is told no verdict."""
    login.module.send(REQUEST)
    login.module.send(packet)
    assert ([PROMPT], []) == (login.frames(), login.reasons())
    assert isinstance(login.error, WireError)


def test_nothing_sent(login: Login) -> None:
    """A module that closes without a request is told nothing."""
    login.module.close()
    assert ([], None) == (login.reasons(), login.error)


def test_commit_that_fails(login: Login) -> None:
    """Where a right code cannot be made durable, the verdict is "unavailable"."""
    login.store.failure = StateError("the disk is full")
    login.module.send(REQUEST)
    login.module.send(encode_answer(CODE))
    assert [PROMPT, build_verdict(NONCE, Result.UNAVAILABLE)] == login.frames()


def send_with_request(module: socket.socket, descriptor: int) -> None:
    """Send descriptors with the request."""
    socket.send_fds(module, [REQUEST], [descriptor] * 4)
    module.send(encode_answer(CODE))


def send_with_answer(module: socket.socket, descriptor: int) -> None:
    """Send descriptors with the answer."""
    module.send(REQUEST)
    socket.send_fds(module, [encode_answer(CODE)], [descriptor] * 4)


def send_with_noise(module: socket.socket, descriptor: int) -> None:
    """Send descriptors with what is no request."""
    socket.send_fds(module, [b"x"], [descriptor] * 4)


@pytest.mark.parametrize("send", [send_with_request, send_with_answer, send_with_noise])
def test_descriptors(login: Login, send: Callable[[socket.socket, int], None]) -> None:
    """Descriptors that come with whatever packet are closed when the login is over."""
    reader, writer = os.pipe()
    send(login.module, writer)
    login.frames()
    login.reasons()
    os.close(writer)
    # The pipe ends only when nobody has a copy of its writing end any more.
    assert b"" == os.read(reader, 1)
    os.close(reader)


def test_agent_is_closed(login: Login) -> None:
    """The agent's socket that came with the request is closed when the login is over."""
    ours, its = socket.socketpair()
    request = encode_request(make_request(descriptor_kinds=b"\1"))
    with its:
        with ours:
            socket.send_fds(login.module, [request], [ours.fileno()])
        assert PROMPT == login.module.recv(40000)
        login.module.send(encode_answer(CODE))
        assert [build_verdict(NONCE, Result.SUCCESS)] == login.frames()
        its.settimeout(10)
        assert b"" == its.recv(1)


def test_descriptor_of_a_bad_request_is_closed(login: Login) -> None:
    """What comes with a frame that is no request is closed, too."""
    ours, its = socket.socketpair()
    with its:
        with ours:
            socket.send_fds(login.module, [encode_frame(1, [(99, b"")])], [ours.fileno()])
        assert [] == login.frames()
        its.settimeout(10)
        assert b"" == its.recv(1)
