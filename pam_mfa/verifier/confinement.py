# SPDX-License-Identifier: Apache-2.0
"""What the kernel takes from a verifier for good, by the verifier's own wish.

The unit confines the daemon further; a verifier on demand has no unit, and gives up here what the
kernel lets a process without rights give up: new rights (no_new_privs), and by Landlock every place
to write to but its store. Nothing here is undone, and nothing needs root.
"""

import contextlib
import os
import struct
from collections.abc import Sequence

from pam_mfa.store.layout import Layout

# linux/prctl.h
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
# linux/landlock.h; the numbers of its calls are the same on all architectures but alpha.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE = 1 << 0, 1 << 1
_REMOVE_AND_MAKE = 0b1_1111_1111 << 4  # what adds and removes names, of whatever kind
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_SINCE = {1: _EXECUTE | _WRITE_FILE | _REMOVE_AND_MAKE, 2: _REFER, 3: _TRUNCATE}
_PROGRAMS = ("/usr", "/bin", "/lib", "/lib64")
_DEVICES = "/dev"  # security keys; which of them is the udev rule's


def hide_memory() -> None:
    """Let no process of the same user read this one's memory, nor trace it.

    Seeds and codes are in it. A process that has changed its user is hidden already, unless this
    host has set fs.suid_dumpable; the daemon, which starts as its own user, is not.
    """
    with contextlib.suppress(OSError):
        _prctl(_PR_SET_DUMPABLE, 0)


def keep_to_store(layout: Layout) -> None:
    """Give up new rights, and writing anywhere but to the store, as far as this kernel can.

    Where one of it cannot be, the others are worth having, and no login is refused for it.
    """
    with contextlib.suppress(OSError):
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        version = _call(_CREATE_RULESET, None, 0, _VERSION)
        handled = sum(rights for since, rights in _SINCE.items() if since <= version)
        store = handled & ~_EXECUTE
        _restrict(
            handled,
            [
                (str(layout.library), store),
                (str(layout.audit_log.parent), store),
                (_DEVICES, _WRITE_FILE),
                *((place, _EXECUTE) for place in _PROGRAMS),
            ],
        )


def _restrict(handled: int, allowed: Sequence[tuple[str, int]]) -> None:
    ruleset = _call(_CREATE_RULESET, struct.pack("=Q", handled), 8, 0)
    try:
        for place, rights in allowed:
            with contextlib.suppress(FileNotFoundError):  # nothing can be written there either
                _allow(ruleset, place, rights)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, place: str, rights: int) -> None:
    descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _prctl(option: int, value: int) -> None:
    import ctypes  # noqa: PLC0415 - 1.2 ms of a start on demand, which nothing else loads

    library = ctypes.CDLL(None, use_errno=True)
    longs = [ctypes.c_ulong(each) for each in (value, 0, 0, 0)]
    if library.prctl(option, *longs) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _call(number: int, *arguments: int | bytes | None) -> int:
    import ctypes  # noqa: PLC0415 - see _prctl

    library = ctypes.CDLL(None, use_errno=True)
    longs = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(library.syscall(ctypes.c_long(number), *longs))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
