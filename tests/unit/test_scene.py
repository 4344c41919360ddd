# SPDX-License-Identifier: Apache-2.0
"""What a record tells of a request: where it comes from, whose words that is, how long it took."""

from collections.abc import Generator
from typing import Any

import pytest
from doubles import START, MemoryStore, enrolled, make_request

from pam_mfa.audit import Event, Outcome, Reason
from pam_mfa.policy import AuditRules, Policy, UnknownUsers
from pam_mfa.verification import Caller, Need
from pam_mfa.verification.scene import Scene, find_source, make_event, set_scene

ROOT = Caller(pid=4321, uid=0, may_verify=True)


def run(setting: Generator[Need, Any, Scene]) -> Scene:
    """Return the scene that a store at hand gives, which needs nothing of a driver."""
    with pytest.raises(StopIteration) as end:
        next(setting)
    scene: Scene = end.value.value
    return scene


def event_of(caller: Caller = ROOT, policy: Policy = Policy(), **items: Any) -> Event:  # noqa: ANN401, B008
    """Return the record of a request's end, a second and a half after START."""
    store = MemoryStore(alice=enrolled())
    scene = run(set_scene(make_request(**items), caller, policy, store))
    return make_event(scene, START + 1.5, Outcome.DENIED, Reason.WRONG_CODE)


@pytest.mark.parametrize(
    ("rhost", "connection", "expected"),
    [
        ("192.0.2.7", "", "192.0.2.7"),
        ("192.0.2.7", "198.51.100.1 50000 192.0.2.1 22", "192.0.2.7"),
        ("client.example", "198.51.100.1 50000 192.0.2.1 22", "198.51.100.1"),
        ("client.example", "", ""),
        ("2001:db8::7", "", "2001:db8::7"),
        ("::ffff:192.0.2.7", "", "::ffff:192.0.2.7"),
        ("fe80::1%eth0", "", "fe80::1%eth0"),
        ("", "2001:db8::7 50000 2001:db8::1 22", "2001:db8::7"),
        ("1.2.3.4.example", "x", ""),
        ("a:" * 100, "", ""),
        ("\u0661.2.3.4", "", ""),
        ("", "", ""),
    ],
)
def test_source(rhost: str, connection: str, expected: str) -> None:
    """The source is an address: the remote host, or sshd's connection where that is a name."""
    assert expected == find_source(make_request(rhost=rhost, ssh_connection=connection))


@pytest.mark.parametrize(("uid", "expected"), [(0, None), (1000, True)])
def test_claims(uid: int, expected: bool | None) -> None:  # noqa: FBT001
    """What a caller that is not root says of a login is marked as its claim."""
    assert expected is event_of(ROOT._replace(uid=uid)).is_claim


def test_caller() -> None:
    """As whom the caller logged in, and in which session, is told."""
    event = event_of(ROOT._replace(login_uid=1000, login_session=3))
    assert (1000, 3, 0, 4321) == (
        event.login_uid, event.login_session, event.caller_uid, event.caller_pid,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked_at", "expected"), [(START, 1500), (START + 1.4999, 0), (START + 9, 0), (0.0, None)]
)
def test_duration(asked_at: float, expected: int | None) -> None:
    """It took from the request to the record; a clock that is set back makes it nothing."""
    assert expected == event_of(ROOT._replace(asked_at=asked_at)).duration_ms


@pytest.mark.parametrize(
    ("word", "name"), [(UnknownUsers.HASH, ""), (UnknownUsers.NAME, "hunter2")]
)
def test_unknown_user(word: UnknownUsers, name: str) -> None:
    """A name that no account has is hashed; where policy says so, it is told beside the hash."""
    policy = Policy(audit=AuditRules(unknown_users=word))
    event = event_of(policy=policy, user="hunter2", uid=None)
    assert ("", "pseudonym-7", name) == (event.user, event.unknown_user, event.unknown_name)
    assert "" == event_of(policy=policy).unknown_name
