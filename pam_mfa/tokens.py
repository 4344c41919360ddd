# SPDX-License-Identifier: Apache-2.0
"""Hardware tokens as their vendors deliver them: what a file says of each.

Pure. ``pskc`` and ``token_csv`` read files into these; ``store.inventory`` keeps them.
"""

import re
from typing import Final, NamedTuple

from pam_mfa.oath import DIGITS, PERIODS, SEED_BITS_MINIMUM, SEED_BYTES_MAXIMUM, Parameters
from pam_mfa.secret import Secret

COUNTER_MAX: Final = 2**62  # SQLite keeps 2**63 - 1, and what is looked ahead must fit, too
_SERIAL_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", re.ASCII)


class Token(NamedTuple):
    """One token that a file describes."""

    serial_number: str
    manufacturer: str
    parameters: Parameters
    counter: int  # of an event-based token: the next one; 0 for a time-based one
    seed: Secret
    line: int = 0  # of the file


class BadEntry(NamedTuple):
    """An entry of a file that describes no usable token."""

    line: int
    serial_number: str  # "" where it is not known
    reason: str


class Delivery(NamedTuple):
    """What one file says."""

    dialect: str  # how the file was read, for the person to confirm
    tokens: tuple[Token, ...]
    bad: tuple[BadEntry, ...]


def find_fault(token: Token) -> str:
    """Return why a token cannot be used; "" where it can."""
    bits = len(token.seed.reveal()) * 8
    if not _SERIAL_NUMBER.fullmatch(token.serial_number):
        return "its serial number is not 1 to 64 letters, digits, dots, dashes, colons, underscores"
    if not SEED_BITS_MINIMUM <= bits <= SEED_BYTES_MAXIMUM * 8:
        return (
            f"its seed has {bits} bits; {SEED_BITS_MINIMUM} to {SEED_BYTES_MAXIMUM * 8} are "
            "accepted (NIST SP 800-63B); a shorter one may be cut"
        )
    if token.parameters.digits not in DIGITS:
        return f"its codes have {token.parameters.digits} digits, not one of {DIGITS}"
    if token.parameters.period and token.parameters.period not in PERIODS:
        return f"its period is {token.parameters.period} s, not one of {PERIODS}"
    if not 0 <= token.counter <= COUNTER_MAX:
        return (
            f"its counter {token.counter} is out of range"
            if abs(token.counter) < 10**20
            else ("its counter is out of range")
        )
    return ""
