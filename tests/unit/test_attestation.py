# SPDX-License-Identifier: Apache-2.0
"""What a registration proves: by keys of software, good ones and bad ones."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from doubles import make_layout
from fido2 import cbor
from hypothesis import given
from hypothesis import strategies as st
from ports import MODEL, PIN, KeyHost, Ports, set_pin
from security_key.attestation import Attestation, make_attestation, make_name, start_certificate
from security_key.faults import Fault
from security_key.injected import InjectedKey
from security_key.key import SecurityKey
from security_key.model import U2F_ONLY, AttestationKind, Model

from pam_mfa.factors.attestation import (
    NEW_ALGORITHMS,
    Models,
    Registered,
    Wanted,
    verify_registration,
)
from pam_mfa.factors.security_key import Ceremony, UnprovenError
from pam_mfa.hardware.keys import Method

OTHER_MODEL = "00000000-0000-4000-8000-000000000001"
CEREMONY = Ceremony(bytes(32), "host", "pam-mfa", "alice")
ANY = Models()
WANTED = Wanted(CEREMONY, must_verify_user=False, models=ANY)
ONE = Models(aaguids=(OTHER_MODEL, MODEL))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyHost]:
    """A host with ports and an empty store."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    ports = Ports(monkeypatch)
    host = KeyHost(make_layout(tmp_path), ports)
    yield host
    host.store.close()
    ports.close()


def judge(
    host: KeyHost,
    injected: InjectedKey,
    models: Models = ANY,
) -> Registered:
    """Have a key make a credential and judge what it says."""
    pending = host.lifecycle.begin_fido("alice")
    made = host.register(injected, pending)
    return verify_registration(
        made.attestation_object, Wanted(pending.creation, must_verify_user=False, models=models)
    )


def algorithm_of(registered: Registered) -> object:
    """Return a public key's algorithm."""
    key = cbor.decode(registered.public_key)
    assert isinstance(key, dict)
    return key[3]


@pytest.mark.parametrize(
    ("model", "attestation"),
    [
        (Model(), "packed, certificate"),
        (Model(algorithms=(-8,)), "packed, certificate"),
        (Model(attestation=AttestationKind.SELF), "packed, by itself"),
        (Model(attestation=AttestationKind.NONE), "none"),
    ],
)
def test_good(host: KeyHost, model: Model, attestation: str) -> None:
    """Whatever a key says of its maker, its credential counts where policy asks for no model."""
    injected = host.ports.plug(model)
    registered = judge(host, injected)
    credential = injected.key.memory.credentials[0]
    assert credential.credential_id == registered.credential_id
    assert credential.key.cose == cbor.decode(registered.public_key)
    assert (MODEL, attestation) == (registered.aaguid, registered.attestation)
    assert injected.key.memory.sign_count == registered.sign_count


def test_good_by_u2f(host: KeyHost) -> None:
    """A U2F key's registration counts; it names no model and has no count yet."""
    registered = judge(host, host.ports.plug(U2F_ONLY))
    assert ("", 0, "fido-u2f, certificate") == registered[2:]


def test_preferred_algorithm(host: KeyHost) -> None:
    """A key that knows both makes an ES256 credential."""
    registered = judge(host, host.ports.plug())
    assert -7 == algorithm_of(registered)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.WRONG_RP_ID_HASH, "another relying party"),
        (Fault.NO_USER_PRESENCE, "nobody touched"),
        (Fault.BAD_SIGNATURE, "attestation is wrong"),
        (Fault.WRONG_AAGUID, "attestation is wrong"),
    ],
)
def test_lies(host: KeyHost, fault: Fault, reason: str) -> None:
    """Each lie in a registration is refused for itself."""
    injected = host.ports.plug()
    injected.faults.switch_on(fault)
    with pytest.raises(UnprovenError, match=reason):
        judge(host, injected)


def test_other_ceremony(host: KeyHost) -> None:
    """A registration for another challenge is refused: it may be an old one."""
    pending = host.lifecycle.begin_fido("alice")
    made = host.register(host.ports.plug(), pending)
    for other in (
        pending.creation._replace(challenge=bytes(32)),
        pending.creation._replace(user="bob"),
        pending.creation._replace(host="elsewhere"),
    ):
        with pytest.raises(UnprovenError, match="attestation is wrong"):
            verify_registration(
                made.attestation_object, Wanted(other, must_verify_user=False, models=ANY)
            )


def test_user_is_verified(host: KeyHost) -> None:
    """Where the user must be verified, the key must say that it did."""
    injected = host.ports.plug()
    set_pin(injected)
    pending = host.lifecycle.begin_fido("alice")
    touched = host.register(injected, pending)
    wanted = Wanted(pending.creation, must_verify_user=True, models=ANY)
    with pytest.raises(UnprovenError, match="did not verify"):
        verify_registration(touched.attestation_object, wanted)
    verified = host.register(injected, pending, method=Method.PIN, pin=PIN)
    verify_registration(verified.attestation_object, wanted)


def test_listed_model(host: KeyHost) -> None:
    """A certificate with a listed model's AAGUID is accepted."""
    assert MODEL == judge(host, host.ports.plug(), ONE).aaguid


def test_unlisted_model(host: KeyHost) -> None:
    """A model that policy does not list is refused by its name."""
    with pytest.raises(UnprovenError, match=f"does not list its model, {MODEL}"):
        judge(host, host.ports.plug(), Models(aaguids=(OTHER_MODEL,)))


@pytest.mark.parametrize("kind", [AttestationKind.SELF, AttestationKind.NONE])
@pytest.mark.parametrize("models", [ONE, Models(roots=(b"root",))])
def test_model_without_proof(host: KeyHost, kind: AttestationKind, models: Models) -> None:
    """A key that vouches for itself proves no model, whatever AAGUID it claims."""
    with pytest.raises(UnprovenError, match="does not prove which model"):
        judge(host, host.ports.plug(Model(attestation=kind)), models)


def test_model_of_u2f_key(host: KeyHost) -> None:
    """A U2F key's model is the one in its certificate."""
    assert "" == judge(host, host.ports.plug(U2F_ONLY), ONE).aaguid
    with pytest.raises(UnprovenError, match="does not list"):
        judge(host, host.ports.plug(U2F_ONLY), Models(aaguids=(OTHER_MODEL,)))


def test_model_that_u2f_does_not_sign(host: KeyHost) -> None:
    """A model written into a U2F key's registration is nobody's word: it is not signed."""
    pending = host.lifecycle.begin_fido("alice")
    made = host.register(host.ports.plug(U2F_ONLY), pending)
    values: Any = cbor.decode(made.attestation_object)
    data = values["authData"]
    values["authData"] = data[:37] + bytes.fromhex(OTHER_MODEL.replace("-", "")) + data[53:]
    wanted = Wanted(pending.creation, must_verify_user=False, models=ANY)
    verify_registration(made.attestation_object, wanted)
    with pytest.raises(UnprovenError, match="which has none"):
        verify_registration(cbor.encode(values), wanted)


def test_certificate_without_model(host: KeyHost) -> None:
    """A certificate that names no model does not stand in for the listed ones."""
    injected = host.ports.plug()
    injected.key.memory.attestation = attest_without_model()
    assert MODEL == judge(host, injected).aaguid
    with pytest.raises(UnprovenError, match="does not say which model"):
        judge(host, injected, ONE)


def test_root(host: KeyHost) -> None:
    """A certificate that leads to a root of policy's is accepted, and no other is."""
    injected, stranger = host.ports.plug(), SecurityKey()
    root = injected.key.memory.attestation.root
    other = stranger.memory.attestation.root
    judge(host, injected, Models(aaguids=(MODEL,), roots=(other, root)))
    # The stranger's root has the very same name: its signature tells them apart.
    with pytest.raises(UnprovenError, match="none of the roots"):
        judge(host, injected, Models(roots=(other,)))


def test_root_of_garbage(host: KeyHost) -> None:
    """What is no certificate is no root."""
    with pytest.raises(UnprovenError, match="none of the roots"):
        judge(host, host.ports.plug(), Models(roots=(b"garbage",)))


def attest_without_model() -> Attestation:
    """Return an attestation whose certificate names no model."""
    attestation = make_attestation(bytes(16))
    names = (make_name("Authenticator Attestation", "Example Key"), make_name("Root", "Root"))
    builder = start_certificate(*names).public_key(attestation.key.secret.public_key())
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    certificate = builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
    return dataclasses.replace(attestation, certificate=certificate.public_bytes(Encoding.DER))


def make_object(**changes: Any) -> bytes:  # noqa: ANN401 - any part
    """Return an attestation object of kind "none", with parts of a test's own."""
    secret = ed25519.Ed25519PrivateKey.generate()
    raw = secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    key: Any = changes.get("key", {1: 1, 3: -8, -1: 6, -2: raw})
    credential_id: bytes = changes.get("credential_id", b"id")
    flags: int = changes.get("flags", 0x41)
    attested = bytes(16) + len(credential_id).to_bytes(2, "big") + credential_id + cbor.encode(key)
    data = hashlib.sha256(b"pam-mfa").digest() + bytes((flags,)) + bytes(4)
    data += attested if flags & 0x40 else b""
    values = {"fmt": "none", "attStmt": {}, "authData": data} | changes.get("values", {})
    return cbor.encode(values)


def test_made_by_hand() -> None:
    """The object that the next tests change is accepted as it is."""
    assert b"id" == verify_registration(make_object(), WANTED).credential_id


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"flags": 0x01}, "no new credential"),
        ({"flags": 0x40}, "nobody touched"),
        ({"flags": 0x51}, "backed up"),
        ({"credential_id": b""}, "credential id"),
        ({"credential_id": bytes(1024)}, "credential id"),
        ({"key": {1: 3, 3: -257, -1: bytes(256), -2: b"\1\0\1"}}, "algorithm"),
        ({"key": {1: 2, 3: -65535}}, "algorithm"),
        ({"key": {1: 2}}, "cannot be read"),
        ({"key": [1]}, "cannot be read"),
        ({"values": {"fmt": "android-safetynet"}}, "of a kind that no security key makes"),
        ({"values": {"fmt": [1]}}, "of a kind that no security key makes"),
        ({"values": {"attStmt": {"sig": b""}}}, "attestation is wrong"),
        ({"values": {"attStmt": 7}}, "attestation is wrong"),
        ({"values": {"fmt": "packed"}}, "attestation is wrong"),
        ({"values": {"fmt": "packed", "attStmt": {"alg": -8, "sig": b"x"}}}, "is wrong"),
        ({"values": {"fmt": "packed", "attStmt": {"alg": -7, "sig": b"x"}}}, "is wrong"),
        ({"values": {"fmt": "packed", "attStmt": {"alg": -7, "x5c": [b"x"]}}}, "is wrong"),
        ({"values": {"fmt": "packed", "attStmt": {"alg": -7, "ecdaaKeyId": b"x"}}}, "is wrong"),
        ({"values": {"fmt": "fido-u2f"}}, "is wrong"),
        ({"values": {"authData": b"short"}}, "cannot be read"),
        ({"values": {"authData": 7}}, "cannot be read"),
    ],
)
def test_bad_objects(changes: dict[str, Any], reason: str) -> None:
    """Each check of a registration has something that fails it."""
    with pytest.raises(UnprovenError, match=reason):
        verify_registration(make_object(**changes), WANTED)


def test_longest_credential_id() -> None:
    """A credential id of 1023 bytes is accepted (WebAuthn level 3, section 7.1)."""
    registered = verify_registration(make_object(credential_id=bytes(1023)), WANTED)
    assert 1023 == len(registered.credential_id)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """No bytes whatever do anything but prove nothing."""
    with pytest.raises(UnprovenError):
        verify_registration(data, WANTED)


@given(st.integers(0, 200), st.integers(1, 255))
def test_changed_bytes(index: int, change: int) -> None:
    """An object with a byte changed is judged or refused, and nothing else happens."""
    data = bytearray(make_object())
    data[index % len(data)] ^= change
    try:
        registered = verify_registration(bytes(data), WANTED)
    except UnprovenError:
        return
    assert algorithm_of(registered) in NEW_ALGORITHMS
