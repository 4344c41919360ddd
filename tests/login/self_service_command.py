# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa`` run by a user who is not root, and the service that answers it, in a private host."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence

from installed import PATIENCE, REPOSITORY, DataRoot
from private_host import PrivateHost
from service_stack import shipped_service
from terminal_session import Answer, LoginResult, TerminalSession
from verifier_process import set_policy

NOTHING_ALLOWED = "self_service: {enable: false, deactivate: false, resync: false}"
ALL_ALLOWED = "self_service: {enable: true, deactivate: true, resync: true}"
UNIT = REPOSITORY / "packaging/systemd/pam-mfa-selfd.service"
# Runs a program until standard input closes. If nsenter, above it, ended before it, the namespaces
# would wait for the machine's init to collect it, which takes seconds where that is slow.
_RUN = '"$@" & read -r _; kill $!; wait $!'


@contextlib.contextmanager
def self_service(host: PrivateHost, root: DataRoot) -> Iterator[None]:
    """Allow everything by policy, install the shipped PAM service, and run pam-mfa-selfd.

    It has the capabilities that the shipped unit leaves it.
    """
    set_policy(root, NOTHING_ALLOWED, ALL_ALLOWED)
    services = root.path / "etc/pam.d"
    services.mkdir()
    (services / "pam-mfa").write_text(shipped_service("pam-mfa"))
    program = [str(root.prefix / "bin/pam-mfa-selfd"), "--root", str(root.path)]
    limits = f"--bounding-set={_capabilities()}"
    command = host.command(["sh", "-c", _RUN, "sh", "setpriv", limits, *program])
    with subprocess.Popen(command, env=host.environment, stdin=subprocess.PIPE) as process:
        try:
            _await_listening(root)
            yield
        finally:
            process.communicate(timeout=PATIENCE)


def run_as(
    host: PrivateHost,
    root: DataRoot,
    user: str,
    arguments: Sequence[str],
    answers: Sequence[Answer] = (),
) -> LoginResult:
    """Run ``pam-mfa`` as a user, on a terminal."""
    session = start_as(host, root, user, arguments)
    session.converse(answers)
    return session.result()


def start_as(
    host: PrivateHost, root: DataRoot, user: str, arguments: Sequence[str]
) -> TerminalSession:
    """Start ``pam-mfa`` as a user, on a terminal."""
    program = [str(root.prefix / "bin/pam-mfa"), "--root", str(root.path)]
    argv = ["runuser", "-u", user, "--", *program, *arguments]
    return TerminalSession(host.terminal_command(argv), host.environment)


def _capabilities() -> str:
    """Return the unit's capabilities as setpriv(1) takes them."""
    lines = UNIT.read_text().splitlines()
    words = [
        word
        for line in lines
        if line.startswith("CapabilityBoundingSet=")
        for word in line.partition("=")[2].split()
    ]
    assert words
    return ",".join(["-all", *(f"+{word.removeprefix('CAP_').lower()}" for word in words)])


def _await_listening(root: DataRoot) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.closing(probe), contextlib.suppress(OSError):
            probe.connect(str(root.path / "run/pam-mfa-selfd.sock"))
            return
        time.sleep(0.02)
    raise AssertionError("pam-mfa-selfd does not listen")
