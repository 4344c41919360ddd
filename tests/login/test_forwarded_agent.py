# SPDX-License-Identifier: Apache-2.0
"""Sudo on a server, approved on the laptop: real ssh -A, sshd, sudo, ssh-agent, shipped files."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from agents import SshAgent, running_agent
from alice import NAME
from console_login import DEFAULT_SUDOERS, Console
from installed import DataRoot
from phone import PROMPTS, Phone, typed
from private_host import HOST_NAME, PrivateHost
from service_stack import code_alone
from sk_keys import make_sk_key, public_half
from ssh_client import SshClient
from sshd_server import Sshd, make_key
from terminal_session import LoginResult
from verifier_process import EITHER_VERIFIER, Verifier, set_policy

pytest_plugins = ["alice_fixtures"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of this kind need root")

OPEN = (
    "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
)
TOUCH = "Touch the security key on your own computer to approve sudo on"
NO_KEY = "Your ssh-agent has no keys"
ABSENT = "Your ssh-agent has none of your enrolled SSH keys."
SUDO = "sudo -k id -un"


class Laptop(NamedTuple):
    """Alice's laptop: her agent with her security key, and her way to the server."""

    sshd: Sshd
    agent: SshAgent
    login_key: Path
    key: Path

    def run(self, command: str, *codes: str, options: tuple[str, ...] = ()) -> LoginResult:
        """Run a command on the server, on a terminal there."""
        agent = f"IdentityAgent={self.agent.socket}"
        forwarding = (agent, "ForwardAgent=yes", "LogLevel=ERROR")
        client = SshClient(
            self.sshd.port, (*options, *forwarding, "RequestTTY=force"), self.login_key
        )
        return client.login(NAME, typed(*codes), command=command)


@pytest.fixture
def console(host: PrivateHost, root: DataRoot) -> Console:
    """The server's sudo, which asks for nothing but what the module asks for."""
    return Console(host, sudo=code_alone(root))


@pytest.fixture
def laptop(host: PrivateHost, root: DataRoot, console: Console, tmp_path: Path) -> Iterator[Laptop]:
    """A laptop with Alice's enrolled security key, from which she can come to the server."""
    del console
    key = make_sk_key(tmp_path / "laptop")
    login_key = make_key(tmp_path / "login")
    root.command(
        "enable",
        "ssh-key",
        NAME,
        "--public-key",
        str(public_half(key)),
        "--name",
        "laptop",
        "--vouch",
    )
    with Sshd(host, OPEN) as sshd, running_agent(0) as agent:
        agent.add(key)
        sshd.authorize(NAME, login_key)
        yield Laptop(sshd, agent, login_key, key)


@EITHER_VERIFIER
def test_sudo_by_forwarded_agent(root: DataRoot, laptop: Laptop, verifier: Verifier) -> None:
    """One touch on the laptop approves sudo on the server: no prompt, and told what it is for."""
    with verifier(root):
        result = laptop.run(SUDO)
    assert (result.status, result.last_line, result.prompts) == (0, "root", ())
    assert TOUCH in result.output
    (record,) = root.audit()
    expected = {
        "outcome": "success", "reason": "agent_signature_accepted", "user": NAME,
        "service": "sudo", "phase": "auth", "ruser": NAME, "caller_uid": 0,
    }  # fmt: skip
    assert {name: record.get(name) for name in expected} == expected


def test_touch_names_the_server(laptop: Laptop) -> None:
    """CVE-2021-36368: the person reads on which host it is that sudo wants the touch."""
    shown = laptop.run(SUDO).output
    assert f"{TOUCH} {HOST_NAME} (laptop)." in shown


def test_env_keep_is_not_needed(host: PrivateHost, root: DataRoot, laptop: Laptop) -> None:
    """Without env_keep the touch approves, and what runs as root has no way to the agent."""
    set_policy(root, "sign_count: refuse", "sign_count: warn")  # this key counts nothing
    result = laptop.run("sudo -k printenv SSH_AUTH_SOCK")
    assert (result.status, TOUCH in result.output) == (1, True)
    (host.etc / "sudoers").write_text(
        f'{DEFAULT_SUDOERS}\nDefaults env_keep += "SSH_AUTH_SOCK"\n', "utf-8"
    )
    assert "/agent." in laptop.run("sudo -K; sudo printenv SSH_AUTH_SOCK").output


def test_locked_agent(root: DataRoot, phone: Phone, laptop: Laptop) -> None:
    """An agent that its owner has locked is told so, and a code is asked for."""
    laptop.agent.lock()
    result = laptop.run(SUDO, phone.code())
    assert (result.status, result.last_line) == (0, "root")
    assert NO_KEY in result.output
    assert root.reasons() == ["agent_key_absent", "code_accepted"]


def test_without_forwarding(root: DataRoot, phone: Phone, laptop: Laptop) -> None:
    """Who has not forwarded an agent is asked for a code, and told nothing of agents."""
    result = laptop.run(SUDO, phone.code(), options=("ForwardAgent=no",))
    assert (result.status, result.last_line) == (0, "root")
    assert "agent" not in result.output
    assert root.reasons() == ["code_accepted"]


def test_user_may_put_anything_into_the_variable(
    root: DataRoot, phone: Phone, laptop: Laptop
) -> None:
    """A user who sets SSH_AUTH_SOCK to a file of root's learns nothing and is asked for a code."""
    command = "SSH_AUTH_SOCK=/etc/shadow sudo -k id -un"
    result = laptop.run(command, phone.code())
    assert (result.status, result.last_line) == (0, "root")
    assert "agent" not in result.output
    assert root.reasons() == ["code_accepted"]


def test_refused_without_any_proof(root: DataRoot, phone: Phone, laptop: Laptop) -> None:
    """A locked agent and wrong codes get nobody in."""
    laptop.agent.lock()
    result = laptop.run(SUDO, *[phone.wrong_code()] * PROMPTS)
    assert result.status == 1
    assert root.reasons() == ["agent_key_absent", *["wrong_code"] * PROMPTS]


def test_key_bound_to_the_login(
    host: PrivateHost, root: DataRoot, phone: Phone, laptop: Laptop
) -> None:
    """A key that ssh-add -h lets log in here alone is not asked in vain: a code does instead."""
    known = laptop.agent.place / "known_hosts"
    host_key = (host.root / laptop.sshd.service / "host_key.pub").read_text()
    known.write_text(f"server {host_key}", "ascii")
    with running_agent(0) as bound:
        bound.add(laptop.key, "-h", "server", "-H", str(known))
        result = laptop._replace(agent=bound).run(SUDO, phone.code())
    assert (result.status, result.last_line) == (0, "root")
    assert root.reasons()[-1] == "code_accepted"
    assert root.reasons()[0] in {"agent_key_absent", "agent_refused"}
