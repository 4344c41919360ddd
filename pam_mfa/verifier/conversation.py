# SPDX-License-Identifier: Apache-2.0
"""One connection from ``pam_mfa.so``: frames in, frames out, one verdict.

Free of I/O style like the attempt that it carries: a generator that yields what it needs from
the driver. It owns the rule who may verify whom, and the translation of a broken system into a
verdict; no exception but ``WireError`` leaves it.
"""

import contextlib
import pwd
from collections.abc import Generator
from typing import Any, NamedTuple

from pam_mfa import wire
from pam_mfa.audit import Reason
from pam_mfa.errors import BrokenSystemError, PolicyError
from pam_mfa.policy import Action, Policy
from pam_mfa.store import ServingStore
from pam_mfa.verification import (
    Ask,
    Attempt,
    Caller,
    Charge,
    Clock,
    Commit,
    Complain,
    Listen,
    Look,
    Machine,
    Tell,
    Work,
    carry_out,
    find_decision,
)
from pam_mfa.verifier.agent_socket import AgentSocket
from pam_mfa.verifier.journal import tell_failure
from pam_mfa.verifier.login_session import find_login
from pam_mfa.verifier.packets import Peer
from pam_mfa.verifier.policy_file import PolicyFile
from pam_mfa.verifier.store_failure import record_store_failure
from pam_mfa.wire import Request, Result, Style

LONGEST = 600.0  # seconds that a conversation may take, whatever the module asks for


class Services(NamedTuple):
    """What every conversation of a verifier shares."""

    policy_file: PolicyFile
    store: ServingStore
    clock: Clock
    machine: Machine | None = None  # None: no security key is asked for


class Send(NamedTuple):
    """Needs a frame sent; the conversation goes on at once."""

    packet: bytes


class Receive(NamedTuple):
    """Needs the next frame; sent the packet, or the Reason why there is none."""


class Last(NamedTuple):
    """Needs the last frame sent."""

    packet: bytes


Step = Send | Receive | Commit | Look | Work | Last
Conversation = Generator[Step, Any, None]


def converse(
    request: Request, peer: Peer, services: Services, agent: AgentSocket | None = None
) -> Conversation:
    """Carry one request to its verdict.

    Args:
        request: what the module asks.
        peer: who asks.
        services: of the verifier.
        agent: the ssh-agent of whoever invoked the host program; the driver's to close.

    Raises:
        WireError: the module sent what is no answer; it is told no verdict.
    """
    result, asked_at = Result.UNAVAILABLE, services.clock()
    try:
        policy = follow_policy(services)
        may_verify = _may_verify(peer, request.user)
        ask_agent = agent.ask if agent else None
        caller = Caller(
            peer.pid, peer.uid, may_verify, *find_login(peer), asked_at=asked_at, agent=ask_agent
        )
        running = _choose(request, caller, policy, services)
        result = yield from _carry(running, request.nonce)
    except BrokenSystemError as error:
        tell_failure(error)
    yield Last(wire.build_verdict(request.nonce, result))


def follow_policy(services: Services) -> Policy:
    """Return the policy in force; records are kept as it says from here on.

    Raises:
        PolicyError: there is none, which is recorded.
    """
    store, policy_file = services.store, services.policy_file
    try:
        policy = policy_file.current()
    except PolicyError:
        _note_policy(services)
        with contextlib.suppress(BrokenSystemError):  # the policy's error is the one to tell
            store.commit([])
            store.follow_up()
        raise
    store.choose(policy.store)
    store.follow(policy.audit, tell_failure)
    _note_policy(services)
    return policy


def _note_policy(services: Services) -> None:
    """Have a policy recorded that was read since the last time."""
    if services.policy_file.news is not None:
        digest, is_accepted = services.policy_file.news
        services.policy_file.news = None
        services.store.note_policy(digest, is_accepted=is_accepted)


def _choose(request: Request, caller: Caller, policy: Policy, services: Services) -> Attempt:
    decision = yield from find_decision(request, policy, services.clock)
    if decision.action is Action.ENROLL or decision.may_enroll:
        from pam_mfa.enrolling import enroll  # noqa: PLC0415 - not what a login needs

        desk = services.store.require_desk()
        verdict = yield from enroll(request, caller, desk, services.clock)
        if decision.action is Action.ENROLL or verdict.reason is not None:
            return verdict  # else there is a device to verify by
    charge = Charge(request, caller, policy, decision)
    try:
        return (yield from carry_out(charge, services.store, services.clock, services.machine))
    except BrokenSystemError as error:
        record_store_failure(charge, services.store, services.clock, error)
        raise


def _carry(running: Attempt, nonce: bytes) -> Generator[Step, Any, Result]:
    reply: object = None
    while True:
        try:
            if isinstance(reply, BrokenSystemError):
                need = running.throw(reply)
            else:
                need = running.send(reply)
        except StopIteration as end:
            result: Result = end.value.result
            return result
        if isinstance(need, Ask):
            prompt = wire.build_prompt(
                nonce, Style.ECHO_OFF, need.text, is_code=need.may_follow_password
            )
            reply = yield Send(prompt)
        elif isinstance(need, Tell):
            reply = yield Send(wire.build_prompt(nonce, Style.INFORMATION, need.text))
        elif isinstance(need, Listen):
            packet = yield Receive()
            reply = packet if isinstance(packet, Reason) else _read_answer(packet, nonce)
        elif isinstance(need, Complain):
            tell_failure(need.error)
            reply = None
        else:
            try:
                reply = yield need
            except BrokenSystemError as error:  # for the attempt, which mostly ends by it
                reply = error


def _read_answer(packet: bytes, nonce: bytes) -> str | Reason:
    answer = wire.parse_answer(packet, nonce)
    return Reason.NO_CONVERSATION if answer is None else answer


def _may_verify(peer: Peer, user: str) -> bool:
    if peer.uid == 0:
        return True
    # By the caller's id and not by the name that it sent: unknown names could be asked of a
    # directory service without end.
    try:
        return pwd.getpwuid(peer.uid).pw_name == user
    except (KeyError, OverflowError):
        return False
