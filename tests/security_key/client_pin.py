# SPDX-License-Identifier: Apache-2.0
"""authenticatorClientPIN (CTAP 2.1, section 6.5.5): the PIN, its retries, and tokens."""

import hashlib
import hmac
import os
from enum import IntEnum

from security_key.cbor import Item
from security_key.ctap import Permission
from security_key.exchange import Step
from security_key.faults import Fault
from security_key.memory import PIN_RETRIES, UV_RETRIES
from security_key.parameters import Parameters
from security_key.parts import PIN_ATTEMPTS, Parts
from security_key.pin_protocol import PinProtocol
from security_key.status import Status, StatusError
from security_key.user_verification import verify_finger

PIN_HASH = 16
SHORTEST, LONGEST, PADDED = 4, 63, 64  # code points, bytes, bytes
PROTOCOL, SUBCOMMAND, KEY_AGREEMENT, CODE, NEW_PIN, PIN_HASH_ENC, PERMISSIONS, RP_ID = (
    1, 2, 3, 4, 5, 6, 9, 10,
)  # fmt: skip
BOTH = Permission.MAKE_CREDENTIAL | Permission.GET_ASSERTION


class Subcommand(IntEnum):
    """Subcommands of authenticatorClientPIN."""

    GET_PIN_RETRIES = 0x01
    GET_KEY_AGREEMENT = 0x02
    SET_PIN = 0x03
    CHANGE_PIN = 0x04
    GET_PIN_TOKEN = 0x05
    GET_TOKEN_USING_UV = 0x06
    GET_UV_RETRIES = 0x07
    GET_TOKEN_USING_PIN = 0x09


NEWER = {
    Subcommand.GET_TOKEN_USING_UV,
    Subcommand.GET_UV_RETRIES,
    Subcommand.GET_TOKEN_USING_PIN,
}
Answer = dict[int, Item]


def hash_pin(pin: bytes) -> bytes:
    """Return what a key keeps of a PIN."""
    return hashlib.sha256(pin).digest()[:PIN_HASH]


class ClientPin:
    """The command, on one key."""

    def __init__(self, parts: Parts) -> None:
        """Work on these parts."""
        self.parts = parts

    def run(self, parameters: Parameters) -> Step[Answer]:
        """Answer one subcommand."""
        subcommand = self._require_subcommand(parameters)
        if subcommand is Subcommand.GET_PIN_RETRIES:
            return self._pin_retries()
        if subcommand is Subcommand.GET_UV_RETRIES:
            return {5: self.parts.memory.uv_retries}
        protocol = self.parts.protocols.get(parameters.require(PROTOCOL, int))
        if protocol is None:
            raise StatusError(Status.INVALID_PARAMETER)
        if subcommand is Subcommand.GET_KEY_AGREEMENT:
            return {1: self._key_agreement(protocol)}
        shared = protocol.agree(parameters.require_map(KEY_AGREEMENT))
        if subcommand is Subcommand.SET_PIN:
            self._set_pin(protocol, shared, parameters)
            return {}
        if subcommand is Subcommand.CHANGE_PIN:
            self._change_pin(protocol, shared, parameters)
            return {}
        permissions, rp_id = self._require_permissions(subcommand, parameters)
        if subcommand is Subcommand.GET_TOKEN_USING_UV:
            yield from self._verify_finger()
        else:
            self._verify_pin(protocol, shared, parameters)
        token = self.parts.power.token
        token.renew(permissions, rp_id)
        token.is_user_present = subcommand is Subcommand.GET_TOKEN_USING_UV
        return {2: self._token_output(protocol, shared)}

    def _require_subcommand(self, parameters: Parameters) -> Subcommand:
        """Return the subcommand, if this key has it."""
        try:
            subcommand = Subcommand(parameters.require(SUBCOMMAND, int))
        except ValueError as error:
            raise StatusError(Status.INVALID_SUBCOMMAND) from error
        model = self.parts.model
        needs_finger = subcommand in (Subcommand.GET_TOKEN_USING_UV, Subcommand.GET_UV_RETRIES)
        if (subcommand in NEWER and not model.is_2_1) or (needs_finger and not model.built_in_uv):
            raise StatusError(Status.INVALID_SUBCOMMAND)
        return subcommand

    def _pin_retries(self) -> Answer:
        """Return how many wrong PINs are left, and whether unplugging comes first."""
        left = self.parts.memory.pin_retries
        answer: Answer = {3: left}
        if self.parts.model.is_2_1:
            answer[4] = self.parts.power.attempts == 0 and left > 0
        return answer

    def _key_agreement(self, protocol: PinProtocol) -> Answer:
        """Return the key agreement key."""
        key = protocol.public_key
        if self.parts.faults.is_on(Fault.BAD_KEY_AGREEMENT):
            key[-3] = os.urandom(32)  # with all likelihood a point off the curve
        return key

    def _set_pin(self, protocol: PinProtocol, shared: bytes, parameters: Parameters) -> None:
        """Set the first PIN."""
        new, code = parameters.require(NEW_PIN, bytes), parameters.require(CODE, bytes)
        if self.parts.memory.pin_hash is not None:
            raise StatusError(Status.PIN_AUTH_INVALID)
        if not hmac.compare_digest(protocol.authenticate(shared, new), code):
            raise StatusError(Status.PIN_AUTH_INVALID)
        self._keep_pin(protocol.decrypt(shared, new))

    def _change_pin(self, protocol: PinProtocol, shared: bytes, parameters: Parameters) -> None:
        """Set another PIN, for who knows the one that is set."""
        new, code = parameters.require(NEW_PIN, bytes), parameters.require(CODE, bytes)
        old = parameters.require(PIN_HASH_ENC, bytes)
        self._require_retries()
        if not hmac.compare_digest(protocol.authenticate(shared, new + old), code):
            raise StatusError(Status.PIN_AUTH_INVALID)
        self._verify_pin(protocol, shared, parameters)
        self._keep_pin(protocol.decrypt(shared, new))
        self.parts.power.token.renew(Permission(0))

    def _keep_pin(self, padded: bytes) -> None:
        """Keep a new PIN, if it may be one."""
        if len(padded) != PADDED:
            raise StatusError(Status.INVALID_PARAMETER)
        pin = padded.rstrip(b"\0")
        try:
            is_long_enough = len(pin.decode()) >= SHORTEST
        except UnicodeDecodeError:
            is_long_enough = False
        if not is_long_enough or len(pin) > LONGEST:
            raise StatusError(Status.PIN_POLICY_VIOLATION)
        self.parts.memory.pin_hash = hash_pin(pin)
        self.parts.memory.pin_retries = PIN_RETRIES
        self.parts.power.attempts = PIN_ATTEMPTS

    def _require_retries(self) -> None:
        """Check that there is a PIN, and that it may be tried."""
        if self.parts.memory.pin_hash is None:
            raise StatusError(Status.PIN_NOT_SET)
        if self.parts.memory.pin_retries == 0:
            raise StatusError(Status.PIN_BLOCKED)
        if self.parts.power.attempts == 0:
            raise StatusError(Status.PIN_AUTH_BLOCKED)

    def _verify_pin(self, protocol: PinProtocol, shared: bytes, parameters: Parameters) -> None:
        """Check the PIN; the retry is taken before, so that pulling the key out saves none."""
        self._require_retries()
        memory, power = self.parts.memory, self.parts.power
        offered = protocol.decrypt(shared, parameters.require(PIN_HASH_ENC, bytes))
        memory.pin_retries -= 1
        if not hmac.compare_digest(memory.pin_hash or b"", offered):
            power.attempts -= 1
            protocol.renew()
            if memory.pin_retries == 0:
                raise StatusError(Status.PIN_BLOCKED)
            is_blocked = power.attempts == 0
            raise StatusError(Status.PIN_AUTH_BLOCKED if is_blocked else Status.PIN_INVALID)
        memory.pin_retries, memory.uv_retries = PIN_RETRIES, UV_RETRIES
        power.attempts = PIN_ATTEMPTS

    def _verify_finger(self) -> Step[None]:
        """Check the finger; the right one gives its tries back."""
        yield from verify_finger(self.parts)
        self.parts.memory.uv_retries = UV_RETRIES

    def _require_permissions(
        self, subcommand: Subcommand, parameters: Parameters
    ) -> tuple[Permission, str | None]:
        """Return what a token is asked for."""
        number = parameters.find(PERMISSIONS, int)
        rp_id = parameters.find(RP_ID, str)
        if subcommand is Subcommand.GET_PIN_TOKEN:
            if number is not None or rp_id is not None:
                raise StatusError(Status.INVALID_PARAMETER)
            return BOTH, None
        if number is None:
            raise StatusError(Status.MISSING_PARAMETER)
        if number == 0:
            raise StatusError(Status.INVALID_PARAMETER)
        if rp_id is None and number & BOTH:
            raise StatusError(Status.MISSING_PARAMETER)
        return Permission(number & BOTH), rp_id

    def _token_output(self, protocol: PinProtocol, shared: bytes) -> bytes:
        """Return the token, encrypted."""
        faults, token = self.parts.faults, self.parts.power.token.value
        if faults.is_on(Fault.SHORT_PIN_TOKEN):
            return protocol.encrypt(shared, token)[:-1]
        if faults.is_on(Fault.WRONG_PIN_TOKEN):
            return os.urandom(len(protocol.encrypt(shared, token)))
        return protocol.encrypt(shared, token)
