# SPDX-License-Identifier: Apache-2.0
"""Approval by an ssh-agent: only a fresh signature by an enrolled key counts, all else goes on."""

from collections.abc import Callable
from typing import Any

import pytest
from agent_bench import HANG, HOST, FakeAgent, FakeKey, Sudo, enroll_key, signature_reply
from doubles import SEED, START, STEP, code_of
from key_bench import BY_CODE

from pam_mfa.audit import Reason
from pam_mfa.lockout import LockState
from pam_mfa.policy import Agent, Fido, Mode, SignCount, UserVerification
from pam_mfa.ssh_wire import pack_strings
from pam_mfa.verification import Verdict
from pam_mfa.wire import Result

CODE = code_of(SEED, STEP)
BY_AGENT = Verdict(Result.SUCCESS, Reason.AGENT_SIGNATURE_ACCEPTED)
TOUCH = f"Touch the security key on your own computer to approve sudo on {HOST} (laptop)."
SOON = 0.2  # seconds


@pytest.fixture
def key() -> FakeKey:
    """Alice's key."""
    return FakeKey()


@pytest.fixture
def agent(key: FakeKey) -> FakeAgent:
    """Her agent."""
    return FakeAgent(key)


@pytest.fixture
def sudo(agent: FakeAgent, key: FakeKey) -> Sudo:
    """Her sudo."""
    return Sudo(agent, enroll_key(key))


def refused(sudo: Sudo, reason: Reason) -> str:
    """Expect that the agent was of no use, recorded so, and a code was; return what was told."""
    shown = sudo.run(CODE)
    assert (BY_CODE, [reason, Reason.CODE_ACCEPTED]) == (shown.verdict, sudo.reasons())
    return shown.texts[-1] if shown.texts else ""


def test_approved(sudo: Sudo) -> None:
    """A signature by the enrolled key is made durable and then told; nothing is asked."""
    shown = sudo.run()
    assert (BY_AGENT, [TOUCH], []) == (shown.verdict, shown.texts, shown.prompts)
    (event,) = sudo.store.events
    assert event.device is not None
    assert ("ssh-key/alice/laptop", 1) == (event.device.serial_number, event.sign_count)
    assert {"ssh-key/alice/laptop": 1} == sudo.store.used_steps


def test_what_is_signed(sudo: Sudo, agent: FakeAgent) -> None:
    """What is signed is an SSHSIG blob for this host, with a nonce, so never twice the same."""
    sizes: list[int] = []

    def random(size: int) -> bytes:
        sizes.append(size)
        return bytes((len(sizes),)) * size

    sudo.machine = sudo.machine._replace(random=random)
    sudo.run()
    sudo.store.used_steps.clear()
    sudo.run()
    assert [16, 16] == sizes
    first, second = agent.signed
    assert first != second
    namespace = f"pam-mfa@{HOST}".encode()
    assert first.startswith(b"SSHSIG" + pack_strings(namespace))


@pytest.mark.parametrize("replay", ["nonce", "service", "user", "host", "ruser", "tty"])
def test_signature_for_something_else(sudo: Sudo, agent: FakeAgent, replay: str) -> None:
    """A signature for another login, service, user, host or terminal proves nothing here."""
    other: dict[str, dict[str, Any]] = {
        "nonce": {}, "service": {"service": "su"}, "user": {}, "host": {},
        "ruser": {"ruser": "bob"}, "tty": {"tty": "pts/9"},
    }  # fmt: skip
    sudo.machine = sudo.machine._replace(random=lambda size: b"n" * size)
    if replay == "host":
        sudo.machine = sudo.machine._replace(host="elsewhere")
    if replay == "user":
        sudo.store.enrollments["root"] = sudo.store.enrollments["alice"]
        other["user"] = {"user": "root"}
    sudo.run(**other[replay])
    old = agent.keys[agent.listed[0]].sign(agent.signed[0])
    sudo.store.events.clear()
    sudo.store.used_steps.clear()
    sudo.machine = sudo.machine._replace(host=HOST)
    if replay == "nonce":
        sudo.machine = sudo.machine._replace(random=lambda size: b"m" * size)
    agent.on_sign = lambda _blob, _data: signature_reply(old)
    refused(sudo, Reason.UNPROVEN_SIGNATURE)


def other_key(_key: FakeKey, data: bytes) -> bytes:
    """Return a signature by another key."""
    return FakeKey().sign(data)


def other_application(key: FakeKey, data: bytes) -> bytes:
    """Return a signature of the right key for another application."""
    return key.sign(data, "ssh:other")


def untouched(key: FakeKey, data: bytes) -> bytes:
    """Return a signature with flags 0."""
    key.flags = 0
    return key.sign(data)


def of_unknown_type(key: FakeKey, data: bytes) -> bytes:
    """Return a signature of a type that nobody knows."""
    return key.sign(data).replace(b"sk-ssh-ed25519@", b"sk-ssh-ed99999@")


def long_signature(key: FakeKey, data: bytes) -> bytes:
    """Return a signature with bytes behind its end."""
    return key.sign(data) + b"x"


LIES = (other_key, other_application, untouched, of_unknown_type, long_signature)


@pytest.mark.parametrize("lie", LIES)
def test_lying_agent(sudo: Sudo, agent: FakeAgent, lie: Callable[[FakeKey, bytes], bytes]) -> None:
    """What is no signature by the enrolled, touched key over this very data approves nothing."""
    agent.on_sign = lambda blob, data: signature_reply(lie(agent.keys[blob], data))
    assert "The signature of your ssh-agent (laptop) was refused." == refused(
        sudo, Reason.UNPROVEN_SIGNATURE
    )


def test_key_that_is_not_enrolled(sudo: Sudo, agent: FakeAgent) -> None:
    """An agent without an enrolled key is not asked to sign."""
    agent.listed = [FakeKey().blob]
    assert "Your ssh-agent has none of your enrolled SSH keys." == refused(
        sudo, Reason.AGENT_KEY_ABSENT
    )
    assert [11] == agent.asked


def test_empty_agent(sudo: Sudo, agent: FakeAgent) -> None:
    """An agent that lists nothing may be locked: the person is told how to unlock it."""
    agent.listed = []
    assert "ssh-add -X" in refused(sudo, Reason.AGENT_KEY_ABSENT)


def test_listed_nonsense(sudo: Sudo, agent: FakeAgent) -> None:
    """Keys of other types, and what is no key at all, are passed over."""
    agent.listed = [b"", b"\xff" * 40, pack_strings(b"ssh-dss", b"x"), *agent.listed]
    assert BY_AGENT == sudo.run().verdict


def test_refusal(sudo: Sudo, agent: FakeAgent) -> None:
    """An agent that refuses to sign says so in a sentence of its own, and a code is asked for."""
    agent.on_sign = lambda _blob, _data: b"\x05"
    assert refused(sudo, Reason.AGENT_REFUSED).startswith("Your ssh-agent refused to sign with")


def test_second_key(agent: FakeAgent, key: FakeKey) -> None:
    """Where one key cannot sign, as one that is not attached, the next enrolled one is asked."""
    spare = FakeKey()
    agent.keys[spare.blob] = spare
    agent.listed.append(spare.blob)
    agent.on_sign = lambda blob, data: (
        b"\x05" if blob == key.blob else signature_reply(spare.sign(data))
    )
    sudo = Sudo(agent, enroll_key(key), enroll_key(spare, "spare"))
    assert BY_AGENT == sudo.run().verdict
    assert [Reason.AGENT_REFUSED, Reason.AGENT_SIGNATURE_ACCEPTED] == sudo.reasons()


def test_agent_that_is_gone(sudo: Sudo, agent: FakeAgent) -> None:
    """An agent that closes the connection has a sentence of its own."""
    agent.on_list = lambda: None
    assert "Your ssh-agent closed the connection." == refused(sudo, Reason.AGENT_UNUSABLE)


@pytest.mark.parametrize("body", [b"\x63", b"\x0c", b"\x0e\0\0\0\x01x"])
def test_agent_that_talks_nonsense(sudo: Sudo, agent: FakeAgent, body: bytes) -> None:
    """Where an agent answers what no agent answers, that is told and recorded."""
    agent.on_list = lambda: body
    assert "Your ssh-agent answered what no agent answers." == refused(sudo, Reason.AGENT_UNUSABLE)


def test_agent_that_hangs(sudo: Sudo, agent: FakeAgent) -> None:
    """A signature is waited for as long as policy says, and no longer."""
    sudo.policy = sudo.policy._replace(agent=Agent(timeout=SOON))
    agent.on_sign = lambda _blob, _data: HANG
    assert "did not answer in time" in refused(sudo, Reason.AGENT_TIMED_OUT)
    assert 1 == len(agent.signed)


def test_counter_must_grow(sudo: Sudo, key: FakeKey) -> None:
    """A counter that does not grow may be a copy's: refused, told, recorded."""
    assert BY_AGENT == sudo.run().verdict
    sudo.store.events.clear()
    assert "its counter did not grow" in refused(sudo, Reason.POSSIBLE_CLONE)
    key.counter = 2
    assert BY_AGENT == sudo.run().verdict


def test_counter_where_policy_only_warns(sudo: Sudo) -> None:
    """Where policy warns, the same counter lets in, and the record has the warning."""
    sudo.policy = sudo.policy._replace(fido=Fido(sign_count=SignCount.WARN))
    assert [BY_AGENT] * 2 == [sudo.run().verdict for _ in range(2)]
    assert Reason.POSSIBLE_CLONE is sudo.reasons()[-1]


def test_key_without_a_counter(sudo: Sudo, key: FakeKey) -> None:
    """A key that never counts approves as often as it is touched."""
    key.counter = 0
    assert [BY_AGENT] * 3 == [sudo.run().verdict for _ in range(3)]


def test_user_verification(sudo: Sudo, key: FakeKey) -> None:
    """Where policy wants a PIN or fingerprint, a touch alone is not enough."""
    sudo.policy = sudo.policy._replace(fido=Fido(user_verification=UserVerification.REQUIRED))
    refused(sudo, Reason.UNPROVEN_SIGNATURE)
    key.flags = 5
    assert BY_AGENT == sudo.run().verdict
    assert "user verified by the key" == sudo.store.events[-1].detail


def test_locked_user(sudo: Sudo) -> None:
    """A user whom wrong codes have locked is let in by no signature, and no code."""
    sudo.store.locks["alice"] = LockState((), START + 60.0)
    shown = sudo.run(CODE, CODE, CODE)
    assert Result.DENIED is shown.verdict.result
    assert [Reason.LOCKED] * 4 == sudo.reasons()


def test_wrong_codes_stay_counted(sudo: Sudo) -> None:
    """A signature forgives no wrong codes: whoever reaches the agent cannot guess without end."""
    wrong = LockState((START - 1.0,), 0.0)
    sudo.store.locks["alice"] = wrong
    assert BY_AGENT == sudo.run().verdict
    assert wrong == sudo.store.locks["alice"]


def test_device_taken_away(sudo: Sudo) -> None:
    """A key that is deactivated while it is touched approves nothing."""
    device = sudo.store.enrollments["alice"].ssh_keys[0]
    sudo.store.taken_away.append(device)
    shown = sudo.run(CODE)
    assert BY_CODE == shown.verdict
    assert Reason.DEVICES_CHANGED is sudo.reasons()[0]


def test_report_only(sudo: Sudo, agent: FakeAgent) -> None:
    """Where nobody is refused, the agent is asked all the same, and what it did is recorded."""
    sudo.policy = sudo.policy._replace(mode=Mode.REPORT_ONLY)
    agent.on_sign = lambda _blob, _data: b"\x05"
    shown = sudo.run("000000", "000000", "000000")
    assert Result.IGNORE is shown.verdict.result
    assert Reason.AGENT_REFUSED is sudo.reasons()[0]


@pytest.mark.parametrize(
    "items", [{"service": "sshd", "rhost": "192.0.2.7"}, {"uid": 1000, "ruser": "alice"}]
)
def test_not_asked(sudo: Sudo, agent: FakeAgent, items: dict[str, Any]) -> None:
    """No agent is asked for a login by sshd, nor one that a program without root has brought."""
    shown = sudo.run(CODE, **items)
    assert (BY_CODE, []) == (shown.verdict, agent.asked)


def test_not_an_acceptable_type(sudo: Sudo, agent: FakeAgent) -> None:
    """Where policy does not accept SSH keys, no agent is asked."""
    sudo.policy = sudo.policy._replace(devices=("virtual",))
    assert (BY_CODE, []) == (sudo.run(CODE).verdict, agent.asked)


def test_somebody_without_keys(agent: FakeAgent) -> None:
    """Of a user without an enrolled SSH key the agent is not asked."""
    sudo = Sudo(agent)
    assert (BY_CODE, []) == (sudo.run(CODE).verdict, agent.asked)


def test_su_tells_nothing_of_others(sudo: Sudo, agent: FakeAgent) -> None:
    """Who is not the user is not told whether the user has enrolled keys."""
    agent.listed = []
    assert [] == sudo.run(CODE, ruser="bob").texts


def test_su_names_the_user(sudo: Sudo) -> None:
    """A touch for another user's account names that one, but not what its device is called."""
    (shown,) = sudo.run(ruser="bob").texts
    assert f"approve sudo on {HOST} as alice (an enrolled key)" in shown


def test_fault_of_this_program(sudo: Sudo, agent: FakeAgent) -> None:
    """Whatever goes wrong while an agent is asked, a code is asked for."""

    def fail(_seconds: float, _canceled: object) -> object:
        raise OSError("out of descriptors")

    agent.open = fail  # type: ignore[method-assign,assignment]
    assert "Your ssh-agent answered what no agent answers." == refused(sudo, Reason.AGENT_UNUSABLE)


def test_cve_2023_38408_agent_is_asked_for_nothing_else(sudo: Sudo, agent: FakeAgent) -> None:
    """Of the agent a list and one signature are wanted: never that it loads, adds or takes away."""
    sudo.run()
    assert [11, 13] == agent.asked
