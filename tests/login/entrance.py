# SPDX-License-Identifier: Apache-2.0
"""The programs that a person comes in by: the real sshd, sudo and login behind one face.

For tests of what holds whichever of them asks. Owns what each is told before the code, and how to
see that it let the person in. What is particular to one program is tested beside it.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import pytest
from console_login import Console
from host_accounts import Account
from installed import DataRoot
from phone import typed
from private_host import PrivateHost
from service_stack import password_then_code
from ssh_client import ssh_login
from sshd_server import Sshd
from terminal_session import LoginResult
from verifier_process import Verifier, on_demand

ALICE = Account("alice-of-tests", "correct horse")
NAME = ALICE.name


class Visit(NamedTuple):
    """What came of a person's coming: let in or not, the prompts for a code, all that was shown."""

    is_in: bool
    prompts: tuple[str, ...]
    shown: str


class Entrance(Protocol):
    """A program that asks for a password and then for a code."""

    def __call__(self, *codes: str) -> Visit:
        """Come as Alice: her password, then these codes, one typed at each prompt for one."""


@contextlib.contextmanager
def open_sshd(host: PrivateHost, stack: str) -> Iterator[Entrance]:
    """Run sshd with this PAM stack; people run a command by ssh."""
    with Sshd(host, stack) as sshd:

        def come(*codes: str) -> Visit:
            answers = [("Password: $", ALICE.password), *typed(*codes)]
            result = ssh_login(sshd.port, NAME, answers)
            return _visit(result, is_in=(result.status, result.last_line) == (0, NAME))

        yield come


@contextlib.contextmanager
def open_sudo(host: PrivateHost, stack: str) -> Iterator[Entrance]:
    """Have sudo use this PAM stack; people run a command as root."""
    console = Console(host, sudo=stack)

    def come(*codes: str) -> Visit:
        answers = [("password for .*: $", ALICE.password), *typed(*codes)]
        result = console.sudo(NAME, answers)
        return _visit(result, is_in=(result.status, result.last_line) == (0, "root"))

    yield come


@contextlib.contextmanager
def open_login(host: PrivateHost, stack: str) -> Iterator[Entrance]:
    """Have login use this PAM stack; people come to a shell on a console."""
    console = Console(host, login=stack)

    def come(*codes: str) -> Visit:
        result = console.login(NAME, [("Password: $", ALICE.password), *typed(*codes)])
        return _visit(result, is_in=result.last_line == NAME)

    yield come


class Opening(NamedTuple):
    """A program, and the way in which it comes to a verifier."""

    program: Callable[[PrivateHost, str], AbstractContextManager[Entrance]]
    verifier: Verifier

    @contextlib.contextmanager
    def entrance(self, root: DataRoot, host: PrivateHost) -> Iterator[Entrance]:
        """Open the entrance: it asks for the password, then for a code of this root's devices."""
        with self.verifier(root), self.program(host, password_then_code(root)) as entrance:
            yield entrance


SSHD = pytest.param(Opening(open_sshd, DataRoot.daemon), id="sshd")
SUDO = pytest.param(Opening(open_sudo, on_demand), id="sudo")
LOGIN = pytest.param(Opening(open_login, on_demand), id="login")
# Each program once, and both ways to a verifier among them; or the quickest one, where what is
# shown is no matter of the program.
EACH_ENTRANCE = pytest.mark.parametrize("opening", [SSHD, SUDO, LOGIN])
ONE_ENTRANCE = pytest.mark.parametrize("opening", [LOGIN])


def _visit(result: LoginResult, *, is_in: bool) -> Visit:
    """Return what came of a login, without what ssh puts before a prompt."""
    asked = (prompt for prompt in result.prompts if "Verification code" in prompt)
    prompts = tuple(prompt[prompt.index("Verification code") :] for prompt in asked)
    return Visit(is_in, prompts, result.output)
