# SPDX-License-Identifier: Apache-2.0
"""Packets and the descriptors that come with them: whoever sends some, none is left open."""

import fcntl
import os
import socket
from collections.abc import Iterator

import pytest
from doubles import count_descriptors

from pam_mfa.verifier.packets import Peer, close_all, peer_of, receive_packet

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The two ends of a connection: the verifier's and the module's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def test_peer(pair: Pair) -> None:
    """The other end is known by the kernel's word."""
    assert Peer(os.getpid(), os.geteuid()) == peer_of(pair[0])


@pytest.mark.parametrize("size", [1, 18, 32768])
def test_packet(pair: Pair, size: int) -> None:
    """A packet is received whole and alone."""
    pair[1].send(b"x" * size)
    pair[1].send(b"next")
    assert [(b"x" * size, []), (b"next", [])] == [receive_packet(pair[0]), receive_packet(pair[0])]


@pytest.mark.parametrize("size", [32769, 60000])
def test_long_packet(pair: Pair, size: int) -> None:
    """A packet longer than a frame is seen as too long, and its rest is not the next packet."""
    pair[1].send(b"x" * size)
    pair[1].send(b"next")
    sizes = [len(receive_packet(pair[0])[0]), len(receive_packet(pair[0])[0])]
    assert [32769, 4] == sizes


def test_closed(pair: Pair) -> None:
    """The end of a connection is an empty packet."""
    pair[1].close()
    assert (b"", []) == receive_packet(pair[0])


def test_nothing_there(pair: Pair) -> None:
    """Where nothing is there and nobody may wait, that is an error."""
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        receive_packet(pair[0])


@pytest.mark.parametrize("count", [1, 2, 4, 5, 50])
def test_descriptors(pair: Pair, count: int) -> None:
    """Descriptors come closed-on-exec and are closed, also those that were too many."""
    with open(os.devnull, "rb") as sent:  # noqa: PTH123 - only its number is needed
        before = count_descriptors()
        socket.send_fds(pair[1], [b"x"], [sent.fileno()] * count)
        data, descriptors = receive_packet(pair[0])
        flags = {fcntl.fcntl(each, fcntl.F_GETFD) for each in descriptors}
        close_all(descriptors)
        assert (b"x", {fcntl.FD_CLOEXEC}, before) == (data, flags, count_descriptors())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_credentials(pair: Pair, count: int) -> None:
    """Other control data than descriptors is taken for none."""
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    read, write = os.pipe()
    before = count_descriptors()
    if count:
        socket.send_fds(pair[1], [b"x"], [read] * count)
    else:
        pair[1].send(b"x")
    data, descriptors = receive_packet(pair[0])
    close_all(descriptors)
    assert (b"x", before) == (data, count_descriptors())
    os.close(read)
    os.close(write)
