# SPDX-License-Identifier: Apache-2.0
"""Which process calls, and in which session it is: by the kernel's word alone.

By a process's number and start time, which together no other process has until a reboot, its
audit session, which nobody can change, and its session's leader. Where the number came to be
another process's while it was looked at, nothing is known.
"""

import functools
from pathlib import Path
from typing import Final, NamedTuple

from pam_mfa.mfa_age import Spot
from pam_mfa.verifier import login_session

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_PARENT, _SESSION, _START = 1, 3, 19  # of proc(5), stat, counted behind the program's name


class _Process(NamedTuple):
    """What stat says of a process."""

    pid: str
    parent: str
    session: str
    start: str

    @property
    def identity(self) -> str:
        """What no other process has before the next reboot."""
        return f"{self.pid}:{self.start}"


def locate(pid: int) -> Spot:
    """Return where a process is; an empty spot where that cannot be told."""
    process = _read_process(str(pid))
    if process is None:
        return Spot()
    directory = f"{login_session.PROCESSES}/{process.pid}"
    audit_session = login_session.read_number(f"{directory}/sessionid") or ""
    login_uid = login_session.read_number(f"{directory}/loginuid")
    parent, leader = _read_process(process.parent), _read_process(process.session)
    spot = Spot(
        process=process.identity,
        parent=parent.identity if parent and _read_uid(parent) == 0 else "",
        audit_session=audit_session,
        login_uid=int(login_uid) if login_uid else None,
        leader=leader.identity if leader else "",
        leader_uid=_read_uid(leader) if leader else None,
        boot=_read_boot(BOOT_ID),
        is_personal=login_session.may_be_personal(audit_session),
    )
    return spot if _read_process(process.pid) == process else Spot()


def _read_process(pid: str) -> _Process | None:
    text = login_session.read_small(f"{login_session.PROCESSES}/{pid}/stat")
    # The name is the program's to choose, and may have spaces and brackets in it.
    fields = text.rpartition(b")")[2].decode("ascii", "replace").split()
    if pid == "0" or len(fields) <= _START:
        return None
    return _Process(pid, fields[_PARENT], fields[_SESSION], fields[_START])


def _read_uid(process: _Process) -> int | None:
    """Return a process's real user id, where it is still the same process."""
    text = login_session.read_small(f"{login_session.PROCESSES}/{process.pid}/status")
    line = next((one for one in text.splitlines() if one.startswith(b"Uid:")), b"").split()
    is_same = _read_process(process.pid) == process
    return int(line[1]) if is_same and len(line) > 1 and line[1].isdigit() else None


@functools.cache  # no process outlives a boot
def _read_boot(path: Path) -> str:
    return login_session.read_small(str(path)).decode("ascii", "replace").strip()
