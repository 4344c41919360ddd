# SPDX-License-Identifier: Apache-2.0
"""The driver for one login: plain blocking calls on one descriptor.

``pam_mfa.so`` starts it where no daemon listens. What a code does not need is not imported
here: asyncio alone would cost more than the login.
"""

import select
import socket
import time

from pam_mfa import wire
from pam_mfa.audit import Reason
from pam_mfa.errors import BrokenSystemError, WireError
from pam_mfa.store import Change
from pam_mfa.verification import Commit, Look, Work
from pam_mfa.verifier.agent_socket import AgentSocket, take_agent
from pam_mfa.verifier.conversation import LONGEST, Last, Receive, Send, Services, converse
from pam_mfa.verifier.journal import tell_fault
from pam_mfa.verifier.packets import close_all, peer_of, receive_packet

_FIRST_FRAME = 10.0  # seconds


def serve_once(connection: socket.socket, services: Services) -> None:
    """Carry the one conversation on a connected socket.

    Raises:
        WireError: the module sent what is no frame of this version; no verdict was told.
        OSError: the module is gone.
    """
    connection.settimeout(_FIRST_FRAME)
    packet, descriptors = receive_packet(connection)
    try:
        request = wire.parse_request(packet) if packet else None
    except WireError:
        close_all(descriptors)
        raise
    if request is None:
        return  # it was closed, and nothing comes with that
    agent = take_agent(request, peer_of(connection), descriptors)
    try:
        _drive(connection, request, services, agent)
    finally:
        if agent is not None:
            close_all(agent.release())


def _drive(
    connection: socket.socket,
    request: wire.Request,
    services: Services,
    agent: AgentSocket | None,
) -> None:
    deadline = time.monotonic() + min(request.timeout, LONGEST)
    conversation = converse(request, peer_of(connection), services, agent)
    step = next(conversation)
    while not isinstance(step, Last):
        if isinstance(step, Send):
            connection.send(step.packet)
            step = conversation.send(None)
        elif isinstance(step, Receive):
            step = conversation.send(_receive(connection, deadline))
        elif isinstance(step, Work):
            step = conversation.send(_work(connection, step, deadline))
        else:
            try:
                reply = step.do() if isinstance(step, Look) else _commit(services, step)
            except BrokenSystemError as error:
                step = conversation.throw(error)
            else:
                step = conversation.send(reply)
    connection.send(step.packet)


def _commit(services: Services, step: Commit) -> Change:
    return services.store.commit([step.claim])[0]


def _work(connection: socket.socket, work: Work, deadline: float) -> object:
    """Do what blocks, and end it when the module goes away or the time is over."""
    from threading import Event, Thread  # noqa: PLC0415 - start-up cost: only where there is a key

    canceled, ended, results = Event(), socket.socketpair(), []

    def do() -> None:
        try:
            results.append(work.do(canceled))
        except Exception as error:  # noqa: BLE001 - a traceback could quote what was typed
            tell_fault(error)
        finally:
            ended[1].close()

    thread = Thread(target=do, daemon=True)
    thread.start()
    with ended[0]:
        poll = select.poll()
        poll.register(ended[0], select.POLLIN)
        poll.register(connection, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    canceled.set()
    thread.join()
    if not results:
        raise BrokenSystemError("a fault of this program while a security key was asked")
    return results[0]


def _receive(connection: socket.socket, deadline: float) -> bytes | Reason:
    left = deadline - time.monotonic()
    if left <= 0:
        return Reason.TIMED_OUT
    connection.settimeout(left)
    try:
        answer, descriptors = receive_packet(connection)
    except TimeoutError:
        return Reason.TIMED_OUT
    close_all(descriptors)
    return answer or Reason.ABANDONED
