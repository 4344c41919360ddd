# SPDX-License-Identifier: Apache-2.0
"""The listening socket: systemd's, or the daemon's own."""

import contextlib
import os
import socket
from pathlib import Path

from pam_mfa.errors import BrokenSystemError

_ACTIVATED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_BACKLOG = 1024


def activated_socket() -> socket.socket | None:
    """Return the socket that systemd passed, or None where there is none (sd_listen_fds(3)).

    Raises:
        BrokenSystemError: what was passed is not one SOCK_SEQPACKET socket.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    if os.environ.get("LISTEN_FDS") != "1":
        raise BrokenSystemError("systemd passed other than one socket; see pam-mfad.socket")
    os.set_inheritable(_ACTIVATED, False)
    listener = socket.socket(fileno=_ACTIVATED)
    if listener.type != socket.SOCK_SEQPACKET:
        raise BrokenSystemError("systemd passed no ListenSequentialPacket= socket")
    return listener


def own_socket(path: Path) -> socket.socket:
    """Make the socket, in the place of one that nobody listens on any more.

    Raises:
        BrokenSystemError: another verifier listens there, or it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if _is_alive(path):
            raise BrokenSystemError(
                f"another verifier listens on {path}", hint="Stop it before you start this one."
            )
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener.bind(str(path))
        path.chmod(0o666)  # everybody may ask; the kernel's word on who asks is what decides
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
