# SPDX-License-Identifier: Apache-2.0
"""The real sudo and login in a private host, each on a terminal of its own.

Owns the private sudoers, login.defs and the PAM stacks of the two programs.
"""

import dataclasses
import re
from collections.abc import Sequence

from host_accounts import SHELL_PROMPT
from private_host import PrivateHost
from terminal_session import Answer, LoginResult, TerminalSession

# One attempt, so that a refusal ends the program; no mail to anyone; no lecture to get past.
DEFAULT_SUDOERS = """\
Defaults env_reset, use_pty, passwd_tries=1, lecture=never, !mailerpath
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ALL ALL=(ALL:ALL) ALL
"""
# login.defs(5): how often login asks again.
LOGIN_RETRIES = "LOGIN_RETRIES"


class Console:
    """A console of a private host, where a person logs in and uses sudo."""

    def __init__(
        self,
        host: PrivateHost,
        *,
        sudo: str | None = None,
        login: str | None = None,
        sudoers: str = DEFAULT_SUDOERS,
    ) -> None:
        """Write the PAM stacks that are given, sudoers, and login's settings."""
        self._host = host
        for service, pam in (("sudo", sudo), ("login", login)):
            if pam is not None:
                host.write_pam_service(service, pam)
        (host.etc / "sudoers").write_text(sudoers)
        (host.etc / "sudoers").chmod(0o440)
        _set_login_retries(host)

    def sudo(
        self,
        user: str,
        answers: Sequence[Answer] = (),
        *,
        args: Sequence[str] = ("-k",),
        command: Sequence[str] = ("id", "-un"),
    ) -> LoginResult:
        """Run `command` by sudo as `user`; by default a remembered password does not count."""
        return self._run(["runuser", "-u", user, "--", "sudo", *args, *command], answers)

    def sudo_n(self, user: str, *, command: Sequence[str] = ("id", "-un")) -> LoginResult:
        """Run `command` by sudo -n, which must not ask anything."""
        return self.sudo(user, args=("-k", "-n"), command=command)

    def login(
        self, user: str, answers: Sequence[Answer] = (), *, command: str = "id -un"
    ) -> LoginResult:
        """Log in as `user` and run `command` in place of the shell that then prompts.

        Its status is 0 for some refusals as well: look at the last line. The shell's prompt is
        not among the prompts.
        """
        shell = (re.escape(SHELL_PROMPT), f"exec {command}")
        result = self._run(["login", user], [*answers, shell])
        asked = tuple(prompt for prompt in result.prompts if prompt != SHELL_PROMPT)
        return dataclasses.replace(result, prompts=asked)

    def _run(self, argv: Sequence[str], answers: Sequence[Answer]) -> LoginResult:
        """Run a program of the host on a terminal."""
        session = TerminalSession(self._host.terminal_command(argv), self._host.environment)
        session.converse(answers)
        return session.result()


def _set_login_retries(host: PrivateHost) -> None:
    """Allow one attempt, so that a refusal ends login."""
    path = host.etc / "login.defs"
    kept = [line for line in path.read_text().splitlines() if not line.startswith(LOGIN_RETRIES)]
    path.write_text("\n".join([*kept, f"{LOGIN_RETRIES} 1", ""]))
