# SPDX-License-Identifier: Apache-2.0
"""Values that stand in several places of a policy file: words, numbers, times, device types."""

import enum
import re
from typing import TypeVar

from pam_mfa.document import Section
from pam_mfa.policy.words import DEVICE_TYPES

_Word = TypeVar("_Word", bound=enum.StrEnum)
_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 366 * 86400  # seconds
SMS_REASON = (
    "SMS is not a device type: messages are intercepted, redirected by SIM swaps and not bound "
    "to this login (NIST SP 800-63B-4 restricts them, AWS IAM no longer offers them)"
)


def parse_duration(text: str) -> float:
    """Return the seconds of ``45s``, ``15m``, ``12h`` or ``7d``.

    Raises:
        ValueError: it is none of these, zero, or more than a year.
    """
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST:
        raise ValueError(text)
    return float(seconds)


def read_word(section: Section, key: str, words: type[_Word], default: _Word) -> _Word:
    """Return one of a closed list of words.

    Raises:
        DocumentError: it is another one.
    """
    text = section.get(key, str, default.value)
    if text not in {word.value for word in words}:
        raise section.error(key, f"is '{text}', not one of {', '.join(words)}")
    return words(text)


def read_number(section: Section, key: str, limits: tuple[int, int], default: int) -> int:
    """Return a whole number within limits.

    Raises:
        DocumentError: it is beyond them.
    """
    number = section.get(key, int, default)
    if not limits[0] <= number <= limits[1]:
        raise section.error(key, f"is {number}, not {limits[0]} to {limits[1]}")
    return number


def read_duration(section: Section, key: str, default: float) -> float:
    """Return the seconds of a length of time.

    Raises:
        DocumentError: it is none.
    """
    if key not in section:
        return default
    try:
        return parse_duration(section.require(key, str))
    except ValueError as error:
        raise section.error(
            key, "is not a length of time", "Write it as 45s, 15m, 12h or 7d."
        ) from error


def read_devices(section: Section, key: str) -> tuple[str, ...]:
    """Return a list of device types.

    Raises:
        DocumentError: one is none, or there twice, or there is none at all.
    """
    types = section.texts(key)
    if not types:
        raise section.error(key, "is empty, so nobody could ever log in")
    for index, device_type in enumerate(types):
        if device_type.lower() == "sms":
            raise section.error(key, f"names sms. {SMS_REASON}")
        if device_type not in DEVICE_TYPES:
            known = ", ".join(DEVICE_TYPES)
            raise section.error(key, f"names '{device_type}', not one of {known}")
        if device_type in types[:index]:
            raise section.error(key, f"names '{device_type}' twice")
    return tuple(types)
