# SPDX-License-Identifier: Apache-2.0
"""A data root whose verifier on demand runs under something that makes it fail.

The module is the shipped one, built with another path to its verifier: a script that runs the
installed verifier by whatever command line the test has written down. Owns that script and the
device that the tests use up codes of; what is injected, and what must hold, is for the tests.
"""

import secrets
import shlex
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from host_program import Login, Outcome, attempt, run
from installed import REPOSITORY, DataRoot
from serving import wait_until_gone

_building = threading.Lock()
_LEEWAY = 2  # codes ahead of the last one used; the verifier looks further than that


class Strained:
    """One user, alice, with a counter device, and a verifier that can be made to fail."""

    def __init__(self, prefix: Path) -> None:
        """Make a data root with alice in it, whose verifier is not under strain yet."""
        self.root = _StrainedRoot(prefix)
        self._seed = secrets.token_hex(20)
        self._counter = 0
        users = self.root.path / "users.oath"
        users.write_text(f"HOTP/E alice - {self._seed} 0\n", "ascii")
        users.chmod(0o600)
        self.root.command("import", "oath", str(users))
        self.relax()

    def strain(self, *command: str | Path) -> None:
        """Have every verifier on demand be started by this command line from now on."""
        self.root.strain.write_text(shlex.join(map(str, command)), "ascii")

    def relax(self) -> None:
        """Have verifiers be started as usual, once those under strain are gone."""
        wait_until_gone(self.root)
        self.strain("env")

    def code(self, ahead: int = 0) -> str:
        """Return the code of a counter this many after the next one."""
        counter = str(self._counter + ahead)
        done = subprocess.run(
            ["oathtool", "--hotp", "--counter", counter, self._seed],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        return done.stdout.strip()

    def skip(self) -> None:
        """Take the next code as used."""
        self._counter += 1

    def log_in(self, wrapper: Sequence[str] = (), arguments: str = "") -> Outcome:
        """Log in once with the next code, which is not taken as used."""
        if not wrapper and not arguments:
            return attempt(self.root, "alice", self.code())
        service = self.root.service(arguments)
        return run(Login(self.root, "alice", service, wrapper=wrapper), self.code())

    def accepted(self) -> int:
        """Return how many codes the log says were accepted."""
        return self.root.reasons().count("code_accepted")

    def require_whole(self, before: int, *, was_let_in: bool) -> None:
        """See that a failure has cost nobody anything but that login.

        The verifier is not under strain any more. The code that was typed is offered again, and
        the next one behind it.

        Args:
            before: the codes accepted before the failure.
            was_let_in: whether the host was told success by the verifier that failed.
        """
        self.relax()
        assert self.accepted() in (before, before + 1)
        if was_let_in:
            assert self.accepted() == before + 1, "a success without its record"
        again = attempt(self.root, "alice", self.code(), self.code(1))
        assert again.status == 0, "the login after the failure was refused"
        was_used = len(again.prompts) == 2
        assert was_used or not was_let_in, "one code let in twice"
        wait_until_gone(self.root)
        assert self.accepted() == before + 1 + was_used, "records are lost, or there twice"
        self._counter += _LEEWAY


class _StrainedRoot(DataRoot):
    """A data root whose module starts the script."""

    def __init__(self, prefix: Path) -> None:
        super().__init__(prefix)
        self.strain = self.path / "strain"
        self._built = _build(prefix)

    @property
    def module(self) -> str:
        """The module and its root, as they stand in a PAM line."""
        return f"{self._built}/pam_mfa.so root={self.path}"

    def service(self, arguments: str) -> str:
        """Write a service file with more arguments; return its name."""
        name = "strained"
        line = f"auth [success=done ignore=ignore default=die] {self.module} {arguments}\n"
        (self.services / name).write_text(line, "ascii")
        return name


def _build(prefix: Path) -> Path:
    """Build the module with the script as its verifier, at the first use of a prefix."""
    built = prefix.parent / "strained"
    with _building:
        if not built.exists():
            built.mkdir()
            script = built / "pam-mfad"
            # Its arguments are --once 3 --root DIR; it has close to no environment.
            words = f'eval exec "$(cat "$4/strain")" {prefix}/bin/pam-mfad \'"$@"\''
            script.write_text(f"#!/bin/sh\n{words}\n", "ascii")
            script.chmod(0o755)
            native = REPOSITORY / "pam_mfa/native"
            command = ["make", "-s", "-C", str(native), f"OUT={built}", f"PAM_MFAD={script}"]
            subprocess.run(command, check=True, timeout=120)
    return built


@contextmanager
def straining(prefix: Path) -> Iterator[Strained]:
    """Give a user and a verifier to be made to fail; both are gone afterwards."""
    made = Strained(prefix)
    try:
        yield made
    finally:
        wait_until_gone(made.root)
        made.root.remove()
