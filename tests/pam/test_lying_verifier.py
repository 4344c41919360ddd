# SPDX-License-Identifier: Apache-2.0
"""The module against a verifier that lies: only a whole verdict for this request lets anyone in."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host_program import Login, Status, exact_service, run, running, write_service
from installed import DataRoot
from lying_verifier import (
    ABORT,
    ANSWER,
    DENIED,
    IGNORE,
    NONCE,
    PROMPT,
    REQUEST,
    SUCCESS,
    UNAVAILABLE,
    VERDICT,
    Exchange,
    Script,
    fields,
    lying,
    prompt_fields,
    telling,
    verdict_fields,
)

GOOD = verdict_fields(SUCCESS)
TEXT_MAX = 511
ENDLESS = 10_000
PHASES = ("auth", "account", "session")
NO_VERDICT = {
    "auth": Status.AUTHINFO_UNAVAIL,
    "account": Status.AUTHINFO_UNAVAIL,
    "session": Status.SESSION_ERR,
}


@pytest.fixture(scope="module")
def root(prefix: Path) -> Iterator[DataRoot]:
    """Share a data root: these tests leave nothing in it."""
    data = DataRoot(prefix)
    yield data
    data.remove()


def raw(make: Callable[[bytes], bytes]) -> Script:
    """Return a script that sends what is made of the right success verdict."""

    def script(exchange: Exchange) -> None:
        exchange.connection.send(make(exchange.frame(VERDICT, GOOD)))
        exchange.connection.recv(1)  # until the module closes

    return script


def framed(kind: int, content: bytes) -> Script:
    """Return a script that sends one frame of this request and waits for what comes back."""

    def script(exchange: Exchange) -> None:
        exchange.send(kind, content)
        exchange.connection.recv(1)  # until the module closes

    return script


def flood(style: int) -> Script:
    """Return a script that asks or tells without end."""

    def script(exchange: Exchange) -> None:
        for _ in range(ENDLESS):
            exchange.send(PROMPT, prompt_fields(b"again", style))
            if style in {1, 2}:
                exchange.connection.recv(2000)
        exchange.verdict(SUCCESS)

    return script


def send_descriptor(exchange: Exchange) -> None:
    """Send a descriptor along with a success."""
    socket.send_fds(exchange.connection, [exchange.frame(VERDICT, GOOD)], [0])


def ask_then_succeed(exchange: Exchange) -> None:
    """Ask, and let everybody in."""
    exchange.ask()
    exchange.verdict(SUCCESS)


def die_midway(exchange: Exchange) -> None:
    """Close after the answer."""
    exchange.ask()


def die_with_garbage_after(exchange: Exchange) -> None:
    """Ask, then answer with a success for another request."""
    exchange.ask()
    frame = exchange.frame(VERDICT, GOOD)
    exchange.connection.send(frame[:2] + bytes(16) + frame[18:])


def echo_request(exchange: Exchange) -> None:
    """Send the request back."""
    exchange.connection.send(exchange.request)


def other_nonce(frame: bytes) -> bytes:
    """Change one bit of the nonce."""
    return frame[:2] + bytes((frame[2] ^ 1,)) + frame[3:]


LIES: dict[str, Script] = {
    "other nonce": raw(other_nonce),
    "nonce of zeros": raw(lambda frame: frame[:2] + bytes(16) + frame[NONCE.stop :]),
    "version 0": raw(lambda frame: b"\0" + frame[1:]),
    "version 2": raw(lambda frame: b"\2" + frame[1:]),
    "one byte": raw(lambda frame: frame[:1]),
    "cut in the header": raw(lambda frame: frame[:17]),
    "cut after the header": raw(lambda frame: frame[:18]),
    "cut in the field's header": raw(lambda frame: frame[:19]),
    "cut before the value": raw(lambda frame: frame[:21]),
    "one byte too many": raw(lambda frame: frame + b"\0"),
    "two bytes too many": raw(lambda frame: frame + b"\1\0"),
    "40000 bytes": raw(lambda frame: frame + bytes(40000 - len(frame))),
    "a field of 40000 bytes": raw(lambda frame: frame + b"\2\x9c\x40" + bytes(40000)),
    "a field longer than the frame": raw(lambda frame: frame[:19] + b"\xff\xff\1"),
    "type 0": raw(lambda frame: frame[:1] + b"\0" + frame[2:]),
    "type 0x83": raw(lambda frame: frame[:1] + b"\x83" + frame[2:]),
    "type REQUEST": framed(REQUEST, GOOD),
    "type ANSWER": framed(ANSWER, GOOD),
    "type ABORT": framed(ABORT, b""),
    "the request itself": echo_request,
    "result twice": framed(VERDICT, GOOD + GOOD),
    "denied, then success": framed(VERDICT, verdict_fields(DENIED) + GOOD),
    "unknown tag": framed(VERDICT, GOOD + fields((13, b"x"))),
    "tag 0": framed(VERDICT, GOOD + fields((0, b""))),
    "tag 255": framed(VERDICT, GOOD + fields((255, b"x"))),
    "a prompt's field as well": framed(VERDICT, GOOD + fields((2, b"x"))),
    "a field of 16385 bytes": framed(VERDICT, GOOD + fields((2, bytes(16385)))),
    "no result": framed(VERDICT, b""),
    "empty result": framed(VERDICT, fields((1, b""))),
    "two bytes of result": framed(VERDICT, fields((1, b"\1\1"))),
    "result 0": framed(VERDICT, verdict_fields(0)),
    "result 5": framed(VERDICT, verdict_fields(5)),
    "result 9": framed(VERDICT, verdict_fields(9)),
    "result 255": framed(VERDICT, verdict_fields(255)),
    "empty prompt": framed(PROMPT, prompt_fields(b"")),
    "prompt of 512 bytes": framed(PROMPT, prompt_fields(b"x" * (TEXT_MAX + 1))),
    "prompt of 16384 bytes": framed(PROMPT, prompt_fields(b"x" * 16384)),
    "prompt of style 0": framed(PROMPT, prompt_fields(b"code", 0)),
    "prompt of style 5": framed(PROMPT, prompt_fields(b"code", 5)),
    "prompt without style": framed(PROMPT, fields((2, b"code"), (3, b"\1"))),
    "prompt without is_code": framed(PROMPT, fields((1, b"\1"), (2, b"code"))),
    "questions without end": flood(1),
    "information without end": flood(4),
    "dies at once": lambda _: None,
    "dies midway": die_midway,
    "another's verdict after the answer": die_with_garbage_after,
    "descriptors along": send_descriptor,
}


@pytest.mark.parametrize("lie", LIES)
def test_lie_is_no_verdict(root: DataRoot, lie: str) -> None:
    """What is no whole verdict for this request is "unavailable", in every phase."""
    with lying(root, LIES[lie]) as verifier:
        for phase in PHASES:
            outcome = run(Login(root, "alice", phases=phase), *["123456"] * 100)
            assert outcome.status == NO_VERDICT[phase]
        assert len(verifier.requests) == len(PHASES)


def test_flood_ends_soon(root: DataRoot) -> None:
    """A verifier that asks for ever is left before it asked a hundred times."""
    with lying(root, flood(2)):
        outcome = run(Login(root, "alice"), *["123456"] * 1000)
    assert 0 < len(outcome.messages) <= 100
    assert outcome.status == Status.AUTHINFO_UNAVAIL


@pytest.mark.parametrize("asks", [False, True])
def test_hanging_verifier_is_left_at_the_timeout(root: DataRoot, asks: bool) -> None:  # noqa: FBT001
    """With timeout=2 a verifier that says nothing more holds a login up for two seconds."""

    def hang(exchange: Exchange) -> None:
        if asks:
            exchange.ask()
        exchange.connection.recv(1)  # until the module closes

    service = exact_service(root, "timeout=2")
    with lying(root, hang):
        outcome = run(Login(root, "alice", service), "123456")
    assert outcome.status == Status.AUTHINFO_UNAVAIL
    assert 1.8 <= outcome.seconds <= 3.5


def test_trickling_verifier_is_left_at_the_timeout(root: DataRoot) -> None:
    """The timeout is for the whole call: messages that keep coming do not stretch it."""

    def trickle(exchange: Exchange) -> None:
        for _ in range(60):
            exchange.send(PROMPT, prompt_fields(b"wait", 4))
            time.sleep(0.4)
        exchange.verdict(SUCCESS)

    service = exact_service(root, "timeout=2")
    with lying(root, trickle):
        outcome = run(Login(root, "alice", service))
    assert outcome.status == Status.AUTHINFO_UNAVAIL
    assert 1.8 <= outcome.seconds <= 3.5


def test_answer_after_the_deadline_is_late(root: DataRoot) -> None:
    """A success that the verifier tells after the deadline lets nobody in."""
    login = Login(root, "alice", exact_service(root, "timeout=1"))
    with lying(root, ask_then_succeed), running(login) as host:
        assert host.question() is not None
        time.sleep(1.2)
        host.answer("123456")
        assert host.finish().status == Status.AUTHINFO_UNAVAIL


def test_silent_listener_is_left_at_the_timeout(root: DataRoot) -> None:
    """A socket whose queue is full holds a login up for the timeout and starts no verifier."""
    path = root.path / "run/pam_mfa/verify.sock"
    service = exact_service(root, "timeout=2")
    with contextlib.ExitStack() as stack:
        sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(9)]
        listener, *fillers = map(stack.enter_context, sockets)
        listener.bind(str(path))
        listener.listen(1)
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(str(path))
        outcome = run(Login(root, "alice", service))
    path.unlink()
    assert outcome.status == Status.AUTHINFO_UNAVAIL
    assert 1.8 <= outcome.seconds <= 3.5
    assert root.reasons() == []


HONEST = {
    ("auth", SUCCESS): Status.SUCCESS,
    ("auth", DENIED): Status.AUTH_ERR,
    ("auth", UNAVAILABLE): Status.AUTHINFO_UNAVAIL,
    ("auth", IGNORE): Status.IGNORE,
    ("account", SUCCESS): Status.SUCCESS,
    ("account", DENIED): Status.PERM_DENIED,
    ("account", UNAVAILABLE): Status.AUTHINFO_UNAVAIL,
    ("account", IGNORE): Status.IGNORE,
    ("session", SUCCESS): Status.SUCCESS,
    ("session", DENIED): Status.SESSION_ERR,
    ("session", UNAVAILABLE): Status.SESSION_ERR,
    ("session", IGNORE): Status.IGNORE,
}


@pytest.mark.parametrize(("phase", "result"), HONEST)
def test_honest_verdict_is_handed_on(root: DataRoot, phase: str, result: int) -> None:
    """Each verdict becomes the phase's PAM result."""
    with lying(root, telling(result)):
        outcome = run(Login(root, "alice", phases=phase))
    assert outcome.status == HONEST[phase, result]


def test_ignore_alone_lets_nobody_in(root: DataRoot) -> None:
    """In a stack of the module alone, libpam makes a denial of PAM_IGNORE."""
    service = write_service(root, "alone", f"auth required {root.module}")
    with lying(root, telling(IGNORE)):
        assert run(Login(root, "alice", service)).status == Status.PERM_DENIED


def test_ignore_leaves_the_stack_to_the_others(root: DataRoot) -> None:
    """PAM_IGNORE leaves the decision to the other modules of the stack."""
    module = f"auth required {root.module}"
    permit = write_service(root, "permit", module, "auth required pam_permit.so")
    deny = write_service(root, "deny", module, "auth required pam_deny.so")
    with lying(root, telling(IGNORE)):
        assert run(Login(root, "alice", permit)).status == Status.SUCCESS
        assert run(Login(root, "alice", deny)).status == Status.AUTH_ERR


def test_nonces_differ(root: DataRoot) -> None:
    """No two requests carry the same nonce."""
    with lying(root, telling(DENIED)) as verifier:
        for _ in range(20):
            run(Login(root, "alice"))
    assert len({request[NONCE] for request in verifier.requests}) == 20


@pytest.mark.parametrize("style", [1, 2])
def test_longest_prompt_is_shown_whole(root: DataRoot, style: int) -> None:
    """A prompt of 511 bytes is asked as it is, in its style."""
    text = "x" * TEXT_MAX

    def script(exchange: Exchange) -> None:
        exchange.ask(text.encode(), style)

    with lying(root, script):
        outcome = run(Login(root, "alice"), "123456")
    assert outcome.messages == ((style, text),)


def test_silent_flag_keeps_nothing_back(root: DataRoot) -> None:
    """With PAM_SILENT, which sudo always sets, messages are shown: one may ask for a touch."""

    def script(exchange: Exchange) -> None:
        for style in (3, 4):
            exchange.send(PROMPT, prompt_fields(b"told", style, 0))
        exchange.ask(b"asked")
        exchange.verdict(SUCCESS)

    with lying(root, script):
        silent = run(Login(root, "alice", options=["silent"]), "123456")
        spoken = run(Login(root, "alice"), "123456")
    assert [each.text for each in silent.messages] == ["told", "told", "asked"]
    assert silent.messages == spoken.messages
