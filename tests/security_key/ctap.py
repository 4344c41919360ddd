# SPDX-License-Identifier: Apache-2.0
"""Numbers that CTAP 2.1 and WebAuthn give to commands, flags and algorithms."""

from enum import IntEnum, IntFlag

ES256 = -7
EDDSA = -8
PUBLIC_KEY = "public-key"


class Command(IntEnum):
    """CTAP2 commands (section 6)."""

    MAKE_CREDENTIAL = 0x01
    GET_ASSERTION = 0x02
    GET_INFO = 0x04
    CLIENT_PIN = 0x06
    RESET = 0x07
    GET_NEXT_ASSERTION = 0x08
    SELECTION = 0x0B


class Flag(IntFlag):
    """Flags of authenticator data (WebAuthn, section 6.1)."""

    USER_PRESENT = 0x01
    USER_VERIFIED = 0x04
    ATTESTED = 0x40
    EXTENSIONS = 0x80


class Permission(IntFlag):
    """What a pinUvAuthToken is good for (section 6.5.5.7); this key has use for two."""

    MAKE_CREDENTIAL = 0x01
    GET_ASSERTION = 0x02
