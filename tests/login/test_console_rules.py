# SPDX-License-Identifier: Apache-2.0
"""Rules on the service and the terminal, by the real login and sudo.

The terminal here is a pts; what holds on the first console, tests/pam/test_rules.py shows.
"""

import os

import pytest
from alice import NAME
from console_login import Console
from installed import DataRoot
from phone import Phone, typed
from private_host import PrivateHost
from service_stack import password_then_code
from verifier_process import EITHER_VERIFIER, Verifier

pytest_plugins = ["alice_fixtures"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of this kind need root")

PASSWORD = ("Password: $", "correct horse")
PROMPTS_SHOWN = ("Password: ", "Verification code: ")


@pytest.fixture
def console(host: PrivateHost, root: DataRoot) -> Console:
    """A console whose login asks for the password, then for a code."""
    return Console(host, login=password_then_code(root))


def set_rule(root: DataRoot, match: str) -> None:
    """Replace the policy by a rule that skips."""
    root.policy.write_text(f"version: 1\nrules: [{{name: r, match: {match}, then: skip}}]\n")


@EITHER_VERIFIER
@pytest.mark.parametrize("match", ["{service: [login]}", f"{{tty: [remote], user: [{NAME}]}}"])
def test_skip(root: DataRoot, console: Console, verifier: Verifier, match: str) -> None:
    """Where a rule skips, the password alone opens the shell, and that is recorded."""
    set_rule(root, match)
    with verifier(root):
        result = console.login(NAME, [PASSWORD])
    assert (result.status, result.last_line, result.prompts) == (0, NAME, PROMPTS_SHOWN[:1])
    assert [record["reason"] for record in root.audit("SkipMfa")] == ["skipped_by_rule"]


@EITHER_VERIFIER
@pytest.mark.parametrize("match", ["{service: [sudo]}", "{tty: [local]}", "{tty: [tty1]}"])
def test_no_skip(root: DataRoot, console: Console, verifier: Verifier, match: str) -> None:
    """A rule for another service, or for a console that this terminal is not, skips nobody."""
    phone = Phone(root, NAME)
    set_rule(root, match)
    with verifier(root):
        result = console.login(NAME, [PASSWORD, *typed(phone.code())])
    assert (result.status, result.last_line, result.prompts) == (0, NAME, PROMPTS_SHOWN)
