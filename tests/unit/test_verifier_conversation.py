# SPDX-License-Identifier: Apache-2.0
"""One connection's conversation, driven by hand: frames in, frames out, one verdict."""

import os
import pwd
from pathlib import Path

import pytest
from doubles import (
    NONCE,
    SEED,
    STEP,
    Clock,
    MemoryStore,
    code_of,
    encode_answer,
    encode_frame,
    enrolled,
    make_request,
)

from pam_mfa.audit import Reason
from pam_mfa.errors import AuditError, BrokenSystemError, StateError, WireError
from pam_mfa.policy import UnknownUsers
from pam_mfa.verification import Commit
from pam_mfa.verifier import conversation as module
from pam_mfa.verifier.conversation import Conversation, Last, Receive, Send, Services, converse
from pam_mfa.verifier.packets import Peer
from pam_mfa.verifier.policy_file import PolicyFile
from pam_mfa.wire import Phase, Result, Style, build_prompt, build_verdict

ROOT = Peer(4321, 0)
CODE = code_of(SEED, STEP)
PROMPT = Send(build_prompt(NONCE, Style.ECHO_OFF, "Verification code: ", is_code=True))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The errors that are told to the system log, which hears nothing of them."""
    errors: list[str] = []
    monkeypatch.setattr(module, "tell_failure", lambda error: errors.append(str(error)))
    return errors


@pytest.fixture
def store() -> MemoryStore:
    """A store where Alice is enrolled."""
    return MemoryStore(alice=enrolled())


@pytest.fixture
def services(tmp_path: Path, store: MemoryStore) -> Services:
    """What a verifier whose policy asks once shares."""
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\ndefaults: {prompts: 1}\n")
    path.chmod(0o644)
    return Services(PolicyFile(path, lambda _: None), store, Clock())


def ask(services: Services, peer: Peer = ROOT, user: str = "alice") -> Conversation:
    """Carry a conversation to where it waits for the answer."""
    conversation = converse(make_request(user), peer, services)
    assert [PROMPT, Receive()] == [next(conversation), next(conversation)]
    return conversation


def commit(store: MemoryStore, conversation: Conversation, reply: object) -> object:
    """Answer, commit the claim that follows, and return the next step."""
    step = conversation.send(reply)
    assert isinstance(step, Commit)
    return conversation.send(store.commit([step.claim])[0])


def verdict(result: Result) -> Last:
    """Return the step that tells a verdict."""
    return Last(build_verdict(NONCE, result))


@pytest.mark.parametrize(
    ("reply", "result", "reason"),
    [
        (encode_answer(CODE), Result.SUCCESS, Reason.CODE_ACCEPTED),
        (encode_answer("000000"), Result.DENIED, Reason.WRONG_CODE),
        (encode_answer(""), Result.DENIED, Reason.EMPTY_ANSWER),
        (encode_answer("\udcff"), Result.DENIED, Reason.MALFORMED_CODE),
        (encode_frame(3, []), Result.DENIED, Reason.NO_CONVERSATION),
        (Reason.ABANDONED, Result.DENIED, Reason.ABANDONED),
        (Reason.TIMED_OUT, Result.DENIED, Reason.TIMED_OUT),
    ],
)
def test_verdicts(
    services: Services, store: MemoryStore, reply: object, result: Result, reason: Reason
) -> None:
    """Each answer is recorded, then told as a verdict of this request, then it is over."""
    conversation = ask(services)
    assert verdict(result) == commit(store, conversation, reply)
    assert [reason] == [event.reason for event in store.events]
    with pytest.raises(StopIteration):
        next(conversation)


@pytest.mark.parametrize("phase", [Phase.ACCOUNT, Phase.SESSION])
def test_nothing_to_verify(services: Services, phase: Phase) -> None:
    """Where policy has nothing to verify, the first step is the verdict to ignore."""
    conversation = converse(make_request(phase=phase), ROOT, services)
    assert verdict(Result.IGNORE) == next(conversation)


@pytest.mark.parametrize(
    "packet",
    [
        encode_answer(CODE, nonce=bytes(16)),
        encode_answer(CODE)[:-1],
        encode_answer(CODE) + b"\0",
        encode_frame(1, [(2, CODE.encode())]),
        encode_frame(0x82, [(1, b"\1")]),
        encode_frame(2, [(2, CODE.encode())], version=2),
        b"x",
    ],
    ids=["nonce", "cut", "more", "request", "verdict", "version", "noise"],
)
def test_no_answer(services: Services, store: MemoryStore, packet: bytes) -> None:
    """What is no answer to this request ends the conversation without verdict or claim."""
    conversation = ask(services)
    with pytest.raises(WireError):
        conversation.send(packet)
    assert ([], []) == (store.claims, list(conversation))


@pytest.mark.parametrize("error", [StateError("no state"), AuditError("no log")])
def test_commit_that_fails(services: Services, told: list[str], error: BrokenSystemError) -> None:
    """Where a right code cannot be made durable, the verdict is "unavailable", and it is told."""
    conversation = ask(services)
    assert isinstance(conversation.send(encode_answer(CODE)), Commit)
    assert verdict(Result.UNAVAILABLE) == conversation.throw(error)
    assert [str(error)] == told


def test_broken_policy(services: Services, told: list[str], tmp_path: Path) -> None:
    """Without a usable policy, nobody is asked and the verdict is "unavailable"."""
    (tmp_path / "policy.yaml").write_text("version: 1\nmod: enforce\n")
    conversation = converse(make_request(), ROOT, services)
    assert verdict(Result.UNAVAILABLE) == next(conversation)
    assert ["there is no usable policy"] == [line[:25] for line in told]


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_unsafe_policy(services: Services, tmp_path: Path, kind: str) -> None:
    """Whatever stands in the policy's place, no exception leaves the conversation."""
    path = tmp_path / "policy.yaml"
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("elsewhere")
    conversation = converse(make_request(), ROOT, services)
    assert verdict(Result.UNAVAILABLE) == next(conversation)


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host where Alice has user id 1000 and Bob has 1001."""
    ids = {"alice": 1000, "bob": 1001}

    names = {uid: name for name, uid in ids.items()}

    def getpwuid(uid: int) -> pwd.struct_passwd:
        return pwd.struct_passwd((names[uid], "x", uid, uid, "", "/", "/bin/sh"))

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(
    ("uid", "user"), [(0, "alice"), (0, "nobody-at-all"), (0, ""), (1000, "alice"), (1001, "bob")]
)
def test_who_may_verify(services: Services, uid: int, user: str) -> None:
    """Root may verify anyone, and another user itself: the code is asked for."""
    ask(services, Peer(4321, uid), user)


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(
    ("uid", "user"),
    [(1001, "alice"), (1000, "bob"), (1000, "root"), (1000, ""), (1000, "\udcff"), (1000, "ü"),
     (2000, "alice"), (2**32 - 1, "alice"), (-1, "alice")],
)  # fmt: skip
def test_who_may_not_verify(services: Services, store: MemoryStore, uid: int, user: str) -> None:
    """Another user than root verifies nobody else: it is denied unasked and recorded."""
    conversation = converse(make_request(user), Peer(4321, uid), services)
    assert verdict(Result.DENIED) == commit(store, conversation, None)
    assert [Reason.CALLER_NOT_ALLOWED] == [event.reason for event in store.events]


def test_who_may_verify_by_the_host(services: Services, store: MemoryStore) -> None:
    """A name with a NUL, which no account list can be asked for, is nobody's own."""
    conversation = converse(make_request("alice\0"), Peer(4321, 1000), services)
    assert verdict(Result.DENIED) == commit(store, conversation, None)


def test_claimed_uid_counts_for_nothing(services: Services, store: MemoryStore) -> None:
    """The user id in the request is the module's word; only the kernel's word decides."""
    request = make_request("root", uid=4000)
    conversation = converse(request, Peer(4321, 4000), services)
    assert verdict(Result.DENIED) == commit(store, conversation, None)


def test_records_are_kept_as_policy_says(services: Services, store: MemoryStore) -> None:
    """The store hears of the policy's words on records, and once of the policy itself."""
    path = services.policy_file.path
    path.write_text("version: 1\naudit: {unknown_users: name}\n")
    for _ in range(2):
        ask(services)
    assert UnknownUsers.NAME is store.audit_rules.unknown_users
    assert [True] == [is_accepted for _, is_accepted in store.policies]


def test_broken_policy_is_recorded(services: Services, store: MemoryStore, told: list[str]) -> None:
    """A policy that lets nobody in is recorded, though no login comes to a record of its own."""
    services.policy_file.path.write_text("version: 2\n")
    conversation = converse(make_request(), ROOT, services)
    assert verdict(Result.UNAVAILABLE) == next(conversation)
    assert [False] == [is_accepted for _, is_accepted in store.policies]
    assert 1 == len(told)


def test_broken_policy_and_store(services: Services, store: MemoryStore, told: list[str]) -> None:
    """Where that cannot be recorded either, the policy's fault is what is told."""
    services.policy_file.path.write_text("version: 2\n")
    store.failure = StateError("the disk is full")
    assert verdict(Result.UNAVAILABLE) == next(converse(make_request(), ROOT, services))
    assert [True] == ["no usable policy" in text for text in told]
