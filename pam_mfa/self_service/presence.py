# SPDX-License-Identifier: Apache-2.0
"""Whether a user is at this machine or comes from another one, by systemd-logind's word.

The kernel's session number of the process leads to logind's record of the session, which only root
writes. Nothing that the user can set is read: not the environment, not a terminal's name.
"""

import contextlib
import enum
import re
from pathlib import Path
from typing import Final

from pam_mfa.verifier.packets import Peer

PROCESSES: Final = Path("/proc")
SESSIONS: Final = Path("/run/systemd/sessions")
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


class Presence(enum.Enum):
    """Where a user is."""

    LOCAL = "local"
    REMOTE = "remote"
    UNKNOWN = "unknown"  # no logind, or a process of no session


def find_presence(peer: Peer) -> Presence:
    """Return where the user of a process is."""
    with contextlib.suppress(OSError, ValueError):
        process = PROCESSES / str(peer.pid)
        number = (process / "sessionid").read_text("ascii").strip()
        # A process that has ended may have left its number to another user's.
        if process.stat().st_uid != peer.uid or not _NUMBER.fullmatch(number):
            return Presence.UNKNOWN
        return _parse_session((SESSIONS / number).read_text("utf-8"), peer.uid)
    return Presence.UNKNOWN


def _parse_session(text: str, uid: int) -> Presence:
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if values.get("UID") != str(uid) or not values.get("CLASS", "").startswith("user"):
        return Presence.UNKNOWN
    known = {"0": Presence.LOCAL, "1": Presence.REMOTE}
    return known.get(values.get("REMOTE", ""), Presence.UNKNOWN)
