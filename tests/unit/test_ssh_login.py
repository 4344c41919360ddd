# SPDX-License-Identifier: Apache-2.0
"""Logins that sshd says a security key has signed, driven by hand."""

import datetime

import pytest
from doubles import (
    NOT_ENROLLED,
    SEED,
    START,
    STEP,
    UNREADABLE,
    Clock,
    MemoryStore,
    code_of,
    drive,
    enrolled,
    make_request,
    open_device,
)

from pam_mfa.audit import DeviceField, Event, EventName, Outcome, Reason
from pam_mfa.devices import SshKeyDevice
from pam_mfa.errors import StateError
from pam_mfa.lockout import LockState
from pam_mfa.policy import DEVICE_TYPES, Mode, Policy, Unenrolled
from pam_mfa.ssh_keys import ECDSA, ED25519, SshKey, fingerprint, format_key
from pam_mfa.store import Enrollment
from pam_mfa.verification import Caller, Verdict, attempt
from pam_mfa.wire import Phase, Request, Result

ROOT = Caller(pid=4321, uid=0, may_verify=True)
ONE_PROMPT = Policy(prompts=1)
KEY = SshKey(ED25519, bytes(32), "ssh:")
OTHER = SshKey(ECDSA, bytes(65), "ssh:")
PLAIN = "publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
FIELD = DeviceField("ssh-key/alice/laptop", "ssh-key", "laptop")
CODE = code_of(SEED, STEP)
ASKED = ["Ask", "Listen", "Commit"]
SIGNED = Verdict(Result.SUCCESS, Reason.SSH_KEY_ACCEPTED)
BY_CODE = Verdict(Result.SUCCESS, Reason.CODE_ACCEPTED)
LOCKED = LockState((), START + 1.0)


def laptop(key: SshKey = KEY, name: str = "laptop", user: str = "alice") -> SshKeyDevice:
    """Return an enrolled key."""
    return SshKeyDevice(f"ssh-key/{user}/{name}", name, NOW, key)


def has(*keys: SshKeyDevice) -> MemoryStore:
    """Return a store in which Alice has a phone and these keys."""
    return MemoryStore(alice=enrolled(open_device())._replace(ssh_keys=keys))


def signed_by(*keys: SshKey, **items: object) -> Request:
    """Return the request of a login that these keys have signed."""
    text = "".join(f"publickey {format_key(key)}\n" for key in keys)
    return make_request("alice", ssh_auth_info=text, **items)


def run(
    store: MemoryStore,
    request: Request,
    *answers: str | Reason,
    policy: Policy = ONE_PROMPT,
    caller: Caller = ROOT,
) -> tuple[list[str], Verdict]:
    """Run one attempt to its verdict."""
    return drive(attempt(request, caller, policy, store, Clock()), store, answers)


def reasons(store: MemoryStore) -> list[Reason]:
    """Return the reasons of the records."""
    return [event.reason for event in store.events]


def test_enrolled_key() -> None:
    """An enrolled key is made durable and then told as success; nothing is asked."""
    assert (["Commit"], SIGNED) == run(has(laptop()), signed_by(KEY))


def test_record() -> None:
    """The record says which key it was, and the key's use is noted."""
    store = has(laptop(OTHER, "old"), laptop())
    run(store, signed_by(KEY))
    event = Event(
        EventName.VERIFY_MFA, Outcome.SUCCESS, Reason.SSH_KEY_ACCEPTED, START, user="alice",
        service="sshd", phase="auth", tty="ssh", rhost="192.0.2.7", ruser="bob", device=FIELD,
        mode="enforce", caller_uid=0, caller_pid=4321, source_address="192.0.2.7",
    )  # fmt: skip
    assert ([event], {FIELD.serial_number: 0}) == (store.events, store.used_steps)


def test_used_again() -> None:
    """The same key lets in as often as it signs: each login has its own signature."""
    store = has(laptop())
    ends = [run(store, signed_by(KEY))[1] for _ in range(3)]
    assert [SIGNED] * 3 == ends


def test_no_success_without_commit() -> None:
    """Where the record cannot be made durable there is no verdict."""
    store = has(laptop())
    store.failure = StateError("the disk is full")
    with pytest.raises(StateError, match="the disk is full"):
        run(store, signed_by(KEY))


@pytest.mark.parametrize("keys", [(KEY, OTHER), (OTHER, KEY)])
def test_one_of_two_signatures(keys: tuple[SshKey, ...]) -> None:
    """Of two keys that signed, one enrolled is enough."""
    assert (["Commit"], SIGNED) == run(has(laptop()), signed_by(*keys))


@pytest.mark.parametrize(
    "key",
    [
        OTHER,
        KEY._replace(point=bytes(31) + b"\1"),
        KEY._replace(application="ssh:other"),
    ],
    ids=["another type", "another key", "another application"],
)
def test_key_that_is_not_enrolled(key: SshKey) -> None:
    """Another key is recorded by its fingerprint, then a code is asked for as of everybody."""
    store = has(laptop())
    assert (["Commit", *ASKED], BY_CODE) == run(store, signed_by(key), CODE)
    first = store.events[0]
    assert (Outcome.DENIED, Reason.SSH_KEY_NOT_ENROLLED, fingerprint(key), None) == (
        first.outcome, first.reason, first.detail, first.device,
    )  # fmt: skip
    assert (2, ()) == (len(store.events), store.locks["alice"].failures)


def test_every_fingerprint_is_recorded() -> None:
    """Of two keys that are not enrolled both are recorded."""
    store = MemoryStore(alice=enrolled())
    run(store, signed_by(KEY, OTHER), CODE)
    assert f"{fingerprint(KEY)}, {fingerprint(OTHER)}" == store.events[0].detail


def test_key_of_another_user() -> None:
    """Bob's enrolled key proves nothing of Alice."""
    bob = enrolled()._replace(user_key="bob", ssh_keys=(laptop(user="bob"),))
    store = MemoryStore(alice=enrolled()._replace(ssh_keys=(laptop(OTHER),)), bob=bob)
    needs, verdict = run(store, signed_by(KEY), "000000")
    assert (Result.DENIED, ["Commit", *ASKED]) == (verdict.result, needs)
    assert [Reason.SSH_KEY_NOT_ENROLLED, Reason.WRONG_CODE] == reasons(store)


@pytest.mark.parametrize(
    "request_",
    [
        make_request(),
        make_request(ssh_auth_info=PLAIN),
        make_request(ssh_auth_info="publickey garbage"),
        make_request(ssh_auth_info="\udcff" * 100),
        signed_by(KEY, service="sudo"),
        signed_by(KEY, service="login"),
        signed_by(KEY, service="su"),
        signed_by(KEY, service="SSHD"),
        signed_by(KEY, service="sshd-2"),
        signed_by(KEY, service=""),
    ],
    ids=["nothing", "plain", "garbage", "bytes", "sudo", "login", "su", "SSHD", "sshd-2", "none"],
)
def test_everything_else_as_before(request_: Request) -> None:
    """Without a signature that counts, the prompt goes out before anything is looked up."""
    store = has(laptop())
    running = attempt(request_, ROOT, ONE_PROMPT, store, Clock())
    first = type(next(running)).__name__
    assert ("Ask", []) == (first, store.looked_up)
    assert (ASKED, BY_CODE) == run(store, request_, CODE)


@pytest.mark.parametrize("uid", [1000, 65534, -1])
def test_caller_that_is_not_root(uid: int) -> None:
    """A program that is not root's is not believed about signatures: it asks itself for a code."""
    caller = Caller(pid=4321, uid=uid, may_verify=True)
    needs, verdict = run(has(laptop()), signed_by(KEY), "000000", caller=caller)
    assert (ASKED, Reason.WRONG_CODE) == (needs, verdict.reason)


def test_caller_that_may_not_verify() -> None:
    """Who may not verify this user is refused, whatever is said to have been signed."""
    caller = Caller(pid=4321, uid=1001, may_verify=False)
    end = Verdict(Result.DENIED, Reason.CALLER_NOT_ALLOWED)
    assert (["Commit"], end) == run(has(laptop()), signed_by(KEY), caller=caller)


@pytest.mark.parametrize("phase", [Phase.ACCOUNT, Phase.SESSION])
def test_other_phases(phase: Phase) -> None:
    """Only the auth phase verifies; the others have nothing to say yet."""
    assert ([], Verdict(Result.IGNORE)) == run(has(laptop()), signed_by(KEY, phase=phase))


def test_locked_user() -> None:
    """Who is locked is refused with the right key too, is asked, and stays locked."""
    store = has(laptop())
    store.locks["alice"] = LOCKED
    needs, verdict = run(store, signed_by(KEY), CODE)
    assert (["Commit", *ASKED], Verdict(Result.DENIED, Reason.LOCKED)) == (needs, verdict)
    assert [(Reason.LOCKED, FIELD), (Reason.LOCKED, None)] == [
        (event.reason, event.device) for event in store.events
    ]
    assert (LOCKED, {}) == (store.locks["alice"], store.used_steps)


def test_signature_forgives_no_wrong_codes() -> None:
    """Wrong codes stay counted: who has the key alone could else guess codes for sudo for ever."""
    store = has(laptop())
    run(store, make_request(service="sudo", rhost=""), "000000")
    run(store, signed_by(KEY))
    assert 1 == len(store.locks["alice"].failures)


def test_guesses_between_signatures() -> None:
    """Wrong codes lock the user at the same number, with a signed login before each of them."""
    store = has(laptop())
    for _ in range(ONE_PROMPT.lockout.failures):
        assert SIGNED == run(store, signed_by(KEY))[1]
        run(store, make_request(service="sudo", rhost=""), "000000")
    assert Verdict(Result.DENIED, Reason.LOCKED) == run(store, signed_by(KEY), CODE)[1]


@pytest.mark.parametrize("types", [("virtual",), ("fido", "virtual", "token", "recovery")])
def test_policy_without_ssh_keys(types: tuple[str, ...]) -> None:
    """Where policy does not name SSH keys, a signature is not even looked at."""
    store = has(laptop())
    policy = Policy(devices=types, prompts=1)
    assert (ASKED, BY_CODE) == run(store, signed_by(KEY), CODE, policy=policy)
    assert [Reason.CODE_ACCEPTED] == reasons(store)


@pytest.mark.parametrize("types", [DEVICE_TYPES, DEVICE_TYPES[::-1], ("virtual", "ssh-key"),
                                   ("ssh-key",)])  # fmt: skip
def test_order_of_the_types(types: tuple[str, ...]) -> None:
    """What is proven already is not asked for, wherever policy names SSH keys."""
    assert (["Commit"], SIGNED) == run(has(laptop()), signed_by(KEY), policy=Policy(devices=types))


def test_no_other_device() -> None:
    """Whose only device is the key is let in by it alone, and asked in vain without it."""
    alone = MemoryStore(alice=enrolled()._replace(devices=(), ssh_keys=(laptop(),)))
    assert (["Commit"], SIGNED) == run(alone, signed_by(KEY))
    needs, verdict = run(alone, make_request(), CODE)
    assert (ASKED, Reason.NO_ACCEPTABLE_DEVICE) == (needs, verdict.reason)


@pytest.mark.parametrize("unenrolled", Unenrolled)
@pytest.mark.parametrize("mode", Mode)
def test_enrolled_under_every_policy(mode: Mode, unenrolled: Unenrolled) -> None:
    """An enrolled key is a success under every policy."""
    policy = Policy(mode=mode, unenrolled=unenrolled)
    assert (["Commit"], SIGNED) == run(has(laptop()), signed_by(KEY), policy=policy)


@pytest.mark.parametrize(
    ("policy", "needs", "expected"),
    [
        (Policy(prompts=1), ["Commit", *ASKED], Verdict(Result.DENIED, Reason.NOT_ENROLLED)),
        (Policy(unenrolled=Unenrolled.ALLOW), ["Commit"],
         Verdict(Result.IGNORE, Reason.UNENROLLED_ALLOWED)),
        (Policy(unenrolled=Unenrolled.ENROLL), ["Commit"],
         Verdict(Result.IGNORE, Reason.ENROLLMENT_DUE)),
        (Policy(mode=Mode.REPORT_ONLY), ["Commit"], Verdict(Result.IGNORE, Reason.NOT_ENROLLED)),
    ],
    ids=["deny", "allow", "enroll", "report-only"],
)  # fmt: skip
def test_user_without_devices(policy: Policy, needs: list[str], expected: Verdict) -> None:
    """Who has no device ends as without a signature: a key that nobody enrolled is none."""
    store = MemoryStore(alice=NOT_ENROLLED)
    assert (needs, expected) == run(store, signed_by(KEY), "000000", policy=policy)
    assert expected == run(MemoryStore(alice=NOT_ENROLLED), make_request(), "0", policy=policy)[1]


def test_report_only() -> None:
    """In report-only mode another key is recorded, and any answer then lets in."""
    policy = Policy(mode=Mode.REPORT_ONLY, prompts=1)
    store = has(laptop())
    needs, verdict = run(store, signed_by(OTHER), "000000", policy=policy)
    assert (["Commit", *ASKED], Result.IGNORE) == (needs, verdict.result)
    assert [Reason.SSH_KEY_NOT_ENROLLED, Reason.WRONG_CODE] == reasons(store)


def broken(**values: object) -> Enrollment:
    """Return Alice's enrollment where one of her seeds does not open."""
    return enrolled(problem="a seed does not open")._replace(**values)  # type: ignore[arg-type]


def test_unreadable_devices() -> None:
    """Where the devices cannot be read no key counts, and the record says why."""
    store = MemoryStore(alice=UNREADABLE)
    _, verdict = run(store, signed_by(KEY), "000000")
    assert Verdict(Result.DENIED, Reason.DEVICES_UNREADABLE) == verdict
    first = store.events[0]
    expected = (Outcome.ERROR, Reason.DEVICES_UNREADABLE, f"{fingerprint(KEY)}; the file is torn")
    assert expected == (first.outcome, first.reason, first.detail)


def test_other_device_is_broken() -> None:
    """A seed that does not open leaves the key usable, and its problem on the record."""
    store = MemoryStore(alice=broken(ssh_keys=(laptop(),)))
    assert SIGNED == run(store, signed_by(KEY))[1]
    run(store, signed_by(OTHER), "000000")
    details = [event.detail for event in store.events[:2]]
    assert ["a seed does not open", f"{fingerprint(OTHER)}; a seed does not open"] == details
