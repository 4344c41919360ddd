# SPDX-License-Identifier: Apache-2.0
"""What a key keeps while it is in a drawer."""

import stat
from pathlib import Path

import pytest
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2
from fido2.ctap2.pin import ClientPin

from security_key.conftest import PlugIn
from security_key.ctap import EDDSA, ES256
from security_key.host import credential_of, pin_parameters, register, sign_in, verify_assertion
from security_key.injected import InjectedKey
from security_key.key import load_key
from security_key.model import AttestationKind, CounterKind, Model, parse_model

PIN = "1234"
ODD = Model(
    versions=("FIDO_2_0",),
    attestation=AttestationKind.SELF,
    sign_counter=CounterKind.CREDENTIAL,
    algorithms=(EDDSA,),
    keepalive=0.5,
)


@pytest.mark.parametrize("algorithm", [ES256, EDDSA])
def test_key_returns(
    injected: InjectedKey, plug_in: PlugIn, tmp_path: Path, algorithm: int
) -> None:
    """A key of a file has the credentials, the counter, the PIN and its retries of the first."""
    path = tmp_path / "key.json"
    ctap = Ctap2(injected.connect())
    credential = credential_of(register(ctap, algorithm=algorithm))
    ClientPin(ctap).set_pin(PIN)
    with pytest.raises(CtapError):
        pin_parameters(ctap, "4321", None)
    injected.key.save(path)
    back = load_key(path)
    ctap = Ctap2(plug_in(back.model, back.memory).connect())
    assert (7, False) == ClientPin(ctap).get_pin_retries()
    parameters = pin_parameters(ctap, PIN, ClientPin.PERMISSION.GET_ASSERTION)
    response = sign_in(ctap, credential.credential_id, **parameters)
    verify_assertion(response, credential.public_key)
    assert 18 == response.auth_data.counter
    assert injected.key.memory.attestation.certificate == back.memory.attestation.certificate


def test_file_is_private(injected: InjectedKey, tmp_path: Path) -> None:
    """Private keys are for the owner's eyes."""
    path = tmp_path / "key.json"
    injected.key.save(path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(tmp_path.iterdir())


def test_model_returns(plug_in: PlugIn, tmp_path: Path) -> None:
    """A key of a file is of the same model."""
    path = tmp_path / "key.json"
    plug_in(ODD).key.save(path)
    assert ODD == load_key(path).model


def test_unknown_field() -> None:
    """A field that no model has is named, with those that there are."""
    with pytest.raises(ValueError, match=r"no colour; it has versions, aaguid"):
        parse_model({"colour": "red"})
