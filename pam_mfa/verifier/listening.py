# SPDX-License-Identifier: Apache-2.0
"""The listening sockets: systemd's, or the daemon's own."""

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pam_mfa.errors import BrokenSystemError
from pam_mfa.store.layout import Layout

_ACTIVATED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_BACKLOG = 1024
_ORPHAN_PATIENCE = 5.0  # seconds
_ORPHAN_PAUSE = 0.05  # seconds
ROOT_MODE = 0o600
SELF_MODE = 0o666  # everybody may ask; the kernel's word on who asks is what decides


class Listeners(NamedTuple):
    """The daemon's two sockets."""

    root: socket.socket
    own: socket.socket  # for callers that verify themselves


def activated_listeners(layout: Layout) -> Listeners | None:
    """Return the sockets that systemd passed, or None where there are none (sd_listen_fds(3)).

    Raises:
        BrokenSystemError: they are not the two SOCK_SEQPACKET sockets of this layout.
    """
    passed = activated_sockets((layout.socket, layout.self_socket))
    return Listeners(*passed) if passed else None


def activated_sockets(paths: Sequence[Path]) -> list[socket.socket] | None:
    """Return the sockets that systemd passed, one for each path in this order, or None.

    Raises:
        BrokenSystemError: they are not SOCK_SEQPACKET sockets of these paths.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = int(os.environ.get("LISTEN_FDS", "0"))
    passed = {}
    for number in range(_ACTIVATED, _ACTIVATED + count):
        os.set_inheritable(number, False)
        listener = socket.socket(fileno=number)
        passed[listener.getsockname()] = listener
    wanted = [str(path) for path in paths]
    if set(passed) != set(wanted) or any(
        one.type != socket.SOCK_SEQPACKET for one in passed.values()
    ):
        raise BrokenSystemError(
            f"systemd passed {sorted(passed)}, not {sorted(wanted)}",
            hint="Use the shipped units, all of them: share/systemd/*.socket",
        )
    return [passed[path] for path in wanted]


def own_listeners(layout: Layout) -> Listeners:
    """Make the sockets, in the place of ones that nobody listens on any more.

    Raises:
        BrokenSystemError: another verifier listens there, or they cannot be made.
    """
    _wait_for_orphan(layout)
    root = listen(layout.socket, ROOT_MODE)
    try:
        return Listeners(root, listen(layout.self_socket, SELF_MODE))
    except BrokenSystemError:
        root.close()
        raise


def _wait_for_orphan(layout: Layout) -> None:
    """Let the second process of a daemon that was killed end, which takes it a moment."""
    if _is_alive(layout.socket):
        return
    deadline = time.monotonic() + _ORPHAN_PATIENCE
    while _is_alive(layout.self_socket) and time.monotonic() < deadline:
        time.sleep(_ORPHAN_PAUSE)


def listen(path: Path, mode: int) -> socket.socket:
    """Make a listening SOCK_SEQPACKET socket, in the place of one that nobody listens on.

    Raises:
        BrokenSystemError: another program listens there, or it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if _is_alive(path):
            raise BrokenSystemError(
                f"another verifier listens on {path}", hint="Stop it before you start this one."
            )
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        # Not by chmod afterwards: in a directory that somebody else may write, it would follow
        # the link that was put in the socket's place.
        umask = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(umask)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BrokenSystemError(f"cannot listen on {path}: {error.strerror or error}") from error
    except BrokenSystemError:
        listener.close()
        raise
    return listener


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
