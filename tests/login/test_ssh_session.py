# SPDX-License-Identifier: Apache-2.0
"""Logins by a public key alone, which reach no auth phase: the session's rule, by real sshd."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from alice import NAME
from console_login import DEFAULT_SUDOERS, Console
from installed import DataRoot
from person_session import counts_sessions, let_time_pass
from phone import Phone, typed
from private_host import BASE_ENVIRONMENT, PATIENCE_SECONDS, PrivateHost
from service_stack import code_alone, password_then_code, shipped, shipped_sshd_config
from sk_keys import PROVIDER, make_plain_key, make_sk_key, public_half
from ssh_client import ISOLATION, SshClient, ssh_login
from sshd_server import Sshd
from terminal_session import Answer
from verifier_process import EITHER_VERIFIER, Verifier

pytest_plugins = ["alice_fixtures"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of this kind need root")

PASSWORD: Answer = ("Password: $", "correct horse")
REFUSED = 254  # sshd closes the connection when a session may not begin
SENTENCE = "Refused: this login needs an MFA device, and none was used for it."
KEY_RULE = "match: {service: [sshd], phase: [session]}, require: [ssh-key]"
SHOWN = {
    "shell": SENTENCE,
    "sftp": f"Received message too long {int.from_bytes(SENTENCE[:4].encode(), 'big')}",
    "tunnel": "remote port forwarding failed",
}
WAYS = tuple(SHOWN)


@pytest.fixture
def sshd(host: PrivateHost, root: DataRoot) -> Iterator[Sshd]:
    """An sshd that takes a key and nothing else, with the shipped file of PAM."""
    config = [
        *shipped_sshd_config("key-alone.conf"),
        "Subsystem sftp internal-sftp",
    ]
    with Sshd(host, shipped("sshd-key-alone", root), config=config, service="sshd") as started:
        yield started


@pytest.fixture
def laptop(root: DataRoot, sshd: Sshd, tmp_path: Path) -> Path:
    """Alice's key on her security key, enrolled."""
    key = make_sk_key(tmp_path / "laptop")
    path = str(public_half(key))
    root.command("enable", "ssh-key", NAME, "--public-key", path, "--name", "laptop", "--vouch")
    sshd.authorize(NAME, key)
    return key


@pytest.fixture
def plain(sshd: Sshd, tmp_path: Path) -> Path:
    """A key of Alice's that lives in a file."""
    key = make_plain_key(tmp_path / "plain")
    sshd.authorize(NAME, key)
    return key


def set_rule(root: DataRoot, *rules: str) -> None:
    """Replace the policy by one of these rules."""
    lines = [f"  - {{name: rule {number}, {rule}}}" for number, rule in enumerate(rules)]
    root.policy.write_text("\n".join(["version: 1", "rules:", *lines, ""]))


def come(sshd: Sshd, key: Path, way: str = "shell") -> "Coming":
    """Come as Alice by a key: for a command, for files, or for a tunnel alone."""
    options = [f"-o{option}" for option in (f"SecurityKeyProvider={PROVIDER}", *ISOLATION)]
    given = ["-F", "/dev/null", *options, "-oBatchMode=yes", "-i", str(key)]
    target = f"{NAME}@127.0.0.1"
    programs = {
        "shell": ["ssh", *given, "-p", str(sshd.port), target, "id -un"],
        "sftp": ["sftp", *given, "-P", str(sshd.port), "-b", "-", target],
        # It ends by itself where the server lets no tunnel stand.
        "tunnel": [
            "ssh", *given, "-p", str(sshd.port), "-N", "-oExitOnForwardFailure=yes",
            "-R", "0:127.0.0.1:1", target,
        ],
    }  # fmt: skip
    started = subprocess.Popen(
        programs[way],
        env=BASE_ENVIRONMENT | {"HOME": "/nonexistent"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    with started:
        if way == "tunnel" and started.stdout is not None:
            for line in started.stdout:
                said += line
                if "Allocated port" in line:
                    started.terminate()
        said += started.communicate("pwd\n" if way == "sftp" else None, PATIENCE_SECONDS)[0]
    return Coming(started.returncode, said)


class Coming(NamedTuple):
    """What became of somebody who came."""

    status: int
    output: str

    @property
    def is_in(self) -> bool:
        """Whether a command ran, files are served, or a tunnel stands."""
        words = (f"\n{NAME}\n", "Remote working directory", "Allocated port")
        return any(word in self.output for word in words) and self.status != REFUSED


@EITHER_VERIFIER
@pytest.mark.parametrize("way", WAYS)
def test_plain_key(root: DataRoot, sshd: Sshd, plain: Path, verifier: Verifier, way: str) -> None:
    """A key that lives in a file lets nobody in, for no purpose; in a shell one reads why."""
    set_rule(root, KEY_RULE)
    with verifier(root):
        done = come(sshd, plain, way)
    assert not done.is_in, done
    # sshd has nothing else to show it on: in sftp it stands among the files' own messages, which
    # sftp takes for a length, and a tunnel alone has no place for words.
    assert SHOWN[way] in done.output
    (record,) = root.audit()
    expected = ("not_enrolled", "session", "rule 0", "denied")
    assert expected == tuple(record[key] for key in ("reason", "phase", "rule", "outcome"))


@EITHER_VERIFIER
@pytest.mark.parametrize("way", WAYS)
def test_enrolled_key(
    root: DataRoot, sshd: Sshd, laptop: Path, verifier: Verifier, way: str
) -> None:
    """An enrolled key of a security key lets in, for each purpose, without a question."""
    set_rule(root, KEY_RULE)
    with verifier(root):
        done = come(sshd, laptop, way)
    assert done.is_in, done
    (record,) = root.audit()
    assert (record["reason"], record["phase"]) == ("ssh_key_accepted", "session")


def test_plain_key_of_somebody_enrolled(
    root: DataRoot, sshd: Sshd, laptop: Path, plain: Path
) -> None:
    """Who has an enrolled key and comes by another one is refused."""
    del laptop
    set_rule(root, KEY_RULE)
    assert not come(sshd, plain).is_in
    assert root.reasons() == ["not_verified"]


def test_deactivated_key(root: DataRoot, sshd: Sshd, laptop: Path) -> None:
    """A key that was taken away lets nobody in any more."""
    set_rule(root, KEY_RULE)
    assert come(sshd, laptop).is_in
    root.command("deactivate", NAME, f"ssh-key/{NAME}/laptop", "--leave-none")
    done = come(sshd, laptop)
    assert (done.is_in, SENTENCE in done.output) == (False, True)
    assert root.reasons()[1:] == ["ssh_key_not_enrolled", "not_enrolled"]


@pytest.mark.parametrize(("network", "expected"), [("127.0.0.0/8", True), ("192.0.2.0/24", False)])
def test_source(root: DataRoot, sshd: Sshd, plain: Path, *, network: str, expected: bool) -> None:
    """An earlier rule on the source decides in the session phase, too."""
    set_rule(root, f"match: {{service: [sshd], from: [{network}]}}, then: skip", KEY_RULE)
    assert expected == come(sshd, plain).is_in


def test_report_only(root: DataRoot, sshd: Sshd, plain: Path) -> None:
    """Report-only records the refusal, and lets in without a word."""
    set_rule(root, f"{KEY_RULE}, mode: report-only")
    done = come(sshd, plain)
    assert (done.is_in, SENTENCE in done.output) == (True, False)
    assert [one["outcome"] for one in root.audit()] == ["denied"]


def test_planted_variable(host: PrivateHost, root: DataRoot, laptop: Path, plain: Path) -> None:
    """What a user writes into a file of pam_env's does not reach a line that stands before it."""
    set_rule(root, KEY_RULE)
    key = public_half(laptop).read_text().rpartition(" ")[0]
    (host.home(NAME) / ".pam_environment").write_text(f'SSH_AUTH_INFO_0="publickey {key}"\n')
    stack = shipped("sshd-key-alone", root).replace("user_readenv=0", "user_readenv=1")
    config = shipped_sshd_config("key-alone.conf")
    with Sshd(host, stack, config=config, service="sshd") as sshd:
        sshd.authorize(NAME, plain)
        assert not come(sshd, plain).is_in
    assert root.reasons() == ["not_verified"]


@EITHER_VERIFIER
def test_no_second_question(root: DataRoot, host: PrivateHost, verifier: Verifier) -> None:
    """What the auth phase has verified, the account and session phases see: one code, one login."""
    phone = Phone(root, NAME)
    rule = "match: {service: [sshd], phase: [auth, account, session]}, require: [virtual]"
    set_rule(root, rule)
    with Sshd(host, password_then_code(root), service="sshd") as sshd, verifier(root):
        result = ssh_login(sshd.port, NAME, [PASSWORD, *typed(phone.code())])
    assert (result.status, len(result.prompts)) == (0, 2)
    assert root.reasons() == ["code_accepted", "verified_earlier", "verified_earlier"]
    assert [one["phase"] for one in root.audit()] == ["auth", "account", "session"]


def test_next_login_is_another(root: DataRoot, host: PrivateHost) -> None:
    """What one login has verified answers for no other login, not even right behind it."""
    phone = Phone(root, NAME)
    set_rule(root, "match: {phase: [auth, session]}, require: [virtual]")
    with Sshd(host, password_then_code(root), service="sshd") as sshd:
        for step in (0, 1):
            result = ssh_login(sshd.port, NAME, [PASSWORD, *typed(phone.code(step))])
            assert (result.status, len(result.prompts)) == (0, 2)
    assert root.reasons() == ["code_accepted", "verified_earlier"] * 2


@pytest.mark.parametrize("scope", ["host", "session"])
def test_age_by_address(root: DataRoot, host: PrivateHost, scope: str) -> None:
    """By scope host a second login from the same address is not asked; by session each one is."""
    phone = Phone(root, NAME)
    set_rule(root, f"match: {{service: [sshd]}}, require: [virtual], mfa_age: 15m, scope: {scope}")
    code = [] if scope == "host" else typed(phone.code(1))

    with Sshd(host, password_then_code(root), service="sshd") as server:
        first = ssh_login(server.port, NAME, [PASSWORD, *typed(phone.code())])
        second = ssh_login(server.port, NAME, [PASSWORD, *code])
    assert (first.status, second.status, len(first.prompts)) == (0, 0, 2)
    assert len(second.prompts) == (1 if scope == "host" else 2)


def test_age_past(root: DataRoot, host: PrivateHost) -> None:
    """Past its age a verification from the same address counts for nothing."""
    phone = Phone(root, NAME)
    set_rule(root, "match: {service: [sshd]}, require: [virtual], mfa_age: 15m, scope: host")
    with Sshd(host, password_then_code(root), service="sshd") as sshd:
        ssh_login(sshd.port, NAME, [PASSWORD, *typed(phone.code())])
        let_time_pass(root, 900)
        result = SshClient(sshd.port).login(NAME, [PASSWORD, *typed(phone.code(1))])
    assert (result.status, len(result.prompts)) == (0, 2)


def test_sudo_in_the_session(root: DataRoot, host: PrivateHost) -> None:
    """What the SSH login verified counts for sudo in its session, where the kernel counts those."""
    phone = Phone(root, NAME)
    set_rule(root, "match: {}, require: [virtual], mfa_age: 15m")
    sudoers = f"Defaults noninteractive_auth\n{DEFAULT_SUDOERS}"
    Console(host, sudo=code_alone(root), sudoers=sudoers)
    is_counted = counts_sessions()
    with Sshd(host, shipped("sshd", root), service="sshd") as sshd:
        answers = [PASSWORD, *typed(phone.code())]
        result = ssh_login(sshd.port, NAME, answers, command="sudo -n id -un")
    assert (result.last_line == "root") == is_counted, result
    expected = "mfa_age_fresh" if is_counted else "no_conversation"
    assert root.reasons()[-1] == expected
