# SPDX-License-Identifier: Apache-2.0
"""Attacks on self-service by local users, by whoever has a password, and by the service user."""

import re
import subprocess
import time
from collections.abc import Iterator

import pytest
from host_accounts import Account
from installed import DataRoot, new_secret, totp, wait_for_step
from phone import CODE_PROMPT, Phone
from private_host import PrivateHost
from self_service_command import run_as, self_service, start_as
from terminal_session import Answer

CAROL = Account("carol-of-tests", "correct horse")
DAVE = Account("dave-of-tests", "battery staple")
NAME = CAROL.name
PASSWORD: Answer = ("Password: *$", CAROL.password)
NO_ACCOUNT = 54321
LINGER_SECONDS = 25
# As PRELUDE of tests/pam/test_hostile_neighbor.py, in the frames of self-service.
PRELUDE = """
import os, socket, struct, sys, time
path = sys.argv[1]
def connect():
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller.settimeout(20)
    caller.connect(path)
    return caller
def petition(operation, user):
    fields = ((1, operation), (2, user))
    body = b"".join(bytes((tag,)) + struct.pack(">H", len(v)) + v for tag, v in fields)
    return bytes((1, 0x11)) + bytes(16) + body
"""
# TCP connections whose peer never reads, each made to block whoever closes it last.
LINGERING_DESCRIPTORS = """
server = socket.create_server(("127.0.0.1", 0))
clients, kept = [], []
for _ in range(12):
    client = socket.create_connection(server.getsockname())
    kept.append(server.accept()[0])
    client.setblocking(False)
    try:
        while True:
            client.send(bytes(65536))
    except BlockingIOError:
        pass
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, int(sys.argv[2])))
    clients.append(client)
for client in clients:
    caller = connect()
    try:
        socket.send_fds(caller, [b"junk"], [client.fileno()])
    except BrokenPipeError:
        pass
    kept.append(caller)
    client.close()
print("sent", flush=True)
time.sleep(60)
"""
FIRST_REPLY = """
caller = connect()
caller.send(petition(sys.argv[2].encode(), sys.argv[3].encode()))
print(caller.recv(40000)[1], flush=True)
"""
FAILLOCK = """\
auth required pam_faillock.so preauth deny=2 nodelay
auth [success=1 default=bad] pam_unix.so nodelay
auth [default=die] pam_faillock.so authfail deny=2 nodelay
auth sufficient pam_faillock.so authsucc deny=2
auth required pam_deny.so
account required pam_unix.so
"""


@pytest.fixture
def host(root: DataRoot) -> Iterator[PrivateHost]:
    """A private host with two accounts and the service, everything allowed."""
    with PrivateHost([CAROL, DAVE]) as started, self_service(started, root):
        yield started


def attacker(host: PrivateHost, root: DataRoot, uid: int, script: str, *words: str) -> list[str]:
    """Return the command line of a user's program that talks to the service."""
    path = root.path / "run/pam-mfa-selfd.sock"
    who = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return host.command([*who, "/usr/bin/python3", "-c", PRELUDE + script, path, *words])


def uid_of(host: PrivateHost, name: str) -> int:
    """Return an account's user id inside."""
    return int(host.run(["id", "-u", name]).stdout)


def secret_in(shown: str) -> str:
    """Return the secret key that was shown for typing."""
    found = re.search(r"secret key into it \(time based\): ([A-Z2-7 ]+)", shown)
    assert found, shown
    return found[1].replace(" ", "")


FIRST: Answer = ("First code: *$", lambda shown: totp(secret_in(shown), -1))
SECOND: Answer = ("Second code.*: *$", lambda shown: totp(secret_in(shown), 0))


def test_lingering_descriptors_keep_no_other_user_waiting(
    root: DataRoot, host: PrivateHost
) -> None:
    """Descriptors that block whoever closes them, sent without a password, stop nobody else."""
    command = attacker(host, root, uid_of(host, NAME), LINGERING_DESCRIPTORS, str(LINGER_SECONDS))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "sent\n"
            began = time.monotonic()
            assert run_as(host, root, DAVE.name, ["list"]).status == 0
            assert time.monotonic() - began < LINGER_SECONDS / 5
        finally:
            process.kill()


@pytest.mark.parametrize("user", ["", NAME])
def test_user_id_without_account_is_asked_nothing(
    root: DataRoot, host: PrivateHost, user: str
) -> None:
    """A user id that has no account, such as a subordinate one, gets no PAM stack run as root."""
    words = ["enable-recovery", user]
    command = attacker(host, root, NO_ACCOUNT, FIRST_REPLY, *words)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) == 0x92  # END, not PROMPT


def test_password_is_out_of_the_service_users_reach(root: DataRoot, host: PrivateHost) -> None:
    """Who became the verifier's user cannot look into a process that was told a password."""
    phone = Phone(root, NAME)
    session = start_as(host, root, NAME, ["enable", "recovery", NAME])
    session.converse([PASSWORD, (CODE_PROMPT, phone.wrong_code())])  # so it waits at the second
    process = host.run(["pgrep", "-f", "--", "--serve"]).stdout.strip()
    service_user = host.run(["id", "-u", "pam-mfa"]).stdout.strip()
    status = host.run(["cat", f"/proc/{process}/status"]).stdout
    ids = rf"^Uid:(\s{service_user}){{4}}$"
    assert re.search(ids, status, re.MULTILINE)
    assert re.search(r"^CapPrm:\s0+$", status, re.MULTILINE)
    for name in ("environ", "mem", "maps", "fd/0"):
        argv = ["runuser", "-u", "pam-mfa", "--", "head", "-c1", f"/proc/{process}/{name}"]
        assert "Permission denied" in host.run(argv, check=False).stderr
    session.converse([(CODE_PROMPT, phone.code())])
    assert session.result().status == 0


def test_stolen_password_does_not_follow_the_first_device(
    root: DataRoot, host: PrivateHost
) -> None:
    """A petition begun with the password alone enables nothing beside the user's first device."""
    wait_for_step(10)
    arguments = ["enable", "virtual", NAME, "--name", "thief"]
    session = start_as(host, root, NAME, arguments)
    session.converse([PASSWORD, FIRST])
    Phone(root, NAME)
    session.converse([SECOND])
    done = session.result()
    assert done.status == 1
    assert "changed meanwhile" in done.output
    assert "thief" not in root.command("list", NAME).stdout
    reasons = [(one["outcome"], one["reason"]) for one in root.audit("EnableMfaDevice")]
    assert reasons == [("success", "requested"), ("denied", "devices_changed")]


@pytest.mark.parametrize("at", [0, 1, 2], ids=["password", "first", "second"])
def test_abandoned_petition_leaves_nothing(root: DataRoot, host: PrivateHost, at: int) -> None:
    """Whoever hangs up at any prompt leaves neither half a device nor a lock."""
    wait_for_step()
    answers = [PASSWORD, FIRST, SECOND]
    hung_up = [*answers[:at], (answers[at][0], None)]
    run_as(host, root, NAME, ["enable", "virtual", NAME], hung_up)
    assert not root.device_file(NAME).exists()
    done = run_as(host, root, NAME, ["enable", "virtual", NAME], answers)
    assert done.status == 0, done.output


def test_tokens_of_others_are_not_told(root: DataRoot, host: PrivateHost) -> None:
    """A user does not learn which tokens there are, nor whose they are."""
    secret = new_secret()
    delivery = root.path / "tokens.csv"
    delivery.write_text(f"serial_number,seed,algorithm,digits,period\nT-1,{secret},SHA1,6,30\n")
    root.command("token", "import", str(delivery), "--seed-encoding", "base32")
    wait_for_step()
    codes = [totp(secret, -1), totp(secret)]
    root.command("enable", "token", DAVE.name, "--serial-number", "T-1", "--codes", *codes)
    said = []
    for serial_number in ("T-1", "T-9"):
        arguments = ["enable", "token", NAME, "--serial-number", serial_number]
        done = run_as(host, root, NAME, arguments, [PASSWORD])
        said.append((done.status, done.output.replace(serial_number, "T")))
    assert said[0] == said[1]
    assert DAVE.name not in said[0][1]


def test_guesses_of_the_password_are_counted(root: DataRoot, host: PrivateHost) -> None:
    """pam_faillock locks under the shipped unit's capabilities, though its file is the user's."""
    (root.path / "etc/pam.d/pam-mfa").write_text(FAILLOCK)
    mine = ["install", "-D", "-m", "600", "-o", NAME, "/dev/null", f"/run/faillock/{NAME}"]
    host.run(mine)
    for password in ("wrong", "worse", CAROL.password):
        answers = [("Password: *$", password)]
        done = run_as(host, root, NAME, ["enable", "recovery", NAME], answers)
        assert done.status == 1, done.output
    assert not root.device_file(NAME).exists()


def test_socket_is_in_a_directory_of_roots(root: DataRoot) -> None:
    """The verifier's user cannot put a socket of its own in the place of the service's."""
    path = root.path / "run"
    assert (path.stat().st_uid, path.stat().st_mode & 0o022) == (0, 0)
