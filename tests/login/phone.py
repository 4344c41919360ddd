# SPDX-License-Identifier: Apache-2.0
"""A person's phone: the authenticator application with one enabled device in it.

Owns the codes that the person reads off it, made by oathtool, and codes that it never shows.
A code is good for at least one whole time step after it was read (policy: window 1), so no
login has to hurry; the one read with `step=1` is good now and fresh after the other.
"""

import itertools

from installed import DataRoot, totp
from terminal_session import Answer

CODE_PROMPT = r"Verification code.*: $"  # the first one, and those after a wrong code
NEXT_PROMPT = "Verification code (the next one that your device shows): "
FAILURES = 5  # wrong codes that lock a user, by the shipped policy
PROMPTS = 3  # in one login, by the shipped policy


class Phone:
    """The phone of one user, whose device it enables."""

    def __init__(self, root: DataRoot, user: str) -> None:
        """Enable the device."""
        self._secret = root.enroll(user)

    def code(self, step: int = 0) -> str:
        """Return the code of the current time step, or of one after it."""
        return totp(self._secret, step)

    def wrong_code(self) -> str:
        """Return a code that the phone shows at no time near to now; not of zeros, as a log has."""
        shown = totp(self._secret, -4, "--window", "16").split()
        return next(code for code in map("{:06}".format, itertools.count(1)) if code not in shown)


def typed(*codes: str | None) -> list[Answer]:
    """Return the answers of a person who types these codes, one at each prompt for a code."""
    return [(CODE_PROMPT, code) for code in codes]
