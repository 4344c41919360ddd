# SPDX-License-Identifier: Apache-2.0
"""What many sessions at once can make of one user: no guess too many, no code twice."""

import collections
import contextlib
import sqlite3
from collections.abc import Iterator

import pytest
from authenticator import enroll
from host_program import Host, Login, Status, attempt
from installed import DataRoot, wait_for_step
from serving import DAEMON, ON_DEMAND, each_way, serving
from sessions import MIXED, Twin, crowd, offer, twins_of

SESSIONS = 16
FAILURES = 5  # config/policy.yaml
each_mix = pytest.mark.parametrize("way", [DAEMON, ON_DEMAND, MIXED])


@pytest.fixture
def twin(root: DataRoot) -> Iterator[Twin]:
    """Make a second root on the same data where no daemon listens, so that both ways are used."""
    with twins_of(root) as make:
        yield make


@each_mix
def test_parallel_sessions_share_their_tries(root: DataRoot, twin: Twin, way: str) -> None:
    """However many sessions guess at once, no more guesses are judged than the limit."""
    phone = enroll(root, "alice")
    wrong = phone.wrong_code()
    with crowd(root, twin, way, SESSIONS) as hosts:
        assert set(offer(hosts, *[wrong] * 3)) == {Status.AUTH_ERR}
        assert attempt(root, "alice", phone.code()).status == Status.AUTH_ERR
    reasons = collections.Counter(root.reasons())
    assert reasons["wrong_code"] == FAILURES
    assert set(reasons) == {"wrong_code", "locked", "no_conversation"}
    assert len(root.audit("LockUser")) == 1


@each_mix
def test_one_code_lets_one_session_in(root: DataRoot, twin: Twin, way: str) -> None:
    """One right code, given by many sessions at once, lets exactly one of them in."""
    phone = enroll(root, "alice")
    with crowd(root, twin, way, SESSIONS) as hosts:
        wait_for_step(10)
        statuses = offer(hosts, phone.code())
    assert collections.Counter(statuses) == {Status.SUCCESS: 1, Status.AUTH_ERR: SESSIONS - 1}
    reasons = collections.Counter(root.reasons())
    assert reasons["code_accepted"] == 1
    assert reasons["code_reused"] == SESSIONS - 1


@each_mix
def test_every_judgement_is_recorded_once(root: DataRoot, twin: Twin, way: str) -> None:
    """Records of sessions at once are whole lines, each with an id of its own, none lost."""
    phone = enroll(root, "alice")
    with crowd(root, twin, way, SESSIONS) as hosts:
        offer(hosts, phone.wrong_code())
    records = root.audit()
    assert len({record["event_id"] for record in records}) == len(records) == 2 * SESSIONS


@each_way
def test_abandoned_session_has_used_its_try(root: DataRoot, way: str) -> None:
    """A host that is killed right after its answer does not get the try back."""
    phone = enroll(root, "alice")
    with serving(root, way):
        for _ in range(FAILURES):
            host = Host(Login(root, "alice"))
            host.begin()
            assert host.question() is not None
            host.answer(phone.wrong_code())
            assert host.question() is not None  # judged; the next prompt is there
            host.kill()
        assert attempt(root, "alice", phone.code()).status == Status.AUTH_ERR
    assert "locked" in root.reasons()


def lock(root: DataRoot, wrong: str) -> None:
    """Use all of alice's tries up."""
    for _ in range(2):
        attempt(root, "alice", wrong, wrong, wrong)
    assert len(root.audit("LockUser")) == 1


def test_lock_survives_a_restart(root: DataRoot) -> None:
    """A lock that one daemon set holds under the next, and on demand."""
    phone = enroll(root, "alice")
    with serving(root, DAEMON):
        lock(root, phone.wrong_code())
    with serving(root, DAEMON):
        assert attempt(root, "alice", phone.code()).status == Status.AUTH_ERR
    assert attempt(root, "alice", phone.code()).status == Status.AUTH_ERR
    assert {"locked"} == set(root.reasons()[FAILURES:]) - {"no_conversation"}


@each_way
def test_unlock_ends_the_lock(root: DataRoot, way: str) -> None:
    """After pam-mfa unlock the right code lets in, also where a daemon ran all the time."""
    phone = enroll(root, "alice")
    with serving(root, way):
        lock(root, phone.wrong_code())
        assert attempt(root, "alice", phone.code()).status == Status.AUTH_ERR
        root.command("unlock", "alice")
        assert attempt(root, "alice", phone.code()).status == Status.SUCCESS
    assert len(root.audit("UnlockUser")) == 1


@each_way
def test_lock_is_one_users(root: DataRoot, way: str) -> None:
    """A locked user locks nobody else out."""
    alice, bob = enroll(root, "alice"), enroll(root, "bob")
    with serving(root, way):
        lock(root, alice.wrong_code())
        assert attempt(root, "bob", bob.code()).status == Status.SUCCESS


@each_way
def test_success_forgets_failures(root: DataRoot, way: str) -> None:
    """A right code starts the count anew."""
    phone = enroll(root, "alice")
    wrong = phone.wrong_code()
    with serving(root, way):
        attempt(root, "alice", wrong, wrong)
        assert attempt(root, "alice", wrong, wrong, phone.code()).status == Status.SUCCESS
        assert attempt(root, "alice", wrong, wrong, phone.code(1)).status == Status.SUCCESS


@each_way
def test_lock_ends_in_time(root: DataRoot, way: str) -> None:
    """A lock ends at its time; a lock of the past holds nobody up."""
    phone = enroll(root, "alice")
    with serving(root, way):
        lock(root, phone.wrong_code())
        with contextlib.closing(sqlite3.connect(root.library / "state.db", timeout=10)) as state:
            state.execute("UPDATE lock_state SET locked_until = locked_until - 900")
            state.commit()
        assert attempt(root, "alice", phone.code()).status == Status.SUCCESS


def test_locked_user_sees_what_everybody_sees(root: DataRoot) -> None:
    """The dialogue does not tell that a user is locked."""
    phone = enroll(root, "alice")
    wrong = phone.wrong_code()
    before = attempt(root, "alice", *[wrong] * 3)
    lock(root, wrong)
    after = attempt(root, "alice", *[wrong] * 3)
    assert after[:2] == before[:2]
