# SPDX-License-Identifier: Apache-2.0
"""Lines of a PAM stack by which a login gets in without coming to pam_mfa.so.

Pure. A ``sufficient`` line before the module's is the classic one: whoever passes it is in.
"""

from typing import Final, NamedTuple

from pam_mfa.pam_services import Line, Service, find_jumps

MODULE: Final = "pam_mfa.so"
# They let by whom an administrator has named, and ask for no password: a choice, not a hole.
_CHOICES = (
    "pam_rootok.so", "pam_succeed_if.so", "pam_wheel.so", "pam_listfile.so", "pam_access.so",
    "pam_localuser.so", "pam_exec.so", "pam_time.so",
)  # fmt: skip
# What libpam makes of these results is no success of the stack by itself.
_HARMLESS = ("ignore",)
_NEVER_SUCCEEDS = "pam_deny.so"


class Bypass(NamedTuple):
    """One such line."""

    line: Line
    is_choice: bool  # of an administrator: it names who may
    result: str  # of its module, by which the login goes past ours


def find_bypasses(service: Service, phase: str = "auth") -> list[Bypass]:
    """Return the lines of a phase that skip the module's line; none where it has no such line."""
    lines = [line for line in service.lines if line.type == phase]
    ours = next((at for at, line in enumerate(lines) if name_of(line) == MODULE), None)
    found = []
    for at in range(ours or 0):
        for result, target in find_jumps(lines, at):
            is_past = ours is not None and target > ours and result not in _HARMLESS
            if is_past and name_of(lines[at]) != _NEVER_SUCCEEDS:
                found.append(Bypass(lines[at], name_of(lines[at]) in _CHOICES, result))
                break
    return found


def name_of(line: Line) -> str:
    """Return a line's module by its file name."""
    return line.module.rpartition("/")[2]
