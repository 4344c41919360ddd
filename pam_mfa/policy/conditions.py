# SPDX-License-Identifier: Apache-2.0
"""The conditions of rules: what each key of ``match`` compares, and how that is said.

Pure. ``holds`` decides, for logins and for whatever foretells or explains them; ``describe`` only
finds words for it.
"""

import datetime
import functools
import re
from typing import NamedTuple

from pam_mfa.policy.decision import UnknownGroupsError
from pam_mfa.policy.networks import Network, find_address
from pam_mfa.policy.words import Condition, Context
from pam_mfa.wire import Phase

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LOCAL, REMOTE = "local", "remote"
MINUTES = 24 * 60
_DEVICES = "/dev/"
# The kernel's consoles, by their drivers: virtual terminals, serial lines, hypervisors. No pts, for
# a window on the screen has one like a login from elsewhere; no display, for xrdp's has a number
# too; not the sshd that names itself "ssh".
_CONSOLE = re.compile(r"console|tty[0-9]+|tty[A-Z]+[0-9]+|hvc[0-9]+", re.ASCII)
_SHOWN_MAX = 6  # names that a sentence counts up


def is_at_console(context: Context) -> bool:
    """Whether somebody logs in at this machine's own console: what ``tty: [local]`` means."""
    if context.rhost or context.ssh_connection or context.service == "sshd":
        return False
    return _CONSOLE.fullmatch(name_terminal(context.tty)) is not None


def name_terminal(tty: str) -> str:
    """Return a terminal's name without /dev/, which host programs may leave out."""
    return tty.removeprefix(_DEVICES)


class Phases(NamedTuple):
    """One of these phases of a login."""

    phases: frozenset[Phase]

    @property
    def key(self) -> str:
        """The key."""
        return "phase"

    def holds(self, context: Context) -> bool:
        """Whether the call is of one of them."""
        return context.phase in self.phases

    def describe(self, context: Context) -> str:
        """Say the phase and what it is compared with."""
        word = "" if self.holds(context) else "not "
        names = ", ".join(one.name.lower() for one in sorted(self.phases))
        return f"the phase is {context.phase.name.lower()}, {word}one of {names}"

    def covers(self, other: Condition) -> bool:
        """Whether every phase of the other is among them."""
        return isinstance(other, Phases) and other.phases <= self.phases


class Names(NamedTuple):
    """A service or user name: one of these."""

    key: str  # "service" or "user"
    names: frozenset[str]

    def holds(self, context: Context) -> bool:
        """Whether the name is among them."""
        return self._name(context) in self.names

    def describe(self, context: Context) -> str:
        """Say the name and what it is compared with."""
        word = "" if self.holds(context) else "not "
        return f"{self.key} is '{self._name(context)}', {word}one of {_list(self.names)}"

    def covers(self, other: Condition) -> bool:
        """Whether every name of the other is among them."""
        return isinstance(other, Names) and other.key == self.key and other.names <= self.names

    def _name(self, context: Context) -> str:
        return context.service if self.key == "service" else context.user


class Terminals(NamedTuple):
    """A terminal by name, or one of the words ``local`` and ``remote``."""

    names: frozenset[str]
    is_local: bool  # whether the machine's own consoles are among them
    is_remote: bool  # whether everything but these is

    @property
    def key(self) -> str:
        """The key."""
        return "tty"

    def holds(self, context: Context) -> bool:
        """Whether the terminal is among them."""
        if name_terminal(context.tty) in self.names:
            return True
        if not (self.is_local or self.is_remote):
            return False
        return self.is_local if is_at_console(context) else self.is_remote

    def describe(self, context: Context) -> str:
        """Say which terminal it is, and whether it is local."""
        words = [LOCAL] * self.is_local + [REMOTE] * self.is_remote
        place = LOCAL if is_at_console(context) else REMOTE
        word = "" if self.holds(context) else "not "
        names = ", ".join([*words, *([_list(self.names)] if self.names else [])])
        return f"tty is '{name_terminal(context.tty)}' ({place}), {word}one of {names}"

    def covers(self, other: Condition) -> bool:
        """Whether every terminal of the other is among them."""
        if not isinstance(other, Terminals):
            return False
        if self.is_local and self.is_remote:
            return True
        return (
            other.names <= self.names
            and other.is_local <= self.is_local
            and other.is_remote <= self.is_remote
        )


class From(NamedTuple):
    """A remote host's address in one of these networks; a name or nothing is in none."""

    networks: tuple[Network, ...]
    texts: tuple[str, ...]

    @property
    def key(self) -> str:
        """The key."""
        return "from"

    def holds(self, context: Context) -> bool:
        """Whether the address is in one of them."""
        return _is_in(self.networks, context.rhost)

    def describe(self, context: Context) -> str:
        """Say the address and the networks."""
        word = "in" if self.holds(context) else "in none of"
        return f"{_source(context)} is {word} {_list(self.texts)}"

    def covers(self, other: Condition) -> bool:
        """Whether every network of the other lies in one of these."""
        return isinstance(other, From) and _include(self.networks, other.networks)


class NotFrom(NamedTuple):
    """A remote host in none of these networks: also a name, and whoever has no remote host."""

    networks: tuple[Network, ...]
    texts: tuple[str, ...]

    @property
    def key(self) -> str:
        """The key."""
        return "not_from"

    def holds(self, context: Context) -> bool:
        """Whether the address is in none of them."""
        return not _is_in(self.networks, context.rhost)

    def describe(self, context: Context) -> str:
        """Say the address and the networks."""
        word = "outside" if self.holds(context) else "inside"
        return f"{_source(context)} is {word} {_list(self.texts)}"

    def covers(self, other: Condition) -> bool:
        """Whether each of these networks lies in one of the other's."""
        return isinstance(other, NotFrom) and _include(other.networks, self.networks)


class When(NamedTuple):
    """Days of the week and a time of the day, on a zone's own clock.

    A time over midnight belongs to the day on which it begins.
    """

    days: frozenset[int]  # 0: Monday
    start: int = 0  # minutes after midnight
    end: int = MINUTES  # the first minute that is over; before start: on the next day
    zone: str = "UTC"
    key: str = "weekday"  # or "time", or both of them

    def holds(self, context: Context) -> bool:
        """Whether the moment is within."""
        day, minute = _read_clock(context.at, self.zone)
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        if minute >= self.start:
            return day in self.days
        return minute < self.end and (day - 1) % len(DAYS) in self.days

    def describe(self, context: Context) -> str:
        """Say the moment, on the zone's clock."""
        day, minute = _read_clock(context.at, self.zone)
        word = "within" if self.holds(context) else "not within"
        days = ", ".join(DAYS[one] for one in sorted(self.days))
        hours = f"{_clock_time(self.start)}-{_clock_time(self.end)}"
        return f"it is {DAYS[day]} {_clock_time(minute)} {self.zone}, {word} {days} {hours}"

    def covers(self, other: Condition) -> bool:
        """Whether the other is the same time, on no other day."""
        return isinstance(other, When) and (
            (len(self.days) == len(DAYS) and self.end - self.start == MINUTES)
            or (self.days >= other.days and self[1:4] == other[1:4])
        )


class Groups(NamedTuple):
    """Membership in one of these groups."""

    names: frozenset[str]

    @property
    def key(self) -> str:
        """The key."""
        return "group"

    def holds(self, context: Context) -> bool:
        """Whether the user is in one of them.

        Raises:
            UnknownGroupsError: nobody has looked that up.
        """
        if context.groups is None:
            raise UnknownGroupsError(
                f"the groups of the user cannot be had, and rules ask for {_list(self.names)}",
                hint="See whether the name service answers: getent initgroups USER",
            )
        return not self.names.isdisjoint(context.groups)

    def describe(self, context: Context) -> str:
        """Say in which of the groups the user is."""
        if context.groups is None:
            return f"whether '{context.user}' is in {_list(self.names)} is not known"
        found = self.names & context.groups
        return f"'{context.user}' is in " + (
            _list(found) if found else f"none of {_list(self.names)}"
        )

    def covers(self, other: Condition) -> bool:
        """Whether every group of the other is among them."""
        return isinstance(other, Groups) and other.names <= self.names


def _is_in(networks: tuple[Network, ...], rhost: str) -> bool:
    address = find_address(rhost)
    return address is not None and any(network.contains(address) for network in networks)


def _include(networks: tuple[Network, ...], others: tuple[Network, ...]) -> bool:
    return all(any(network.includes(other) for network in networks) for other in others)


def _source(context: Context) -> str:
    if not context.rhost:
        return "no remote host"
    return f"{context.rhost}{'' if find_address(context.rhost) else ' (a name, not resolved)'}"


def _list(names: "frozenset[str] | tuple[str, ...]") -> str:
    shown = sorted(names) if isinstance(names, frozenset) else list(names)
    more = len(shown) - _SHOWN_MAX
    return ", ".join(shown[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def _clock_time(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@functools.lru_cache(maxsize=16)
def _read_clock(at: float, zone: str) -> tuple[int, int]:
    """Return the day of the week and the minute of the day, on a zone's clock."""
    if zone == "UTC":
        moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    else:
        from zoneinfo import ZoneInfo  # noqa: PLC0415 - start-up cost: only where a rule has a zone

        moment = datetime.datetime.fromtimestamp(at, ZoneInfo(zone))
    return moment.weekday(), moment.hour * 60 + moment.minute
