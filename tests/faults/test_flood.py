# SPDX-License-Identifier: Apache-2.0
"""Local users, one or 500, who take up all that a verifier has; and 64 sessions that guess."""

import collections
import contextlib
import subprocess
import time
from collections.abc import Iterator

import pytest
from authenticator import Authenticator, enroll
from host_program import Login, Status, run
from installed import PATIENCE, DataRoot
from sessions import MIXED, crowd, offer, twins_of

FAILURES = 5  # config/policy.yaml
SESSIONS = 64
NOBODY = 65534
ATTACKER = """
import os, socket, sys, time
path, kind, users = sys.argv[1], sys.argv[2], int(sys.argv[3])
half = bytes((1, 1)) + bytes(16) + bytes((4, 0, 99)) + b"half a frame"
def flood():
    try:
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        caller.setblocking(False)
        caller.connect(path)
        if kind == "half":
            caller.send(half)
        for at in range(len(half) if kind == "bytes" else 0):
            caller.send(half[at:at + 1])
    except OSError:
        pass
    return caller
held, told = [], False
while True:
    for number in range(users):
        os.seteuid(200000 + number)
        held += [flood(), flood()]
        os.seteuid(0)
    del held[:-4000]
    if not told:
        print("begun", flush=True)
        told = True
    time.sleep(0.05)
"""


@contextlib.contextmanager
def flooding(root: DataRoot, kind: str, users: int) -> Iterator[None]:
    """Have users who may verify themselves connect without end."""
    path = root.path / "run/pam_mfa/verify-self.sock"
    command = ["/usr/bin/python3", "-c", ATTACKER, str(path), kind, str(users)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacker:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "begun\n"
        try:
            yield
        finally:
            attacker.kill()


def verify_oneself(root: DataRoot, phone: Authenticator, step: int) -> int:
    """Log in as the user nobody, by a host program of that user's own."""
    return run(Login(root, "nobody", uid=NOBODY), phone.code(step)).status


@pytest.mark.parametrize("kind", ["silent", "half", "bytes"])
def test_500_users_keep_no_login_of_roots_out(root: DataRoot, kind: str) -> None:
    """While 500 users connect, root's logins go on; when they stop, the others' do, too."""
    alice, nobody = enroll(root, "alice"), enroll(root, "nobody")
    with root.daemon():
        with flooding(root, kind, 500):
            for step in range(2):
                outcome = run(Login(root, "alice"), alice.code(step))
                assert outcome.status == Status.SUCCESS
                assert outcome.seconds < PATIENCE / 3
        deadline = time.monotonic() + PATIENCE
        while (status := verify_oneself(root, nobody, 0)) != Status.SUCCESS:
            assert status == Status.AUTHINFO_UNAVAIL
            assert time.monotonic() < deadline, "the flood is over and others are still kept out"
            time.sleep(0.2)


@pytest.mark.parametrize("kind", ["silent", "half", "bytes"])
def test_one_user_keeps_nobody_out(root: DataRoot, kind: str) -> None:
    """While one user connects without end, others verify themselves as ever."""
    phone = enroll(root, "nobody")
    with root.daemon(), flooding(root, kind, 1):
        assert verify_oneself(root, phone, 0) == Status.SUCCESS
        assert verify_oneself(root, phone, 1) == Status.SUCCESS


def test_64_sessions_share_the_tries_of_one(root: DataRoot) -> None:
    """64 sessions that guess at once, half by the daemon, have no more tries than one session."""
    phone = enroll(root, "alice")
    with twins_of(root) as twin, crowd(root, twin, MIXED, SESSIONS) as hosts:
        assert set(offer(hosts, *[phone.wrong_code()] * 3)) == {Status.AUTH_ERR}
    reasons = collections.Counter(root.reasons())
    assert reasons["wrong_code"] == FAILURES
    assert set(reasons) == {"wrong_code", "locked"}
    assert len(root.audit("LockUser")) == 1
