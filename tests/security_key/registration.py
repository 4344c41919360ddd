# SPDX-License-Identifier: Apache-2.0
"""authenticatorMakeCredential (CTAP 2.1, section 6.1.2)."""

import os

from security_key.authenticator_data import AuthenticatorData, encode_attested
from security_key.cbor import Item, encode
from security_key.credential import Credential, Protection, hash_rp_id
from security_key.ctap import PUBLIC_KEY, Flag, Permission
from security_key.exchange import Need, Step, require_gesture
from security_key.faults import Fault
from security_key.model import AttestationKind, CounterKind
from security_key.parameters import Parameters
from security_key.parts import Parts
from security_key.signing_key import SigningKey, generate_key
from security_key.status import Status, StatusError
from security_key.user_verification import Request, Verification, verify_user

CLIENT_DATA_HASH, RP, USER, KEY_PARAMETERS, EXCLUDE_LIST, EXTENSIONS, OPTIONS, CODE, PROTOCOL = (
    range(1, 10)
)
CREDENTIAL_ID_SIZE = 64
CRED_PROTECT = "credProtect"


class Registration:
    """The command, on one key."""

    def __init__(self, parts: Parts) -> None:
        """Work on these parts."""
        self.parts = parts

    def run(self, parameters: Parameters) -> Step[dict[int, Item]]:
        """Make a credential and return its attestation object."""
        request = parse_request(parameters)
        algorithm = self._choose_algorithm(parameters)
        is_discoverable = self._require_options(parameters)
        verification = yield from verify_user(self.parts, request)
        self._require_verification(verification, is_discoverable=is_discoverable)
        excluded = self._is_excluded(parameters, request.rp_id, verification)
        if not verification.is_present:
            yield from require_gesture(Need.TOUCH)
        if excluded:
            raise StatusError(Status.CREDENTIAL_EXCLUDED)
        if self.parts.model.is_2_1:
            self.parts.power.token.spend()
        credential = make_credential(parameters, request.rp_id, generate_key(algorithm))
        credential.is_discoverable = is_discoverable
        credential.sign_count = self.parts.model.first_sign_count
        self._store(credential)
        return self._attest(credential, request, verification)

    def _choose_algorithm(self, parameters: Parameters) -> int:
        """Return the first algorithm that both sides know."""
        if not parameters.has(KEY_PARAMETERS):
            raise StatusError(Status.MISSING_PARAMETER)
        for each in parameters.find_maps(KEY_PARAMETERS):
            algorithm, kind = each.require("alg", int), each.require("type", str)
            if kind == PUBLIC_KEY and algorithm in self.parts.model.algorithms:
                return algorithm
        raise StatusError(Status.UNSUPPORTED_ALGORITHM)

    def _require_options(self, parameters: Parameters) -> bool:
        """Check the options, and return whether the credential is to be discoverable."""
        options = parameters.find_map(OPTIONS)
        if options.find("up", bool) is False:
            raise StatusError(Status.INVALID_OPTION)
        is_discoverable = bool(options.find("rk", bool))
        if is_discoverable and not self.parts.model.resident_keys:
            raise StatusError(Status.UNSUPPORTED_OPTION)
        return is_discoverable

    def _require_verification(self, verification: Verification, *, is_discoverable: bool) -> None:
        """Check that the user is verified where this key wants it."""
        model = self.parts.model
        is_free = model.make_cred_uv_not_rqd and not is_discoverable
        is_wanted = model.always_uv or (self.parts.is_protected and not is_free)
        if is_wanted and not verification.is_verified:
            raise StatusError(Status.PUAT_REQUIRED)

    def _is_excluded(self, parameters: Parameters, rp_id: str, verification: Verification) -> bool:
        """Whether the key holds one of the credentials in the exclude list."""
        listed = {each.require("id", bytes) for each in parameters.find_maps(EXCLUDE_LIST)}
        return any(
            each.credential_id in listed
            and each.is_open(is_verified=verification.is_verified, is_listed=True)
            for each in self.parts.memory.find_credentials(hash_rp_id(rp_id))
        )

    def _store(self, credential: Credential) -> None:
        """Keep a credential; a discoverable one in the place of the same user's last one."""
        memory = self.parts.memory
        discoverable = [each for each in memory.credentials if each.is_discoverable]
        if credential.is_discoverable:
            for each in discoverable:
                same_party = each.rp_id_hash == credential.rp_id_hash
                if same_party and each.user_id == credential.user_id:
                    memory.credentials.remove(each)
                    break
            else:
                if len(discoverable) >= self.parts.model.max_discoverable:
                    raise StatusError(Status.KEY_STORE_FULL)
        memory.credentials.append(credential)

    def _attest(
        self, credential: Credential, request: Request, verification: Verification
    ) -> dict[int, Item]:
        """Return the attestation object, with CTAP's short names."""
        faults, model, memory = self.parts.faults, self.parts.model, self.parts.memory
        flags = Flag.USER_PRESENT | Flag.ATTESTED
        if verification.is_verified:
            flags |= Flag.USER_VERIFIED
        extensions = b""
        if request.parameters.find_map(EXTENSIONS).has(CRED_PROTECT):
            flags |= Flag.EXTENSIONS
            extensions = encode({CRED_PROTECT: int(credential.protection)})
        aaguid = os.urandom(16) if faults.is_on(Fault.WRONG_AAGUID) else self.parts.aaguid
        attested = encode_attested(aaguid, credential.credential_id, encode(credential.key.cose))
        is_own = model.sign_counter is CounterKind.CREDENTIAL
        count = credential.sign_count if is_own else memory.count(credential, CounterKind.KEY)
        data = AuthenticatorData(credential.rp_id_hash, flags, count, attested + extensions)
        signed = faults.spoil_bytes(faults.spoil_data(data).encode())
        name, statement = self._state(credential.key, signed + request.client_data_hash)
        return {1: name, 2: signed, 3: statement}

    def _state(self, key: SigningKey, message: bytes) -> tuple[str, dict[str, Item]]:
        """Return the attestation statement's format and the statement."""
        kind, spoil = self.parts.model.attestation, self.parts.faults.spoil_signature
        if kind is AttestationKind.NONE:
            return "none", {}
        if kind is AttestationKind.SELF:
            return "packed", {"alg": key.algorithm, "sig": spoil(key.sign(message))}
        statement = self.parts.memory.attestation.sign_packed(message)
        signature = statement["sig"]
        assert isinstance(signature, bytes)
        return "packed", statement | {"sig": spoil(signature)}


def parse_request(parameters: Parameters) -> Request:
    """Return what the user is verified for."""
    return Request(
        parameters=parameters,
        options=OPTIONS,
        code=CODE,
        protocol=PROTOCOL,
        permission=Permission.MAKE_CREDENTIAL,
        rp_id=parameters.require_map(RP).require("id", str),
        client_data_hash=parameters.require(CLIENT_DATA_HASH, bytes),
    )


def make_credential(parameters: Parameters, rp_id: str, key: SigningKey) -> Credential:
    """Return a new credential."""
    user = parameters.require_map(USER)
    names = {each: user.find(each, str) for each in ("name", "displayName")}
    level = parameters.find_map(EXTENSIONS).find(CRED_PROTECT, int)
    try:
        protection = Protection.OPTIONAL if level is None else Protection(level)
    except ValueError as error:
        raise StatusError(Status.INVALID_OPTION) from error
    return Credential(
        credential_id=os.urandom(CREDENTIAL_ID_SIZE),
        rp_id_hash=hash_rp_id(rp_id),
        key=key,
        user_id=user.require("id", bytes),
        user_names={name: value for name, value in names.items() if value is not None},
        protection=protection,
    )
