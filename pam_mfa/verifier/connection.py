# SPDX-License-Identifier: Apache-2.0
"""The daemon's side of one connection: a conversation driven by the event loop's callbacks.

Callbacks and not a task: a login is two packets and one commit, and a task with its futures and
timeouts costs as much again as the verification. A conversation that fails, for whatever
reason, ends alone, without a verdict.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from pam_mfa import wire
from pam_mfa.audit import Reason
from pam_mfa.errors import BrokenSystemError, PamMfaError, WireError
from pam_mfa.store import Change
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
        """Start to wait for the request."""
        self.peer = peer
        self._socket = accepted
        self._services = services
        self._committer = committer
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._conversation: Conversation | None = None
        self._awaits_packet = True
        self._is_over = False
        self._is_late = False
        accepted.setblocking(False)
        # Numbers, not sockets: selectors formats what it does not know yet, at four system calls.
        self._loop.add_reader(accepted.fileno(), self._guard, self._read)
        self._timer = self._loop.call_later(FIRST_FRAME, self._guard, self._expire)

    def start(self) -> None:
        """Read the request, which is mostly there already, so that the loop need not turn."""
        self._guard(self._read)

    def close(self) -> None:
        """End without a verdict, unless one was sent."""
        if self._is_over:
            return
        self._is_over = True
        self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if self._conversation is not None:
            self._conversation.close()
        self._owner.forget(self)

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
        close_all(descriptors)
        if not self._awaits_packet:
            # Gone, or talking out of turn: what is under way is recorded, but no verdict follows.
            self._loop.remove_reader(self._socket.fileno())
            self._socket.shutdown(socket.SHUT_RDWR)
        elif self._conversation is not None:
            self._advance(packet or Reason.ABANDONED)
        elif packet:
            self._begin(packet)
        else:
            self.close()

    def _begin(self, packet: bytes) -> None:
        request = wire.parse_request(packet)
        self._timer.cancel()
        longest = min(request.timeout, LONGEST)
        self._timer = self._loop.call_later(longest, self._guard, self._expire)
        self._conversation = converse(request, self.peer, self._services)
        self._advance(None)

    def _advance(self, reply: bytes | Reason | Change | BrokenSystemError | None) -> None:
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
        else:
            is_alone = self._owner.is_alone()
            self._committer.submit(step.claim, self._committed, is_alone=is_alone)

    def _committed(self, outcome: Change | BrokenSystemError) -> None:
        self._guard(self._advance, outcome)

    def _expire(self) -> None:
        self._is_late = True  # for the next time that something is waited for
        if self._conversation is None:
            self.close()
        elif self._awaits_packet:
            self._advance(Reason.TIMED_OUT)
