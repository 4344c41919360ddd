# SPDX-License-Identifier: Apache-2.0
"""authenticatorGetAssertion and authenticatorGetNextAssertion (CTAP 2.1, sections 6.2.2, 6.3)."""

import os

from security_key.authenticator_data import AuthenticatorData
from security_key.cbor import Item
from security_key.credential import Credential, hash_rp_id
from security_key.ctap import ES256, Flag, Permission
from security_key.exchange import Need, Step, require_gesture
from security_key.faults import Fault
from security_key.parameters import Parameters
from security_key.parts import Parts, Queue
from security_key.signing_key import generate_key
from security_key.status import Status, StatusError
from security_key.user_verification import Request, verify_user

RP_ID, CLIENT_DATA_HASH, ALLOW_LIST, EXTENSIONS, OPTIONS, CODE, PROTOCOL = range(1, 8)


class Assertion:
    """The two commands, on one key."""

    def __init__(self, parts: Parts) -> None:
        """Work on these parts."""
        self.parts = parts

    def run(self, parameters: Parameters) -> Step[dict[int, Item]]:
        """Sign with a credential that the request allows."""
        self.parts.power.queue = None
        request = parse_request(parameters)
        options = parameters.find_map(OPTIONS)
        if options.has("rk"):
            raise StatusError(Status.UNSUPPORTED_OPTION)
        is_asked = options.find("up", bool) is not False
        verification = yield from verify_user(self.parts, request)
        if self.parts.model.always_uv and is_asked and not verification.is_verified:
            raise StatusError(Status.PUAT_REQUIRED)
        found = self._find_credentials(request, is_verified=verification.is_verified)
        if not found:
            raise StatusError(Status.NO_CREDENTIALS)
        if is_asked and not verification.is_present:
            yield from require_gesture(Need.TOUCH)
        if is_asked and self.parts.model.is_2_1:
            self.parts.power.token.spend()
        queue = Queue(
            rp_id_hash=hash_rp_id(request.rp_id),
            client_data_hash=request.client_data_hash,
            is_present=is_asked,
            is_verified=verification.is_verified,
            credentials=found[:1] if parameters.has(ALLOW_LIST) else found,
        )
        queue.total = len(queue.credentials)
        answer = self._assert_next(queue)
        if queue.total > 1:
            answer[5] = queue.total
            self.parts.power.queue = queue
        return answer

    def run_next(self) -> dict[int, Item]:
        """Sign with the next of several discoverable credentials."""
        queue = self.parts.power.queue
        if queue is None or not queue.credentials:
            raise StatusError(Status.NOT_ALLOWED)
        return self._assert_next(queue)

    def _find_credentials(self, request: Request, *, is_verified: bool) -> list[Credential]:
        """Return the credentials that may answer, the newest first."""
        rp_id_hash = hash_rp_id(request.rp_id)
        held = self.parts.memory.find_credentials(rp_id_hash)
        is_listed = request.parameters.has(ALLOW_LIST)
        allowed = [each.require("id", bytes) for each in request.parameters.find_maps(ALLOW_LIST)]
        if is_listed and not allowed:
            raise StatusError(Status.INVALID_PARAMETER)
        if self.parts.faults.is_on(Fault.OTHER_CREDENTIAL):
            others = [each for each in held if each.credential_id not in allowed]
            return [*others, make_stranger(rp_id_hash)][:1]
        return [
            each
            for each in held
            if (each.credential_id in allowed if is_listed else each.is_discoverable)
            and each.is_open(is_verified=is_verified, is_listed=is_listed)
        ]

    def _assert_next(self, queue: Queue) -> dict[int, Item]:
        """Return an assertion by the first credential of a queue, and take it off."""
        faults = self.parts.faults
        credential = queue.credentials.pop(0)
        flags = Flag.USER_PRESENT if queue.is_present else Flag(0)
        if queue.is_verified:
            flags |= Flag.USER_VERIFIED
        count = self.parts.memory.count(credential, self.parts.model.sign_counter)
        data = faults.spoil_data(AuthenticatorData(queue.rp_id_hash, flags, count))
        signed = faults.spoil_bytes(data.encode())
        signature = credential.key.sign(signed + queue.client_data_hash)
        answer: dict[int, Item] = {
            1: self._descriptor(credential),
            2: signed,
            3: faults.spoil_signature(signature),
        }
        user = self._user(credential, with_names=queue.is_verified and queue.total > 1)
        if user:
            answer[4] = user
        return answer

    def _descriptor(self, credential: Credential) -> dict[str, Item]:
        """Return which credential signed."""
        if self.parts.faults.is_on(Fault.UNASKED_CREDENTIAL_ID):
            return credential.descriptor | {"id": os.urandom(64)}
        return credential.descriptor

    def _user(self, credential: Credential, *, with_names: bool) -> dict[str, Item]:
        """Return whose credential it is; only a discoverable one tells."""
        if self.parts.faults.is_on(Fault.WRONG_USER_HANDLE):
            return {"id": os.urandom(32)}
        if credential.user_id is None or not credential.is_discoverable:
            return {}
        names = credential.user_names if with_names else {}
        return {"id": credential.user_id, **names}


def make_stranger(rp_id_hash: bytes) -> Credential:
    """Return a credential that nobody ever registered."""
    return Credential(os.urandom(64), rp_id_hash, generate_key(ES256), user_id=os.urandom(16))


def parse_request(parameters: Parameters) -> Request:
    """Return what the user is verified for."""
    return Request(
        parameters=parameters,
        options=OPTIONS,
        code=CODE,
        protocol=PROTOCOL,
        permission=Permission.GET_ASSERTION,
        rp_id=parameters.require(RP_ID, str),
        client_data_hash=parameters.require(CLIENT_DATA_HASH, bytes),
    )
