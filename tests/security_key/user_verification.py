# SPDX-License-Identifier: Apache-2.0
"""How makeCredential and getAssertion learn that the user is verified (CTAP 2.1, 6.1.2, 6.2.2)."""

from typing import NamedTuple

from security_key.ctap import Permission
from security_key.exchange import Need, Step, require_gesture
from security_key.parameters import Parameters
from security_key.parts import Parts
from security_key.status import Status, StatusError


class Request(NamedTuple):
    """Where a command has its parameters, and what they are about."""

    parameters: Parameters
    options: int
    code: int
    protocol: int
    permission: Permission
    rp_id: str
    client_data_hash: bytes


class Verification(NamedTuple):
    """What is known of the user without a further touch."""

    is_verified: bool
    is_present: bool


def verify_finger(parts: Parts) -> Step[None]:
    """Wait for the finger that is enrolled; each wrong one leaves a try less."""
    if parts.memory.uv_retries == 0:
        raise StatusError(Status.UV_BLOCKED)
    try:
        yield from require_gesture(Need.FINGER)
    except StatusError as error:
        if error.status is Status.UV_INVALID:
            parts.memory.uv_retries -= 1
            if parts.memory.uv_retries == 0:
                raise StatusError(Status.UV_BLOCKED) from error
        raise


def verify_code(parts: Parts, request: Request, code: bytes) -> Step[Verification]:
    """Check a pinUvAuthParam."""
    if not code:
        # Hosts ask so which of several keys the person wants to use.
        yield from require_gesture(Need.TOUCH)
        is_set = parts.memory.pin_hash is not None
        raise StatusError(Status.PIN_INVALID if is_set else Status.PIN_NOT_SET)
    number = request.parameters.require(request.protocol, int)
    protocol = parts.protocols.get(number)
    if protocol is None:
        raise StatusError(Status.INVALID_PARAMETER)
    token = parts.power.token
    token.verify(protocol, request.client_data_hash, code)
    token.require(request.permission, request.rp_id)
    return Verification(is_verified=True, is_present=token.is_user_present)


def verify_option(parts: Parts) -> Step[Verification]:
    """Have the key itself verify the user, as the option ``uv`` asks."""
    if not parts.model.built_in_uv:
        raise StatusError(Status.INVALID_OPTION)
    try:
        yield from verify_finger(parts)
    except StatusError as error:
        if error.status not in (Status.UV_INVALID, Status.UV_BLOCKED):
            raise
        has_pin = parts.memory.pin_hash is not None
        status = Status.PUAT_REQUIRED if has_pin else Status.OPERATION_DENIED
        raise StatusError(status) from error
    return Verification(is_verified=True, is_present=True)


def verify_user(parts: Parts, request: Request) -> Step[Verification]:
    """Verify the user as far as the request asks for it."""
    code = request.parameters.find(request.code, bytes)
    if code is not None:
        verification = yield from verify_code(parts, request, code)
        return verification
    if request.parameters.find_map(request.options).find("uv", bool):
        verification = yield from verify_option(parts)
        return verification
    return Verification(is_verified=False, is_present=False)
