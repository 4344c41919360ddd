# SPDX-License-Identifier: Apache-2.0
"""The service's side of a conversation, against a terminal at the other end of a socket pair."""

import socket
import time
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from doubles import NONCE, MemoryStore, encode_answer, encode_frame, make_event

from pam_mfa.audit import Reason
from pam_mfa.errors import StateError, WireError
from pam_mfa.self_service.dialogue import Dialogue
from pam_mfa.store import Change, Claim
from pam_mfa.verification import Ask, Commit, Listen, Need, Tell
from pam_mfa.wire import Style, build_answer, build_prompt

ABORT = build_answer(NONCE, None)
LATE = -1.0  # seconds after the deadline


class Talk:
    """A conversation and the user's end of it."""

    def __init__(self, left: float = 20.0) -> None:
        """Connect the two, with so many seconds left."""
        self.user, service = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.user.settimeout(10)
        self.service = service
        self.dialogue = Dialogue(service, NONCE, time.monotonic() + left)

    def shown(self) -> list[bytes]:
        """Return the frames that were sent until now."""
        self.service.close()
        return list(iter(lambda: self.user.recv(40000), b""))

    def close(self) -> None:
        """Close both ends."""
        self.user.close()
        self.service.close()


@pytest.fixture
def talk() -> Iterator[Talk]:
    """A conversation with time left."""
    made = Talk()
    yield made
    made.close()


@pytest.fixture
def late() -> Iterator[Talk]:
    """A conversation whose time is over."""
    made = Talk(LATE)
    yield made
    made.close()


@pytest.mark.parametrize("text", ["123456", "", "ä", "\udcff", "a\0b", "x" * 1024])
def test_answer(talk: Talk, text: str) -> None:
    """What was typed comes back, whatever it is."""
    talk.user.send(encode_answer(text))
    assert text == talk.dialogue.ask(Style.ECHO_OFF, "Password: ")
    assert [build_prompt(NONCE, Style.ECHO_OFF, "Password: ")] == talk.shown()


def test_message(talk: Talk) -> None:
    """A message is shown and not waited for."""
    talk.dialogue.tell("Enabled.")
    assert [build_prompt(NONCE, Style.INFORMATION, "Enabled.")] == talk.shown()


def test_nobody_asked(talk: Talk) -> None:
    """A command line that can ask nobody says so."""
    talk.user.send(ABORT)
    assert Reason.NO_CONVERSATION == talk.dialogue.listen()


def test_hang_up(talk: Talk) -> None:
    """A user who is gone has abandoned the conversation."""
    talk.user.close()
    assert Reason.ABANDONED == talk.dialogue.listen()


def test_time_is_over(late: Talk) -> None:
    """After the deadline no answer counts, not even one that is there."""
    late.user.send(encode_answer("123456"))
    assert Reason.TIMED_OUT == late.dialogue.listen()


def test_silent_user() -> None:
    """A user who says nothing is waited for until the deadline and no longer."""
    talk = Talk(0.05)
    assert Reason.TIMED_OUT == talk.dialogue.listen()
    talk.close()


def test_user_who_does_not_read(late: Talk) -> None:
    """A user who reads nothing does not hold the service up after the deadline."""
    late.service.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with pytest.raises(TimeoutError):
        list(map(late.dialogue.tell, ["x" * 500] * 1000))


def test_descriptors_are_not_taken(talk: Talk) -> None:
    """Descriptors that come with an answer are dropped by the kernel."""
    socket.send_fds(talk.user, [encode_answer("123456")], [talk.user.fileno()] * 3)
    assert "123456" == talk.dialogue.listen()
    talk.user.close()  # the last one, so this is heard
    assert Reason.ABANDONED == talk.dialogue.listen()


@pytest.mark.parametrize(
    "packet",
    [
        b"x",
        encode_answer("123456", nonce=bytes(16)),
        encode_answer("123456")[:-1],
        encode_frame(2, [(2, bytes(1025))]),
        encode_frame(2, [(2, b"1"), (3, b"2")]),
        encode_frame(0x11, [(1, b"list"), (2, b"alice")]),
        bytes(40000),
    ],
    ids=["noise", "nonce", "cut", "long", "more", "petition", "frame"],
)
def test_no_answer(talk: Talk, packet: bytes) -> None:
    """What is no answer ends the conversation, and for PAM nobody has answered."""
    talk.user.send(packet)
    with pytest.raises(WireError):
        talk.dialogue.listen()
    talk.user.send(packet)
    assert talk.dialogue.answer_pam(Style.ECHO_OFF, "Password: ") is None


@pytest.mark.parametrize("style", [Style.ECHO_OFF, Style.ECHO_ON])
def test_password(talk: Talk, style: Style) -> None:
    """A prompt of PAM's is asked in its style."""
    talk.user.send(encode_answer("correct horse"))
    assert "correct horse" == talk.dialogue.answer_pam(style, "Password: ")
    assert [build_prompt(NONCE, style, "Password: ")] == talk.shown()


@pytest.mark.parametrize("style", [Style.ERROR, Style.INFORMATION])
def test_words_of_pam(talk: Talk, style: Style) -> None:
    """A message of PAM's is shown and takes no answer, not even one that is there."""
    talk.user.send(encode_answer("early"))
    assert talk.dialogue.answer_pam(style, "Your account is locked.") is None
    assert "early" == talk.dialogue.listen()
    assert [build_prompt(NONCE, style, "Your account is locked.")] == talk.shown()


@pytest.mark.parametrize("style", [0, 5, 7, -1])
def test_unknown_style_of_pam(talk: Talk, style: int) -> None:
    """A style that people cannot answer raises nothing, for C code is what calls."""
    assert talk.dialogue.answer_pam(style, "?") is None
    assert [] == talk.shown()


def test_password_of_nobody(talk: Talk) -> None:
    """A user who is gone at the password answers nothing."""
    talk.user.close()
    assert talk.dialogue.answer_pam(Style.ECHO_OFF, "Password: ") is None


def test_drive(talk: Talk) -> None:
    """A generator gets what it needs in its order, and its changes are handed back."""
    change = Change(accepted=True, events=(make_event(),))
    got: list[object] = []

    def running() -> Generator[Need, Any, str]:
        yield Tell("Scan this.")
        yield Ask("First code: ")
        got.append((yield Listen()))
        got.append((yield Commit(Claim("alice", (), lambda _: change))))
        return "done"

    talk.user.send(encode_answer("123456"))
    assert ("done", [change]) == talk.dialogue.drive(running(), MemoryStore())
    assert ["123456", change] == got
    assert [
        build_prompt(NONCE, Style.INFORMATION, "Scan this."),
        build_prompt(NONCE, Style.ECHO_OFF, "First code: "),
    ] == talk.shown()


def test_commit_that_fails(talk: Talk) -> None:
    """What cannot be made durable ends the conversation."""
    store = MemoryStore()
    store.failure = StateError("the disk is full")

    def running() -> Generator[Need, Any, None]:
        yield Commit(Claim("alice", (), lambda _: Change(accepted=True, events=())))

    with pytest.raises(StateError):
        talk.dialogue.drive(running(), store)
