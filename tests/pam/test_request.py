# SPDX-License-Identifier: Apache-2.0
"""What the module tells the verifier of a PAM call."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_program import Login, Status, exact_service, run, write_service
from installed import DataRoot
from lying_verifier import ABORT, ANSWER, DENIED, SUCCESS, Exchange, lying, read_fields, telling

PHASE, FLAGS, SERVICE, USER, UID, TTY, RHOST, RUSER, SSH_AUTH_INFO, SSH_CONNECTION = range(1, 11)
PAM_SILENT = 0x8000
ANSWER_MAX = 1024


@pytest.fixture(scope="module")
def root(prefix: Path) -> Iterator[DataRoot]:
    """Share a data root: these tests leave nothing in it."""
    data = DataRoot(prefix)
    yield data
    data.remove()


def request_of(login: Login) -> dict[int, bytes]:
    """Return the fields of a login's request."""
    with lying(login.root, telling(SUCCESS)) as verifier:
        assert run(login).status == Status.SUCCESS
    return read_fields(verifier.requests[0])


def reply_to_question(root: DataRoot, answer: str | None) -> bytes:
    """Return the frame that an answer becomes."""
    frames: list[bytes] = []

    def script(exchange: Exchange) -> None:
        frames.append(exchange.ask())
        exchange.verdict(DENIED)

    with lying(root, script):
        assert run(Login(root, "alice"), answer).status == Status.AUTH_ERR
    return frames[0]


@pytest.mark.parametrize(("phase", "number"), [("auth", 1), ("account", 2), ("session", 3)])
def test_phase_is_told(root: DataRoot, phase: str, number: int) -> None:
    """The request says which PAM call it stands for."""
    assert request_of(Login(root, "alice", phases=phase))[PHASE] == number.to_bytes(4, "big")


def test_items_are_told(root: DataRoot) -> None:
    """The request has the PAM items and the two variables that sshd sets."""
    options = ["rhost=192.0.2.1", "tty=pts/7", "ruser=bob", "SSH_AUTH_INFO_0=publickey x",
               "SSH_CONNECTION=192.0.2.1 1 192.0.2.2 22"]  # fmt: skip
    told = request_of(Login(root, "nobody", exact_service(root), options=[*options, "silent"]))
    assert told[SERVICE] == b"exact"
    assert told[USER] == b"nobody"
    assert told[UID] == (65534).to_bytes(4, "big")
    assert (told[TTY], told[RHOST], told[RUSER]) == (b"pts/7", b"192.0.2.1", b"bob")
    assert told[SSH_AUTH_INFO] == b"publickey x"
    assert told[SSH_CONNECTION] == b"192.0.2.1 1 192.0.2.2 22"
    assert told[FLAGS] == PAM_SILENT.to_bytes(4, "big")


def test_signature_is_not_told_where_the_password_is_typed_too(root: DataRoot) -> None:
    """With forward_pass the question is the password's as well: no signature may spare it."""
    write_service(root, "joined", f"auth required {root.module} forward_pass")
    options = ["SSH_AUTH_INFO_0=publickey x", "SSH_CONNECTION=192.0.2.1 1 192.0.2.2 22"]
    told = request_of(Login(root, "nobody", "joined", options=options))
    assert (SSH_AUTH_INFO in told, SSH_CONNECTION in told) == (False, True)


def test_process_environment_is_not_told(root: DataRoot) -> None:
    """Variables of the host process, which a user of sudo writes, are not taken for sshd's."""
    forged = {**os.environ, "SSH_AUTH_INFO_0": "forged", "SSH_CONNECTION": "forged"}
    told = request_of(Login(root, "alice", environment=forged))
    assert SSH_AUTH_INFO not in told
    assert SSH_CONNECTION not in told


def test_unknown_account_has_no_uid(root: DataRoot) -> None:
    """A name that no account has is told without a user id."""
    told = request_of(Login(root, "no-such-account"))
    assert told[USER] == b"no-such-account"
    assert UID not in told


def test_oversized_value_refuses(root: DataRoot) -> None:
    """A value that does not fit a frame refuses, and nothing cut is sent."""
    login = Login(root, "alice", options=["SSH_CONNECTION=" + "x" * 20000])
    with lying(root, telling(SUCCESS)) as verifier:
        assert run(login).status == Status.AUTHINFO_UNAVAIL
    assert verifier.requests in ([], [b""])


@pytest.mark.parametrize("answer", ["", "123456", "with spaces ", "line\nfeed", "€", "\udcff"])
def test_answer_is_told_as_typed(root: DataRoot, answer: str) -> None:
    """An answer comes to the verifier byte by byte."""
    frame = reply_to_question(root, answer)
    assert frame[1] == ANSWER
    assert read_fields(frame) == {2: answer.encode("utf-8", "surrogateescape")}


def test_long_answer_is_cut(root: DataRoot) -> None:
    """Of a long answer 1,024 bytes are told, more than any code has."""
    frame = reply_to_question(root, "1" * 5000)
    assert read_fields(frame) == {2: b"1" * ANSWER_MAX}


def test_failed_conversation_is_told(root: DataRoot) -> None:
    """A conversation that fails is told as such, and not as an empty answer."""
    frame = reply_to_question(root, None)
    assert frame[1] == ABORT
    assert read_fields(frame) == {}
