# SPDX-License-Identifier: Apache-2.0
"""Asking an ssh-agent: whatever it does, the asking ends, and nothing but its answer is taken."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pam_mfa.ssh_agent import REPLY_MAX, Agent, AgentEnd, AgentError, Identity
from pam_mfa.ssh_wire import pack_strings

LIST = pack_strings(b"\x0b")
SOON, PATIENCE = 0.2, 30.0  # seconds


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give our end of a connection and the agent's."""
    ours, its = socket.socketpair()
    with ours, its:
        yield ours, its


Sockets = tuple[socket.socket, socket.socket]


def agent(ours: socket.socket, seconds: float = PATIENCE) -> Agent:
    """Return the agent behind a socket."""
    return Agent(ours, seconds, threading.Event())


def reply(its: socket.socket, body: bytes) -> None:
    """Have the agent's answer ready, before it is asked."""
    its.sendall(pack_strings(body))


def end_of(act: Callable[[], object]) -> AgentEnd:
    """Return how asking failed."""
    with pytest.raises(AgentError) as caught:
        act()
    return caught.value.end


def test_list(sockets: Sockets) -> None:
    """The keys that an agent lists are returned as it lists them."""
    ours, its = sockets
    entries = pack_strings(b"key", b"laptop", b"other", b"")
    reply(its, b"\x0c" + (2).to_bytes(4, "big") + entries)
    assert (Identity(b"key", b"laptop"), Identity(b"other", b"")) == agent(ours).list_identities()
    assert LIST == its.recv(100)


def test_sign(sockets: Sockets) -> None:
    """A request to sign has the key, the data and the flags, and its answer is the signature."""
    ours, its = sockets
    reply(its, b"\x0e" + pack_strings(b"signature"))
    assert b"signature" == agent(ours).sign(b"key", b"data")
    flags = (4).to_bytes(4, "big")
    assert pack_strings(b"\x0d" + pack_strings(b"key", b"data") + flags) == its.recv(100)


@pytest.mark.parametrize("code", [5, 30, 102])
def test_refusal(sockets: Sockets, code: int) -> None:
    """An agent that refuses is one that refused."""
    ours, its = sockets
    reply(its, bytes((code,)))
    assert AgentEnd.REFUSED == end_of(lambda: agent(ours).sign(b"key", b"data"))


@pytest.mark.parametrize(
    "raw",
    [
        (2**30).to_bytes(4, "big") + b"\x0c",  # a gigabyte is to come
        (REPLY_MAX + 1).to_bytes(4, "big"),
        bytes(4),
        pack_strings(b"\x0e"),  # a signature where a list is due
        pack_strings(b"\xff"),  # a type that nobody knows
        pack_strings(b"\x0c"),
        pack_strings(b"\x0c" + (2).to_bytes(4, "big") + pack_strings(b"key", b"laptop")),
        pack_strings(b"\x0c" + (0).to_bytes(4, "big") + b"more"),
        pack_strings(b"\x0c" + b"\xff" * 4),
        pack_strings(b"\x0c" + (1).to_bytes(4, "big") + b"\xff" * 4),
    ],
)  # fmt: skip
def test_nonsense(sockets: Sockets, raw: bytes) -> None:
    """An impossible length, another type, a cut or long list is nonsense, told at once."""
    ours, its = sockets
    its.sendall(raw)
    assert AgentEnd.NONSENSE == end_of(agent(ours).list_identities)


def test_long_signature(sockets: Sockets) -> None:
    """A signature with bytes behind its end is nonsense."""
    ours, its = sockets
    reply(its, b"\x0e" + pack_strings(b"signature") + b"x")
    assert AgentEnd.NONSENSE == end_of(lambda: agent(ours).sign(b"key", b"data"))


@pytest.mark.parametrize("raw", [b"", b"\0\0", (100).to_bytes(4, "big") + b"\x0c"])
def test_hanging(sockets: Sockets, raw: bytes) -> None:
    """An agent that says nothing, or stops in its answer, is waited for no longer than allowed."""
    ours, its = sockets
    its.sendall(raw)
    before = time.monotonic()
    assert AgentEnd.LATE == end_of(agent(ours, SOON).list_identities)
    assert time.monotonic() - before < PATIENCE


@pytest.mark.parametrize("raw", [b"", (100).to_bytes(4, "big") + b"\x0c"])
def test_closing(sockets: Sockets, raw: bytes) -> None:
    """An agent that closes, at once or in its answer, is gone."""
    ours, its = sockets
    its.sendall(raw)
    its.shutdown(socket.SHUT_WR)
    assert AgentEnd.GONE == end_of(agent(ours).list_identities)
    its.close()
    assert AgentEnd.GONE == end_of(agent(ours).list_identities)


def test_full(sockets: Sockets) -> None:
    """An agent that reads nothing is waited for no longer than allowed."""
    ours, _its = sockets
    big = b"x" * 4_000_000
    assert AgentEnd.LATE == end_of(lambda: agent(ours, SOON).sign(b"key", big))


def test_one_time_for_all(sockets: Sockets) -> None:
    """The time allowed is for all questions together: a second one does not begin it anew."""
    ours, its = sockets
    asked = agent(ours, SOON)
    reply(its, b"\x0c" + bytes(4))
    assert () == asked.list_identities()
    assert AgentEnd.LATE == end_of(asked.list_identities)
    assert AgentEnd.LATE == end_of(asked.list_identities)


def test_cancel(sockets: Sockets) -> None:
    """Whoever goes away ends the wait."""
    ours, _its = sockets
    canceled = threading.Event()
    waiting = Agent(ours, PATIENCE, canceled)
    timer = threading.Timer(SOON, canceled.set)
    timer.start()
    before = time.monotonic()
    assert AgentEnd.CANCELED == end_of(waiting.list_identities)
    timer.join()
    assert time.monotonic() - before < PATIENCE


def test_dripping(sockets: Sockets) -> None:
    """An answer that comes byte by byte is put together, one of the greatest length, too."""
    ours, its = sockets
    body = b"\x0e" + pack_strings(b"s" * (REPLY_MAX - 5))

    def drip() -> None:
        for start in range(12):
            its.sendall(pack_strings(body)[start : start + 1])
        its.sendall(pack_strings(body)[12:])

    thread = threading.Thread(target=drip)
    thread.start()
    assert b"s" * (REPLY_MAX - 5) == agent(ours).sign(b"key", b"data")
    thread.join()


def test_flags_stay(sockets: Sockets) -> None:
    """The socket, which others may share, blocks as it did before."""
    ours, its = sockets
    reply(its, b"\x0c" + bytes(4))
    agent(ours).list_identities()
    assert ours.getblocking()
