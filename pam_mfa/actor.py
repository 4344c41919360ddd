# SPDX-License-Identifier: Apache-2.0
"""Who acts: the user id, the process and the login above it, as the audit log has them."""

import os
from pathlib import Path
from typing import NamedTuple

from pam_mfa.audit import Event, EventName, Outcome, Reason

_NO_LOGIN_UID = 0xFFFFFFFF  # of /proc/self/loginuid: nobody has logged in


class Actor(NamedTuple):
    """Who acts, for the record."""

    uid: int
    pid: int
    login_uid: int | None  # None: nobody has logged in above this process

    def tell(self, name: EventName, at: float, detail: str) -> Event:
        """Return the record of what was asked for and done, of no single user.

        Args:
            name: what was done.
            at: seconds since the epoch.
            detail: in words, without a secret.
        """
        return Event(
            name=name,
            outcome=Outcome.SUCCESS,
            reason=Reason.REQUESTED,
            at=at,
            caller_uid=self.uid,
            caller_pid=self.pid,
            login_uid=self.login_uid,
            detail=detail,
        )


def current_actor() -> Actor:
    """Return who runs this process; ask before rights are dropped."""
    try:
        login_uid = int(Path("/proc/self/loginuid").read_text("ascii"))
    except (OSError, ValueError):
        login_uid = _NO_LOGIN_UID
    known = None if login_uid == _NO_LOGIN_UID else login_uid
    return Actor(os.getuid(), os.getpid(), known)
