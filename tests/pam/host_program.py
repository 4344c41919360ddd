# SPDX-License-Identifier: Apache-2.0
"""An application of PAM that a test leads step by step: ``host.c``, run on a stack of its own.

The stack is the built module alone, read by real libpam's pam_start_confdir. A host checks itself
before and after: whatever a module left changed in it is in ``Outcome.changed``.
"""

import contextlib
import enum
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from installed import DataRoot

SOURCE = Path(__file__).with_name("host.c")
PROMPT = "Verification code: "
NEXT_PROMPT = "Verification code (the next one that your device shows): "
ALL_PROMPTS = [PROMPT, NEXT_PROMPT, NEXT_PROMPT]  # of one conversation, by the shipped policy
EXACT = "[success=done ignore=ignore default=die]"  # libpam hands on the module's own result
PATIENCE = 120.0  # seconds; host.c ends itself after as many


class Status(enum.IntEnum):
    """Results of PAM calls (security/_pam_types.h)."""

    SUCCESS = 0
    PERM_DENIED = 6
    AUTH_ERR = 7
    AUTHINFO_UNAVAIL = 9
    SESSION_ERR = 14
    IGNORE = 11  # PAM_MAXTRIES, which ``exact_service`` has in the place of PAM_IGNORE


class Style(enum.IntEnum):
    """Styles of PAM messages."""

    ECHO_OFF = 1
    ECHO_ON = 2
    ERROR = 3
    INFORMATION = 4


class Message(NamedTuple):
    """What a module had shown."""

    style: int
    text: str


class Outcome(NamedTuple):
    """How a host ended."""

    status: int
    messages: tuple[Message, ...]
    changed: tuple[str, ...]  # in the host's own process; nothing should be
    seconds: float

    @property
    def prompts(self) -> list[str]:
        """The questions among the messages."""
        return [each.text for each in self.messages if each.style <= Style.ECHO_ON]


class HostError(Exception):
    """The host program itself failed."""


def compile_host(program: Path, *cflags: str) -> Path:
    """Compile host.c."""
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", *cflags]
    subprocess.run(["gcc", *flags, SOURCE, "-o", program, "-lpam"], check=True, timeout=120)
    return program


def host_of(prefix: Path) -> Path:
    """Return the host program beside a prefix, compiled at the first use."""
    program = prefix.parent / "host"
    return program if program.exists() else compile_host(program)


def write_service(root: DataRoot, name: str, *lines: str) -> str:
    """Write a PAM service file of these lines; return its name."""
    (root.services / name).write_text("".join(f"{line}\n" for line in lines))
    return name


def exact_service(root: DataRoot, arguments: str = "") -> str:
    """Write a service whose result is the module's own, whichever it is.

    libpam lets no stack end in PAM_IGNORE: then a second module says PAM_MAXTRIES.
    """
    phases = {"auth": "auth", "account": "acct", "session": "open_session"}
    lines = (
        (
            f"{phase} {EXACT} {root.module} {arguments}",
            f"{phase} requisite pam_debug.so {key}=maxtries",
        )
        for phase, key in phases.items()
    )
    return write_service(root, "exact", *(line for pair in lines for line in pair))


class Login(NamedTuple):
    """What a host is to do."""

    root: DataRoot
    user: str
    service: str = ""  # exact_service, unless given
    phases: str = "auth"
    options: Sequence[str] = ()  # host.c's
    wrapper: Sequence[str] = ()  # a program and its arguments that run the host
    uid: int | None = None  # the host's, where it is not root
    pass_fds: Sequence[int] = ()
    program: Path | None = None
    environment: dict[str, str] | None = None


class Host:
    """A running host program."""

    def __init__(self, login: Login) -> None:
        """Start it; it waits before its first PAM call."""
        program = login.program or host_of(login.root.prefix)
        service = login.service or exact_service(login.root)
        arguments = (service, login.user, login.phases, *login.options)
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [*login.wrapper, str(program), str(login.root.services), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=login.uid,
            group=login.uid,
            extra_groups=None if login.uid is None else [],
            pass_fds=login.pass_fds,
            env=login.environment,
            cwd="/",
        )
        self.pid = self._process.pid  # the wrapper's, where there is one that forks
        self._messages: list[Message] = []
        self._changed: list[str] = []
        self._status: int | None = None
        self.interrupts = 0  # signals that were counted by the option count-sigint
        self._started = 0.0
        self._is_asking = False
        if self._read() != ["ready"]:
            raise HostError(f"the host ended with {self._process.wait()}")

    def begin(self) -> None:
        """Let the first PAM call start."""
        self._started = time.monotonic()
        self._write("go")

    def question(self) -> str | None:
        """Wait for the next question and return it; None where there is none any more."""
        while words := self._read():
            kind, *values = words
            if kind == "changed":
                self._changed += values
            elif kind == "interrupts":
                self.interrupts = int(values[0])
            elif kind == "status":
                self._status = int(values[0])
                return None
            else:
                message = _parse_message(*values)
                self._messages.append(message)
                if message.style <= Style.ECHO_ON:
                    self._is_asking = True
                    return message.text
        return None

    def answer(self, text: str | None) -> None:
        """Answer the question; None is a conversation that fails."""
        self._is_asking = False
        raw = None if text is None else text.encode("utf-8", "surrogateescape")
        self._write("abort" if raw is None else f"answer {raw.hex()}")

    def finish(self, answers: Sequence[str | None] = ()) -> Outcome:
        """Answer what is still asked, a question without an answer by None, to the end."""
        left = list(answers)
        while self._is_asking or self.question() is not None:
            self.answer(left.pop(0) if left else None)
        seconds = time.monotonic() - self._started
        code = self._process.wait(PATIENCE)
        if self._status is None or code != 0:
            raise HostError(f"the host ended with {code}")
        return Outcome(self._status, tuple(self._messages), tuple(self._changed), seconds)

    def wait(self) -> int:
        """Wait for its end by itself; return its status, a signal's number below zero."""
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """End it at once, if it still runs."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _read(self) -> list[str]:
        assert self._process.stdout is not None
        return self._process.stdout.readline().split()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


def _parse_message(style: str, text: str = "") -> Message:
    return Message(int(style), bytes.fromhex(text).decode("utf-8", "replace"))


@contextlib.contextmanager
def running(login: Login) -> Iterator[Host]:
    """Run a host whose first PAM call has started."""
    host = Host(login)
    try:
        host.begin()
        yield host
    finally:
        host.kill()


def run(login: Login, *answers: str | None) -> Outcome:
    """Run a host to its end, and see that nothing of it was changed."""
    with running(login) as host:
        outcome = host.finish(answers)
    assert outcome.changed == (), f"the module left its host changed: {outcome.changed}"
    return outcome


def attempt(root: DataRoot, user: str, *answers: str | None) -> Outcome:
    """Run the auth phase of a user with these answers."""
    return run(Login(root, user), *answers)
