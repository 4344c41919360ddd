# SPDX-License-Identifier: Apache-2.0
"""The connection to the invoking user's ssh-agent that came with a request.

It leads to a program of the user's, which may send descriptors along with its bytes, and dropping
the last reference to a hostile one blocks (``companion`` says why). So nothing of it is closed
where others would have to wait: what is to be closed, is so by at most two threads a user.
"""

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pam_mfa.verifier.packets import Peer, close_all, peer_of
from pam_mfa.wire import DescriptorKind, Request

if TYPE_CHECKING:  # start-up cost: only where a key is used
    import subprocess
    from threading import Event

    from pam_mfa.ssh_agent import Agent

_THREADS_EACH: Final = 2  # of a user, for closing
_LEFT_EACH: Final = 16  # descriptors of a user that wait for those


class AgentSocket:
    """A connected stream socket of the AF_UNIX family."""

    def __init__(self, connection: socket.socket) -> None:
        """Take it over."""
        self.uid = peer_of(connection).uid  # whoever listens: pam_mfa.so has seen to it who
        self._connection = connection
        self._asked: list[Agent] = []

    def ask(self, seconds: float, canceled: "Event") -> "Agent":
        """Return the agent, with the time that all questions to it may take from now."""
        from pam_mfa.ssh_agent import Agent  # noqa: PLC0415 - start-up cost, as above

        agent = Agent(self._connection, seconds, canceled)
        self._asked.append(agent)
        return agent

    def release(self) -> list[int]:
        """Return every descriptor that is now to be closed; the agent cannot be asked any more."""
        strays = [stray for agent in self._asked for stray in agent.strays]
        self._asked.clear()
        return [self._connection.detach(), *strays]


def take_agent(request: Request, peer: Peer, descriptors: list[int]) -> AgentSocket | None:
    """Take the connection to an agent out of what came with a request; close all else.

    Of root's programs alone, whose pam_mfa.so has looked where it leads.
    """
    kinds, found = request.descriptor_kinds, None
    if peer.uid == 0 and kinds == bytes((DescriptorKind.AGENT,)) and len(descriptors) == 1:
        found = _adopt(descriptors[0])
    if found is None:
        close_all(descriptors)
    return found


def _adopt(descriptor: int) -> AgentSocket | None:
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:  # no socket at all
        return None
    if (connection.family, connection.type) == (socket.AF_UNIX, socket.SOCK_STREAM):
        return AgentSocket(connection)
    connection.detach()
    return None


def _leave_to_child(descriptors: list[int]) -> "subprocess.Popen[bytes] | None":
    """Have descriptors closed by the end of a process, which may take as long as it likes.

    Threads that a user's hostile agents block would let theirs pile up until none are to be had.
    """
    import subprocess  # noqa: PLC0415 - only where somebody is hostile

    try:
        child = subprocess.Popen(
            ["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=descriptors
        )
    except OSError:
        return None
    for descriptor in descriptors:  # never the last reference: the child waits for its input's end
        os.close(descriptor)
    if child.stdin is not None:
        child.stdin.close()
    return child


class Closing:
    """Closes what may block whoever does it."""

    def __init__(self, close: Callable[[int], None] = os.close) -> None:
        """Begin with nothing to close."""
        from threading import Lock  # noqa: PLC0415 - the daemon alone closes in threads

        self._close = close
        self._lock = Lock()
        self._left: dict[int, list[int]] = {}  # by user
        self._threads: dict[int, int] = {}
        self._children: list[subprocess.Popen[bytes]] = []

    def add(self, agent: AgentSocket) -> None:
        """Have everything of an agent closed, soon; return at once."""
        from threading import Thread  # noqa: PLC0415

        with self._lock:
            left = self._left.setdefault(agent.uid, [])
            left.extend(agent.release())
            if self._threads.get(agent.uid, 0) >= _THREADS_EACH:
                if len(left) > _LEFT_EACH and (child := _leave_to_child(left)):
                    left.clear()
                    self._children = [one for one in self._children if one.poll() is None]
                    self._children.append(child)
                return
            self._threads[agent.uid] = self._threads.get(agent.uid, 0) + 1
        try:
            Thread(target=self._run, args=(agent.uid,), daemon=True).start()
        except RuntimeError:  # no threads to be had: the next one closes this, too
            with self._lock:
                self._threads[agent.uid] -= 1

    def _run(self, uid: int) -> None:
        while True:
            with self._lock:
                left = self._left[uid]
                if not left:
                    self._threads[uid] -= 1
                    if not self._threads[uid]:
                        del self._threads[uid], self._left[uid]
                    return
                descriptor = left.pop()
            self._close(descriptor)
