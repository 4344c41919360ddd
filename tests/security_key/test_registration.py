# SPDX-License-Identifier: Apache-2.0
"""New credentials, judged by python-fido2."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2

from security_key.conftest import PlugIn
from security_key.ctap import EDDSA, ES256
from security_key.host import (
    Flag,
    credential_of,
    list_id,
    register,
    sign_in,
    verify_assertion,
    verify_attestation,
)
from security_key.injected import InjectedKey
from security_key.model import CTAP2_0, AttestationKind, Model


def test_attestation_names_the_model(injected: InjectedKey) -> None:
    """The certificate is one that python-fido2 takes, AAGUID and all."""
    response = register(Ctap2(injected.connect()))
    assert "BASIC" == verify_attestation(response)
    assert injected.key.model.aaguid == bytes(credential_of(response).aaguid).hex()


def test_root_signed_the_certificate(injected: InjectedKey) -> None:
    """Who trusts the maker's root can verify the certificate."""
    response = register(Ctap2(injected.connect()))
    certificate = x509.load_der_x509_certificate(response.att_stmt["x5c"][0])
    root = x509.load_der_x509_certificate(injected.key.memory.attestation.root)
    public_key = root.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    algorithm = certificate.signature_hash_algorithm
    assert algorithm is not None
    public_key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(algorithm))
    assert root.subject == certificate.issuer


@pytest.mark.parametrize("algorithm", [ES256, EDDSA])
def test_self_attestation(plug_in: PlugIn, algorithm: int) -> None:
    """A key without a certificate signs by the new credential."""
    key = plug_in(Model(attestation=AttestationKind.SELF))
    assert "SELF" == verify_attestation(register(Ctap2(key.connect()), algorithm=algorithm))


def test_no_attestation(plug_in: PlugIn) -> None:
    """A key may say nothing of its maker."""
    response = register(Ctap2(plug_in(Model(attestation=AttestationKind.NONE)).connect()))
    assert ("none", {}) == (response.fmt, response.att_stmt)


@pytest.mark.parametrize("algorithm", [ES256, EDDSA])
def test_credential_signs(injected: InjectedKey, algorithm: int) -> None:
    """A credential of either algorithm signs what its public key verifies."""
    ctap = Ctap2(injected.connect())
    credential = credential_of(register(ctap, algorithm=algorithm))
    assert algorithm == credential.public_key.ALGORITHM
    verify_assertion(sign_in(ctap, credential.credential_id), credential.public_key)


def test_unknown_algorithm(injected: InjectedKey) -> None:
    """An algorithm that the key does not have is refused before a touch."""
    with pytest.raises(CtapError) as raised:
        register(Ctap2(injected.connect()), algorithm=-257)
    assert CtapError.ERR.UNSUPPORTED_ALGORITHM == raised.value.code
    assert 0 == injected.counters["touches"]


def test_flags(injected: InjectedKey) -> None:
    """A touch is present, nobody is verified, and the credential comes along."""
    assert Flag.UP | Flag.AT == register(Ctap2(injected.connect())).auth_data.flags


def test_exclude_list(injected: InjectedKey) -> None:
    """A key that holds an excluded credential makes no second one, and says so after a touch."""
    ctap = Ctap2(injected.connect())
    credential = credential_of(register(ctap))
    with pytest.raises(CtapError) as raised:
        register(ctap, exclude_list=list_id(credential.credential_id))
    assert CtapError.ERR.CREDENTIAL_EXCLUDED == raised.value.code
    assert 2 == injected.counters["touches"]
    assert 1 == len(injected.key.memory.credentials)


def test_exclude_list_of_another_key(injected: InjectedKey, plug_in: PlugIn) -> None:
    """A credential of another key excludes nothing."""
    other = credential_of(register(Ctap2(plug_in().connect())))
    ctap = Ctap2(injected.connect())
    response = register(ctap, exclude_list=list_id(other.credential_id))
    assert other.credential_id != credential_of(response).credential_id


def test_same_user_again(injected: InjectedKey) -> None:
    """A discoverable credential takes the place of the same user's last one."""
    ctap = Ctap2(injected.connect())
    for user in (b"alice", b"bob", b"alice"):
        register(ctap, user, options={"rk": True})
    assert [b"bob", b"alice"] == [each.user_id for each in injected.key.memory.credentials]
    assert 23 == ctap.get_info().remaining_disc_creds


def test_full(plug_in: PlugIn) -> None:
    """A key has room for so many discoverable credentials; others take none of it."""
    ctap = Ctap2(plug_in(Model(max_discoverable=1)).connect())
    register(ctap, options={"rk": True})
    register(ctap)
    with pytest.raises(CtapError) as raised:
        register(ctap, b"bob", options={"rk": True})
    assert CtapError.ERR.KEY_STORE_FULL == raised.value.code


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"up": False}, CtapError.ERR.INVALID_OPTION),
        ({"uv": True}, CtapError.ERR.INVALID_OPTION),
        ({"rk": True}, CtapError.ERR.UNSUPPORTED_OPTION),
    ],
)
def test_refused_options(plug_in: PlugIn, options: dict[str, bool], status: CtapError.ERR) -> None:
    """What a plain key cannot do is refused."""
    ctap = Ctap2(plug_in(Model(resident_keys=False)).connect())
    with pytest.raises(CtapError) as raised:
        register(ctap, options=options)
    assert status == raised.value.code


def test_protection(injected: InjectedKey) -> None:
    """The level of credProtect is said in what is signed, and is kept to."""
    ctap = Ctap2(injected.connect())
    response = register(ctap, extensions={"credProtect": 3})
    assert {"credProtect": 3} == response.auth_data.extensions
    assert "BASIC" == verify_attestation(response)
    with pytest.raises(CtapError) as raised:
        sign_in(ctap, credential_of(response).credential_id)
    assert CtapError.ERR.NO_CREDENTIALS == raised.value.code


def test_older_key(plug_in: PlugIn) -> None:
    """A key of CTAP 2.0 knows nothing of 2.1's words, and registers all the same."""
    ctap = Ctap2(plug_in(CTAP2_0).connect())
    assert ["U2F_V2", "FIDO_2_0"] == ctap.info.versions
    assert {"rk", "up", "plat", "clientPin"} == set(ctap.info.options)
    assert "BASIC" == verify_attestation(register(ctap))
