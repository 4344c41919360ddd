# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa`` run by a user who is not root, and the service that answers it, in a private host."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence

from installed import PATIENCE, DataRoot
from private_host import PrivateHost
from service_stack import shipped_service
from terminal_session import Answer, LoginResult, TerminalSession
from verifier_process import set_policy

NOTHING_ALLOWED = "self_service: {enable: false, deactivate: false, resync: false}"
ALL_ALLOWED = "self_service: {enable: true, deactivate: true, resync: true}"


@contextlib.contextmanager
def self_service(host: PrivateHost, root: DataRoot) -> Iterator[subprocess.Popen[bytes]]:
    """Allow everything by policy, install the shipped PAM service, and run pam-mfa-selfd."""
    set_policy(root, NOTHING_ALLOWED, ALL_ALLOWED)
    services = root.path / "etc/pam.d"
    services.mkdir()
    (services / "pam-mfa").write_text(shipped_service("pam-mfa"))
    command = host.command([root.prefix / "bin/pam-mfa-selfd", "--root", root.path])
    process = subprocess.Popen(command, env=host.environment)
    try:
        _await_listening(root, process)
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def run_as(
    host: PrivateHost,
    root: DataRoot,
    user: str,
    arguments: Sequence[str],
    answers: Sequence[Answer] = (),
) -> LoginResult:
    """Run ``pam-mfa`` as a user, on a terminal."""
    program = [str(root.prefix / "bin/pam-mfa"), "--root", str(root.path)]
    argv = ["runuser", "-u", user, "--", *program, *arguments]
    session = TerminalSession(host.terminal_command(argv), host.environment)
    session.converse(answers)
    return session.result()


def _await_listening(root: DataRoot, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, "pam-mfa-selfd ended at its start"
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.closing(probe), contextlib.suppress(OSError):
            probe.connect(str(root.path / "run/pam-mfa-selfd.sock"))
            return
        time.sleep(0.02)
    raise AssertionError("pam-mfa-selfd does not listen")
