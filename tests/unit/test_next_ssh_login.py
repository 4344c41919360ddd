# SPDX-License-Identifier: Apache-2.0
"""What is said of the next login of users with SSH keys, beside what the verifier then does."""

import datetime
import itertools
from pathlib import Path
from typing import NamedTuple

import pytest
from agent_bench import MACHINE, FakeAgent, FakeKey
from doubles import SEED, STEP, Clock, code_of, make_layout, make_request
from key_bench import carry
from test_next_login import (
    ASKS,
    BOTH,
    KEY,
    NOW,
    PHONE,
    RIGHT,
    TOUCH,
    alice,
    drive,
    foresee,
    paper,
    service,
)

from pam_mfa.audit import Reason
from pam_mfa.devices import SshKeyDevice
from pam_mfa.lifecycle import Actor, DeviceStatus, Lifecycle
from pam_mfa.lockout import LockState
from pam_mfa.login_words import Outcome
from pam_mfa.next_login import Situation, foresee_logins
from pam_mfa.policy import Agent, AgentKeys, Mode, Policy
from pam_mfa.ssh_keys import ED25519, SshKey, format_key, parse_any_key
from pam_mfa.store import Change, Claim, Standing
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.verification import PROMPT, Caller, attempt
from pam_mfa.wire import Result

SSH_KEY = SshKey(ED25519, bytes(32), "ssh:")
LAPTOP = DeviceStatus(SshKeyDevice("ssh-key/alice/l", "laptop", NOW, SSH_KEY), None, 0, None)
BEHIND_AGENT = "asks for a touch of a security key behind their ssh-agent (laptop)"
WHATEVER = "whatever comes lets in (report-only: nobody is refused)"
SIGNED = (
    "where the login is signed by an enrolled SSH key (laptop), if sshd asks for keys before PAM"
)


@pytest.mark.parametrize(
    ("devices", "name", "outcome", "text"),
    [
        ((LAPTOP, PHONE), "sshd", Outcome.CODE, f"{ASKS}; no code {SIGNED}"),
        ((LAPTOP,), "sshd", Outcome.SSH_KEY, f"lets in {SIGNED}"),
        ((LAPTOP, paper(0)), "sshd", Outcome.SSH_KEY, f"lets in {SIGNED}"),
        ((LAPTOP, KEY), "sshd", Outcome.SSH_KEY, f"lets in {SIGNED}"),
        ((LAPTOP, KEY), "sudo", Outcome.TOUCH, f"{BEHIND_AGENT}, or at this machine (k)"),
        ((LAPTOP, PHONE), "sudo", Outcome.CODE,
         f"{BEHIND_AGENT}, or {ASKS.removeprefix('asks for ')}"),
        ((LAPTOP,), "sudo", Outcome.SSH_KEY, BEHIND_AGENT),
        ((LAPTOP,), "su", Outcome.SSH_KEY, BEHIND_AGENT),
        ((LAPTOP, KEY), "login", Outcome.TOUCH, f"asks for {TOUCH}"),
        ((LAPTOP, PHONE), "login", Outcome.CODE, ASKS),
        ((LAPTOP,), "login", Outcome.REFUSED,
         "refused: no MFA device that counts at this service"),
        ((LAPTOP,), "sshd-2", Outcome.REFUSED,
         "refused: no MFA device that counts at this service"),
    ],
)  # fmt: skip
def test_ssh_key(devices: tuple[DeviceStatus, ...], name: str, outcome: Outcome, text: str) -> None:
    """An SSH key spares the code at sshd, and by an agent at sudo and su, and nowhere else."""
    login = foresee(service("pam_mfa.so", name=name), alice(Standing.ENROLLED, *devices))
    assert (outcome, text) == (login.outcome, login.text)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(devices=("virtual", "token")), ASKS),
        (Policy(mode=Mode.REPORT_ONLY), f"{ASKS}; no code {SIGNED}; {WHATEVER}"),
    ],
    ids=["without ssh-key", "report-only"],
)  # fmt: skip
def test_ssh_key_and_policy(policy: Policy, expected: str) -> None:
    """What is said of an SSH key follows the policy."""
    assert expected == foresee(BOTH, alice(Standing.ENROLLED, LAPTOP, PHONE), policy).text


def test_key_in_a_file() -> None:
    """A key in a file is foretold at sudo where policy says any, and nowhere else."""
    text = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    device = SshKeyDevice("ssh-key/alice/f", "file", NOW, parse_any_key(text))
    status = alice(Standing.ENROLLED, DeviceStatus(device, None, 0, None))
    any_key = Policy(agent=Agent(keys=AgentKeys.ANY))
    sudo, sshd = service("pam_mfa.so", name="sudo"), service("pam_mfa.so", name="sshd")
    said = foresee(sudo, status, any_key)
    asked = "asks for a signature by a key in their ssh-agent (file)"
    assert (Outcome.SSH_KEY, asked) == (said.outcome, said.text)
    ends = [foresee(sudo, status).outcome, foresee(sshd, status, any_key).outcome]
    assert [Outcome.REFUSED] * 2 == ends


def test_ssh_key_and_forwarded_password() -> None:
    """Where the code is typed behind the password, an SSH key spares nothing."""
    where = service("auth required pam_mfa.so forward_pass", name="sudo")
    ends = [foresee(where, alice(Standing.ENROLLED, *devices)) for devices in
            ((LAPTOP, PHONE), (LAPTOP,))]  # fmt: skip
    assert [ASKS, Outcome.REFUSED] == [ends[0].text, ends[1].outcome]
    where = service("auth required pam_mfa.so forward_pass")
    ends = [foresee(where, alice(Standing.ENROLLED, *devices)) for devices in
            ((LAPTOP, PHONE), (LAPTOP,))]  # fmt: skip
    assert [ASKS, Outcome.REFUSED] == [ends[0].text, ends[1].outcome]


def test_ssh_key_of_a_locked_user() -> None:
    """Who is locked is refused, whatever has signed."""
    until = datetime.datetime(2026, 1, 2, 12, 40, tzinfo=datetime.UTC)
    status = alice(Standing.ENROLLED, LAPTOP, locked_until=until)
    assert (Outcome.REFUSED, Reason.LOCKED) == foresee(BOTH, status)[1:3]


def test_line_that_does_not_bind_an_ssh_key() -> None:
    """Where PAM would not heed the module, that is said beside the key, too."""
    where = service("auth optional pam_mfa.so")
    assert "PAM lets in all the same" in foresee(where, alice(Standing.ENROLLED, LAPTOP)).text


class SshCase(NamedTuple):
    """A user with an SSH key under a policy, at a service."""

    mode: Mode
    types: tuple[str, ...]
    has_phone: bool
    is_locked: bool
    service: str


SSH_CASES = [
    SshCase(*values)
    for values in itertools.product(
        Mode, (("ssh-key", "virtual"), ("virtual",)), (True, False), (True, False),
        ("sshd", "sudo"),
    )
]  # fmt: skip


@pytest.mark.parametrize("case", SSH_CASES, ids=lambda case: " ".join(map(str, case)))
def test_what_is_said_of_an_ssh_key_comes_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: SshCase
) -> None:
    """Logins with and without a signature end as it is said that the next login will."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    store = EmbeddedStore(make_layout(tmp_path))
    lifecycle = Lifecycle(store, Clock(), Actor(0, 1, None))
    lifecycle.enable_ssh_key("alice", format_key(SSH_KEY), "laptop")
    if case.has_phone:
        pending = lifecycle.begin_virtual("alice", seed=SEED)
        lifecycle.enable(pending, code_of(SEED, STEP - 2), code_of(SEED, STEP - 1))
    if case.is_locked:
        failed = LockState((), Clock()() + 60)
        change = Change(accepted=False, events=(), lock=failed)
        store.commit([Claim("alice", (), lambda _: change)])
    policy = Policy(case.mode, case.types, prompts=1)

    def log_in(text: str, answer: str) -> tuple[list[str], Result]:
        request = make_request(service=case.service, ssh_auth_info=text)
        caller = Caller(1, 0, may_verify=True)
        return drive(attempt(request, caller, policy, store, Clock()), store, answer)

    (status,) = lifecycle.user_statuses(["alice"])
    situation = Situation(policy, "/", NOW)
    where = service("pam_mfa.so", name=case.service)
    (said,) = foresee_logins([where], status, situation, has_account=True)
    signed = log_in(f"publickey {format_key(SSH_KEY)}\n", "999999")
    unsigned = [log_in("", answer)[1] for answer in ("999999", RIGHT)]
    store.close()
    wrong = Result.DENIED if case.mode is Mode.ENFORCE else Result.IGNORE
    spares = "signed by an enrolled SSH key" in said.text
    right = Result.SUCCESS if said.outcome is Outcome.CODE else wrong
    assert (([], Result.SUCCESS) if spares else ([PROMPT], wrong), [wrong, right]) == (
        signed, unsigned,
    )  # fmt: skip


@pytest.mark.parametrize("case", SSH_CASES, ids=lambda case: " ".join(map(str, case)))
def test_what_is_said_of_an_agent_comes_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: SshCase
) -> None:
    """A touch behind the ssh-agent is enough where it is said to be, and nowhere else."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    store, key = EmbeddedStore(make_layout(tmp_path)), FakeKey()
    lifecycle = Lifecycle(store, Clock(), Actor(0, 1, None))
    lifecycle.enable_ssh_key("alice", format_key(key.key), "laptop")
    if case.has_phone:
        pending = lifecycle.begin_virtual("alice", seed=SEED)
        lifecycle.enable(pending, code_of(SEED, STEP - 2), code_of(SEED, STEP - 1))
    if case.is_locked:
        change = Change(accepted=False, events=(), lock=LockState((), Clock()() + 60))
        store.commit([Claim("alice", (), lambda _: change)])
    policy = Policy(case.mode, case.types, prompts=1)
    (status,) = lifecycle.user_statuses(["alice"])
    where = service("pam_mfa.so", name=case.service)
    (said,) = foresee_logins([where], status, Situation(policy, "/", NOW), has_account=True)
    caller = Caller(1, 0, may_verify=True, agent=FakeAgent(key).open)
    running = attempt(
        make_request(service=case.service, rhost=""), caller, policy, store, Clock(), MACHINE
    )
    shown = carry(running, store, iter(["999999"]))
    store.close()
    wrong = Result.DENIED if case.mode is Mode.ENFORCE else Result.IGNORE
    is_enough = "behind their ssh-agent" in said.text
    expected = ([], Result.SUCCESS) if is_enough else ([PROMPT], wrong)
    assert expected == (shown.prompts, shown.verdict.result)
