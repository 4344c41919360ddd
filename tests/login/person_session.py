# SPDX-License-Identifier: Apache-2.0
"""A person's session on a terminal, in which several commands are run one after the other.

Owns what makes it a session of its own to the kernel: its leader is the person's shell, as after a
real login, and where the kernel counts audit sessions it gets a new one, as by pam_loginuid.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from installed import DataRoot
from private_host import PrivateHost
from terminal_session import Answer, LoginResult, TerminalSession

# A person who waits between two commands; what happens meanwhile is the answer's to do.
PAUSE = "echo -n 'next? '; read -r _; "
# As root: a new audit session, where there are any; then the person's shell in root's place.
_BEGIN = """\
user=$1; shift
echo "$(id -u "$user")" 2>/dev/null > /proc/self/loginuid || :
exec setpriv --reuid="$user" --regid="$user" --init-groups -- sh -c "$@"
"""


def run_session(
    host: PrivateHost, user: str, script: str, answers: Sequence[Answer] = ()
) -> LoginResult:
    """Run a shell script as a person in a session of their own, on a terminal of its own."""
    argv = ["sh", "-c", _BEGIN, "begin", user, script]
    session = TerminalSession(host.terminal_command(argv), host.environment)
    session.converse(answers)
    return session.result()


def counts_sessions() -> bool:
    """Whether this kernel gives a process that root begins a session for an audit session."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            Path("/proc/self/loginuid").write_text("1", "ascii")
        with contextlib.suppress(OSError):
            os.write(writer, Path("/proc/self/sessionid").read_bytes())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as output:
        return output.read() not in {b"", b"4294967295"}


def let_time_pass(root: DataRoot, seconds: float) -> None:
    """Put all that is remembered so many seconds into the past, in place of waiting for it."""
    with contextlib.closing(sqlite3.connect(root.library / "state.db")) as connection, connection:
        changed = connection.execute("UPDATE mfa_session SET at = at - ?", (seconds,)).rowcount
    assert changed


def later(root: DataRoot, seconds: float) -> Callable[[str], str]:
    """Return the answer of a person who presses Enter so many seconds later."""

    def wait(_shown: str) -> str:
        let_time_pass(root, seconds)
        return ""

    return wait
