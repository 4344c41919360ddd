# SPDX-License-Identifier: Apache-2.0
"""PINs, fingers and tokens, judged by python-fido2."""

from typing import Any

import pytest
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2
from fido2.ctap2.pin import ClientPin, PinProtocolV1, PinProtocolV2

from security_key.conftest import PlugIn
from security_key.host import (
    CLIENT_DATA_HASH,
    RP_ID,
    Flag,
    credential_of,
    pin_parameters,
    register,
    sign_in,
    verify_assertion,
    verify_attestation,
)
from security_key.injected import InjectedKey
from security_key.model import CTAP2_0, FINGERPRINT, Model

PIN, WRONG = "1234", "4321"
MAKE, ASSERT = ClientPin.PERMISSION.MAKE_CREDENTIAL, ClientPin.PERMISSION.GET_ASSERTION
VERIFIED = Flag.UP | Flag.UV


def fail_pin(client_pin: ClientPin, pin: str = WRONG) -> Any:  # noqa: ANN401 - a code of python-fido2
    """Return what a PIN is refused with."""
    with pytest.raises(CtapError) as raised:
        client_pin.get_pin_token(pin, ASSERT, RP_ID)
    return raised.value.code


def test_no_pin(injected: InjectedKey) -> None:
    """A new key has no PIN, and says so."""
    ctap = Ctap2(injected.connect())
    assert ctap.info.options["clientPin"] is False
    assert CtapError.ERR.PIN_NOT_SET == fail_pin(ClientPin(ctap))


@pytest.mark.parametrize("protocol", [PinProtocolV1, PinProtocolV2])
def test_pin(injected: InjectedKey, protocol: type[PinProtocolV1]) -> None:
    """With either protocol a PIN is set, changed and used, and what is signed says so."""
    ctap = Ctap2(injected.connect())
    client_pin = ClientPin(ctap, protocol())
    client_pin.set_pin(WRONG)
    client_pin.change_pin(WRONG, PIN)
    assert ctap.get_info().options["clientPin"] is True
    token = client_pin.get_pin_token(PIN, MAKE, RP_ID)
    code = client_pin.protocol.authenticate(token, CLIENT_DATA_HASH)
    response = register(ctap, pin_uv_param=code, pin_uv_protocol=protocol.VERSION)
    assert "BASIC" == verify_attestation(response)
    assert VERIFIED | Flag.AT == response.auth_data.flags


def test_verified_assertion(injected: InjectedKey) -> None:
    """An assertion with a PIN has the flag UV, and is signed."""
    ctap = Ctap2(injected.connect())
    credential = credential_of(register(ctap))
    ClientPin(ctap).set_pin(PIN)
    response = sign_in(ctap, credential.credential_id, **pin_parameters(ctap, PIN, ASSERT))
    verify_assertion(response, credential.public_key)
    assert VERIFIED == response.auth_data.flags


def test_older_token(plug_in: PlugIn) -> None:
    """A key of CTAP 2.0 gives tokens without permissions, and takes one many times."""
    ctap = Ctap2(plug_in(CTAP2_0).connect())
    ClientPin(ctap).set_pin(PIN)
    parameters = pin_parameters(ctap, PIN, None)
    credential = credential_of(register(ctap, **parameters))
    flags = sign_in(ctap, credential.credential_id, **parameters).auth_data.flags
    assert VERIFIED == flags


def test_spent_token(injected: InjectedKey) -> None:
    """A key of CTAP 2.1 takes a token for one touch only."""
    ctap = Ctap2(injected.connect())
    credential_id = credential_of(register(ctap)).credential_id
    ClientPin(ctap).set_pin(PIN)
    parameters = pin_parameters(ctap, PIN, ASSERT)
    sign_in(ctap, credential_id, options={"up": False}, **parameters)
    sign_in(ctap, credential_id, **parameters)
    with pytest.raises(CtapError) as raised:
        sign_in(ctap, credential_id, **parameters)
    assert CtapError.ERR.PIN_AUTH_INVALID == raised.value.code


def test_permission(injected: InjectedKey) -> None:
    """A token for assertions makes no credential."""
    ctap = Ctap2(injected.connect())
    ClientPin(ctap).set_pin(PIN)
    parameters = pin_parameters(ctap, PIN, ASSERT)
    with pytest.raises(CtapError) as raised:
        register(ctap, **parameters)
    assert CtapError.ERR.PIN_AUTH_INVALID == raised.value.code


def test_short_pin(injected: InjectedKey) -> None:
    """A PIN of two characters in four bytes is refused by the key, not only by its hosts."""
    ctap = Ctap2(injected.connect())
    with pytest.raises(CtapError) as raised:
        ClientPin(ctap).set_pin("12\0\0")
    assert CtapError.ERR.PIN_POLICY_VIOLATION == raised.value.code


def test_second_first_pin(injected: InjectedKey) -> None:
    """Where a PIN is set, nobody sets one without it."""
    client_pin = ClientPin(Ctap2(injected.connect()))
    client_pin.set_pin(PIN)
    with pytest.raises(CtapError) as raised:
        client_pin.set_pin(WRONG)
    assert CtapError.ERR.PIN_AUTH_INVALID == raised.value.code


def test_wrong_pins(injected: InjectedKey) -> None:
    """Three wrong PINs, and the key wants to be unplugged; eight, and it is blocked for good."""
    client_pin = ClientPin(Ctap2(injected.connect()))
    client_pin.set_pin(PIN)
    invalid, wait = CtapError.ERR.PIN_INVALID, CtapError.ERR.PIN_AUTH_BLOCKED
    for left in (5, 2):
        assert [invalid, invalid, wait, wait] == [fail_pin(client_pin) for _ in range(4)]
        assert (left, True) == client_pin.get_pin_retries()
        assert wait == fail_pin(client_pin, PIN)
        injected.unplug()
        injected.plug()
        client_pin = ClientPin(Ctap2(injected.connect()))
    assert [invalid, CtapError.ERR.PIN_BLOCKED] == [fail_pin(client_pin) for _ in range(2)]
    assert CtapError.ERR.PIN_BLOCKED == fail_pin(client_pin, PIN)
    assert (0, False) == client_pin.get_pin_retries()


def test_right_pin_after_wrong(injected: InjectedKey) -> None:
    """The right PIN gives the retries back."""
    client_pin = ClientPin(Ctap2(injected.connect()))
    client_pin.set_pin(PIN)
    fail_pin(client_pin)
    assert (7, False) == client_pin.get_pin_retries()
    client_pin.get_pin_token(PIN, ASSERT, RP_ID)
    assert (8, False) == client_pin.get_pin_retries()


def test_resident_key_wants_pin(injected: InjectedKey) -> None:
    """With a PIN set, a discoverable credential is not made without it; another one is."""
    ctap = Ctap2(injected.connect())
    ClientPin(ctap).set_pin(PIN)
    register(ctap)
    with pytest.raises(CtapError) as raised:
        register(ctap, options={"rk": True})
    assert CtapError.ERR.PUAT_REQUIRED == raised.value.code


def test_always_verify(plug_in: PlugIn) -> None:
    """A key may want its user verified for everything, except a silent question."""
    ctap = Ctap2(plug_in(Model(always_uv=True)).connect())
    ClientPin(ctap).set_pin(PIN)
    credential_id = credential_of(register(ctap, **pin_parameters(ctap, PIN, MAKE))).credential_id
    assert 0 == sign_in(ctap, credential_id, options={"up": False}).auth_data.flags
    with pytest.raises(CtapError) as raised:
        sign_in(ctap, credential_id)
    assert CtapError.ERR.PUAT_REQUIRED == raised.value.code


def test_which_key(injected: InjectedKey) -> None:
    """An empty code asks for a touch, and tells whether a PIN is set."""
    ctap = Ctap2(injected.connect())
    codes = []
    for _ in range(2):
        with pytest.raises(CtapError) as raised:
            register(ctap, pin_uv_param=b"")
        codes.append(raised.value.code)
        if len(codes) == 1:
            ClientPin(ctap).set_pin(PIN)
    assert [CtapError.ERR.PIN_NOT_SET, CtapError.ERR.PIN_INVALID] == codes
    assert 2 == injected.counters["touches"]


def test_finger(plug_in: PlugIn) -> None:
    """The right finger is the touch too."""
    key = plug_in(FINGERPRINT)
    ctap = Ctap2(key.connect())
    response = register(ctap, options={"uv": True})
    assert VERIFIED | Flag.AT == response.auth_data.flags
    assert 1 == key.counters["touches"]


def test_finger_token(plug_in: PlugIn) -> None:
    """A token by finger is good for one assertion without a further touch."""
    key = plug_in(FINGERPRINT)
    ctap = Ctap2(key.connect())
    credential_id = credential_of(register(ctap, options={"uv": True})).credential_id
    client_pin = ClientPin(ctap)
    token = client_pin.get_uv_token(ASSERT, RP_ID)
    code = client_pin.protocol.authenticate(token, CLIENT_DATA_HASH)
    response = sign_in(ctap, credential_id, pin_uv_param=code, pin_uv_protocol=2)
    assert VERIFIED == response.auth_data.flags
    assert 2 == key.counters["touches"]


def test_wrong_finger(plug_in: PlugIn) -> None:
    """The wrong finger is refused, three times blocks the sensor, and the PIN frees it."""
    key = plug_in(FINGERPRINT)
    client_pin = ClientPin(Ctap2(key.connect()))
    client_pin.set_pin(PIN)
    key.person.is_finger_right = False
    codes = []
    for _ in range(4):
        with pytest.raises(CtapError) as raised:
            client_pin.get_uv_token(ASSERT, RP_ID)
        codes.append(raised.value.code)
    invalid, blocked = CtapError.ERR.UV_INVALID, CtapError.ERR.UV_BLOCKED
    assert [invalid, invalid, blocked, blocked] == codes
    assert 0 == client_pin.get_uv_retries()
    client_pin.get_pin_token(PIN, ASSERT, RP_ID)
    assert 3 == client_pin.get_uv_retries()


def test_wrong_finger_in_a_command(plug_in: PlugIn) -> None:
    """Where the key verifies within a command, a wrong finger sends the host to the PIN."""
    key = plug_in(FINGERPRINT)
    ctap = Ctap2(key.connect())
    key.person.is_finger_right = False
    with pytest.raises(CtapError) as raised:
        register(ctap, options={"uv": True})
    assert CtapError.ERR.OPERATION_DENIED == raised.value.code
    ClientPin(ctap).set_pin(PIN)
    with pytest.raises(CtapError) as raised:
        register(ctap, options={"uv": True})
    assert CtapError.ERR.PUAT_REQUIRED == raised.value.code
