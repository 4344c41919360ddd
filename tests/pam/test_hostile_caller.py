# SPDX-License-Identifier: Apache-2.0
"""Callers of the real daemon that break the protocol: none harms the next login."""

import socket
import struct
from collections.abc import Iterator

import pytest
from installed import DataRoot, totp

HEADER = bytes((1,))
NONCE = bytes(range(16))
REQUEST, ANSWER, PROMPT, VERDICT = 0x01, 0x02, 0x81, 0x82


def field(tag: int, value: bytes) -> bytes:
    """Return one field."""
    return bytes((tag,)) + struct.pack(">H", len(value)) + value


def frame(kind: int, *fields: bytes, version: int = 1, nonce: bytes = NONCE) -> bytes:
    """Return a frame."""
    return bytes((version, kind)) + nonce + b"".join(fields)


def request(user: bytes = b"alice", timeout: int = 20) -> bytes:
    """Return a request of the auth phase."""
    number = struct.Struct(">I").pack
    fields = (field(1, number(1)), field(4, user), field(5, number(0)), field(11, number(timeout)))
    return frame(REQUEST, *fields)


class Caller:
    """One raw connection to the daemon."""

    def __init__(self, root: DataRoot) -> None:
        """Connect."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(10)
        self._socket.connect(str(root.path / "run/pam_mfa/verify.sock"))

    def say(self, packet: bytes) -> bytes:
        """Send a packet and return what comes back; b"" when the daemon hangs up."""
        try:
            self._socket.send(packet)
            return self.hear()
        except (BrokenPipeError, ConnectionResetError):
            return b""

    def hear(self) -> bytes:
        """Return the next packet."""
        return self._socket.recv(65536)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Served:
    """A daemon that knows alice, and the connections that a test makes to it."""

    def __init__(self, root: DataRoot, secret: str) -> None:
        """Take the running daemon's root and alice's secret."""
        self.root = root
        self.secret = secret
        self.callers: list[Caller] = []

    def caller(self) -> Caller:
        """Connect; hung up at the end of the test."""
        self.callers.append(Caller(self.root))
        return self.callers[-1]

    def logs_in(self) -> bool:
        """Whether alice's code is accepted when it is offered in the proper way."""
        caller = self.caller()
        assert caller.say(request())[1] == PROMPT
        code = totp(self.secret).encode()
        return caller.say(frame(ANSWER, field(2, code))) == frame(VERDICT, field(1, b"\1"))


@pytest.fixture
def served(root: DataRoot) -> Iterator[Served]:
    """Give a running daemon."""
    secret = root.enroll("alice")
    with root.daemon():
        given = Served(root, secret)
        yield given
        for caller in given.callers:
            caller.close()


BROKEN = {
    "empty frame": b"\0",
    "cut header": frame(REQUEST)[:10],
    "no fields": frame(REQUEST),
    "wrong version": b"\2" + request()[1:],
    "too long": request() + b"\0" * 40000,
    "trailing byte": request() + b"\0",
    "field cut": request()[:-2],
    "field twice": request() + field(4, b"bob"),
    "unknown field": request() + field(99, b""),
    "number of three bytes": request() + field(2, b"\0\0\0"),
    "answer first": frame(ANSWER, field(2, b"123456")),
    "verdict first": frame(VERDICT, field(1, b"\1")),
    "unknown type": frame(0x55),
}


@pytest.mark.parametrize("packet", BROKEN.values(), ids=BROKEN.keys())
def test_broken_request_gets_no_verdict(served: Served, packet: bytes) -> None:
    """The daemon hangs up without a verdict, and the next login is verified."""
    assert served.caller().say(packet) == b""
    assert served.logs_in()


OUT_OF_TURN = {
    "second request": request(),
    "another nonce": frame(ANSWER, field(2, b"123456"), nonce=bytes(16)),
    "verdict of its own": frame(VERDICT, field(1, b"\1")),
    "answer without text": frame(ANSWER),
    "answer with two fields": frame(ANSWER, field(2, b"1"), field(3, b"1")),
}


@pytest.mark.parametrize("packet", OUT_OF_TURN.values(), ids=OUT_OF_TURN.keys())
def test_frame_out_of_turn_gets_no_verdict(served: Served, packet: bytes) -> None:
    """What is no answer to the prompt ends the conversation without a verdict."""
    caller = served.caller()
    assert caller.say(request())[1] == PROMPT
    assert caller.say(packet) == b""
    assert served.logs_in()


def test_silent_callers_do_not_hold_up_others(served: Served) -> None:
    """200 connections that say nothing, and 200 at the prompt, leave the daemon to others."""
    for _ in range(200):
        served.caller()
    for _ in range(200):
        assert served.caller().say(request(b"nobody-here"))[1] == PROMPT
    assert served.logs_in()


def test_timeout_of_the_request_ends_the_prompt(served: Served) -> None:
    """Whoever does not answer in time is denied, and the record says so."""
    caller = served.caller()
    assert caller.say(request(timeout=1))[1] == PROMPT
    assert caller.hear() == frame(VERDICT, field(1, b"\2"))
    assert served.root.reasons() == ["timed_out"]


@pytest.mark.parametrize(
    "user", [b"../x", b"a/b", b"u" * 300, b"DOMAIN\\user", b"new\nline", b"\xff\xfe", b""]
)
def test_odd_user_names_are_asked_and_refused(served: Served, user: bytes) -> None:
    """A strange name gets the same prompts and a refusal; each record is one line."""
    caller = served.caller()
    assert caller.say(request(user))[1] == PROMPT
    for _ in range(2):
        assert caller.say(frame(ANSWER, field(2, b"123456")))[1] == PROMPT
    assert caller.say(frame(ANSWER, field(2, b"123456"))) == frame(VERDICT, field(1, b"\2"))
    assert served.root.reasons() == ["not_enrolled"] * 3
