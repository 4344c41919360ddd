# SPDX-License-Identifier: Apache-2.0
"""A daemon whose store is a database: nobody waits for somebody else's slow answer."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from database import Database
from doubles import encode_answer, encode_request, make_request
from hosts import Hosts
from relay import Relay
from store_behaviour import device_of, give
from test_faults import current_code

from pam_mfa.store.layout import Layout
from pam_mfa.store.opening import open_serving_store
from pam_mfa.verifier.budget import Limits
from pam_mfa.verifier.conversation import Services
from pam_mfa.verifier.policy_file import PolicyFile
from pam_mfa.verifier.server import Server
from pam_mfa.wire import Result, build_verdict

pytest_plugins = ["fleet_fixtures"]
_NONCES = {name: bytes([number]) * 16 for number, name in enumerate(("alice", "bob", "carol"))}


@pytest.fixture
def relay(database: Database) -> Iterator[Relay]:
    """Stand between the daemon and the database."""
    relay = Relay(database.port)
    yield relay
    relay.close()


class Daemon:
    """A server on a socket of its own, and the modules that ask it."""

    def __init__(self, layout: Layout, folder: Path) -> None:
        """Listen; call it inside an event loop."""
        self._path = str(folder / "verify.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self._path)
        listener.listen()
        self.store = open_serving_store(layout)
        services = Services(PolicyFile(layout.policy, print), self.store, time.time)
        self.server = Server(listener, services, Limits(connections=100))
        self._ends = contextlib.ExitStack()

    async def ask(self, user: str) -> socket.socket:
        """Send a login's request, as the module does; return its end of the connection."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ends.enter_context(end)
        end.setblocking(False)
        end.connect(self._path)
        end.send(encode_request(make_request(user)._replace(nonce=_NONCES[user])))
        return end

    @staticmethod
    async def receive(end: socket.socket, seconds: float = 10.0) -> bytes:
        """Return the next frame."""
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(end, 4096), seconds)

    async def stop(self) -> None:
        """Stop, with all connections at their end."""
        await self.server.stop()
        self.store.close()
        self._ends.close()


def verdict(user: str, result: Result) -> bytes:
    """Return a verdict's frame."""
    return build_verdict(_NONCES[user], result)


def test_nobody_waits_for_a_slow_answer(
    hosts: Hosts, database: Database, relay: Relay, tmp_path: Path
) -> None:
    """While the database is silent everybody is prompted at once; then each gets a verdict."""
    desk = hosts.administration()
    for user in _NONCES:
        give(desk, device_of(desk, user), user=user)
    policy = database.policy(port=relay.port).replace("timeout: 5s", "timeout: 20s")
    layout = hosts.make(policy=policy)

    async def scene() -> list[bytes]:
        daemon = Daemon(layout, tmp_path)
        try:
            code = current_code()
            first = await daemon.ask("carol")
            await daemon.receive(first)
            first.send(encode_answer(code, nonce=_NONCES["carol"]))
            assert verdict("carol", Result.SUCCESS) == await daemon.receive(first)
            relay.hold_answers()
            ends = {user: await daemon.ask(user) for user in ("alice", "bob")}
            for user, end in ends.items():
                assert b"Verification code: " in await daemon.receive(end, 2.0)
                end.send(encode_answer(code, nonce=_NONCES[user]))
            relay.mend()
            return [await daemon.receive(end) for end in ends.values()]
        finally:
            await daemon.stop()

    ended = asyncio.run(scene())
    assert [verdict("alice", Result.SUCCESS), verdict("bob", Result.SUCCESS)] == ended


def test_many_logins_of_one_moment(hosts: Hosts, database: Database, tmp_path: Path) -> None:
    """Of many logins with one code at the same moment, one is in; the connections are few."""
    desk = hosts.administration()
    give(desk, device_of(desk))
    layout = hosts.make()

    async def scene() -> list[bytes]:
        daemon = Daemon(layout, tmp_path)
        try:
            code = current_code()
            ends = [await daemon.ask("alice") for _ in range(12)]
            for end in ends:
                await daemon.receive(end)
                end.send(encode_answer(code, nonce=_NONCES["alice"]))
            counts = database.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pam-mfa' "
                "AND usename = 'web_host'"
            )
            assert counts[0][0] <= 4
            return [await daemon.receive(end) for end in ends]
        finally:
            await daemon.stop()

    ended = asyncio.run(scene())
    assert ended.count(verdict("alice", Result.SUCCESS)) == 1


def test_silent_database_ends_in_a_refusal(
    hosts: Hosts, database: Database, relay: Relay, tmp_path: Path
) -> None:
    """Where the database stays silent, the login ends within the timeout, as unavailable."""
    hosts.found()
    policy = database.policy(port=relay.port).replace("timeout: 5s", "timeout: 2s")
    layout = hosts.make(policy=policy)

    async def scene() -> tuple[bytes, float]:
        daemon = Daemon(layout, tmp_path)
        try:
            relay.hold_answers()
            end = await daemon.ask("alice")
            await daemon.receive(end)
            began = time.monotonic()
            return await daemon.receive(end), time.monotonic() - began
        finally:
            relay.mend()
            await daemon.stop()

    ended, seconds = asyncio.run(scene())
    assert verdict("alice", Result.UNAVAILABLE) == ended
    assert seconds < 4.5


def test_daemon_leaves_nothing_open(hosts: Hosts, database: Database, tmp_path: Path) -> None:
    """When a daemon has stopped, it has no connection to the database any more."""
    hosts.found()
    layout = hosts.make()

    async def scene() -> None:
        daemon = Daemon(layout, tmp_path)
        end = await daemon.ask("alice")
        await daemon.receive(end)
        end.send(encode_answer("000000", nonce=_NONCES["alice"]))
        await daemon.receive(end)
        end.close()
        await daemon.stop()

    asyncio.run(scene())
    query = "SELECT 1 FROM pg_stat_activity WHERE usename = 'web_host'"
    deadline = time.monotonic() + 10
    while database.execute(query):
        assert time.monotonic() < deadline
        time.sleep(0.05)
