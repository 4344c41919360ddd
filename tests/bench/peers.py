# SPDX-License-Identifier: Apache-2.0
"""The modules pam_mfa is compared with, each set up as its own documentation says.

All run with replay protection on and one time step allowed either side. Nothing of the product is
used here.
"""

from collections.abc import Sequence
from pathlib import Path

from contender import User, require_module, totp

GOOGLE_AUTHENTICATOR = "pam_google_authenticator"

GOOGLE_SECRET_FILE = """\
{base32}
" RATE_LIMIT 3 30
" WINDOW_SIZE 3
" DISALLOW_REUSE
" TOTP_AUTH
"""


class Permit:
    """pam_permit: the floor, what libpam and this benchmark cost by themselves; asks nothing."""

    name = "pam_permit"
    verifies = False
    at_most: int | None = None

    def prepare(self, users: Sequence[User]) -> str:  # noqa: ARG002  # it knows no users
        """Return the service's text."""
        return "auth required pam_permit.so\n"

    def code(self, user: User, now: float) -> str:
        """Return the code as for the others, so that a login's preparation is the same."""
        return totp(user, now)

    def close(self) -> None:
        """Do nothing: nothing was started."""


class GoogleAuthenticator:
    """pam_google_authenticator with one secret file a user in a folder of root's."""

    name = GOOGLE_AUTHENTICATOR
    verifies = True
    at_most: int | None = None

    def __init__(self, directory: Path) -> None:
        """Keep the secret files in this folder; the module replaces them there at each login."""
        self._directory = directory

    def prepare(self, users: Sequence[User]) -> str:
        """Write every user's file, mode 0600 as the module demands."""
        require_module("pam_google_authenticator.so", "libpam-google-authenticator")
        self._directory.mkdir(mode=0o700)
        for user in users:
            text = GOOGLE_SECRET_FILE.format(base32=user.base32)
            write_private(self._directory / user.name, text)
        options = f"secret={self._directory}/${{USER}} user=root"
        return f"auth required pam_google_authenticator.so {options}\n"

    def code(self, user: User, now: float) -> str:
        """Return the user's code."""
        return totp(user, now)

    def close(self) -> None:
        """Do nothing: nothing was started."""


class Oath:
    """pam_oath with all users in one usersfile, its documented form.

    The ${USER} form, one file a user, is left out: it switches to that user first, who would have
    to exist on the machine.
    """

    name = "pam_oath"
    verifies = True
    at_most: int | None = None

    def __init__(self, directory: Path) -> None:
        """Keep the usersfile in this folder; the module rewrites it whole at each login."""
        self._directory = directory

    def prepare(self, users: Sequence[User]) -> str:
        """Write the users; window=1 is one step either side for a time-based line."""
        require_module("pam_oath.so", "libpam-oath")
        self._directory.mkdir(mode=0o700)
        lines = [f"HOTP/T30/6 {user.name} - {user.secret.hex()}\n" for user in users]
        users_file = self._directory / "users.oath"
        write_private(users_file, "".join(lines))
        return f"auth required pam_oath.so usersfile={users_file} window=1\n"

    def code(self, user: User, now: float) -> str:
        """Return the user's code."""
        return totp(user, now)

    def close(self) -> None:
        """Do nothing: nothing was started."""


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from the start."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="ascii")
