# SPDX-License-Identifier: Apache-2.0
"""Local users who try to keep others from logging in."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import PATIENCE, DataRoot, totp
from lingering import FULL_CONNECTION

NOBODY = 65534
LINGER_SECONDS = 25
PRELUDE = """
import os, socket, struct, sys, time
path = sys.argv[1]
def connect():
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller.settimeout(5)
    caller.connect(path)
    return caller
def request(user, service=b"demo"):
    number = struct.Struct(">I").pack
    fields = ((1, number(1)), (3, service), (4, user), (11, number(20)))
    body = b"".join(bytes((tag,)) + struct.pack(">H", len(v)) + v for tag, v in fields)
    return bytes((1, 1)) + bytes(16) + body
"""
# A TCP connection whose peer never reads, made to block whoever closes it last.
LINGERING_DESCRIPTOR = (
    FULL_CONNECTION
    + """linger = struct.pack("ii", 1, int(sys.argv[2]))
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
for _ in range(4):
    caller = connect()
    socket.send_fds(caller, [b"junk"], [client.fileno()])
client.close()
print("sent", flush=True)
time.sleep(60)
"""
)
FLOOD = """
for _ in range(300):
    try:
        caller = connect()
        caller.send(request(b"root", b"\\xff" * 16000))
        caller.recv(65536)
        caller.close()
    except OSError:
        pass
print("sent", flush=True)
"""
MANY_USERS = """
callers = []
for uid in range(200000, 200300):
    os.seteuid(uid)
    for _ in range(16):
        try:
            callers.append(connect())
        except OSError:
            pass
    os.seteuid(0)
print("sent", flush=True)
time.sleep(60)
"""


@pytest.fixture
def served(root: DataRoot) -> Iterator[tuple[DataRoot, str]]:
    """Give a running daemon that knows alice, and her secret."""
    secret = root.enroll("alice")
    text = f"auth required {root.module} timeout=10\naccount required pam_permit.so\n"
    (root.services / "demo").write_text(text)
    with root.daemon():
        yield root, secret


def attack(root: DataRoot, script: str, uid: int = NOBODY) -> "subprocess.Popen[str]":
    """Start an attacker on the socket that everybody may use, and wait until it has begun."""
    path = root.path / "run/pam_mfa/verify-self.sock"
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", PRELUDE + script, path, str(LINGER_SECONDS)],
        stdout=subprocess.PIPE,
        text=True,
        user=uid,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "sent\n"
    return process


def logs_in(root: DataRoot, secret: str) -> tuple[bool, float]:
    """Whether alice gets in by a host program of root's, and after how many seconds."""
    began = time.monotonic()
    arguments = ("try", "alice", "--service", "demo", "--pam-dir", str(root.services))
    done = root.command(*arguments, stdin=totp(secret) + "\n", check=False)
    return done.returncode == 0, time.monotonic() - began


def stop(process: "subprocess.Popen[str]") -> None:
    """End an attacker."""
    process.kill()
    process.communicate()


def test_lingering_descriptor_keeps_nobody_waiting(served: tuple[DataRoot, str]) -> None:
    """A descriptor that blocks whoever closes it does not hold up root's logins."""
    root, secret = served
    attacker = attack(root, LINGERING_DESCRIPTOR)
    try:
        let_in, seconds = logs_in(root, secret)
        assert let_in
        assert seconds < LINGER_SECONDS / 5
    finally:
        stop(attacker)


def test_records_of_one_user_do_not_fill_the_disk(served: tuple[DataRoot, str]) -> None:
    """300 requests for another's name, each with 16,000 odd bytes, leave few and short records."""
    root, secret = served
    before = root.audit_log.stat().st_size
    stop(attack(root, FLOOD))
    assert root.audit_log.stat().st_size - before < 40 * 4096
    assert set(root.reasons()) == {"caller_not_allowed"}
    assert logs_in(root, secret)[0]


def test_many_users_together_leave_root_its_connections(served: tuple[DataRoot, str]) -> None:
    """4,800 idle connections of 300 users do not keep a login from the verifier."""
    root, secret = served
    attacker = attack(root, MANY_USERS, uid=0)
    try:
        assert logs_in(root, secret)[0]
    finally:
        stop(attacker)


def test_others_cannot_reach_roots_socket(served: tuple[DataRoot, str]) -> None:
    """The socket of root's host programs refuses everybody else."""
    root, _ = served
    script = "import socket, sys; socket.socket(1, 5).connect(sys.argv[1])"
    path = root.path / "run/pam_mfa/verify.sock"
    done = subprocess.run(
        ["/usr/bin/python3", "-c", script, path],
        user=NOBODY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "PermissionError" in done.stderr


def test_child_that_dies_is_started_again(served: tuple[DataRoot, str]) -> None:
    """The process for callers that are not root comes back when it is killed."""
    root, _ = served
    child = _wait_for_child(root, other_than=0)
    subprocess.run(["kill", "-KILL", str(child)], check=True)
    assert _wait_for_child(root, other_than=child)


def _wait_for_child(root: DataRoot, other_than: int) -> int:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for child in _children(root):
            if child != other_than:
                return child
        time.sleep(0.05)
    raise AssertionError("there is no process for callers that are not root")


def _children(root: DataRoot) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--serve" in words and bytes(root.path) in words:
            found.append(int(place.parent.name))
    return found
