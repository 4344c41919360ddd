# SPDX-License-Identifier: Apache-2.0
"""What a login benchmark measures: users, their codes, and the seam every module is put behind.

TOTP is written out here (RFC 6238 over RFC 4226) rather than taken from the product or from a
library it uses, so that a mistake in the product cannot agree with itself.
"""

import base64
import hmac
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

TIME_STEP = 30  # seconds, RFC 6238 section 4.1
DIGITS = 6
SECRET_BYTES = 20  # RFC 4226 section 4 recommends 160 bits


class BenchmarkError(Exception):
    """The benchmark cannot run, or its figures would be wrong; the message says what to do."""


@dataclass(frozen=True)
class User:
    """One user who logs in once; the name need not exist on the machine."""

    name: str
    secret: bytes = field(repr=False)

    @property
    def base32(self) -> str:
        """The secret as authenticator apps take it."""
        return base64.b32encode(self.secret).decode("ascii")


class Contender(Protocol):
    """A way to verify a code behind libpam.

    `prepare` is called once, in the parent, before the workers are forked from it. `code` is called
    in the workers, just before a login is timed. `close` is called in the parent, also after an
    error.
    """

    name: str
    verifies: bool
    """Whether a wrong and a repeated code must be refused; False for the floor."""
    at_most: int | None
    """The most logins made at each level, for a slow contender; None: one for every user."""

    def prepare(self, users: Sequence[User]) -> str:
        """Start from a fresh state that knows all the users; return the PAM service's text."""
        ...

    def code(self, user: User, now: float) -> str:
        """Return the code that is right for the user at this Unix time."""
        ...

    def close(self) -> None:
        """Stop whatever `prepare` started; must not fail when it did not get that far."""
        ...


def create_users(count: int) -> list[User]:
    """Return this many users with random secrets."""
    return [User(f"bench{i:05d}", secrets.token_bytes(SECRET_BYTES)) for i in range(count)]


def totp(user: User, now: float) -> str:
    """Return the user's six-digit SHA-1 code at this Unix time."""
    counter = int(now) // TIME_STEP
    digest = hmac.digest(user.secret, counter.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0x0F  # dynamic truncation, RFC 4226 section 5.3
    binary = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
    return str(binary % 10**DIGITS).zfill(DIGITS)


def cross_check(users: Sequence[User], now: float) -> None:
    """Compare the codes with those of oathtool, a program that nobody here wrote.

    Raises:
        BenchmarkError: they differ, or oathtool is not installed.
    """
    command = ["oathtool", "--totp", "--base32", f"--now=@{int(now)}", "-"]
    for user in users:
        try:
            answer = subprocess.run(
                command, input=user.base32, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError) as error:
            raise BenchmarkError(f"oathtool did not run: {error}; install oathtool") from error
        if answer != totp(user, now):
            raise BenchmarkError(f"oathtool says {answer}, the benchmark {totp(user, now)}")


def require_module(file_name: str, package: str) -> None:
    """Check that libpam can find a module by its bare name.

    Raises:
        BenchmarkError: it is in none of libpam's usual folders; names the Debian package.
    """
    folders = [*Path("/usr/lib").glob("*/security"), Path("/usr/lib64/security")]
    folders += [Path("/usr/lib/security"), Path("/lib/security")]
    if not any((folder / file_name).is_file() for folder in folders):
        raise BenchmarkError(f"{file_name} is not installed: apt-get install {package}")
