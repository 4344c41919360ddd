# SPDX-License-Identifier: Apache-2.0
"""The daemon's side of one connection: a conversation driven by the event loop's callbacks.

Callbacks and not a task: a login is two packets and one commit, and a task with its futures and
timeouts costs as much again as the verification. A conversation that fails, for whatever
reason, ends alone, without a verdict.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from pam_mfa import wire
from pam_mfa.audit import Reason
from pam_mfa.errors import BrokenSystemError, PamMfaError, WireError
from pam_mfa.store import Change
from pam_mfa.verification import Look, Work
from pam_mfa.verifier.agent_socket import AgentSocket, Closing, take_agent
from pam_mfa.verifier.committer import Committer
from pam_mfa.verifier.conversation import (
    LONGEST,
    Conversation,
    Last,
    Receive,
    Send,
    Services,
    converse,
)
from pam_mfa.verifier.journal import tell_failure, tell_fault
from pam_mfa.verifier.packets import Peer, close_all, receive_packet

FIRST_FRAME = 10.0  # seconds; the module sends its request right after connecting


class Owner(Protocol):
    """Who keeps the connections."""

    def forget(self, connection: "Connection") -> None:
        """Take note that a connection is over; called once for each."""

    def is_alone(self) -> bool:
        """Whether there is no other connection."""

    @property
    def closing(self) -> Closing:
        """What closes agents' sockets."""


class Connection:
    """One accepted socket, until its verdict is sent or it fails."""

    def __init__(
        self,
        accepted: socket.socket,
        peer: Peer,
        services: Services,
        committer: Committer,
        owner: Owner,
    ) -> None:
        """Take the socket; nothing is read before ``start``."""
        self.peer = peer
        self._socket = accepted
        self._services = services
        self._committer = committer
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._conversation: Conversation | None = None
        self._awaits_packet = True
        self._is_over = False
        self._canceled = threading.Event()  # for work that this connection waits for
        self._is_late = False
        self._agent: AgentSocket | None = None
        self._works = False  # whether a thread does something for this connection
        accepted.setblocking(False)
        # Numbers, not sockets: selectors formats what it does not know yet, at four system calls.
        self._loop.add_reader(accepted.fileno(), self._guard, self._read)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Read the request, which is mostly there already, so that the loop need not turn."""
        self._guard(self._read)
        if self._conversation is None and not self._is_over:
            self._expire_in(FIRST_FRAME)

    def close(self) -> None:
        """End without a verdict, unless one was sent."""
        if self._is_over:
            return
        self._is_over = True
        self._canceled.set()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if self._conversation is not None:
            self._conversation.close()
        self._close_agent()
        self._owner.forget(self)

    def _close_agent(self) -> None:
        """Have the agent's socket closed, once nobody asks the agent any more."""
        if self._agent is not None and self._is_over and not self._works:
            self._owner.closing.add(self._agent)
            self._agent = None

    def _guard(self, act: Callable[..., None], *arguments: object) -> None:
        """Do one step; a fault in it ends this connection and no other."""
        if self._is_over:
            return
        try:
            act(*arguments)
        except PamMfaError as error:
            tell_failure(error)
            self.close()
        except OSError:  # the caller is gone and needs no verdict
            self.close()
        except Exception as error:  # noqa: BLE001 - a fault of one conversation ends that one only
            tell_fault(error)
            self.close()

    def _read(self) -> None:
        try:
            packet, descriptors = receive_packet(self._socket)
        except BlockingIOError:
            return
        if self._conversation is None and packet:
            self._begin(packet, descriptors)
            return
        close_all(descriptors)
        if not self._awaits_packet:
            # Gone, or talking out of turn: what is under way is recorded, but no verdict follows.
            self._loop.remove_reader(self._socket.fileno())
            self._socket.shutdown(socket.SHUT_RDWR)
            self._canceled.set()
        elif self._conversation is not None:
            self._advance(packet or Reason.ABANDONED)
        else:
            self.close()

    def _begin(self, packet: bytes, descriptors: list[int]) -> None:
        try:
            request = wire.parse_request(packet)
        except WireError:
            close_all(descriptors)
            raise
        self._agent = take_agent(request, self.peer, descriptors)
        self._expire_in(min(request.timeout, LONGEST))
        self._conversation = converse(request, self.peer, self._services, self._agent)
        self._advance(None)

    def _work(self, work: Work) -> None:
        """Do what blocks, in a thread; the conversation goes on in the loop."""
        try:
            done = work.do(self._canceled)
        except Exception as error:  # noqa: BLE001 - the one who waits must hear of it
            tell_fault(error)
            done = BrokenSystemError("a fault of this program while a security key was asked")
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._worked, done)

    def _worked(self, done: object) -> None:
        self._works = False
        self._close_agent()
        self._guard(self._advance, done)

    def _advance(self, reply: object) -> None:
        """Send the conversation what it waited for, and see to what it needs next."""
        conversation = self._conversation
        if conversation is None:
            raise WireError("a conversation goes on that never began")
        self._awaits_packet = False
        if isinstance(reply, BrokenSystemError):
            step = conversation.throw(reply)
        else:
            step = conversation.send(reply)
        while isinstance(step, Send):
            self._socket.send(step.packet)
            step = conversation.send(None)
        if isinstance(step, Receive) and self._is_late:
            self._advance(Reason.TIMED_OUT)
        elif isinstance(step, Receive):
            self._awaits_packet = True
        elif isinstance(step, Last):
            self._socket.send(step.packet)
            self.close()
        elif isinstance(step, Work):
            thread = threading.Thread(target=self._work, args=(step,), daemon=True)
            thread.start()  # where there are no threads to be had, this conversation fails
            self._works = True
        elif isinstance(step, Look):
            # What is typed meanwhile waits in the socket for its question.
            self._loop.remove_reader(self._socket.fileno())
            self._committer.look(step.do, self._looked)
        else:
            is_alone = self._owner.is_alone()
            self._committer.submit(step.claim, self._committed, is_alone=is_alone)

    def _looked(self, found: object) -> None:
        if not self._is_over:
            self._loop.add_reader(self._socket.fileno(), self._guard, self._read)
        self._guard(self._advance, found)

    def _committed(self, outcome: Change | BrokenSystemError) -> None:
        self._guard(self._advance, outcome)

    def _expire_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._guard, self._expire)

    def _expire(self) -> None:
        self._is_late = True  # for the next time that something is waited for
        self._canceled.set()
        if self._conversation is None:
            self.close()
        elif self._awaits_packet:
            self._advance(Reason.TIMED_OUT)
