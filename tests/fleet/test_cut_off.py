# SPDX-License-Identifier: Apache-2.0
"""Hosts that go on without their database, as far as policy lets them, and what they hand in."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from database import HOST_ROLE, Database
from hosts import Hosts
from relay import Relay
from store_behaviour import SEED, device_of, give

from pam_mfa.audit import Reason
from pam_mfa.errors import BrokenSystemError, UnreachableError
from pam_mfa.oath import encode_seed
from pam_mfa.policy import parse_policy
from pam_mfa.store import ServingStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.offline import contact
from pam_mfa.verification import Caller, Commit, Listen, Look, Verdict, attempt
from pam_mfa.wire import Phase, Request

pytest_plugins = ["fleet_fixtures"]
OFFLINE = "  offline: {allow: [virtual], for: 24h}\n"


@pytest.fixture
def relay(database: Database) -> Iterator[Relay]:
    """Stand between the hosts and the database."""
    relay = Relay(database.port)
    yield relay
    relay.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a silent database be asked again at once."""
    monkeypatch.setattr(contact, "ASK_AGAIN", -1.0)


@pytest.fixture
def alice(hosts: Hosts) -> None:
    """Give Alice a phone, at an administrator's host."""
    desk = hosts.administration()
    give(desk, device_of(desk))


def policy_of(database: Database, port: int = 0, role: str = HOST_ROLE) -> str:
    """Return the policy of a host that may go on without its database."""
    more = f"{OFFLINE}defaults: {{prompts: 1}}\n"
    return database.policy(role, port=port, more=more)


def code(step: int = 0) -> str:
    """Return the phone's code of so many time steps from now, made by somebody else's program."""
    left = 30 - time.time() % 30
    if left < 10:
        time.sleep(left)
    words = ["oathtool", "--totp", "--base32", f"--now=@{int(time.time()) + 30 * step}"]
    done = subprocess.run(
        [*words, encode_seed(SEED)], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def log_in(store: ServingStore, layout: Layout, typed: str) -> Verdict:
    """Log Alice in on a host."""
    policy = parse_policy(layout.policy.read_bytes(), "p")
    request = Request(
        nonce=os.urandom(16), phase=Phase.AUTH, user="alice", service="sshd", tty="ssh", uid=1000,
        timeout=60,
    )  # fmt: skip
    caller = Caller(pid=os.getpid(), uid=0, may_verify=True)
    running = attempt(request, caller, policy, store, time.time)
    reply: object = None
    try:
        while True:
            need = running.send(reply)
            reply = None
            if isinstance(need, Look):
                reply = need.do()
            elif isinstance(need, Commit):
                reply = store.commit([need.claim])[0]
            elif isinstance(need, Listen):
                reply = typed
    except StopIteration as end:
        verdict: Verdict = end.value
        return verdict


def records(layout: Layout) -> list[tuple[str, bool]]:
    """Return the reasons of a host's verifications, and whether the database was not there."""
    found: list[dict[str, Any]] = [
        json.loads(line) for line in layout.audit_log.read_text("ascii").splitlines()
    ]
    return [
        (one["reason"], one.get("offline", False))
        for one in found
        if one["event_name"] == "VerifyMfa"
    ]


@pytest.mark.usefixtures("alice")
def test_database_stopped(hosts: Hosts, database: Database) -> None:
    """PostgreSQL is stopped: who was here gets in, once; afterwards the fleet knows the code."""
    here, elsewhere = (hosts.make(policy=policy_of(database)) for _ in range(2))
    store, other = hosts.serving_on(here), hosts.serving_on(elsewhere)
    assert Reason.CODE_ACCEPTED is log_in(store, here, code(-1)).reason
    other.read_enrollment("alice")
    database.stop()
    try:
        now = code()
        assert Reason.CODE_ACCEPTED is log_in(store, here, now).reason
        assert Reason.CODE_REUSED is log_in(store, here, now).reason
        # Who has never verified at a host gets in at none that is cut off.
        assert Reason.DEVICES_UNREADABLE is log_in(other, elsewhere, code(1)).reason
    finally:
        database.start()
    store.read_enrollment("alice")
    assert Reason.CODE_REUSED is log_in(other, elsewhere, now).reason
    assert records(here) == [
        ("code_accepted", False),
        ("code_accepted", True),
        ("code_reused", True),
    ]


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize("how", ["cut", "hold_answers"])
def test_partition(hosts: Hosts, database: Database, relay: Relay, how: str) -> None:
    """Behind a network that ends connections or swallows packets, a login ends in time."""
    here = hosts.make(policy=policy_of(database, relay.port))
    store = hosts.serving_on(here)
    log_in(store, here, code(-1))
    getattr(relay, how)()
    now, began = code(), time.monotonic()
    assert Reason.CODE_ACCEPTED is log_in(store, here, now).reason
    assert time.monotonic() - began < 20
    relay.cut()
    relay.mend()
    assert Reason.CODE_REUSED is log_in(store, here, now).reason
    assert [is_offline for _, is_offline in records(here)] == [False, True, False]


@pytest.mark.usefixtures("alice")
def test_guesses_are_handed_in(hosts: Hosts, database: Database, relay: Relay) -> None:
    """Wrong codes at a host that is cut off lock the user in the whole fleet."""
    here, elsewhere = (
        hosts.make(policy=policy_of(database, port)) for port in (relay.port, database.port)
    )
    store, other = hosts.serving_on(here), hosts.serving_on(elsewhere)
    log_in(store, here, code(-1))
    relay.cut()
    for _ in range(5):
        log_in(store, here, "000000")
    relay.mend()
    store.read_enrollment("alice")
    assert Reason.LOCKED is log_in(other, elsewhere, code()).reason


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize("how", ["another role", "expired", "another schema", "paused"])
def test_answer_is_no_silence(hosts: Hosts, database: Database, how: str) -> None:
    """A database that answers, whatever it says, has nobody let in by what is kept."""
    here = hosts.make(policy=policy_of(database))
    log_in(hosts.serving_on(here), here, code(-1))
    role = HOST_ROLE
    if how == "another role":
        role = "stranger"
    elif how == "expired":
        database.authority.sign(HOST_ROLE, HOST_ROLE, days=-1)
    elif how == "another schema":
        database.execute("UPDATE pam_mfa.schema_version SET version = version + 1")
    else:
        database.execute(f"ALTER ROLE {HOST_ROLE} CONNECTION LIMIT 0")
    here.policy.write_text(policy_of(database, role=role))
    try:
        with pytest.raises(BrokenSystemError) as caught:
            log_in(hosts.serving_on(here), here, code())
        assert not isinstance(caught.value, UnreachableError)
    finally:
        database.authority.sign(HOST_ROLE, HOST_ROLE)
        if how == "another schema":
            database.execute("UPDATE pam_mfa.schema_version SET version = version - 1")
        database.execute(f"ALTER ROLE {HOST_ROLE} CONNECTION LIMIT -1")
    assert all(not is_offline for _, is_offline in records(here))


@pytest.mark.usefixtures("alice")
def test_without_policys_word(hosts: Hosts, database: Database, relay: Relay) -> None:
    """Where policy says nothing, or deny, nothing is kept and nobody is in."""
    for word in ("", "  offline: deny\n"):
        text = policy_of(database, relay.port).replace(OFFLINE, word)
        here = hosts.make(policy=text)
        store = hosts.serving_on(here)
        log_in(store, here, code(-1 if not word else 0))
        relay.cut()
        with pytest.raises(UnreachableError):
            log_in(store, here, code(1))
        assert not here.offline.exists()
        relay.mend()
