# SPDX-License-Identifier: Apache-2.0
"""An open key whose far end is a script: every wait ends; strangers' packets are passed over."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from fido2.ctap import CtapError
from fido2.hid import CTAPHID

from pam_mfa.errors import KeyBusyError, KeyFaultError, KeyGoneError, KeySilentError
from pam_mfa.hardware import connection, security_key
from pam_mfa.hardware.connection import KeyConnection
from pam_mfa.hardware.nodes import AttachedKey
from pam_mfa.hardware.report_descriptor import FidoReports
from pam_mfa.hardware.security_key import SecurityKey

KEY = AttachedKey(
    path="/dev/hidraw7",
    sysname="hidraw7",
    syspath="/sys/devices/0003:1209:BEEF.0001/hidraw/hidraw7",
    device_number=os.makedev(245, 7),
    name="Acme Blue",
    serial_number="",
    vendor_id=0x1209,
    product_id=0xBEEF,
    location="",
    reports=FidoReports(64, 64),
)
CHANNEL = b"\x00\x01\x02\x03"
STRANGER = b"\x00\x09\x09\x09"
BROADCAST = b"\xff\xff\xff\xff"
SHORT = 0.3  # seconds, for what is seconds on a real key
PATIENCE = 20.0  # seconds that a loaded machine may take
Answers = Callable[[bytes], Iterable[bytes]]


def packet(channel: bytes, command: int, data: bytes, length: int | None = None) -> bytes:
    """Return a first packet of CTAPHID."""
    size = (len(data) if length is None else length).to_bytes(2, "big")
    return (channel + bytes((0x80 | command,)) + size + data).ljust(64, b"\0")


def answer_init(request: bytes) -> bytes:
    """Return a key's right answer to INIT."""
    return packet(request[:4], CTAPHID.INIT, request[7:15] + CHANNEL + b"\x02\x01\x00\x00\x04")


KEEPALIVE = packet(CHANNEL, CTAPHID.KEEPALIVE, b"\x02")
CANCELED = packet(CHANNEL, CTAPHID.CBOR, b"\x2d")
BUSY = packet(CHANNEL, CTAPHID.ERROR, b"\x06")


class ScriptedKey:
    """The far end of a node: answers each first packet by a function, and keeps what it got."""

    def __init__(self, answers: Answers) -> None:
        """Start answering."""
        self.near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.commands: list[int] = []
        self.closed = threading.Event()
        self._answers = answers
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        # Reset, where the near end was closed with packets in it that nobody had read.
        with self._far, contextlib.suppress(ConnectionResetError):
            while report := self._far.recv(100):
                request = report[1:]
                if request[4] & 0x80:
                    self.commands.append(request[4] & 0x7F)
                    self._answer(request)
        self.closed.set()

    def _answer(self, request: bytes) -> None:
        # A closed near end is what some tests are about.
        with contextlib.suppress(OSError):
            for each in self._answers(request):
                self._far.send(each)
                if each == b"":
                    self._far.shutdown(socket.SHUT_RDWR)


def after_init(*packets: bytes) -> Answers:
    """Answer INIT rightly, CANCEL never, and anything else by these packets."""

    def answers(request: bytes) -> Iterable[bytes]:
        if request[4] == 0x80 | CTAPHID.INIT:
            return [answer_init(request)]
        return [] if request[4] == 0x80 | CTAPHID.CANCEL else packets

    return answers


@contextlib.contextmanager
def opened(answers: Answers) -> Iterator[tuple[SecurityKey, ScriptedKey]]:
    """Open a key on a script; as ``open_key`` does, close it when it gives no channel."""
    script = ScriptedKey(answers)
    link = KeyConnection(KEY, script.near.detach())
    try:
        yield SecurityKey(KEY, link), script
    finally:
        link.close()
        assert script.closed.wait(PATIENCE)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SILENCE_MAX", SHORT)
    monkeypatch.setattr(connection, "GRACE", SHORT)
    monkeypatch.setattr(security_key, "BUSY_MAX", SHORT)
    monkeypatch.setattr(security_key, "RETRY_INTERVAL", SHORT / 10)


def test_exchange() -> None:
    """A command brings the key's answer, and an answered key is told nothing at its release."""
    with opened(after_init(KEEPALIVE, packet(CHANNEL, CTAPHID.CBOR, b"hello"))) as (key, script):
        assert b"hello" == key.call(CTAPHID.CBOR, b"\x04")
    assert [CTAPHID.INIT, CTAPHID.CBOR] == script.commands


def test_long_answer() -> None:
    """An answer of several packets is put together, with a stranger's packets between them."""
    first = packet(CHANNEL, CTAPHID.CBOR, b"a" * 57, length=60)
    rest = (CHANNEL + b"\x00" + b"bbb").ljust(64, b"\0")
    with opened(after_init(first, STRANGER.ljust(64, b"\1"), rest)) as (key, _):
        assert b"a" * 57 + b"bbb" == key.call(CTAPHID.CBOR, b"\x04")


def test_strangers_init() -> None:
    """Another program's INIT, answered on the channel of all, is not taken for ours."""

    def answers(request: bytes) -> Iterable[bytes]:
        theirs = packet(BROADCAST, CTAPHID.INIT, b"another!" + STRANGER + b"\x02\x01\x00\x00\x04")
        return [theirs, answer_init(request)]

    with opened(answers) as (key, _):
        assert 2 == key.version


def test_silent_key() -> None:
    """A key that says nothing is given up, and told to end."""
    with opened(after_init()) as (key, script), pytest.raises(KeySilentError):
        key.call(CTAPHID.CBOR, b"\x04")
    assert CTAPHID.CANCEL == script.commands[-1]


def test_silent_from_the_start() -> None:
    """A key that does not even answer INIT is given up."""
    with pytest.raises(KeySilentError), opened(lambda _: []):
        pass


def test_chatting_stranger() -> None:
    """Another program's packets do not keep us waiting for a silent key."""
    stop = threading.Event()

    def answers(request: bytes) -> Iterator[bytes]:
        if request[4] == 0x80 | CTAPHID.INIT:
            yield answer_init(request)
        while request[4] == 0x80 | CTAPHID.CBOR and not stop.wait(SHORT / 10):
            yield packet(STRANGER, CTAPHID.KEEPALIVE, b"\x02")

    with opened(answers) as (key, _):
        with pytest.raises(KeySilentError):
            key.call(CTAPHID.CBOR, b"\x04")
        stop.set()


def test_endless_keepalives() -> None:
    """A key that waits for a touch for ever is canceled when the call's time is over."""
    stop = threading.Event()

    def answers(request: bytes) -> Iterator[bytes]:
        if request[4] == 0x80 | CTAPHID.INIT:
            yield answer_init(request)
        while request[4] == 0x80 | CTAPHID.CBOR and not stop.wait(SHORT / 10):
            yield KEEPALIVE

    with opened(answers) as (key, script):
        key.call_max = SHORT
        with pytest.raises(KeySilentError):
            key.call(CTAPHID.CBOR, b"\x04")
        stop.set()
    # At the deadline; and once more at its release, which a script may be too late to read.
    assert [CTAPHID.INIT, CTAPHID.CBOR, CTAPHID.CANCEL] == script.commands[:3]
    assert {CTAPHID.CANCEL} == set(script.commands[2:])


def test_touch_timeout() -> None:
    """A key that obeys the cancel at the end of the call's time ends as by its own timeout."""

    def answers(request: bytes) -> Iterable[bytes]:
        replies = {CTAPHID.INIT: answer_init(request), CTAPHID.CBOR: KEEPALIVE}
        return [replies.get(CTAPHID(request[4] & 0x7F), CANCELED)]

    with opened(answers) as (key, script):
        key.call_max = SHORT / 2
        with pytest.raises(CtapError) as caught:
            key.call(CTAPHID.CBOR, b"\x04")
    assert CtapError.ERR.USER_ACTION_TIMEOUT == caught.value.code
    assert [CTAPHID.INIT, CTAPHID.CBOR, CTAPHID.CANCEL] == script.commands


def test_canceled_by_event() -> None:
    """An event cancels a call at the next keepalive, and is told from a timeout."""
    event = threading.Event()

    def answers(request: bytes) -> Iterable[bytes]:
        replies = {CTAPHID.INIT: answer_init(request), CTAPHID.CBOR: KEEPALIVE}
        return [replies.get(CTAPHID(request[4] & 0x7F), CANCELED)]

    with opened(answers) as (key, _):
        answer = key.call(CTAPHID.CBOR, b"\x04", event, lambda _: event.set())
    assert bytes((CtapError.ERR.KEEPALIVE_CANCEL,)) == answer


def test_released_while_waiting() -> None:
    """A key that is released in the middle of a touch is told to stop blinking."""
    with opened(after_init(KEEPALIVE)) as (key, script):

        def leave(_: object) -> None:
            raise RuntimeError

        with pytest.raises(RuntimeError):
            key.call(CTAPHID.CBOR, b"\x04", None, leave)
    assert CTAPHID.CANCEL == script.commands[-1]


def test_busy_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that meets another program's is tried again."""
    monkeypatch.setattr(security_key, "BUSY_MAX", PATIENCE)
    replies = iter([BUSY, BUSY, packet(CHANNEL, CTAPHID.CBOR, b"free")])

    def answers(request: bytes) -> Iterable[bytes]:
        return [answer_init(request) if request[4] == 0x80 | CTAPHID.INIT else next(replies)]

    with opened(answers) as (key, _):
        assert b"free" == key.call(CTAPHID.CBOR, b"\x04")


def test_busy_for_ever() -> None:
    """A key that stays busy is given up."""
    with opened(after_init(BUSY)) as (key, _), pytest.raises(KeyBusyError):
        key.call(CTAPHID.CBOR, b"\x04")


def test_busy_and_canceled() -> None:
    """An event ends the wait for a busy key."""
    event = threading.Event()
    event.set()
    with opened(after_init(BUSY)) as (key, script), pytest.raises(KeyBusyError):
        key.call(CTAPHID.CBOR, b"\x04", event)
    assert 1 == script.commands.count(CTAPHID.CBOR)


def test_pulled_out() -> None:
    """A key that is pulled out in the middle is said to be gone."""
    with opened(after_init(KEEPALIVE, b"")) as (key, _), pytest.raises(KeyGoneError):
        key.call(CTAPHID.CBOR, b"\x04")


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(KEEPALIVE[:-1], id="a short packet"),
        pytest.param(KEEPALIVE + b"\0", id="a long packet"),
        pytest.param(packet(CHANNEL, CTAPHID.CBOR, b"", length=7610), id="an endless message"),
        pytest.param(packet(CHANNEL, CTAPHID.KEEPALIVE, b"\x63"), id="an unknown keepalive"),
    ],
)
def test_garbage(garbage: bytes) -> None:
    """A packet that no key may send ends the call with the key's name."""
    with opened(after_init(garbage)) as (key, _), pytest.raises(KeyFaultError, match="Acme Blue"):
        key.call(CTAPHID.CBOR, b"\x04")


def test_wrong_sequence() -> None:
    """A continuation out of order ends the call."""
    first = packet(CHANNEL, CTAPHID.CBOR, b"a" * 57, length=60)
    late = (CHANNEL + b"\x05").ljust(64, b"\0")
    with opened(after_init(first, late)) as (key, _), pytest.raises(KeyFaultError):
        key.call(CTAPHID.CBOR, b"\x04")


def test_stopped_in_the_middle() -> None:
    """A key that goes silent in the middle of an answer is given up."""
    first = packet(CHANNEL, CTAPHID.CBOR, b"a" * 57, length=60)
    with opened(after_init(first)) as (key, _), pytest.raises(KeySilentError):
        key.call(CTAPHID.CBOR, b"\x04")


def test_words_of_the_key_stay_its_own() -> None:
    """What a key refuses by the protocol is fido2's error."""
    refusal = packet(CHANNEL, CTAPHID.ERROR, b"\x01")
    with opened(after_init(refusal)) as (key, _), pytest.raises(CtapError) as caught:
        key.call(CTAPHID.CBOR, b"\x04")
    assert CtapError.ERR.INVALID_COMMAND == caught.value.code


def test_closed_twice() -> None:
    """Closing again closes nothing that others have opened meanwhile."""
    with opened(after_init()) as (key, script):
        key.close()
        assert script.closed.wait(PATIENCE)
        other = os.open("/dev/null", os.O_RDONLY)
        key.close()
        os.fstat(other)
        os.close(other)


def test_waits_are_of_this_length() -> None:
    """A silent key is given up after the time that is set, not before."""
    began = time.monotonic()
    with pytest.raises(KeySilentError), opened(lambda _: []):
        pass
    assert SHORT <= time.monotonic() - began
