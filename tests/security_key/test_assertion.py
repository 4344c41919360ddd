# SPDX-License-Identifier: Apache-2.0
"""Assertions, judged by python-fido2."""

import hashlib
import os

import pytest
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2

from security_key.conftest import PlugIn
from security_key.host import (
    CLIENT_DATA_HASH,
    RP_ID,
    Flag,
    credential_of,
    list_id,
    register,
    sign_in,
    verify_assertion,
)
from security_key.injected import InjectedKey
from security_key.model import CounterKind, Model


def test_assertion(injected: InjectedKey) -> None:
    """An assertion names its credential, its relying party and a touch, and is signed."""
    ctap = Ctap2(injected.connect())
    credential = credential_of(register(ctap))
    response = sign_in(ctap, credential.credential_id)
    verify_assertion(response, credential.public_key)
    assert credential.credential_id == response.credential["id"]
    assert hashlib.sha256(RP_ID.encode()).digest() == response.auth_data.rp_id_hash
    assert Flag.UP == response.auth_data.flags
    assert response.user is None


def test_preflight(injected: InjectedKey) -> None:
    """A silent question tells whether a credential is there, without a touch and without UP."""
    ctap = Ctap2(injected.connect())
    credential = credential_of(register(ctap))
    touches = injected.counters["touches"]
    response = sign_in(ctap, credential.credential_id, options={"up": False})
    verify_assertion(response, credential.public_key)
    assert 0 == response.auth_data.flags
    with pytest.raises(CtapError) as raised:
        sign_in(ctap, os.urandom(64), options={"up": False})
    assert CtapError.ERR.NO_CREDENTIALS == raised.value.code
    assert touches == injected.counters["touches"]


def test_other_relying_party(injected: InjectedKey) -> None:
    """A credential is not there for another relying party."""
    ctap = Ctap2(injected.connect())
    allow_list = list_id(credential_of(register(ctap)).credential_id)
    with pytest.raises(CtapError) as raised:
        ctap.get_assertion("example.net", CLIENT_DATA_HASH, allow_list)
    assert CtapError.ERR.NO_CREDENTIALS == raised.value.code


def test_several_users(injected: InjectedKey) -> None:
    """Without a list, every discoverable credential answers in turn, the newest first."""
    ctap = Ctap2(injected.connect())
    keys = {
        user: credential_of(register(ctap, user, options={"rk": True})).public_key
        for user in (b"alice", b"bob", b"carol")
    }
    register(ctap, b"dave")
    touches = injected.counters["touches"]
    responses = ctap.get_assertions(RP_ID, CLIENT_DATA_HASH)
    users = [response.user["id"] for response in responses if response.user]
    assert [b"carol", b"bob", b"alice"] == users
    for user, response in zip(users, responses, strict=True):
        verify_assertion(response, keys[user])
    assert touches + 1 == injected.counters["touches"]


def test_nothing_next(injected: InjectedKey) -> None:
    """There is no next assertion after the last, nor after another command."""
    ctap = Ctap2(injected.connect())
    for user in (b"alice", b"bob"):
        register(ctap, user, options={"rk": True})
    ctap.get_assertion(RP_ID, CLIENT_DATA_HASH)
    ctap.get_info()
    with pytest.raises(CtapError) as raised:
        ctap.get_next_assertion()
    assert CtapError.ERR.NOT_ALLOWED == raised.value.code


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(CounterKind.KEY, [17, 18, 19, 20]), (CounterKind.CREDENTIAL, [16, 16, 17, 17])],
)
def test_counters(plug_in: PlugIn, kind: CounterKind, expected: list[int]) -> None:
    """A counter counts for the whole key, or for each credential."""
    ctap = Ctap2(plug_in(Model(sign_counter=kind)).connect())
    made = [register(ctap, user) for user in (b"alice", b"bob")]
    used = [sign_in(ctap, credential_of(response).credential_id) for response in made]
    counts = [each.auth_data.counter for each in made] + [each.auth_data.counter for each in used]
    assert expected == counts


def test_refused_options(injected: InjectedKey) -> None:
    """A key without a finger sensor refuses to verify; an assertion makes nothing resident."""
    ctap = Ctap2(injected.connect())
    credential_id = credential_of(register(ctap)).credential_id
    codes = []
    for options in ({"uv": True}, {"rk": True}):
        with pytest.raises(CtapError) as raised:
            sign_in(ctap, credential_id, options=options)
        codes.append(raised.value.code)
    assert [CtapError.ERR.INVALID_OPTION, CtapError.ERR.UNSUPPORTED_OPTION] == codes


def test_reset(injected: InjectedKey) -> None:
    """A reset by touch leaves no credential."""
    ctap = Ctap2(injected.connect())
    credential_id = credential_of(register(ctap)).credential_id
    ctap.reset()
    with pytest.raises(CtapError) as raised:
        sign_in(ctap, credential_id)
    assert CtapError.ERR.NO_CREDENTIALS == raised.value.code


def test_late_reset(plug_in: PlugIn) -> None:
    """A reset long after plugging in is refused."""
    ctap = Ctap2(plug_in(Model(reset_within=0.0)).connect())
    with pytest.raises(CtapError) as raised:
        ctap.reset()
    assert CtapError.ERR.NOT_ALLOWED == raised.value.code
