# SPDX-License-Identifier: Apache-2.0
"""What logins by a key are to the two drivers: frames, a policy, and looks at the key."""

from pathlib import Path
from typing import Any

import pytest
from doubles import NONCE, encode_request, make_request
from key_bench import (
    CODE_PROMPT,
    TOUCH_TEXT,
    Login,
    enroll_by_u2f,
)
from security_key.injected import InjectedKey
from security_key.model import U2F_ONLY

from pam_mfa.policy import Policy
from pam_mfa.verifier import connection as connection_module
from pam_mfa.verifier import conversation, once, server
from pam_mfa.verifier.conversation import Services
from pam_mfa.verifier.packets import Peer
from pam_mfa.verifier.policy_file import PolicyFile
from pam_mfa.wire import Result, Style, build_prompt, build_verdict

SUCCESS, DENIED = (build_verdict(NONCE, result) for result in (Result.SUCCESS, Result.DENIED))
TOUCH_FRAME = build_prompt(NONCE, Style.INFORMATION, TOUCH_TEXT)
CODE_FRAME = build_prompt(NONCE, Style.ECHO_OFF, CODE_PROMPT, is_code=True)


def hush(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep the system log from hearing anything; return what it would be told."""
    lines: list[str] = []
    for place in (connection_module, conversation):
        monkeypatch.setattr(place, "tell_failure", lambda error: lines.append(str(error)))
    for place in (connection_module, once):
        monkeypatch.setattr(place, "tell_fault", lambda error: lines.append(repr(error)))
    monkeypatch.setattr(server, "tell_error", lines.append)
    for place in (server, once):
        monkeypatch.setattr(place, "peer_of", lambda _: Peer(4321, 0))
    return lines


def console_request(**items: object) -> bytes:
    """Return the frame of a login at the console."""
    fields: dict[str, Any] = {"service": "login", "rhost": "", "tty": "tty1"} | items
    return encode_request(make_request(**fields))


class FixedPolicy(PolicyFile):
    """A policy without a file."""

    def __init__(self, login: Login) -> None:
        """Have a login's policy."""
        super().__init__(Path("/nonexistent"), lambda _: None)
        self._login = login

    def current(self) -> Policy:
        """Return the policy."""
        return self._login.policy


def make_services(login: Login) -> Services:
    """Return what a verifier has."""
    return Services(FixedPolicy(login), login.store, login.clock, login.bench.machine)


def is_asked(key: InjectedKey) -> bool:
    """Whether a key waits for somebody to touch it."""
    return bool(key.server.engine.pending)


def is_left(key: InjectedKey) -> bool:
    """Whether a key waits for nobody and nobody has it open."""
    return not key.server.engine.pending and not key.wire.ends


def give_u2f_key(login: Login) -> InjectedKey:
    """Give Alice a key that speaks U2F alone."""
    key = login.bench.make(U2F_ONLY)
    login.enroll(enroll_by_u2f(key))
    login.bench.attach(key)
    return key
