# SPDX-License-Identifier: Apache-2.0
"""Logins at full speed on an installed verifier, over its protocol: no PAM, no prompt for a person.

Owns the users, whose event-based tokens have a code for every login, and the frames.
"""

import hashlib
import hmac
import os
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from installed import DataRoot

USERS = 16
LOOK_AHEAD = 50  # codes that kills may skip; the most that policy allows
_REQUEST, _ANSWER, _PROMPT, _VERDICT = 1, 2, 0x81, 0x82
_SUCCESS = bytes((1,))
_NONCE = bytes(range(16))
_TIMEOUT = 60.0
_POLICY = f"""\
version: 1
hotp: {{look_ahead: {LOOK_AHEAD}}}
lockout: {{failures: 1000, within: 5m, for: 1s}}
audit: {{checkpoint_every: 50}}
"""


class Person:
    """A user whose token makes the next code whenever it is asked."""

    def __init__(self, number: int) -> None:
        """Have a token of one's own."""
        self.name = f"user{number}"
        self.serial_number = f"T{number:04d}"
        self.seed = hashlib.sha256(self.name.encode()).digest()[:20]
        self._counter = 0

    def code(self) -> str:
        """Return the next code (RFC 4226, section 5.3)."""
        digest = hmac.digest(self.seed, self._counter.to_bytes(8, "big"), "sha1")
        self._counter += 1
        offset = digest[-1] & 15
        number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
        return f"{number % 10**6:06d}"


class Login(NamedTuple):
    """One login, which its records tell from all others by the terminal's name."""

    terminal: str
    person: Person


def enable_everybody(root: DataRoot) -> list[Person]:
    """Write the policy, and give everybody a token."""
    root.policy.write_text(_POLICY)
    people = [Person(number) for number in range(USERS)]
    table = root.path / "tokens.csv"
    rows = [f"{one.serial_number},{one.seed.hex()},hotp,6,0" for one in people]
    table.write_text("\n".join(["serial_number,seed,type,digits,counter", *rows]) + "\n")
    root.command("token", "import", str(table), "--format", "csv")
    for one in people:
        codes = [one.code(), one.code()]
        root.command(
            "enable", "token", one.name, "--serial-number", one.serial_number, "--codes", *codes
        )
    return people


def start_verifier(root: DataRoot) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a verifier for one login, as pam_mfa.so does; return the module's end of the socket."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = root.prefix / "bin/pam-mfad"
    command = [str(program), "--once", str(its.fileno()), "--root", str(root.path)]
    process = subprocess.Popen(command, pass_fds=(its.fileno(),), stderr=subprocess.DEVNULL)
    its.close()
    return mine, process


def connect(root: DataRoot) -> socket.socket:
    """Connect to the daemon.

    Raises:
        OSError: it does not listen.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(root.path / "run/pam_mfa/verify.sock"))
    except OSError:
        connection.close()
        raise
    return connection


def wait_until_free(root: DataRoot) -> None:
    """Wait until the process for callers that are not root has followed its daemon."""
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            try:
                probe.connect(str(root.path / "run/pam_mfa/verify-self.sock"))
            except OSError:
                return
        time.sleep(0.01)
    raise AssertionError("a process for callers that are not root outlives its daemon")


def ask(connection: socket.socket, login: Login) -> bool:
    """Send the request; return whether the code is asked for."""
    connection.settimeout(_TIMEOUT)
    number = struct.Struct(">I").pack
    fields = {
        1: number(1), 3: b"faults", 4: login.person.name.encode(), 5: number(os.getuid()),
        6: login.terminal.encode(), 11: number(60),
    }  # fmt: skip
    return _say(connection, _frame(_REQUEST, fields))[1:2] == bytes((_PROMPT,))


def answer(connection: socket.socket, login: Login) -> bool:
    """Send the code; return whether a success was told."""
    frame = _say(connection, _frame(_ANSWER, {2: login.person.code().encode()}))
    return frame == _frame(_VERDICT, {1: _SUCCESS})


def _say(connection: socket.socket, frame: bytes) -> bytes:
    try:
        connection.send(frame)
        return connection.recv(65536)
    except (BrokenPipeError, ConnectionResetError):
        return b""


def _frame(kind: int, fields: dict[int, bytes]) -> bytes:
    parts = [bytes((1, kind)), _NONCE]
    for tag, value in fields.items():
        parts += [bytes((tag,)), struct.pack(">H", len(value)), value]
    return b"".join(parts)


def rotate(log: Path) -> None:
    """Rotate as logrotate does with "nocreate" and a number behind the name."""
    numbers = sorted(
        (int(one.suffix[1:]) for one in log.parent.glob(f"{log.name}.[0-9]*")), reverse=True
    )
    for number in numbers:
        log.with_name(f"{log.name}.{number}").rename(log.with_name(f"{log.name}.{number + 1}"))
    log.rename(log.with_name(f"{log.name}.1"))
