# SPDX-License-Identifier: Apache-2.0
"""Signatures by SSH keys of security keys: OpenSSH's own ssh-keygen and ssh-agent make them."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from sk_keys import PATIENCE, PROVIDER

_ENVIRONMENT = {"SSH_SK_PROVIDER": str(PROVIDER), "PATH": "/usr/bin:/bin"}


def sign(key: Path, namespace: str, message: str) -> str:
    """Return the text that ``ssh-keygen -Y sign`` makes of a message."""
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(key)],
        input=message,
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout


@contextlib.contextmanager
def running_agent(path: Path, *keys: Path) -> Iterator[Path]:
    """Run an ssh-agent that holds keys; ``path`` is where its socket is to be."""
    argv = ["ssh-agent", "-D", "-a", str(path), "-P", str(PROVIDER)]
    with subprocess.Popen(argv, env=_ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        try:
            await_listening(path)
            for key in keys:
                ask_agent(path, "-q", "-S", str(PROVIDER), str(key))
            yield path
        finally:
            process.terminate()
            process.wait(PATIENCE)


def await_listening(path: Path) -> None:
    """Wait until an agent listens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if not probe.connect_ex(str(path)):
                return
        time.sleep(0.002)
    raise AssertionError(f"no ssh-agent listens on {path}")


def ask_agent(path: Path, *words: str) -> str:
    """Run ssh-add."""
    done = subprocess.run(
        ["ssh-add", *words],
        env={**_ENVIRONMENT, "SSH_AUTH_SOCK": str(path), "HOME": os.environ.get("HOME", "/")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout


def lock_agent(path: Path) -> None:
    """Lock an agent by a passphrase, as ``ssh-add -x`` asks for it on a terminal."""
    import pexpect  # noqa: PLC0415 - of the one test that needs a terminal

    child = pexpect.spawn(
        "ssh-add", ["-x"], env={**_ENVIRONMENT, "SSH_AUTH_SOCK": str(path)}, timeout=PATIENCE
    )
    for prompt in ("lock password: *$", "Again: *$"):
        child.expect(prompt)
        child.sendline("secret")
    child.expect("Agent locked")
    child.expect(pexpect.EOF)
    child.close()
