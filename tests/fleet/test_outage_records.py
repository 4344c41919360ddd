# SPDX-License-Identifier: Apache-2.0
"""Logins that are refused because the database is gone: this host's own audit log has them."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from database import Database
from doubles import NONCE, encode_answer, encode_request, make_request
from hosts import Hosts
from relay import Relay
from store_behaviour import device_of, give
from test_daemon import Daemon, verdict
from test_faults import current_code

from pam_mfa.store.layout import Layout
from pam_mfa.store.opening import open_serving_store
from pam_mfa.verifier.conversation import Services
from pam_mfa.verifier.once import serve_once
from pam_mfa.verifier.policy_file import PolicyFile
from pam_mfa.wire import Request, Result, build_verdict

pytest_plugins = ["fleet_fixtures"]
TIMEOUT = 4  # seconds that the database has; a loaded machine may take some more for the rest


@pytest.fixture
def relay(database: Database) -> Iterator[Relay]:
    """Stand between the hosts and the database."""
    relay = Relay(database.port)
    yield relay
    relay.close()


@pytest.fixture
def host(hosts: Hosts, database: Database, relay: Relay) -> Layout:
    """Give a host behind the relay, of a fleet in which Alice has a phone."""
    desk = hosts.administration()
    give(desk, device_of(desk))
    policy = database.policy(port=relay.port).replace("timeout: 5s", f"timeout: {TIMEOUT}s")
    return hosts.make(policy=policy)


def failures(layout: Layout) -> list[dict[str, Any]]:
    """Return the records of verifications that ended by the database."""
    lines = layout.audit_log.read_text("ascii").splitlines() if layout.audit_log.exists() else []
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [one for one in found if one["reason"] == "store_unavailable"]


def log_in_once(layout: Layout, request: Request, typed: str = "000000") -> bytes:
    """Have a verifier of one login get one answer; return what it says to that."""
    store = open_serving_store(layout)
    services = Services(PolicyFile(layout.policy, print), store, time.time)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        here.settimeout(20.0)
        here.send(encode_request(request))

        def serve() -> None:
            with contextlib.suppress(OSError):  # the caller is gone
                serve_once(there, services)

        serving = threading.Thread(target=serve)
        serving.start()
        assert b"Verification code: " in here.recv(4096)
        here.send(encode_answer(typed, nonce=request.nonce))
        last = here.recv(4096)
        here.shutdown(socket.SHUT_RDWR)
        serving.join()
    store.close()
    return last


@pytest.mark.parametrize("how", ["cut", "hold_answers"])
def test_refusal_by_the_daemon_is_recorded(
    host: Layout, relay: Relay, tmp_path: Path, how: str
) -> None:
    """Cut off, or silent: the record is there when the verdict is, and then the next one is in."""

    async def scene() -> list[bytes]:
        daemon = Daemon(host, tmp_path)
        try:
            getattr(relay, how)()
            end = await daemon.ask("alice")
            await daemon.receive(end)
            ended = [await daemon.receive(end)]
            assert len(failures(host)) == 1
            relay.cut()
            relay.mend()
            end = await daemon.ask("alice")
            await daemon.receive(end)
            end.send(encode_answer(current_code(), nonce=b"\0" * 16))
            return [*ended, await daemon.receive(end)]
        finally:
            await daemon.stop()

    ended = asyncio.run(scene())
    assert [verdict("alice", Result.UNAVAILABLE), verdict("alice", Result.SUCCESS)] == ended
    (record,) = failures(host)
    expected = ("VerifyMfa", "error", "alice", "sshd", "auth", "enforce")
    names = ("event_name", "outcome", "user", "service", "phase", "mode")
    assert expected == tuple(record[name] for name in names)
    assert record["detail"].startswith("the database fleet at localhost")


def test_refusal_on_demand_is_recorded(host: Layout, relay: Relay) -> None:
    """A verifier of one login records it, too, and does not wait for the database once more."""
    relay.hold_answers()
    began = time.monotonic()
    assert build_verdict(NONCE, Result.UNAVAILABLE) == log_in_once(host, make_request("alice"))
    assert time.monotonic() - began < 2 * TIMEOUT
    assert [one["user"] for one in failures(host)] == ["alice"]


def test_name_without_an_account_stays_hidden(host: Layout, relay: Relay) -> None:
    """What may be a password stands in no record, and has the pseudonym that it always has."""
    typed = make_request("Tr0ub4dor")._replace(uid=None)
    log_in_once(host, typed)
    relay.cut()
    log_in_once(host, typed)
    (record,) = failures(host)
    lines = host.audit_log.read_text("ascii").splitlines()
    assert not any("Tr0ub4dor" in line for line in lines)
    names = [json.loads(line).get("unknown_user") for line in lines if "VerifyMfa" in line]
    assert len(names) > 1
    assert set(names) == {record["unknown_user"]}


def test_refusal_without_a_record_stays_one(host: Layout, relay: Relay) -> None:
    """Where the record cannot be made either, nobody is in, and the verdict comes all the same."""
    relay.cut()
    host.state.mkdir()  # no database can be where a directory is
    assert build_verdict(NONCE, Result.UNAVAILABLE) == log_in_once(host, make_request("alice"))
    assert failures(host) == []
