# SPDX-License-Identifier: Apache-2.0
"""How old a verification is, and where it counts: MFA age.

Pure. A verification that succeeded is remembered with its place; whether it counts for a later PAM
call is said here, by both places, and by nothing that a user can set. What is not known counts for
nothing: two unknown sessions are not the same session.
"""

import enum
from collections.abc import Collection, Iterable
from typing import NamedTuple

LOGIN_LONGEST = 600.0  # seconds from a login's first phase to its last: a conversation's limit


class Scope(enum.StrEnum):
    """Where a verification counts, within its age."""

    SESSION = "session"  # in the kernel's session of the same boot
    HOST = "host"  # for whoever comes to this host from the same address


class Place(NamedTuple):
    """Where a PAM call is made. Texts are compared and never parsed; "" is not known."""

    login: str = ""  # the process of the host program, and when it was started
    parent: str = ""  # its parent, where that goes on with the same login: sshd
    session: str = ""  # the kernel's, of a person
    boot: str = ""
    source: str = ""  # the address, "console", or "" where PAM names neither


class Spot(NamedTuple):
    """What the kernel says of the process that makes a PAM call; "" and None are not known."""

    process: str = ""  # its number, and when it was started: a number used again is another one
    parent: str = ""  # the same of its parent, where that is root's
    audit_session: str = ""
    login_uid: int | None = None  # of the audit session
    leader: str = ""  # the process that leads its session
    leader_uid: int | None = None
    boot: str = ""
    # Whether the audit session is one that a person has logged in to: each user's service manager
    # has one as well, in which any of the user's sessions can start a program.
    is_personal: bool = False


class Verified(NamedTuple):
    """A verification that is remembered."""

    user_key: str
    type: str  # of the device
    serial_number: str
    device_hash: str  # of all that the device is: its namesake is another one
    service: str
    tty: str
    place: Place
    at: float  # seconds since the epoch


class Wish(NamedTuple):
    """What a PAM call could be answered by, without a question."""

    place: Place
    service: str
    types: Collection[str]  # of devices that count
    age: float  # seconds; 0: nothing but this very login counts
    scope: Scope
    is_first: bool  # whether the login begins by this call, so that it has no earlier phase
    is_arrival: bool  # whether a session begins by this login, so that it is in none


def find_same_login(remembered: Iterable[Verified], wish: Wish, now: float) -> list[Verified]:
    """Return what an earlier phase of this very login has verified, the latest first."""
    if wish.is_first:
        return []
    found = [one for one in remembered if _is_same_login(one, wish, now)]
    return sorted(found, key=lambda one: -one.at)


def find_fresh(remembered: Iterable[Verified], wish: Wish, now: float) -> list[Verified]:
    """Return what is fresh enough, and was verified where it counts; the latest first.

    A bypass code lets in once: no rule can name its type, so it is never among them.
    """
    found = [
        one
        for one in remembered
        if one.type in wish.types and 0 <= now - one.at < wish.age and is_in_scope(one, wish)
    ]
    return sorted(found, key=lambda one: -one.at)


def is_in_scope(one: Verified, wish: Wish) -> bool:
    """Whether a verification was made where it counts.

    Where PAM names no address (sudo, su), nobody knows from where the person comes, so ``host`` is
    then no wider than ``session``.
    """
    if wish.scope is Scope.HOST and wish.place.source:
        return one.place.source == wish.place.source
    # Who comes in now has no session yet: what the process has is its daemon's, everybody's.
    return not wish.is_arrival and is_same_session(one.place, wish.place)


def is_same_session(one: Place, other: Place) -> bool:
    """Whether two places are in one session; a reboot ends all, and nobody shares an unknown."""
    return bool(one.session and one.boot) and (one.session, one.boot) == (other.session, other.boot)


def _is_same_login(one: Verified, wish: Wish, now: float) -> bool:
    """Whether a verification was made by the host program's own process, or sshd's child of it."""
    place = wish.place
    is_ours = bool(place.login and place.boot) and place.login in (
        one.place.login,
        one.place.parent,
    )
    return (
        is_ours
        and place.boot == one.place.boot
        and (one.service, one.place.source) == (wish.service, place.source)
        and 0 <= now - one.at < LOGIN_LONGEST
    )
