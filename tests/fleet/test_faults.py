# SPDX-License-Identifier: Apache-2.0
"""A fleet whose database dies, hangs or is cut off: no code is good twice, and nobody is in."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from database import Database
from hosts import Hosts
from relay import Relay
from store_behaviour import PHONE, SEED, device_of, give, known_of, records, take_step

from pam_mfa.errors import StateError
from pam_mfa.oath import encode_seed
from pam_mfa.store import Change, Claim, Known, Standing

pytest_plugins = ["fleet_fixtures"]
_PROGRAM = Path(__file__).with_name("login_once.py")
_SOURCES = Path(__file__).resolve().parents[2]


@pytest.fixture
def relay(database: Database) -> Iterator[Relay]:
    """Stand between the hosts and the database."""
    relay = Relay(database.port)
    yield relay
    relay.close()


def take_meanwhile(step: int, meanwhile: list[object]) -> Claim:
    """Return a claim to use a step, and do something once it is judged and not yet committed."""
    claim = take_step(step)

    def judge(known: Known) -> Change:
        change = claim.judge(known)
        for act in meanwhile:
            act()  # type: ignore[operator]
        return change

    return claim._replace(judge=judge)


def used_step(database: Database) -> list[int]:
    """Return the phone's used step, as the database's owner sees it."""
    query = "SELECT step FROM pam_mfa.used_step WHERE serial_number = %s"
    return [row[0] for row in database.execute(query, (PHONE,))]


def log_in(root: Path) -> "subprocess.Popen[str]":
    """Begin a login of Alice on a host, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, _PROGRAM, root, "alice"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(_SOURCES), "PATH": "/usr/bin:/bin"},
    )


def current_code() -> str:
    """Return the phone's code of now, as somebody else's program makes it."""
    left = 30 - time.time() % 30
    if left < 5:
        time.sleep(left)
    words = ["oathtool", "--totp", "--base32", encode_seed(SEED)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_same_code_at_two_hosts(hosts: Hosts) -> None:
    """The same code at two hosts at the same instant: one login is in, and one is refused."""
    desk = hosts.administration()
    give(desk, device_of(desk))
    roots = [hosts.make().root for _ in range(2)]
    logins = [log_in(root) for root in roots]
    assert [login.stdout.readline() for login in logins if login.stdout] == ["ready\n"] * 2
    code = current_code()
    for login in logins:
        assert login.stdin is not None
        login.stdin.write(f"{code}\n{code}\n{code}\n")
        login.stdin.flush()
    ends = [login.communicate(timeout=30)[0].split()[-1] for login in logins]
    assert sorted(ends) == ["DENIED", "SUCCESS"]
    assert sum("accepted" in log.read_text() for log in hosts.logs() if log.exists()) == 1


def test_killed_before_its_commit(hosts: Hosts, database: Database) -> None:
    """The database dies before it commits: nobody is in, and the code is good once it is back."""
    store = hosts.serving()
    kill = [lambda: database.stop("immediate")]
    with pytest.raises(StateError, match="nobody knows"):
        store.commit([take_meanwhile(7, list(kill))])
    database.start()
    assert (used_step(database), [name for name in records(hosts) if name]) == ([], [])
    assert store.commit([take_step(7)])[0].accepted


def test_killed_after_its_commit(hosts: Hosts, database: Database, relay: Relay) -> None:
    """The answer to a commit is lost: nobody is in, and the code is used up all the same."""
    hosts.found()
    store = hosts.serving_on(hosts.make(policy=database.policy(port=relay.port)))
    known_of(store)
    with pytest.raises(StateError, match="nobody knows"):
        store.commit([take_meanwhile(7, [relay.hold_answers])])
    assert (used_step(database), [name for name in records(hosts) if name]) == ([7], [])
    relay.cut()
    relay.mend()
    assert not store.commit([take_step(7)])[0].accepted


def test_restart_is_not_noticed(hosts: Hosts, database: Database) -> None:
    """Connections that were kept over a restart are replaced, and nobody is refused for it."""
    store = hosts.serving()
    assert store.commit([take_step(7)])[0].accepted
    database.stop()
    database.start()
    assert [store.commit([take_step(8)])[0].accepted for _ in range(2)] == [True, False]


def test_cut_off_for_a_while(hosts: Hosts, database: Database, relay: Relay) -> None:
    """Cut off, every login is refused with a sentence, and no other store takes the place."""
    desk = hosts.administration()
    give(desk, device_of(desk))
    layout = hosts.make(policy=database.policy(port=relay.port))
    store = hosts.serving_on(layout)
    assert Standing.ENROLLED is store.read_enrollment("alice").standing
    relay.cut()
    with pytest.raises(StateError, match="the database fleet at localhost"):
        store.read_enrollment("alice")
    with pytest.raises(StateError, match="the database fleet at localhost"):
        store.commit([take_step(7)])
    relay.mend()
    assert Standing.ENROLLED is store.read_enrollment("alice").standing
    assert store.commit([take_step(7)])[0].accepted


def test_database_that_says_nothing(hosts: Hosts, database: Database, relay: Relay) -> None:
    """A database that does not answer costs its timeout, and a sentence."""
    hosts.found()
    policy = database.policy(port=relay.port).replace("timeout: 5s", "timeout: 2s")
    store = hosts.serving_on(hosts.make(policy=policy))
    known_of(store)
    relay.hold_answers()
    began = time.monotonic()
    with pytest.raises(StateError, match="did not answer in time"):
        store.read_enrollment("alice")
    assert 1.5 < time.monotonic() - began < 4.5


def test_row_that_somebody_holds(hosts: Hosts, database: Database) -> None:
    """Who waits for a row that is held ends in time, and changes nothing."""
    hosts.found()
    policy = database.policy().replace("timeout: 5s", "timeout: 2s")
    one, other = hosts.serving(), hosts.serving_on(hosts.make(policy=policy))
    refused: list[str] = []

    def come_second() -> None:
        with pytest.raises(StateError) as error:
            other.commit([take_step(7)])
        refused.append(str(error.value))

    assert one.commit([take_meanwhile(7, [come_second])])[0].accepted
    assert refused == ["the database fleet at localhost: it did not answer in time"]
    assert used_step(database) == [7]
