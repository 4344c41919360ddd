# SPDX-License-Identifier: Apache-2.0
"""The service's side of a conversation with one user: asking, telling, waiting for answers.

Plain blocking calls: a process serves one user and has nobody else to wait on.
"""

import contextlib
import os
import select
import socket
import time
from collections.abc import Generator
from threading import Event, Thread
from typing import Any, TypeVar

from pam_mfa import wire
from pam_mfa.audit import Reason
from pam_mfa.errors import BrokenSystemError, WireError
from pam_mfa.self_service.protocol import build_sign_request, parse_signature
from pam_mfa.store import Change, Store
from pam_mfa.verification import Ask, Commit, Listen, Look, Need, Tell, Work
from pam_mfa.wire import Style

_Result = TypeVar("_Result")


class Dialogue:
    """One user's terminal, at the other end of a socket."""

    def __init__(self, connection: socket.socket, nonce: bytes, deadline: float) -> None:
        """Take the connection, the conversation's nonce, and its end on the monotonic clock."""
        self._connection = connection
        self._nonce = nonce
        self._deadline = deadline

    def tell(self, text: str) -> None:
        """Show a message."""
        self.show(Style.INFORMATION, text)

    def ask(self, style: Style, text: str) -> str | Reason:
        """Ask and wait; return the answer, or the Reason why there is none."""
        self.show(style, text)
        return self.listen()

    def show(self, style: Style, text: str) -> None:
        """Send a prompt."""
        self.send(wire.build_prompt(self._nonce, style, text))

    def send(self, packet: bytes) -> None:
        """Send a frame.

        Raises:
            OSError: the user is gone.
        """
        self._connection.settimeout(max(0.1, self._deadline - time.monotonic()))
        self._connection.send(packet)

    def listen(self) -> str | Reason:
        """Wait for the answer to what was asked.

        Raises:
            WireError: what came is no answer.
        """
        packet = self._receive()
        if isinstance(packet, Reason):
            return packet
        answer = wire.parse_answer(packet, self._nonce)
        return Reason.NO_CONVERSATION if answer is None else answer

    def ask_signature(self, challenge: str) -> str | Reason:
        """Have the user's key sign a challenge; return the signature's text, or why there is none.

        Raises:
            WireError: what came is no signature's frame.
        """
        self.send(build_sign_request(self._nonce, challenge))
        packet = self._receive()
        if isinstance(packet, Reason):
            return packet
        signature = parse_signature(packet, self._nonce)
        return Reason.NO_CONVERSATION if signature is None else signature

    def _receive(self) -> bytes | Reason:
        left = self._deadline - time.monotonic()
        if left <= 0:
            return Reason.TIMED_OUT
        self._connection.settimeout(left)
        try:
            # No room for control data: the kernel drops descriptors that were sent along.
            packet = self._connection.recv(wire.FRAME_MAX + 1)
        except TimeoutError:
            return Reason.TIMED_OUT
        except ConnectionError:
            return Reason.ABANDONED
        return packet or Reason.ABANDONED

    def answer_pam(self, style: int, text: str) -> str | None:
        """Answer a message of a PAM stack, by asking the user; None where nobody answers.

        Called from C code, which no exception may cross.
        """
        if style not in set(Style):
            return None
        with contextlib.suppress(OSError, WireError):
            self.show(Style(style), text)
            if style in (Style.ECHO_OFF, Style.ECHO_ON):
                answer = self.listen()
                return None if isinstance(answer, Reason) else answer
        return None

    def drive(
        self, running: Generator[Need, Any, _Result], store: Store
    ) -> tuple[_Result, list[Change]]:
        """Carry an attempt, or another generator of its kind, to its end.

        Returns:
            What it returned, and the changes that it had made durable.

        Raises:
            BrokenSystemError: a change could not be made durable.
        """
        changes: list[Change] = []
        reply: object = None
        while True:
            try:
                need = running.send(reply)
            except StopIteration as end:
                result: _Result = end.value
                return result, changes
            reply = None
            if isinstance(need, Ask):
                self.show(Style.ECHO_OFF, need.text)
            elif isinstance(need, Tell):
                self.tell(need.text)
            elif isinstance(need, Commit):
                reply = store.commit([need.claim])[0]
                changes.append(reply)
            elif isinstance(need, Look):
                reply = need.do()
            elif isinstance(need, Work):
                reply = self._work(need)
            elif isinstance(need, Listen):
                reply = self.listen()

    def _work(self, need: Work) -> object:
        """Do what blocks in a thread, and cancel it when the user leaves: a key is released."""
        canceled, done = Event(), os.eventfd(0, os.EFD_CLOEXEC)
        answers: list[object] = []

        def work() -> None:
            try:
                answers.append(need.do(canceled))
            finally:
                os.eventfd_write(done, 1)

        worker = Thread(target=work, daemon=True)
        poll = select.poll()
        poll.register(done, select.POLLIN)
        # Only the end of the connection: what a user types meanwhile waits for its question.
        poll.register(self._connection, select.POLLRDHUP)
        worker.start()
        events = dict(poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000))
        if done not in events:
            canceled.set()
        worker.join()
        os.close(done)
        if not answers:
            raise BrokenSystemError("a security key could not be asked")
        return answers[0]
