# SPDX-License-Identifier: Apache-2.0
"""The other side in tests: what a host asks a key for, by python-fido2."""

import hashlib
from collections.abc import Mapping
from typing import Any

from fido2.attestation.packed import PackedAttestation
from fido2.client import DefaultClientDataCollector, Fido2Client, UserInteraction
from fido2.cose import CoseKey
from fido2.ctap import CtapDevice
from fido2.ctap2.base import AssertionResponse, AttestationResponse, Ctap2
from fido2.ctap2.pin import ClientPin
from fido2.webauthn import AttestedCredentialData, AuthenticatorData

from security_key.ctap import ES256

RP_ID = "example.org"
ORIGIN = f"https://{RP_ID}"
CLIENT_DATA_HASH = hashlib.sha256(b"client data").digest()
ALICE = b"alice"
Flag = AuthenticatorData.FLAG


def list_id(credential_id: bytes) -> list[Mapping[str, Any]]:
    """Return a list of one descriptor."""
    return [{"type": "public-key", "id": credential_id}]


def register(
    ctap: Ctap2,
    user_id: bytes = ALICE,
    algorithm: int = ES256,
    **more: Any,  # noqa: ANN401 - goes to python-fido2 as it is
) -> AttestationResponse:
    """Make a credential."""
    return ctap.make_credential(
        CLIENT_DATA_HASH,
        {"id": RP_ID, "name": "Example"},
        {"id": user_id, "name": user_id.decode(), "displayName": user_id.decode().title()},
        [{"type": "public-key", "alg": algorithm}],
        **more,
    )


def credential_of(response: AttestationResponse) -> AttestedCredentialData:
    """Return a new credential's id and public key."""
    data = response.auth_data.credential_data
    assert data is not None
    return data


def sign_in(
    ctap: Ctap2,
    credential_id: bytes,
    **more: Any,  # noqa: ANN401 - goes to python-fido2 as it is
) -> AssertionResponse:
    """Get an assertion of one credential."""
    return ctap.get_assertion(RP_ID, CLIENT_DATA_HASH, list_id(credential_id), **more)


def verify_attestation(response: AttestationResponse) -> str:
    """Verify a packed statement, and return its type's name."""
    result = PackedAttestation().verify(response.att_stmt, response.auth_data, CLIENT_DATA_HASH)
    return str(result.attestation_type.name)


def verify_assertion(response: AssertionResponse, public_key: CoseKey) -> None:
    """Verify an assertion's signature."""
    response.verify(CLIENT_DATA_HASH, public_key)


def pin_parameters(
    ctap: Ctap2, pin: str, permissions: ClientPin.PERMISSION | None
) -> dict[str, Any]:
    """Return what a PIN adds to a command."""
    client_pin = ClientPin(ctap)
    token = client_pin.get_pin_token(pin, permissions, RP_ID)
    code = client_pin.protocol.authenticate(token, CLIENT_DATA_HASH)
    return {"pin_uv_param": code, "pin_uv_protocol": client_pin.protocol.VERSION}


class PersonAtScreen(UserInteraction):
    """A person who knows the PIN, or does not, and remembers what was asked."""

    def __init__(self, pin: str | None = None) -> None:
        """Know this PIN."""
        self.pin = pin
        self.asked: list[str] = []

    def prompt_up(self) -> None:
        """See that a touch is wanted."""
        self.asked.append("touch")

    def request_pin(self, permissions: ClientPin.PERMISSION, rp_id: str | None) -> str | None:  # noqa: ARG002 - as python-fido2 calls it
        """Type the PIN."""
        self.asked.append("pin")
        return self.pin

    def request_uv(self, permissions: ClientPin.PERMISSION, rp_id: str | None) -> bool:  # noqa: ARG002 - as python-fido2 calls it
        """See that a finger is wanted."""
        self.asked.append("finger")
        return True


def make_client(device: CtapDevice, person: PersonAtScreen) -> Fido2Client:
    """Return a browser, as it were."""
    return Fido2Client(device, DefaultClientDataCollector(ORIGIN), person)
