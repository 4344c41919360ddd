# SPDX-License-Identifier: Apache-2.0
"""What an attempt can need of its driver, and how it can end."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from pam_mfa.audit import Reason
from pam_mfa.errors import BrokenSystemError
from pam_mfa.mfa_age import Spot
from pam_mfa.store import Claim
from pam_mfa.wire import Result

if TYPE_CHECKING:  # threading behind it: only where a key is used
    from threading import Event

    from pam_mfa.hardware.keys import Keys
    from pam_mfa.ssh_agent import Agent


class Caller(NamedTuple):
    """The process that asks, by the kernel's word (SO_PEERCRED)."""

    pid: int
    uid: int
    may_verify: bool  # root may verify anyone; another user only itself
    login_uid: int | None = None  # as whom it once logged in; None: nobody has, above it
    login_session: int | None = None
    asked_at: float = 0.0  # seconds since the epoch; 0: nobody took the time
    # Asks the ssh-agent of whoever invoked it, in at most so many seconds; None: there is none.
    agent: "Callable[[float, Event], Agent] | None" = None


class Machine(NamedTuple):
    """The machine that the verifier runs on: its name, randomness and attached keys."""

    host: str
    random: Callable[[int], bytes]  # so many random bytes
    keys: "Callable[[], Keys]"  # called where a key is wanted: its libraries cost start-up time
    # Whether a login is, by its user id and session.
    is_remote: Callable[[int | None, int | None], bool] = lambda _uid, _session: False
    locate: Callable[[int], Spot] = lambda _pid: Spot()  # a process; nothing known: no MFA age


class Ask(NamedTuple):
    """Needs a code asked for; the attempt goes on at once, while the person types."""

    text: str
    may_follow_password: bool = True  # whether forward_pass may split the answer


class Tell(NamedTuple):
    """Needs a message shown; the attempt goes on at once."""

    text: str


class Complain(NamedTuple):
    """Needs the system log told what is broken, where an attempt goes on all the same."""

    error: BrokenSystemError


class Listen(NamedTuple):
    """Needs the answer; sent the text, or the Reason why there is none."""


class Commit(NamedTuple):
    """Needs a claim judged and made durable; sent the Change."""

    claim: Claim


class Look(NamedTuple):
    """Needs something read from a store that is far away; sent what it returned.

    ``do`` may be called in a thread; the BrokenSystemError that it raises is thrown in.
    """

    do: Callable[[], object]


class Work(NamedTuple):
    """Needs something done that blocks; sent what it returned.

    ``do`` is called in a thread. The event is set when the caller is gone or the time is over; it
    must then return soon.
    """

    do: "Callable[[Event], object]"


class Verdict(NamedTuple):
    """How an attempt ended."""

    result: Result
    reason: Reason | None = None


Need = Ask | Tell | Complain | Listen | Commit | Look | Work
Attempt = Generator[Need, Any, Verdict]
Clock = Callable[[], float]  # seconds since the epoch
