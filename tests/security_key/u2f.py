# SPDX-License-Identifier: Apache-2.0
"""U2F (CTAP1): the three commands of FIDO U2F Raw Message Formats 1.2, as APDUs."""

import os
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from security_key.authenticator_data import AuthenticatorData
from security_key.credential import Credential, Protection
from security_key.ctap import ES256, Flag
from security_key.exchange import Gesture, Need, Step
from security_key.model import U2F_V2
from security_key.parts import Parts
from security_key.signing_key import generate_key

RESERVED = b"\x05"
REGISTER_SIZE = 64
HANDLE_AT = 65


class Word(IntEnum):
    """Status words at the end of an answer."""

    NO_ERROR = 0x9000
    WRONG_LENGTH = 0x6700
    CONDITIONS_NOT_SATISFIED = 0x6985
    WRONG_DATA = 0x6A80
    INS_NOT_SUPPORTED = 0x6D00
    CLA_NOT_SUPPORTED = 0x6E00


class Control(IntEnum):
    """P1 of an authentication."""

    ENFORCE = 0x03
    CHECK_ONLY = 0x07
    DO_NOT_ENFORCE = 0x08


class WordError(Exception):
    """A command ends with this status word."""

    def __init__(self, word: Word) -> None:
        """Keep the word."""
        super().__init__(word.name)
        self.word = word


class Apdu(NamedTuple):
    """A command."""

    cla: int
    ins: int
    p1: int
    data: bytes


def parse_apdu(message: bytes) -> Apdu:
    """Return a command with a short or an extended length."""
    if len(message) < 4:
        raise WordError(Word.WRONG_LENGTH)
    cla, ins, p1, _p2 = message[:4]
    body = message[4:]
    if len(body) >= 3 and body[0] == 0:
        size, data = struct.unpack(">H", body[1:3])[0], body[3:]
        if len(body) == 3:
            size, data = 0, b""  # an expected length alone
    elif len(body) > 1:
        size, data = body[0], body[1:]
    else:
        size, data = 0, b""
    if len(data) not in range(size, size + 4):
        raise WordError(Word.WRONG_LENGTH)
    return Apdu(cla, ins, p1, data[:size])


class U2f:
    """U2F on one key's parts."""

    def __init__(self, parts: Parts) -> None:
        """Work on these parts."""
        self.parts = parts

    def run(self, message: bytes) -> Step[bytes]:
        """Answer a command; the person is looked at, not waited for."""
        commands: dict[int, Callable[[Apdu], Step[bytes]]] = {
            0x01: self._register,
            0x02: self._authenticate,
            0x03: self._version,
        }
        try:
            apdu = parse_apdu(message)
            if apdu.cla:
                raise WordError(Word.CLA_NOT_SUPPORTED)
            if apdu.ins not in commands:
                raise WordError(Word.INS_NOT_SUPPORTED)
            data = yield from commands[apdu.ins](apdu)
        except WordError as error:
            return struct.pack(">H", error.word)
        return data + struct.pack(">H", Word.NO_ERROR)

    def _version(self, apdu: Apdu) -> Step[bytes]:
        """Return the version's name."""
        if apdu.data:
            raise WordError(Word.WRONG_LENGTH)
        yield from ()
        return U2F_V2.encode()

    def _register(self, apdu: Apdu) -> Step[bytes]:
        """Make a credential."""
        if len(apdu.data) != REGISTER_SIZE:
            raise WordError(Word.WRONG_LENGTH)
        challenge, application = apdu.data[:32], apdu.data[32:]
        yield from self._require_touch()
        memory, model = self.parts.memory, self.parts.model
        credential = Credential(os.urandom(64), application, generate_key(ES256))
        credential.sign_count = model.first_sign_count
        memory.credentials.append(credential)
        handle, point = credential.credential_id, credential.key.point
        signature = memory.attestation.key.sign(b"\0" + application + challenge + handle + point)
        return (
            RESERVED + point + bytes((len(handle),)) + handle + memory.attestation.certificate
            + self.parts.faults.spoil_signature(signature)
        )  # fmt: skip

    def _authenticate(self, apdu: Apdu) -> Step[bytes]:
        """Sign with a credential."""
        data = apdu.data
        if len(data) <= HANDLE_AT or len(data) != HANDLE_AT + data[HANDLE_AT - 1]:
            raise WordError(Word.WRONG_LENGTH)
        challenge, application, handle = data[:32], data[32:64], data[HANDLE_AT:]
        credential = self._require_credential(application, handle)
        if apdu.p1 == Control.CHECK_ONLY:
            raise WordError(Word.CONDITIONS_NOT_SATISFIED)
        flags = Flag(0)
        if apdu.p1 == Control.ENFORCE:
            yield from self._require_touch()
            flags = Flag.USER_PRESENT
        elif apdu.p1 != Control.DO_NOT_ENFORCE:
            raise WordError(Word.WRONG_DATA)
        faults = self.parts.faults
        count = self.parts.memory.count(credential, self.parts.model.sign_counter)
        signed = faults.spoil_data(AuthenticatorData(application, flags, count)).encode()
        signature = faults.spoil_signature(credential.key.sign(signed + challenge))
        return signed[len(application) :] + signature

    def _require_credential(self, application: bytes, handle: bytes) -> Credential:
        """Return the credential of a key handle, if U2F may use it."""
        for each in self.parts.memory.find_credentials(application):
            is_usable = each.key.algorithm == ES256 and each.protection is not Protection.REQUIRED
            if each.credential_id == handle and is_usable:
                return each
        raise WordError(Word.WRONG_DATA)

    def _require_touch(self) -> Step[None]:
        """Check that the person touches just now."""
        gesture = yield Need.GLIMPSE
        if gesture is not Gesture.GIVEN:
            raise WordError(Word.CONDITIONS_NOT_SATISFIED)
