# SPDX-License-Identifier: Apache-2.0
"""Users with a security key at the guest's terminals, and what became of their logins."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from vm.console import Console
from vm.product import PREFIX, Product
from vm.root_tree import PASSWORDS
from vm.software_key import SoftwareKey
from vm.terminal import Terminal

CUE = r"Touch your security key \(blue-key\)\."
ATTACH_PROMPT = r"Verification code, or attach your security key and press Enter: $"
CODE_PROMPT = r"Verification code: $"
SHELL = r"\$ $"
_POLICY = "/etc/pam_mfa/policy.yaml"


class KeyOwner:
    """Who has a key, at a machine whose product knows it."""

    def __init__(self, product: Product, key: SoftwareKey) -> None:
        """Begin now: earlier records and messages are not theirs."""
        self.product = product
        self.key = key
        self._before = len(product.audit())
        self._began = product.guest.output("date +%s.%6N")
        self._has_own_policy = False

    def close(self) -> None:
        """Leave the shipped policy behind, and no login that is still ending."""
        self.product.guest.run("while pgrep -x 'sudo|pamtester' >/dev/null; do sleep 0.05; done")
        if self._has_own_policy:
            self.product.guest.run(["cp", f"{PREFIX}/share/policy.yaml", _POLICY])

    @contextlib.contextmanager
    def sudo(self, *settings: str) -> Iterator[Terminal]:
        """Run `id -un` by sudo on a terminal, as alice, who has set this; the password is typed."""
        command = ["runuser", "-u", "alice", "--", "env", *settings, "sudo", "-k", "id", "-un"]
        with Terminal(self.product.guest, command) as terminal:
            terminal.expect(r"assword.*: $")
            terminal.send(f"{PASSWORDS['alice']}\n")
            yield terminal

    def begin_login(self, console: Console, user: str) -> None:
        """Type a name and a password at tty1."""
        console.send(f"{user}\n")
        console.expect(r"Password: $")
        console.send(f"{PASSWORDS[user]}\n")

    def set_policy(self, fido: str) -> None:
        """Put the part on security keys, in YAML, in the place of the shipped policy's."""
        self._has_own_policy = True
        line = json.dumps(f"fido: {fido}")
        self.product.guest.run(f"sed -i '/^fido:/,$d' {_POLICY}; echo {line} >>{_POLICY}")

    def records(self) -> list[dict[str, Any]]:
        """Return the records of verifications since the beginning, oldest first."""
        return self.product.audit()[self._before :]

    def messages(self) -> str:
        """Return what verifiers have told the system log since the beginning."""
        about = ("--identifier=pam-mfad", "--output=cat", f"--since=@{self._began}")
        return self.product.guest.output(["journalctl", *about])

    def kernel_messages(self) -> str:
        """Return what the kernel has said since the beginning."""
        about = ("--dmesg", "--output=cat", f"--since=@{self._began}")
        return self.product.guest.output(["journalctl", *about])

    def may_open(self, node: str, *users: str) -> list[bool]:
        """Return which of these users may open a node for writing."""
        tried = [
            self.product.guest.run(["runuser", "-u", user, "--", "test", "-w", node], check=False)
            for user in users
        ]
        return [done.returncode == 0 for done in tried]

    @contextlib.contextmanager
    def held_open(self, node: str) -> Iterator[None]:
        """Keep a node open, so that the kernel gives its name to no other."""
        hold = f"exec 3<{node}; setsid sleep 600 <&- >&- 2>&- & echo $!"
        process = self.product.guest.output(hold)
        yield
        self.product.guest.run(["kill", process])
