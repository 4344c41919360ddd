# SPDX-License-Identifier: Apache-2.0
"""A real ssh-agent, whose security keys are OpenSSH's own of software (``sk_keys``)."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sk_keys import PATIENCE, PROVIDER

LOCK_WORD = "a-word-for-ssh-add"


class SshAgent:
    """A running agent of a user."""

    def __init__(self, place: Path, uid: int) -> None:
        """Start it; it listens when this returns."""
        self.place = place
        self.uid = uid
        self.socket = place / "agent"
        words = ["ssh-agent", "-D", "-P", "/usr/lib/*", "-a", str(self.socket)]
        self._process = subprocess.Popen(
            words, user=uid, group=uid, extra_groups=[], stdout=subprocess.PIPE, cwd="/",
            env={"PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith(b"SSH_AUTH_SOCK=")

    def end(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def add(self, key: Path, *options: str) -> None:
        """Give it a key, and the certificate that lies beside it."""
        self._ssh_add(*options, str(self._lend(key)))

    def lock(self) -> None:
        """Lock it, as its owner does who goes away."""
        self._ssh_add("-x")

    def unlock(self) -> None:
        """Unlock it."""
        self._ssh_add("-X")

    def _lend(self, key: Path) -> Path:
        """Copy a key to where the agent's user can read it."""
        for name in (key.name, f"{key.name}.pub", f"{key.name}-cert.pub"):
            if (key.parent / name).exists():
                shutil.copyfile(key.parent / name, self.place / name)
                os.chown(self.place / name, self.uid, self.uid)
                (self.place / name).chmod(0o600)
        return self.place / key.name

    def _ssh_add(self, *words: str) -> None:
        askpass = self.place / "askpass"
        askpass.write_text(f"#!/bin/sh\necho {LOCK_WORD}\n", "ascii")
        askpass.chmod(0o755)
        subprocess.run(
            ["ssh-add", "-q", *words],
            user=self.uid, group=self.uid, extra_groups=[], cwd="/", check=True,
            capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
            env={
                "PATH": "/usr/bin:/bin", "SSH_AUTH_SOCK": str(self.socket),
                "SSH_SK_PROVIDER": str(PROVIDER), "SSH_ASKPASS": str(askpass),
                "SSH_ASKPASS_REQUIRE": "force", "HOME": str(self.place),
            },
        )  # fmt: skip


@contextlib.contextmanager
def running_agent(uid: int) -> Iterator[SshAgent]:
    """Run an agent of a user, in a directory of that user's own."""
    place = Path(tempfile.mkdtemp(prefix="pam-mfa-agent-", dir="/var/tmp"))
    os.chown(place, uid, uid)
    place.chmod(0o700)
    try:
        agent = SshAgent(place, uid)
        try:
            yield agent
        finally:
            agent.end()
    finally:
        shutil.rmtree(place)
