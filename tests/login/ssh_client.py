# SPDX-License-Identifier: Apache-2.0
"""The real OpenSSH client, kept apart from the keys, agent and settings of whoever runs the tests.

It connects from the machine itself to a server on loopback and types at a terminal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from private_host import BASE_ENVIRONMENT
from terminal_session import Answer, LoginResult, TerminalSession

# ssh takes the first value that it sees, so a test's options come before these.
ISOLATION = (
    "ConnectTimeout=30",
    "GlobalKnownHostsFile=/dev/null",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "NumberOfPasswordPrompts=1",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
)


@dataclass(frozen=True)
class SshClient:
    """A person at an ssh client: the server's port, options as for -o, and perhaps a key."""

    port: int
    options: tuple[str, ...] = ()
    key: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def login(
        self, user: str, answers: Sequence[Answer] = (), *, command: str = "id -un"
    ) -> LoginResult:
        """Log in as `user`, answer the prompts, and run `command` there.

        The status is the command's, or ssh's own 255 when the login is refused.
        """
        identity = f"IdentityFile={self.key or 'none'}"
        settings = [f"-o{option}" for option in (*self.options, identity, *ISOLATION)]
        argv = ["ssh", "-F", "/dev/null", *settings, "-p", str(self.port), "-l", user]
        environment = BASE_ENVIRONMENT | {"HOME": "/nonexistent"} | dict(self.environment)
        session = TerminalSession([*argv, "127.0.0.1", command], environment)
        session.converse(answers)
        return session.result()


def ssh_login(
    port: int, user: str, answers: Sequence[Answer] = (), *, command: str = "id -un"
) -> LoginResult:
    """Log in with no key and no further options: SshClient for the common case."""
    return SshClient(port).login(user, answers, command=command)
