# SPDX-License-Identifier: Apache-2.0
"""The daemon: one socket, many connections, one event loop. Owns accepting and limits."""

import asyncio
import gc
import signal
import socket

from pam_mfa.verifier.agent_socket import Closing
from pam_mfa.verifier.budget import Budget, Limits
from pam_mfa.verifier.committer import Committer
from pam_mfa.verifier.companion import Companion
from pam_mfa.verifier.connection import Connection
from pam_mfa.verifier.conversation import Services
from pam_mfa.verifier.journal import tell_error
from pam_mfa.verifier.packets import Peer, peer_of

# Root's logins are everybody's. The others verify themselves: a few at a time, and not so often
# that their records fill the disk.
ROOT_LIMITS = Limits(connections=4096)
SELF_LIMITS = Limits(connections=1024, connections_each=16, starts_each=30, starts=600)
_ACCEPT_TOGETHER = 64
_ACCEPT_PAUSE = 0.1  # seconds, when descriptors have run out
_GARBAGE = 50_000  # objects between two collections; a login leaves hardly any cycles
_STOP_PATIENCE = 10.0  # seconds for connections under way when the daemon is stopped
_RETIRE_PATIENCE = 120.0  # seconds until a daemon that a newer one replaces is stopped


class Server:
    """Serves one listening socket."""

    def __init__(self, listener: socket.socket, services: Services, limits: Limits) -> None:
        """Take a bound, listening SOCK_SEQPACKET socket; accepting starts at once."""
        self._listener = listener
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._committer = Committer(services.store, self._loop)
        self._connections: set[Connection] = set()
        self._budget = Budget(limits, self._loop.time())
        self.closing = Closing()
        self._idle: asyncio.Future[None] | None = None
        listener.setblocking(False)
        self._resume()

    async def stop(self) -> None:
        """Accept no more, and let the connections under way come to their end."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        await self.wait_until_idle(_STOP_PATIENCE)
        for connection in list(self._connections):
            connection.close()
        self._committer.close()

    async def wait_until_idle(self, patience: float) -> None:
        """Wait until no connection is open, as many seconds at most; new ones are served."""
        if self._connections:
            self._idle = self._loop.create_future()
            await asyncio.wait([self._idle], timeout=patience)

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Take all that wait: who is accepted together, shares commits later."""
        for _ in range(_ACCEPT_TOGETHER):
            try:
                accepted, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                tell_error(f"a connection could not be accepted: {error.strerror}")
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_ACCEPT_PAUSE, self._resume)
                return
            self._take(accepted, peer_of(accepted))

    def _take(self, accepted: socket.socket, peer: Peer) -> None:
        if not self._budget.open(peer.uid, self._loop.time()):
            accepted.close()
            return
        connection = Connection(accepted, peer, self._services, self._committer, self)
        self._connections.add(connection)
        connection.start()

    def is_alone(self) -> bool:
        """Whether only one connection is open."""
        return len(self._connections) == 1

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is over."""
        self._connections.discard(connection)
        self._budget.close(connection.peer.uid)
        if self._idle is not None and not self._connections and not self._idle.done():
            self._idle.set_result(None)


async def serve_until_stopped(
    listener: socket.socket, services: Services, limits: Limits, companion: Companion
) -> None:
    """Serve until SIGTERM or SIGINT, or until the companion is gone that must not be outlived.

    After SIGHUP, until nobody is at a prompt: an upgrade ends no login, and no login waits for it.
    """
    loop = asyncio.get_running_loop()
    stopped, retired = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, retired.set)
    server = Server(listener, services, limits)
    companion.watch(loop, stopped.set)
    gc.collect()
    gc.freeze()  # what was imported lives for ever; no collection need look at it again
    gc.set_threshold(_GARBAGE)
    retiring = loop.create_task(_retire(retired, server, companion, stopped))
    await stopped.wait()
    retiring.cancel()
    companion.stop()
    await server.stop()


async def _retire(
    retired: asyncio.Event, server: Server, companion: Companion, stopped: asyncio.Event
) -> None:
    """Once retired, stop when nobody is at a prompt, neither here nor at the companion's."""
    await retired.wait()
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + _RETIRE_PATIENCE
    await server.wait_until_idle(_RETIRE_PATIENCE)
    await companion.retire(ends_at - loop.time())
    await server.wait_until_idle(ends_at - loop.time())
    stopped.set()
