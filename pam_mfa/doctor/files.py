# SPDX-License-Identifier: Apache-2.0
"""Our own files: owners and modes, room on the disk, log and policy."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pam_mfa.doctor.finding import Finding, fault, notice, ok, warning
from pam_mfa.doctor.view import View
from pam_mfa.policy import Engine, Mode
from pam_mfa.store.layout import Layout, service_ids
from pam_mfa.store.policies import PolicySource

_ROOM_LOW, _ROOM_NONE = 100 << 20, 4 << 20  # bytes
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Rights(NamedTuple):
    """What a path of ours must be."""

    path: Path
    is_directory: bool
    uid: int
    forbidden: int  # permission bits that must be clear
    mode: int  # that it is made with


def list_rights(layout: Layout) -> list[Rights]:
    """Return what each path of ours must be, where it is."""
    uid, _ = service_ids()
    owned = [
        Rights(layout.policy.parent, True, 0, 0o022, 0o755),
        Rights(layout.policy, False, 0, 0o022, 0o644),
        Rights(layout.library, True, uid, 0o077, 0o700),
        Rights(layout.devices, True, uid, 0o077, 0o700),
        Rights(layout.audit_log.parent, True, uid, 0o007, 0o2750),
        Rights(layout.audit_log, False, uid, 0o007, 0o640),
        Rights(layout.run, True, uid, 0o022, 0o755),
    ]
    names = ("state.db", "state.db-wal", "state.db-shm", "seal.key", "commit.lock")
    owned += [Rights(layout.library / name, False, uid, 0o077, 0o600) for name in names]
    devices = _list_devices(layout)
    return owned + [Rights(path, False, uid, 0o077, 0o600) for path in devices]


@contextlib.contextmanager
def open_parent(layout: Layout, path: Path) -> Iterator[int]:
    """Open the directory that a path of ours is in, by no link that its owner could have made.

    Raises:
        OSError: it is a link, or cannot be opened.
    """
    ours = (layout.library, layout.policy.parent, layout.audit_log.parent, layout.run)
    is_device = path.parent == layout.devices
    start = layout.library if is_device else path.parent
    flags = _DIRECTORY | (os.O_NOFOLLOW if start in ours else 0)
    with contextlib.ExitStack() as stack:
        descriptor = os.open(start, flags)
        stack.callback(os.close, descriptor)
        if is_device:
            # The service user can put a link to a directory of root's in its place.
            name = layout.devices.name
            descriptor = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
        yield descriptor


def _list_devices(layout: Layout) -> list[Path]:
    """Return the files of devices, of the very directory and of none that a link names."""
    with contextlib.suppress(OSError), open_parent(layout, layout.devices / "any") as directory:
        names = sorted(os.listdir(directory))  # noqa: PTH208 - of a descriptor
        return [layout.devices / name for name in names if name.endswith(".yaml")]
    return []


def find_wrong_rights(wanted: Rights, about: os.stat_result | None) -> str:
    """Return what is wrong with a path, as a sentence's second half; "" for nothing."""
    if about is None:
        return ""
    is_kind = stat.S_ISDIR if wanted.is_directory else stat.S_ISREG
    if not is_kind(about.st_mode):
        return "is no directory" if wanted.is_directory else "is not a regular file"
    if about.st_uid != wanted.uid:
        return f"belongs to user id {about.st_uid}, not to {wanted.uid}"
    if about.st_mode & wanted.forbidden:
        return f"has the mode {stat.S_IMODE(about.st_mode):04o}, which lets others at it"
    return ""


def check_rights(view: View) -> Iterator[Finding]:
    """Look at owners and modes."""
    wrong = 0
    for wanted in list_rights(view.layout):
        words = find_wrong_rights(wanted, view.stat(wanted.path))
        if words:
            wrong += 1
            mode = f"chmod {wanted.mode:04o}"
            yield fault(
                "rights", f"{wanted.path} {words}",
                f"If nobody has used that: pam-mfa doctor --repair (chown {wanted.uid}, {mode}).",
            )  # fmt: skip
    if not wrong:
        yield ok("rights", "owners and modes of our files are as they must be")


def check_store(view: View) -> Iterator[Finding]:
    """Look at what must be there."""
    is_fleet = view.policy is not None and view.policy.store.engine is not Engine.EMBEDDED
    own = () if is_fleet else (view.layout.devices,)
    for path in (view.layout.library, *own):
        if view.stat(path) is None:
            yield fault(
                "store", f"there is no {path}",
                "Mount or restore it; on a new host any command makes it: pam-mfa list",
            )  # fmt: skip
            return


def check_room(view: View) -> Iterator[Finding]:
    """Look at the room on the disks that every login needs."""
    for path in (view.layout.library, view.layout.audit_log.parent):
        if view.stat(path) is None:
            continue
        about = os.statvfs(path)
        room = about.f_bavail * about.f_frsize
        text = f"{room >> 20} MiB are free below {path}"
        if room < _ROOM_NONE or about.f_favail == 0 < about.f_files:
            yield fault("disk", text, "Make room: without it every login is refused.")
        elif room < _ROOM_LOW:
            yield warning("disk", text, "Make room before it is used up: then logins are refused.")
        else:
            yield ok("disk", text)


def check_audit_log(view: View) -> Iterator[Finding]:
    """Look at the log's directory; its rights are looked at with the others."""
    directory = view.layout.audit_log.parent
    if view.stat(directory) is None:
        yield fault(
            "audit log", f"there is no {directory}",
            "Make it: any command of root's does, as pam-mfa list. Until then logins are refused.",
        )  # fmt: skip
    elif os.statvfs(directory).f_flag & os.ST_RDONLY:
        yield fault("audit log", f"{directory} is read-only", "Until then logins are refused.")
    else:
        yield ok("audit log", f"{directory} can be written")


def check_policy(view: View) -> Iterator[Finding]:
    """Look at the policy, as ``pam-mfa policy check`` does."""
    policy, errors = PolicySource(view.layout.policy).check()
    for error in errors:
        yield fault("policy", str(error), error.hint or "See: pam-mfa policy check")
    if errors:
        return
    if policy.mode is Mode.REPORT_ONLY:
        yield notice("policy", "the policy is report-only: nobody is refused",
                     "When all are enrolled: mode: enforce")  # fmt: skip
    else:
        yield ok("policy", "the policy is sound, and enforced")
