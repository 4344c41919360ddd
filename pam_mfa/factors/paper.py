# SPDX-License-Identifier: Apache-2.0
"""Proof by a code on paper: recovery codes, and the bypass code of an administrator.

80 random bits, or the eight digits of a scratch code that was imported; a keyed hash is all that is
kept. Pure: randomness and the hash come as arguments.
"""

import base64
import hmac
import re
from collections.abc import Callable, Iterable
from typing import Final

from pam_mfa.devices import Bypass, Device, PaperDevice, RecoveryCodes
from pam_mfa.factors.code import Match

CODE_BYTES: Final = 10
SET_SIZE: Final = 10
# Eight digits may be a device's code as well: whoever judges an answer tries both.
_TYPED = re.compile(r"[A-Z2-7]{16}|[0-9]{8}", re.ASCII)


def make_code(random: bytes) -> str:
    """Return ``CODE_BYTES`` random bytes as a code in four groups of four."""
    text = base64.b32encode(random).decode("ascii")
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def parse_answer(answer: str) -> str:
    """Return the plain form of a code on paper as people type it; "" if it is none."""
    plain = answer.replace(" ", "").replace("-", "").upper()
    return plain if _TYPED.fullmatch(plain) else ""


def find_matches(
    code: str, devices: Iterable[Device], now: float, hash_code: Callable[[str, str], str]
) -> tuple[Match, ...]:
    """Return the device that a code on paper belongs to.

    Args:
        code: its plain form.
        devices: the user's.
        now: seconds since the epoch; a bypass that has expired matches nothing.
        hash_code: returns the keyed hash of a code for a serial number.
    """
    found = []
    for device in devices:
        if not isinstance(device, RecoveryCodes | Bypass) or is_expired(device, now):
            continue
        made = hash_code(code, device.serial_number)
        for number, kept in enumerate(device.hashes):
            if hmac.compare_digest(made, kept):
                found.append(Match(device, 1, used_key(device, number)))
    return tuple(found)


def is_expired(device: PaperDevice, now: float) -> bool:
    """Whether a bypass is past its time."""
    return isinstance(device, Bypass) and now >= device.expires_at.timestamp()


def used_key(device: PaperDevice, number: int) -> str:
    """Return where the state notes that a set's code of this number was used."""
    return f"{device.serial_number}#{number}"


def used_keys(device: PaperDevice) -> tuple[str, ...]:
    """Return the keys of all of a set's codes."""
    return tuple(used_key(device, number) for number in range(len(device.hashes)))
