# SPDX-License-Identifier: Apache-2.0
"""Hosts of one fleet whose clocks are 90 s apart: neither makes a used code good, nor ends a lock.

Seconds since the epoch come as an argument, as every verifier gets them.
"""

import os
import subprocess
import time
from collections.abc import Callable

import pytest
from hosts import Hosts
from store_behaviour import SEED, device_of, give

from pam_mfa.audit import Reason
from pam_mfa.oath import encode_seed
from pam_mfa.policy import parse_policy
from pam_mfa.store import ServingStore
from pam_mfa.store.layout import Layout
from pam_mfa.verification import Caller, Commit, Listen, Look, Verdict, attempt
from pam_mfa.wire import Phase, Request

pytest_plugins = ["fleet_fixtures"]
APART = 90.0  # seconds
STEP = 30
FAILURES = 5  # of the policy's defaults


class Host:
    """A host whose clock is wrong by so many seconds."""

    def __init__(self, hosts: Hosts, wrong_by: float) -> None:
        """Make it."""
        policy = hosts.database.policy(more="defaults: {prompts: 1}\n")
        self._layout: Layout = hosts.make(policy=policy)
        self._store: ServingStore = hosts.serving_on(self._layout)
        self._clock: Callable[[], float] = lambda: NOW + wrong_by

    def log_in(self, typed: str) -> Reason | None:
        """Log Alice in with a code; return how it ended."""
        policy = parse_policy(self._layout.policy.read_bytes(), "p")
        request = Request(
            nonce=os.urandom(16), phase=Phase.AUTH, user="alice", service="sshd", tty="ssh",
            uid=1000, timeout=60,
        )  # fmt: skip
        caller = Caller(pid=os.getpid(), uid=0, may_verify=True)
        running = attempt(request, caller, policy, self._store, self._clock)
        reply: object = None
        try:
            while True:
                need = running.send(reply)
                reply = None
                if isinstance(need, Look):
                    reply = need.do()
                elif isinstance(need, Commit):
                    reply = self._store.commit([need.claim])[0]
                elif isinstance(need, Listen):
                    reply = typed
        except StopIteration as end:
            verdict: Verdict = end.value
            return verdict.reason


NOW = time.time() // STEP * STEP + 15  # no test crosses a step


def code_at(moment: float) -> str:
    """Return the phone's code of a moment, made by somebody else's program."""
    words = ["oathtool", "--totp", "--base32", f"--now=@{int(moment)}", encode_seed(SEED)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


@pytest.fixture
def alice(hosts: Hosts) -> None:
    """Give Alice a phone, at an administrator's host."""
    desk = hosts.administration()
    give(desk, device_of(desk))


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize("wrong_by", [APART, -APART])
def test_code_is_good_once_whatever_the_clocks(hosts: Hosts, wrong_by: float) -> None:
    """A used code, and every older one, is refused at the other host, ahead or behind."""
    right, wrong = Host(hosts, 0), Host(hosts, wrong_by)
    assert Reason.CODE_ACCEPTED is right.log_in(code_at(NOW))
    refused = {wrong.log_in(code_at(NOW - STEP * ago)) for ago in range(FAILURES - 1)}
    assert refused <= {Reason.CODE_REUSED, Reason.WRONG_CODE}
    assert Reason.CODE_REUSED is right.log_in(code_at(NOW))


@pytest.mark.usefixtures("alice")
def test_code_of_the_future_is_used_up_everywhere(hosts: Hosts) -> None:
    """What the host that is ahead took is no good at the others, when their time comes to it."""
    ahead, right, later = Host(hosts, APART), Host(hosts, 0), Host(hosts, APART - STEP)
    future = code_at(NOW + APART - STEP)
    assert Reason.CODE_ACCEPTED is ahead.log_in(future)
    assert Reason.CODE_ACCEPTED is not right.log_in(future)
    assert Reason.CODE_REUSED is later.log_in(future)


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize("wrong_by", [APART, -APART])
def test_lock_holds_at_the_other_host(hosts: Hosts, wrong_by: float) -> None:
    """Who guessed at one host is locked at the other, and a right code there does not help."""
    guessed, other = Host(hosts, 0), Host(hosts, wrong_by)
    for _ in range(FAILURES):
        guessed.log_in("000000")
    assert Reason.LOCKED is other.log_in(code_at(NOW + wrong_by))
    assert Reason.LOCKED is guessed.log_in(code_at(NOW))


@pytest.mark.usefixtures("alice")
def test_guesses_of_both_hosts_count_together(hosts: Hosts) -> None:
    """Guesses shared out over two clocks are as many as on one."""
    ahead, behind = Host(hosts, APART), Host(hosts, 0)
    for number in range(FAILURES):
        (ahead if number % 2 else behind).log_in("000000")
    assert Reason.LOCKED is behind.log_in(code_at(NOW))
