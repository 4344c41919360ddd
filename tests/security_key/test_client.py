# SPDX-License-Identifier: Apache-2.0
"""Whole ceremonies between python-fido2's server and its client, over the key."""

import pytest
from fido2.client import ClientError
from fido2.ctap import CtapDevice
from fido2.ctap2.base import Ctap2
from fido2.ctap2.pin import ClientPin
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestationConveyancePreference,
    AttestedCredentialData,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    UserVerificationRequirement,
)

from security_key.conftest import PlugIn
from security_key.host import ALICE, RP_ID, PersonAtScreen, make_client
from security_key.injected import InjectedKey
from security_key.model import CTAP2_0, FINGERPRINT, U2F_ONLY, Model
from security_key.person import Touch

PIN = "1234"
DISCOURAGED = UserVerificationRequirement.DISCOURAGED
REQUIRED = UserVerificationRequirement.REQUIRED
SERVER = Fido2Server(
    PublicKeyCredentialRpEntity(id=RP_ID, name="Example"),
    attestation=AttestationConveyancePreference.DIRECT,
)
USER = PublicKeyCredentialUserEntity(id=ALICE, name="alice")


def make_pin(device: CtapDevice) -> None:
    """Set the PIN."""
    ClientPin(Ctap2(device)).set_pin(PIN)


def enroll(
    device: CtapDevice, person: PersonAtScreen, verification: UserVerificationRequirement
) -> AttestedCredentialData:
    """Register at the server."""
    options, state = SERVER.register_begin(USER, user_verification=verification)
    response = make_client(device, person).make_credential(options.public_key)
    data = SERVER.register_complete(state, response).credential_data
    assert data is not None
    return data


def log_in(
    device: CtapDevice,
    person: PersonAtScreen,
    credential: AttestedCredentialData,
    verification: UserVerificationRequirement,
) -> bytes:
    """Authenticate at the server, and return the id of the credential."""
    options, state = SERVER.authenticate_begin([credential], verification)
    response = make_client(device, person).get_assertion(options.public_key).get_response(0)
    done = SERVER.authenticate_complete(state, [credential], response)
    return bytes(done.credential_id)


@pytest.mark.parametrize("model", [Model(), CTAP2_0, FINGERPRINT, U2F_ONLY])
def test_touch(plug_in: PlugIn, model: Model) -> None:
    """Every model registers and signs in by touch."""
    device, person = plug_in(model).connect(), PersonAtScreen()
    credential = enroll(device, person, DISCOURAGED)
    assert credential.credential_id == log_in(device, person, credential, DISCOURAGED)


def test_pin(injected: InjectedKey) -> None:
    """A person with a PIN is asked for it, and for a touch, each time."""
    device, person = injected.connect(), PersonAtScreen(PIN)
    make_pin(device)
    credential = enroll(device, person, REQUIRED)
    assert credential.credential_id == log_in(device, person, credential, REQUIRED)
    assert ["pin", "touch"] * 2 == person.asked


def test_wrong_pin(injected: InjectedKey) -> None:
    """With a wrong PIN nothing is made."""
    device = injected.connect()
    make_pin(device)
    with pytest.raises(ClientError) as raised:
        enroll(device, PersonAtScreen("4321"), REQUIRED)
    assert ClientError.ERR.BAD_REQUEST == raised.value.code
    assert [] == injected.key.memory.credentials


def test_finger(plug_in: PlugIn) -> None:
    """A person with the right finger is asked for nothing else."""
    device, person = plug_in(FINGERPRINT).connect(), PersonAtScreen()
    credential = enroll(device, person, REQUIRED)
    assert credential.credential_id == log_in(device, person, credential, REQUIRED)
    assert {"finger", "touch"} == set(person.asked)
    assert "pin" not in person.asked


def test_blocked_finger(plug_in: PlugIn) -> None:
    """A person whose finger is refused too often is asked for the PIN."""
    key = plug_in(FINGERPRINT)
    device, person = key.connect(), PersonAtScreen(PIN)
    make_pin(device)
    key.person.is_finger_right = False
    for _ in range(2):
        with pytest.raises(ClientError):
            enroll(device, person, REQUIRED)
    enroll(device, person, REQUIRED)
    assert "pin" in person.asked


def test_refusal(injected: InjectedKey) -> None:
    """A person who refuses is not registered."""
    injected.person.touch = Touch.NO
    with pytest.raises(ClientError):
        enroll(injected.connect(), PersonAtScreen(), DISCOURAGED)
    assert [] == injected.key.memory.credentials
