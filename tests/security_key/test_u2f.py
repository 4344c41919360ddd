# SPDX-License-Identifier: Apache-2.0
"""U2F, judged by python-fido2."""

import hashlib

import pytest
from fido2.ctap import CtapError
from fido2.ctap1 import APDU, ApduError, Ctap1
from fido2.ctap2.base import Ctap2
from fido2.hid import CAPABILITY

from security_key.conftest import PlugIn
from security_key.host import CLIENT_DATA_HASH, RP_ID, credential_of, register, sign_in
from security_key.injected import InjectedKey
from security_key.model import FIDO_2_1, U2F_ONLY, Model
from security_key.person import Touch

APPLICATION = hashlib.sha256(RP_ID.encode()).digest()


def fail_authenticate(ctap: Ctap1, handle: bytes, *, check_only: bool = False) -> int:
    """Return the status word that an authentication is refused with."""
    with pytest.raises(ApduError) as raised:
        ctap.authenticate(CLIENT_DATA_HASH, APPLICATION, handle, check_only)
    return int(raised.value.code)


def test_register_and_authenticate(plug_in: PlugIn) -> None:
    """A key of U2F alone makes a credential and signs with it."""
    device = plug_in(U2F_ONLY).connect()
    assert CAPABILITY.WINK == device.capabilities
    ctap = Ctap1(device)
    assert "U2F_V2" == ctap.get_version()
    made = ctap.register(CLIENT_DATA_HASH, APPLICATION)
    made.verify(APPLICATION, CLIENT_DATA_HASH)
    used = ctap.authenticate(CLIENT_DATA_HASH, APPLICATION, made.key_handle)
    used.verify(APPLICATION, CLIENT_DATA_HASH, made.public_key)
    assert (1, 17) == (used.user_presence, used.counter)


def test_check_only(injected: InjectedKey) -> None:
    """A question tells whether a handle is known, without a touch."""
    ctap = Ctap1(injected.connect())
    handle = ctap.register(CLIENT_DATA_HASH, APPLICATION).key_handle
    known = fail_authenticate(ctap, handle, check_only=True)
    unknown = fail_authenticate(ctap, handle[::-1], check_only=True)
    assert (APDU.USE_NOT_SATISFIED, APDU.WRONG_DATA) == (known, unknown)
    assert 1 == injected.counters["touches"]


def test_no_touch(injected: InjectedKey) -> None:
    """Without a touch the host is told to ask again."""
    ctap = Ctap1(injected.connect())
    handle = ctap.register(CLIENT_DATA_HASH, APPLICATION).key_handle
    injected.person.touch = Touch.WAIT
    assert APDU.USE_NOT_SATISFIED == fail_authenticate(ctap, handle)
    injected.person.touch = Touch.YES
    assert 1 == ctap.authenticate(CLIENT_DATA_HASH, APPLICATION, handle).user_presence


def test_unknown_instruction(injected: InjectedKey) -> None:
    """What U2F does not have is refused by its word."""
    ctap = Ctap1(injected.connect())
    words = []
    for cla, ins in ((0, 0x40), (0x80, 0x03)):
        with pytest.raises(ApduError) as raised:
            ctap.send_apdu(cla, ins)
        words.append(raised.value.code)
    assert [0x6D00, 0x6E00] == words


def test_u2f_credential_in_ctap2(injected: InjectedKey) -> None:
    """A credential that U2F made signs for CTAP2 under the same relying party."""
    device = injected.connect()
    made = Ctap1(device).register(CLIENT_DATA_HASH, APPLICATION)
    response = sign_in(Ctap2(device), made.key_handle)
    assert made.key_handle == response.credential["id"]
    assert APPLICATION == response.auth_data.rp_id_hash


def test_ctap2_credential_in_u2f(injected: InjectedKey) -> None:
    """A credential that CTAP2 made signs for U2F; one that wants a PIN does not."""
    device = injected.connect()
    free = credential_of(register(Ctap2(device)))
    bound = credential_of(register(Ctap2(device), extensions={"credProtect": 3}))
    used = Ctap1(device).authenticate(CLIENT_DATA_HASH, APPLICATION, free.credential_id)
    assert 1 == used.user_presence
    assert APDU.WRONG_DATA == fail_authenticate(Ctap1(device), bound.credential_id)


def test_no_u2f(plug_in: PlugIn) -> None:
    """A key without U2F says so, and refuses it."""
    device = plug_in(Model(versions=(FIDO_2_1,))).connect()
    assert CAPABILITY.NMSG & device.capabilities
    with pytest.raises(CtapError) as raised:
        Ctap1(device).get_version()
    assert CtapError.ERR.INVALID_COMMAND == raised.value.code
