# SPDX-License-Identifier: Apache-2.0
"""A user's groups, as the host's name service gives them, within a limit of time.

A name service may hang (a directory that cannot be reached), and no call of it can be ended: it is
made in a thread that nobody waits for longer than that, and only so many may hang at a time.
"""

import grp
import os
import pwd
import queue
import threading
from collections.abc import Callable, Collection
from typing import TypeVar

from pam_mfa.errors import BrokenSystemError

PATIENCE = 2.0  # seconds
_HANGING_MAX = 16  # threads, each with a call of the name service under way
_slots = threading.BoundedSemaphore(_HANGING_MAX)
_Answer = TypeVar("_Answer")


class SilentNameServiceError(BrokenSystemError):
    """The name service does not answer in time."""


def find_groups(
    user: str, names: Collection[str], *, is_known: bool, patience: float = PATIENCE
) -> frozenset[str] | None:
    """Return those of the named groups that a user is in; None where that is not to be had.

    Args:
        user: the account's name.
        names: groups to be looked for.
        is_known: whether the host has such an account; if not, it is in no group.
        patience: seconds.
    """
    try:
        return _ask(lambda: _look_up(user, names, is_known=is_known), patience)
    except SilentNameServiceError:
        return None


def group_finder(names: Collection[str]) -> Callable[[str], frozenset[str] | None]:
    """Return what finds, by a user's name, those of the named groups that the user is in."""
    # Whether there is such an account, the name service is asked for just this.
    return lambda user: find_groups(user, names, is_known=False)


def has_account(name: str) -> bool:
    """Whether the host has an account of this name.

    Raises:
        SilentNameServiceError: nobody says.
    """
    return _ask(lambda: _exists(pwd.getpwnam, name), PATIENCE)


def has_group(name: str) -> bool:
    """Whether the host has a group of this name.

    Raises:
        SilentNameServiceError: nobody says.
    """
    return _ask(lambda: _exists(grp.getgrnam, name), PATIENCE)


def _ask(look_up: Callable[[], _Answer], patience: float) -> _Answer:
    """Return an answer of the name service, if it comes in time.

    Raises:
        SilentNameServiceError: it does not.
    """
    answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()

    def look() -> None:
        try:
            answers.put(look_up())
        finally:
            _slots.release()

    silent = SilentNameServiceError(
        f"the host's name service does not answer within {patience:.0f} s",
        hint="See: getent passwd root; /etc/nsswitch.conf",
    )
    if not _slots.acquire(blocking=False):
        raise silent
    try:
        threading.Thread(target=look, daemon=True).start()
    except RuntimeError as error:  # no more threads
        _slots.release()
        raise silent from error
    try:
        return answers.get(timeout=patience)
    except queue.Empty as error:
        raise silent from error


def _look_up(user: str, names: Collection[str], *, is_known: bool) -> frozenset[str] | None:
    """Ask the name service; the same for a name that no account has, which takes as long."""
    try:
        account = pwd.getpwnam(user)
        ids = set(os.getgrouplist(account.pw_name, account.pw_gid))
    except KeyError:  # of an account that there is: the name service fails
        return None if is_known else frozenset()
    except (OSError, ValueError):  # a name with a NUL, or one that is no text of this locale
        return None
    return frozenset(name for name in names if _find_id(name) in ids)


def _find_id(name: str) -> int:
    """Return a group's id; -1 where there is none."""
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return -1


def _exists(look_up: Callable[[str], object], name: str) -> bool:
    try:
        look_up(name)
    except (KeyError, ValueError):
        return False
    return True
