# SPDX-License-Identifier: Apache-2.0
"""What the kernel says: the clock, security keys' nodes, and denials by SELinux or AppArmor."""

import ctypes
import grp
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pam_mfa.doctor.finding import Finding, notice, ok, warning
from pam_mfa.doctor.view import View
from pam_mfa.hardware.nodes import list_keys
from pam_mfa.store.layout import SERVICE_USER

_UNSYNCHRONIZED, _NANO = 0x40, 0x2000  # STA_UNSYNC, STA_NANO of linux/timex.h
_TIMEX_BYTES = 208
_OFFSET_MAX = 5.0  # seconds; a code's window is 30
_DENIALS_MAX = 5
_DENIED = re.compile(r'apparmor="DENIED".*pam.?mfa|avc:.*denied.*pam.?mfa')
_AUDIT_LOG = Path("/var/log/audit/audit.log")
_GROUP_ACCESS = 0o060


class Clock(NamedTuple):
    """What adjtimex(2) says."""

    is_synchronized: bool
    offset: float  # seconds
    error_max: float  # seconds


def read_clock() -> Clock:
    """Ask the kernel for the clock's state; changes nothing."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    ctypes.CDLL(None).adjtimex(buffer)
    offset, _, error_max, _ = struct.unpack_from("@4l", buffer, 8)
    (status,) = struct.unpack_from("@i", buffer, 40)
    unit = 1e9 if status & _NANO else 1e6
    return Clock(not status & _UNSYNCHRONIZED, offset / unit, error_max / 1e6)


def check_clock(view: View) -> Iterator[Finding]:
    """Look at the clock: codes are made of the time."""
    if not view.is_host:
        return
    yield judge_clock(read_clock())


def judge_clock(clock: Clock) -> Finding:
    """Return what the clock's state means for codes."""
    told = f"offset {clock.offset:+.6f} s, error at most {clock.error_max:.3f} s"
    if not clock.is_synchronized:
        return warning(
            "clock", f"the kernel says that the clock is not synchronized ({told})",
            "timedatectl set-ntp true, or run chrony; codes are refused where it is a minute off.",
        )  # fmt: skip
    if abs(clock.offset) > _OFFSET_MAX:
        return warning("clock", f"the clock is off: {told}", "Wait until it is right, or set it.")
    return ok("clock", f"the clock is synchronized: {told}")


def check_keys(view: View) -> Iterator[Finding]:
    """Look at the nodes of attached security keys: the verifier must be able to open them."""
    if not view.is_host:
        return
    keys = list_keys()
    for key in keys:
        about = view.stat(Path(key.path))
        if about is not None and not _is_open(about.st_gid, about.st_mode):
            yield warning(
                "security keys", f"the verifier may not open {key.path}",
                "The udev rule is missing: cp /opt/pam-mfa/share/udev/71-pam-mfa.rules "
                "/etc/udev/rules.d/; udevadm control --reload; udevadm trigger "
                "--subsystem-match=hidraw",
            )  # fmt: skip
        else:
            yield ok("security keys", f"the verifier may open {key.path}")
    if not keys:
        yield ok("security keys", "no security key is attached")


def _is_open(gid: int, mode: int) -> bool:
    try:
        is_ours = gid == grp.getgrnam(SERVICE_USER).gr_gid
    except KeyError:
        is_ours = False
    return (is_ours and stat.S_IMODE(mode) & _GROUP_ACCESS == _GROUP_ACCESS) or not ~mode & 0o006


def check_denials(view: View) -> Iterator[Finding]:
    """Look for denials of the last day that name us, in the journal, and in the audit log's end."""
    if not view.is_host:
        return
    # Not by journalctl's own --grep: without a match it fails as it does without a journal.
    journal = view.run("journalctl", "-q", "--no-pager", "--since", "-1day", "-n", "20000",
                       "-o", "cat", "_TRANSPORT=kernel", "+", "_TRANSPORT=audit")  # fmt: skip
    audit = view.read_end(_AUDIT_LOG)
    lines = [line for line in f"{journal or ''}\n{audit}".splitlines() if _DENIED.search(line)]
    for line in lines[-_DENIALS_MAX:]:
        yield warning(
            "denials", f"a denial of a security module: {line[:300]}",
            "Load the policy that comes with the package, or allow it: audit2allow, aa-logprof.",
        )  # fmt: skip
    if journal is None and not audit:
        yield notice("denials", "neither journal nor audit log could be searched for denials")
    elif not lines:
        yield ok("denials", "no denial of SELinux or AppArmor names pam-mfa")
