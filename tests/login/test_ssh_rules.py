# SPDX-License-Identifier: Apache-2.0
"""Rules on where a login comes from, by the real sshd and client."""

import os
from collections.abc import Iterator

import pytest
from alice import NAME
from installed import DataRoot
from phone import Phone, typed
from private_host import PrivateHost
from service_stack import password_then_code
from ssh_client import ssh_login
from sshd_server import Sshd
from verifier_process import EITHER_VERIFIER, Verifier

pytest_plugins = ["alice_fixtures"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of this kind need root")

PASSWORD = ("Password: $", "correct horse")
HERE = "127.0.0.0/8"
ELSEWHERE = "192.0.2.0/24"
REFUSED = 255


@pytest.fixture
def sshd(host: PrivateHost, root: DataRoot) -> Iterator[Sshd]:
    """An sshd that asks for the password, then for a code."""
    with Sshd(host, password_then_code(root)) as started:
        yield started


def set_rule(root: DataRoot, rule: str) -> None:
    """Replace the policy by one of this rule."""
    root.policy.write_text(f"version: 1\nrules:\n  - {{name: source, {rule}}}\n")


@EITHER_VERIFIER
@pytest.mark.parametrize(
    ("match", "is_denied"),
    [
        (f"from: [{HERE}]", True),
        (f"from: [{ELSEWHERE}]", False),
        (f"not_from: [{ELSEWHERE}]", True),
        (f"not_from: [{HERE}, {ELSEWHERE}]", False),
    ],
)
def test_source(  # noqa: PLR0913, PLR0917 - fixtures
    root: DataRoot, phone: Phone, sshd: Sshd, verifier: Verifier, match: str, is_denied: bool  # noqa: FBT001
) -> None:  # fmt: skip
    """A rule on source networks holds for the client's own address."""
    set_rule(root, f"match: {{{match}}}, then: deny, message: Come by the gate.")
    with verifier(root):
        result = ssh_login(sshd.port, NAME, [PASSWORD, *typed(phone.code())])
    assert (REFUSED if is_denied else 0) == result.status
    assert root.reasons() == ["denied_by_rule" if is_denied else "code_accepted"]
    assert ("Come by the gate." in result.output) == is_denied


@EITHER_VERIFIER
def test_skip_inside(root: DataRoot, sshd: Sshd, verifier: Verifier) -> None:
    """A rule that skips a network leaves the password alone to be asked for."""
    set_rule(root, f"match: {{from: [{HERE}], tty: [remote]}}, then: skip")
    with verifier(root):
        result = ssh_login(sshd.port, NAME, [PASSWORD])
    assert (result.status, result.last_line, len(result.prompts)) == (0, NAME, 1)
    assert [record["rule"] for record in root.audit("SkipMfa")] == ["source"]


@EITHER_VERIFIER
def test_report_only(root: DataRoot, sshd: Sshd, verifier: Verifier) -> None:
    """A rule that only reports lets in whom it would deny, and has it recorded."""
    set_rule(root, f"match: {{from: [{HERE}]}}, then: deny, mode: report-only")
    with verifier(root):
        result = ssh_login(sshd.port, NAME, [PASSWORD])
    assert (result.status, root.reasons()) == (0, ["denied_by_rule"])
    assert [record["mode"] for record in root.audit()] == ["report-only"]
