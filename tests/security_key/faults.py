# SPDX-License-Identifier: Apache-2.0
"""Switches that make a bad key: each is one lie or one failure, and leaves the rest right.

What a key signs is spoiled before it is signed, so that only the check for that one thing can
tell; a signature is bad only where the fault is a bad signature.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from security_key.authenticator_data import AuthenticatorData
from security_key.ctap import Command, Flag

GARBAGE = bytes.fromhex("00ffdeadbeef") * 5
NESTED = 7_000  # what a message has room for
CLAIMED = 1 << 62
TRUNCATED = 20


class Fault(StrEnum):
    """What is wrong with the key."""

    # The whole answer
    GARBAGE = "garbage"
    EMPTY = "empty"
    UNKNOWN_STATUS = "unknown-status"
    DEEP_CBOR = "deep-cbor"
    LONG_CBOR = "long-cbor"
    # What is asserted
    OTHER_CREDENTIAL = "other-credential"  # another user's on this key, or one of nobody's
    UNASKED_CREDENTIAL_ID = "unasked-credential-id"
    WRONG_RP_ID_HASH = "wrong-rp-id-hash"
    WRONG_USER_HANDLE = "wrong-user-handle"
    NO_USER_PRESENCE = "no-user-presence"
    NO_USER_VERIFICATION = "no-user-verification"
    BAD_SIGNATURE = "bad-signature"
    SIGN_COUNT_BACK = "sign-count-back"
    SIGN_COUNT_ZERO = "sign-count-zero"
    TRUNCATED_AUTH_DATA = "truncated-auth-data"
    WRONG_AAGUID = "wrong-aaguid"
    # PIN protocols
    WRONG_PIN_TOKEN = "wrong-pin-token"
    SHORT_PIN_TOKEN = "short-pin-token"
    BAD_KEY_AGREEMENT = "bad-key-agreement"
    # CTAPHID
    HANG = "hang"
    MUTE = "mute"
    ENDLESS_KEEPALIVES = "endless-keepalives"
    OVERSIZED_MESSAGE = "oversized-message"
    WRONG_CHANNEL = "wrong-channel"
    BUSY = "busy"


@dataclass(frozen=True)
class Extent:
    """When a fault shows: until a time, and for one command only."""

    until: float | None = None
    during: Command | None = None


class Faults:
    """Which faults are on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin as a good key."""
        self.clock = clock
        self.command: int | None = None  # the one under way
        self.extents: dict[Fault, Extent] = {}

    def switch_on(
        self, *faults: Fault, seconds: float | None = None, during: Command | None = None
    ) -> None:
        """Switch faults on, for ever or for some seconds, for all commands or for one."""
        until = None if seconds is None else self.clock() + seconds
        self.extents.update(dict.fromkeys(faults, Extent(until, during)))

    def switch_off(self, *faults: Fault) -> None:
        """Switch these faults off; all of them where none is named."""
        for fault in faults or tuple(self.extents):
            self.extents.pop(fault, None)

    def is_on(self, fault: Fault) -> bool:
        """Whether a fault shows now."""
        extent = self.extents.get(fault)
        if extent is None or (extent.until is not None and self.clock() >= extent.until):
            return False
        return extent.during is None or extent.during == self.command

    def spoil_data(self, data: AuthenticatorData) -> AuthenticatorData:
        """Return what is signed instead."""
        if self.is_on(Fault.WRONG_RP_ID_HASH):
            data = replace(data, rp_id_hash=os.urandom(32))
        if self.is_on(Fault.NO_USER_PRESENCE):
            data = replace(data, flags=data.flags & ~Flag.USER_PRESENT)
        if self.is_on(Fault.NO_USER_VERIFICATION):
            data = replace(data, flags=data.flags & ~Flag.USER_VERIFIED)
        if self.is_on(Fault.SIGN_COUNT_BACK):
            data = replace(data, sign_count=1)
        if self.is_on(Fault.SIGN_COUNT_ZERO):
            data = replace(data, sign_count=0)
        return data

    def spoil_bytes(self, data: bytes) -> bytes:
        """Return authenticator data's bytes, cut off where that is the fault."""
        return data[:TRUNCATED] if self.is_on(Fault.TRUNCATED_AUTH_DATA) else data

    def spoil_signature(self, signature: bytes) -> bytes:
        """Return a signature, with one bit turned where that is the fault."""
        if not self.is_on(Fault.BAD_SIGNATURE):
            return signature
        return signature[:-1] + bytes((signature[-1] ^ 1,))

    def spoil_answer(self, answer: bytes) -> bytes:
        """Return what is sent instead of a whole answer."""
        if self.is_on(Fault.GARBAGE):
            return GARBAGE
        if self.is_on(Fault.EMPTY):
            return b""
        if self.is_on(Fault.UNKNOWN_STATUS):
            return b"\xdd"
        if self.is_on(Fault.DEEP_CBOR):
            return b"\x00" + b"\x81" * NESTED + b"\x00"
        if self.is_on(Fault.LONG_CBOR):
            return b"\x00\xa1\x01\x9b" + CLAIMED.to_bytes(8, "big")
        return answer
