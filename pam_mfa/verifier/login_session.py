# SPDX-License-Identifier: Apache-2.0
"""Whether a login session comes over a network, by systemd-logind's word.

By the kernel's audit session and login user id, which nobody can change, and logind's files, which
only root writes; nothing that a user can set is read: not the environment, not a terminal's name.
"""

import enum
import os
from pathlib import Path
from typing import Final

from pam_mfa.verifier.packets import Peer

PROCESSES: Final = Path("/proc")
SESSIONS: Final = Path("/run/systemd/sessions")
USERS: Final = Path("/run/systemd/users")
_UNSET: Final = b"4294967295"  # AUDIT_SID_UNSET of linux/audit.h, for login user ids, too
_FILE_MAX: Final = 8192  # bytes


class Presence(enum.Enum):
    """Where a user is."""

    LOCAL = "local"
    REMOTE = "remote"
    UNKNOWN = "unknown"  # no logind, or a process of no session


def find_presence(peer: Peer) -> Presence:
    """Return where the user of a process is; only what is known for sure counts as local."""
    session = read_number(f"{PROCESSES}/{peer.pid}/sessionid")
    # A process that has ended may have left its number to another user's.
    if session is None or _owner_of(peer.pid) != peer.uid:
        return Presence.UNKNOWN
    if _read_values(SESSIONS / session).get("UID") != str(peer.uid):
        return Presence.UNKNOWN
    known = {True: Presence.REMOTE, False: Presence.LOCAL, None: Presence.UNKNOWN}
    return known[_is_session_remote(session)]


def find_login(peer: Peer) -> tuple[int | None, int | None]:
    """Return as whom a process once logged in, and its audit session; None where it has none."""
    login_uid = read_number(f"{PROCESSES}/{peer.pid}/loginuid")
    session = read_number(f"{PROCESSES}/{peer.pid}/sessionid")
    # A process that has ended may have left its number to another user's.
    if (login_uid or session) and _owner_of(peer.pid) != peer.uid:
        return None, None
    return int(login_uid) if login_uid else None, int(session) if session else None


def is_remote(login_uid: int | None, session: int | None) -> bool:
    """Whether a process belongs to somebody who is logged in from another machine.

    By what ``find_login`` says of it.

    sudo and su inside an ssh session say nothing of a remote host (no PAM_RHOST), but logind knows.
    Where it does not (no logind, a service, the console's login itself), PAM's items alone decide.
    """
    if session is None:
        return False
    known = _is_session_remote(str(session))
    if known is not None:
        return known
    # The user's own service manager has a session of its own, and any session can start a program
    # there (systemd-run --user): it is here where any of the user's sessions is.
    if login_uid is None:
        return False
    sessions = _read_values(USERS / str(login_uid)).get("SESSIONS", "").split()
    remote = [_is_session_remote(one) for one in sessions if one.isalnum()]
    return True in remote and False not in remote


def _is_session_remote(session: str) -> bool | None:
    """Return what logind says; None where it knows no such session of a user."""
    values = _read_values(SESSIONS / session)
    if not values.get("CLASS", "").startswith("user"):
        return None
    return {"0": False, "1": True}.get(values.get("REMOTE", ""))


def may_be_personal(session: str) -> bool:
    """Whether an audit session is one that somebody has logged in to, not a service manager's.

    Where logind tells of no sessions at all, the kernel's number is all that there is; but not the
    one of the first process: a container that was started in a session has it everywhere.
    """
    if not session or not SESSIONS.is_dir():
        return bool(session) and session != read_number(f"{PROCESSES}/1/sessionid")
    return _is_session_remote(session) is not None


def _owner_of(pid: int) -> int | None:
    try:
        return (PROCESSES / str(pid)).stat().st_uid
    except OSError:
        return None


def read_number(path: str) -> str | None:
    """Return a number of the kernel's; None where it is not set, or cannot be read."""
    text = read_small(path).strip()
    return text.decode("ascii") if text.isdigit() and text != _UNSET else None


def read_small(path: str) -> bytes:
    """Return a small file of the kernel's, by as few calls as can be; b"" where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _FILE_MAX)
    except OSError:  # the process has ended meanwhile
        return b""
    finally:
        os.close(descriptor)


def _read_values(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)
