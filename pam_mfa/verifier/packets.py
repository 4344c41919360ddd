# SPDX-License-Identifier: Apache-2.0
"""Packets and descriptors on a SOCK_SEQPACKET socket."""

import os
import socket
import struct
from typing import NamedTuple

from pam_mfa.wire import DESCRIPTORS_MAX, FRAME_MAX

_UCRED = struct.Struct("3i")  # struct ucred of linux/socket.h: pid, uid, gid
_INT = struct.calcsize("i")
_ROOM = socket.CMSG_SPACE(DESCRIPTORS_MAX * _INT)


class Peer(NamedTuple):
    """The process at the other end, by the kernel's word (SO_PEERCRED, socket(7))."""

    pid: int
    uid: int


def peer_of(connection: socket.socket) -> Peer:
    """Return who made the other end."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(raw)
    return Peer(pid, uid)


def receive_packet(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one packet, and the descriptors that came with it; ``b""`` when closed.

    One byte more than a frame may have is asked for, so that a longer one is seen as too long.

    Raises:
        OSError: as recvmsg(2); BlockingIOError where nothing is there yet.
    """
    data, control, _flags, _address = connection.recvmsg(
        FRAME_MAX + 1, _ROOM, socket.MSG_CMSG_CLOEXEC
    )
    descriptors: list[int] = []
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            count = len(content) // _INT
            descriptors += struct.unpack_from(f"{count}i", content)
    return data, descriptors


def close_all(descriptors: list[int]) -> None:
    """Close descriptors that came with packets."""
    for descriptor in descriptors:
        os.close(descriptor)
