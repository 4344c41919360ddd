# SPDX-License-Identifier: Apache-2.0
"""The agent's socket that comes with a request: only such a one is taken, and all is closed."""

import array
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles import make_request

from pam_mfa.ssh_agent import AgentError
from pam_mfa.ssh_wire import pack_strings
from pam_mfa.verifier.agent_socket import AgentSocket, Closing, take_agent
from pam_mfa.verifier.packets import Peer
from pam_mfa.wire import Request

ROOT = Peer(1, 0)
AGENT = b"\1"
PATIENCE = 30.0  # seconds


def request(kinds: bytes = AGENT) -> Request:
    """Return a request that announces descriptors of these kinds."""
    return make_request(descriptor_kinds=kinds)


def is_open(descriptor: int) -> bool:
    """Whether a number is an open descriptor."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.fixture
def pair() -> Iterator[tuple[int, socket.socket]]:
    """Give a descriptor of a connection, which nobody closes here, and its other end."""
    ours, its = socket.socketpair()
    with its:
        yield ours.detach(), its


Pair = tuple[int, socket.socket]


def test_agent(pair: Pair) -> None:
    """A stream socket of this machine from a program of root's is taken, and can be asked."""
    ours, its = pair
    agent = take_agent(request(), ROOT, [ours])
    assert agent is not None
    its.sendall(pack_strings(b"\x0c" + bytes(4)))
    assert () == agent.ask(PATIENCE, threading.Event()).list_identities()
    assert [ours] == agent.release()
    os.close(ours)


@pytest.mark.parametrize(
    ("kinds", "peer"), [(b"", ROOT), (b"\2", ROOT), (b"\1\1", ROOT), (AGENT, Peer(1, 1000))]
)
def test_not_announced(pair: Pair, kinds: bytes, peer: Peer) -> None:
    """What is announced otherwise, or comes from a program that is not root's, is closed."""
    assert None is take_agent(request(kinds), peer, [pair[0]])
    assert not is_open(pair[0])


def test_too_many(pair: Pair) -> None:
    """Of more descriptors than were announced, none is taken."""
    other = os.dup(pair[0])
    assert None is take_agent(request(), ROOT, [pair[0], other])
    assert [False, False] == [is_open(pair[0]), is_open(other)]


def pipe() -> int:
    """Return a descriptor that is no socket."""
    reading, writing = os.pipe()
    os.close(writing)
    return reading


MAKERS: tuple[Callable[[], int], ...] = (
    pipe,
    lambda: os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC),
    lambda: socket.socket(socket.AF_INET).detach(),
    lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
    lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach(),
)


@pytest.mark.parametrize("make", MAKERS)
def test_something_else(make: Callable[[], int]) -> None:
    """What is no stream socket of this machine is closed, not asked."""
    descriptor = make()
    assert None is take_agent(request(), ROOT, [descriptor])
    assert not is_open(descriptor)


def test_descriptors_that_an_agent_sends_along(pair: Pair) -> None:
    """What an agent sends along is not closed while it is asked: that could block whoever asks."""
    ours, its = pair
    agent = take_agent(request(), ROOT, [ours])
    assert agent is not None
    sent = array.array("i", [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)] * 200)
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sent)]
    its.sendmsg([pack_strings(b"\x0c" + bytes(4))], control)
    os.close(sent[0])
    with pytest.raises(AgentError):
        agent.ask(PATIENCE, threading.Event()).list_identities()
    left = agent.release()
    assert [True] * 201 == [is_open(one) for one in left]
    for descriptor in left:
        os.close(descriptor)


def test_closing_keeps_nobody_waiting() -> None:
    """One user's descriptors that block at their end keep neither the caller nor others waiting."""
    let_go, closed = threading.Event(), []
    others_done = threading.Event()

    def close(descriptor: int) -> None:
        if descriptor >= 0:
            others_done.set()
        else:
            let_go.wait(PATIENCE)
        closed.append(descriptor)

    class Fake(AgentSocket):
        def __init__(self, uid: int, descriptor: int) -> None:
            self.uid, self.descriptor = uid, descriptor

        def release(self) -> list[int]:
            return [self.descriptor]

    closing, before = Closing(close), threading.active_count()
    for number in range(12):
        closing.add(Fake(1000, -1 - number))
    assert threading.active_count() - before <= 2
    closing.add(Fake(1001, 7))
    assert others_done.wait(PATIENCE)
    let_go.set()
    pause = threading.Event()
    for _ in range(6000):
        if len(closed) == 13:
            break
        pause.wait(0.005)
    assert [*range(-12, 0), 7] == sorted(closed)


def count_open(file: Path) -> int:
    """Return how many descriptors of this process lead to a file."""
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found += one.readlink() == file
    return found


def test_descriptors_of_blocked_agents_do_not_pile_up(tmp_path: Path) -> None:
    """However many hostile agents a user has, few of their descriptors stay in the daemon."""
    mark, let_go = tmp_path / "mark", threading.Event()
    mark.touch()
    given: list[int] = []

    def close(descriptor: int) -> None:
        let_go.wait(PATIENCE)
        os.close(descriptor)

    class Fake(AgentSocket):
        def __init__(self) -> None:
            self.uid = 1000

        def release(self) -> list[int]:
            given.append(os.open(mark, os.O_RDONLY))
            return [given[-1]]

    closing = Closing(close)
    for _ in range(100):
        closing.add(Fake())
    assert count_open(mark) < 40
    let_go.set()
    pause = threading.Event()
    for _ in range(6000):
        if not count_open(mark):
            break
        pause.wait(0.005)
    assert 0 == count_open(mark)
    for child in closing._children:  # noqa: SLF001 - to be gone before the test is
        child.wait(PATIENCE)
