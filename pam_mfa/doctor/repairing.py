# SPDX-License-Identifier: Apache-2.0
"""The little that a program may mend by itself: rights of our own files, and a damaged state.

Never a PAM file, a policy or a device.
"""

import os
import stat
from collections.abc import Iterator

from pam_mfa.doctor.database import find_damage, find_loss
from pam_mfa.doctor.files import Rights, find_wrong_rights, list_rights, open_parent
from pam_mfa.doctor.rebuilding import Rebuilt, is_placeholder, rebuild_state
from pam_mfa.doctor.view import View
from pam_mfa.errors import PamMfaError
from pam_mfa.store.layout import Layout


def repair(view: View) -> Iterator[str]:
    """Mend, and say what was mended, a sentence each."""
    for wanted in list_rights(view.layout):
        if wanted.path == view.layout.state and is_placeholder(wanted.path):
            continue  # its rights are what keeps verifiers away
        words = find_wrong_rights(wanted, view.stat(wanted.path))
        if words:
            yield f"{wanted.path} {words}: {_mend_rights(view.layout, wanted)}"
    try:
        words = _find_fault(view)
        if words:
            yield f"{view.layout.state} {words}."
            yield from _tell(rebuild_state(view.layout))
    except PamMfaError as error:
        yield f"{view.layout.state} is not mended: {error}. {error.hint}"


def _find_fault(view: View) -> str:
    """Return what is wrong with the state; "" for nothing."""
    is_there = view.stat(view.layout.state) is not None
    damage = find_damage(view.layout.state) if is_there else ""
    return f"was damaged ({damage})" if damage else find_loss(view.layout)


def _mend_rights(layout: Layout, wanted: Rights) -> str:
    """Set owner and mode of the very file that was judged, and of no other that takes its place."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open_parent(layout, wanted.path) as directory:
            descriptor = os.open(wanted.path.name, flags, dir_fd=directory)
        try:
            return _mend_open(descriptor, wanted)
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"it is left as it is: {error.strerror}"


def _mend_open(descriptor: int, wanted: Rights) -> str:
    about = os.fstat(descriptor)
    is_kind = stat.S_ISDIR if wanted.is_directory else stat.S_ISREG
    # A second name may be somebody else's file: whoever can write here could have made it.
    if not is_kind(about.st_mode) or (not wanted.is_directory and about.st_nlink != 1):
        return "it is left as it is; look at it yourself"
    if about.st_uid != wanted.uid:
        os.fchown(descriptor, wanted.uid, -1)
    os.fchmod(descriptor, wanted.mode)
    return "mended"


def _tell(rebuilt: Rebuilt) -> Iterator[str]:
    kept = f"by {rebuilt.rows} rows of the old one, which is kept: {rebuilt.broken}"
    yield f"It is rebuilt by the audit log, {kept if rebuilt.broken else 'for there was none'}."
    yield "Codes of applications are good again after six minutes; nothing that was used is."
    if rebuilt.void:
        yield (
            f"To be enabled anew, for what was used of them is not to be known: "
            f"{', '.join(rebuilt.void)}."
        )
    if rebuilt.waiting:
        yield f"Good again in a day, for they were resynchronized: {', '.join(rebuilt.waiting)}."
    yield "Locks and tokens in stock that could not be read are gone: see pam-mfa token list."
