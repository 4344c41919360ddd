# SPDX-License-Identifier: Apache-2.0
"""The module's arguments in a PAM line: each does what it says, anything else refuses."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from host_program import (
    PROMPT,
    Login,
    Outcome,
    Status,
    exact_service,
    run,
    running,
    write_service,
)
from installed import DataRoot
from lying_verifier import ANSWER, IGNORE, SUCCESS, Exchange, lying, read_fields, telling

TIMEOUT_TAG, ANSWER_TAG = 11, 2
BAD = (
    "root=relative",
    "root=",
    "root",
    "timeout",
    "timeout=",
    "timeout=0",
    "timeout=601",
    "timeout=5x",
    "timeout=x5",
    "timeout=5.0",
    "timeout=-1",
    "timeout=0x10",
    "timeout=4294967356",  # 60 modulo 2^32
    "timeout=-4294967236",  # the same
    "timeout=+5",
    "forward_pass=",
    "forward_pass=5",
    "forward_pass=9",
    "forward_pass=6x",
    "forward_pass=-6",
    "forward_pass=4294967302",  # 6 modulo 2^32
    "forward_pas",
    "Debug",
    "debug=1",
    "nullok",
    "use_first_pass",
    "=",
)


@pytest.fixture(scope="module")
def root(prefix: Path) -> Iterator[DataRoot]:
    """Share a data root: these tests leave nothing in it."""
    data = DataRoot(prefix)
    yield data
    data.remove()


def answers_of(frames: list[bytes]) -> list[str]:
    """Return the texts of answer frames."""
    assert {frame[1] for frame in frames} == {ANSWER}
    return [read_fields(frame)[ANSWER_TAG].decode() for frame in frames]


def forwarded(root: DataRoot, argument: str, typed: str) -> tuple[Outcome, str, str]:
    """Log in with this answer; return the code sent, and PAM_AUTHTOK as the next module has it."""
    seen = root.path / "authtok"
    service = write_service(
        root,
        "forward",
        f"auth requisite {root.module} {argument}",
        f"auth required pam_exec.so expose_authtok quiet /usr/bin/tee {seen}",
    )
    frames: list[bytes] = []

    def script(exchange: Exchange) -> None:
        frames.append(exchange.ask(PROMPT.encode()))
        exchange.verdict(SUCCESS)

    with lying(root, script), running(Login(root, "alice", service)) as host:
        # pam_exec asks by itself where nothing was forwarded; it has a child, as ours has not.
        outcome = host.finish([typed, "asked again"])
    assert outcome.status == Status.SUCCESS
    return outcome, answers_of(frames)[0], seen.read_text("utf-8").rstrip("\0")


@pytest.mark.parametrize("argument", BAD)
def test_unknown_argument_refuses(root: DataRoot, argument: str) -> None:
    """What is not understood refuses everybody, and no verifier is asked."""
    service = exact_service(root, argument)
    with lying(root, telling(SUCCESS)) as verifier:
        for phase, status in (
            ("auth", Status.AUTHINFO_UNAVAIL),
            ("account", Status.AUTHINFO_UNAVAIL),
            ("session", Status.SESSION_ERR),
        ):
            assert run(Login(root, "alice", service, phase)).status == status
    assert verifier.requests == []


@pytest.mark.parametrize(
    ("argument", "seconds"), [("", 110), ("timeout=1", 1), ("timeout=600", 600), ("debug", 110)]
)
def test_timeout_is_told(root: DataRoot, argument: str, seconds: int) -> None:
    """The verifier is told the timeout, 110 seconds unless given."""
    with lying(root, telling(SUCCESS)) as verifier:
        outcome = run(Login(root, "alice", exact_service(root, argument)))
    assert outcome.status == Status.SUCCESS
    assert read_fields(verifier.requests[0])[TIMEOUT_TAG] == seconds.to_bytes(4, "big")


def test_last_root_counts(root: DataRoot) -> None:
    """Of two root= the last counts."""
    service = exact_service(root, "root=/nonexistent")
    with lying(root, telling(SUCCESS)) as verifier:
        assert run(Login(root, "alice", service)).status == Status.AUTHINFO_UNAVAIL
    assert verifier.requests == []


def test_root_too_long_for_a_socket_refuses(root: DataRoot) -> None:
    """A root= whose socket's path is too long refuses."""
    service = exact_service(root, f"root=/{'x' * 100}")
    assert run(Login(root, "alice", service)).status == Status.AUTHINFO_UNAVAIL


@pytest.mark.parametrize("result", [SUCCESS, IGNORE])
def test_debug_changes_no_result(root: DataRoot, result: int) -> None:
    """With debug the result is what it is without."""
    with lying(root, telling(result)):
        plain = run(Login(root, "alice"))
        debugged = run(Login(root, "alice", exact_service(root, "debug")))
    assert debugged.status == plain.status


@pytest.mark.parametrize(
    ("argument", "typed", "code", "password"),
    [
        ("forward_pass", "secret123456", "123456", "secret"),
        ("forward_pass=6", "secret12123456", "123456", "secret12"),
        ("forward_pass=7", "secret1234567", "1234567", "secret"),
        ("forward_pass=8", "secret12345678", "12345678", "secret"),
        ("forward_pass=8", "secret123456", "", "secret123456"),
        ("forward_pass", "secret12345", "", "secret12345"),
        ("forward_pass", "123456secret", "", "123456secret"),
        ("forward_pass", "secret 123 456", "", "secret 123 456"),
        ("forward_pass", "123456", "123456", ""),
        ("forward_pass", "geheim€123456", "123456", "geheim€"),
        ("forward_pass", "secret１２３４５６", "", "secret１２３４５６"),  # noqa: RUF001 - meant
        ("forward_pass", "", "", ""),
    ],
)
def test_forward_pass_splits(
    root: DataRoot, argument: str, typed: str, code: str, password: str
) -> None:
    """The code goes to the verifier, the password in front of it to the next module."""
    outcome, sent, forwarded_password = forwarded(root, argument, typed)
    assert outcome.prompts == ["Password and verification code: "]
    assert (sent, forwarded_password) == (code, password)


def test_without_forward_pass_the_answer_is_the_code(root: DataRoot) -> None:
    """Without forward_pass the whole answer goes to the verifier and nothing is handed on."""
    outcome, sent, password = forwarded(root, "", "secret123456")
    assert outcome.prompts == [PROMPT, "Password: "]
    assert (sent, password) == ("secret123456", "asked again")


def test_forward_pass_leaves_other_questions_alone(root: DataRoot) -> None:
    """With forward_pass a question that asks for no code is asked and answered as it is."""
    frames: list[bytes] = []

    def script(exchange: Exchange) -> None:
        frames.append(exchange.ask(b"Which device? ", 2, 0))
        exchange.verdict(SUCCESS)

    with lying(root, script):
        outcome = run(Login(root, "alice", exact_service(root, "forward_pass")), "a123456")
    assert outcome.messages == ((2, "Which device? "),)
    assert answers_of(frames) == ["a123456"]
