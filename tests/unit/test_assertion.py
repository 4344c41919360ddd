# SPDX-License-Identifier: Apache-2.0
"""Whether an assertion proves anything: each check of WebAuthn level 3, section 7.2.

Every assertion here is signed after it was tampered with, so that the one check alone can tell.
"""

import hashlib
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from fido2 import cbor
from fido2.cose import ES256, ES384, RS256, CoseKey, EdDSA
from key_bench import MOMENT

from pam_mfa.devices import FidoDevice
from pam_mfa.factors.security_key import (
    RP_ID,
    Ceremony,
    Proof,
    UnprovenError,
    client_data,
    client_data_hash,
    is_possible_clone,
    is_shown,
    user_handle,
    verify_assertion,
)
from pam_mfa.hardware.keys import Assertion, Showing

CEREMONY = Ceremony(bytes(range(32)), "host.example", "sudo", "alice")
OTHER_RP = "pam://old-name.example"
UP, UV, BE, BS, AT, ED = 0x01, 0x04, 0x08, 0x10, 0x40, 0x80
Sign = Callable[[bytes], bytes]


def make_es256() -> tuple[CoseKey, Sign]:
    """Make a key pair of ES256."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = ES256.from_cryptography_key(key.public_key())  # type: ignore[no-untyped-call]
    return public, lambda data: key.sign(data, ec.ECDSA(hashes.SHA256()))


def make_eddsa() -> tuple[CoseKey, Sign]:
    """Make a key pair of EdDSA."""
    key = ed25519.Ed25519PrivateKey.generate()
    return EdDSA.from_cryptography_key(key.public_key()), key.sign  # type: ignore[no-untyped-call]


def make_rs256() -> tuple[CoseKey, Sign]:
    """Make a key pair of RS256."""
    key = rsa.generate_private_key(65537, 2048)
    public = RS256.from_cryptography_key(key.public_key())  # type: ignore[no-untyped-call]
    return public, lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def make_es384() -> tuple[CoseKey, Sign]:
    """Make a key pair of an algorithm that is not offered."""
    key = ec.generate_private_key(ec.SECP384R1())
    public = ES384.from_cryptography_key(key.public_key())  # type: ignore[no-untyped-call]
    return public, lambda data: key.sign(data, ec.ECDSA(hashes.SHA384()))


class Signer:
    """A credential whose private key a test has."""

    def __init__(self, pair: tuple[CoseKey, Sign] | None = None, rp_id: str = RP_ID) -> None:
        """Make a credential."""
        public, self.sign = pair or make_es256()
        self.device = FidoDevice(
            "fido/alice/blue-key", "blue-key", MOMENT, b"credential", cbor.encode(dict(public)),
            rp_id, "", "",
        )  # fmt: skip

    def data(self, flags: int = UP, sign_count: int = 7, rp_id: str | None = None) -> bytes:
        """Return authenticator data."""
        rp_id_hash = hashlib.sha256((rp_id or self.device.rp_id).encode()).digest()
        return rp_id_hash + bytes((flags,)) + sign_count.to_bytes(4, "big")

    def assertion(
        self,
        data: bytes | None = None,
        ceremony: Ceremony = CEREMONY,
        **changes: Any,  # noqa: ANN401 - any field
    ) -> Assertion:
        """Return what a key answers."""
        data = self.data() if data is None else data
        signature = self.sign(data + client_data_hash(ceremony))
        return Assertion(self.device.credential_id, data, signature)._replace(**changes)


@pytest.fixture
def signer() -> Signer:
    """A credential."""
    return Signer()


def verify(signer: Signer, assertion: Assertion, *, must_verify_user: bool = False) -> Proof:
    """Verify an assertion in the one ceremony of these tests."""
    return verify_assertion(signer.device, assertion, CEREMONY, must_verify_user=must_verify_user)


@pytest.mark.parametrize("make", [make_es256, make_eddsa, make_rs256])
@pytest.mark.parametrize("rp_id", [RP_ID, OTHER_RP])
def test_proof(make: Callable[[], tuple[CoseKey, Sign]], rp_id: str) -> None:
    """A good assertion proves a touch, and says its count and whether the user was verified."""
    signer = Signer(make(), rp_id)
    assert Proof(7, is_user_verified=False) == verify(signer, signer.assertion())
    verified = signer.assertion(signer.data(UP | UV, 2**32 - 1))
    assert Proof(2**32 - 1, is_user_verified=True) == verify(
        signer, verified, must_verify_user=True
    )


def test_another_credential(signer: Signer) -> None:
    """An answer for a credential that was not asked for proves nothing."""
    with pytest.raises(UnprovenError, match="another credential"):
        verify(signer, signer.assertion(credential_id=b"Credential"))


def test_user_handle(signer: Signer) -> None:
    """A user handle, where one comes, is the user's; of imported credentials it is not ours."""
    verify(signer, signer.assertion(user_handle=user_handle("alice")))
    with pytest.raises(UnprovenError, match="another user"):
        verify(signer, signer.assertion(user_handle=user_handle("bob")))
    imported = Signer(rp_id=OTHER_RP)
    verify(imported, imported.assertion(user_handle=b"what pam_u2f made"))


def test_client_data() -> None:
    """Client data say what WebAuthn wants, and host, service and user."""
    values = json.loads(client_data(CEREMONY))
    assert CEREMONY.challenge == urlsafe_b64decode(values.pop("challenge") + "=")
    assert {
        "type": "webauthn.get", "origin": "pam-mfa://host.example/sudo", "user": "alice",
        "crossOrigin": False,
    } == values  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [{"challenge": bytes(32)}, {"host": "other.example"}, {"service": "login"}, {"user": "bob"}],
    ids=["challenge", "host", "service", "user"],
)
def test_another_ceremony(signer: Signer, other: dict[str, Any]) -> None:
    """An assertion for another challenge, host, service or user proves nothing here."""
    with pytest.raises(UnprovenError, match="signature"):
        verify(signer, signer.assertion(ceremony=CEREMONY._replace(**other)))


def test_assertion_of_a_registration(signer: Signer) -> None:
    """What was signed when a credential was made proves no login."""
    data = signer.data()
    signature = signer.sign(data + client_data_hash(CEREMONY, "webauthn.create"))
    with pytest.raises(UnprovenError, match="signature"):
        verify(signer, Assertion(signer.device.credential_id, data, signature))


@pytest.mark.parametrize("rp_id", [RP_ID.upper(), OTHER_RP, "example.org"])
def test_another_relying_party(signer: Signer, rp_id: str) -> None:
    """An assertion that was made for another relying party proves nothing."""
    with pytest.raises(UnprovenError, match="another relying party"):
        verify(signer, signer.assertion(signer.data(rp_id=rp_id)))


@pytest.mark.parametrize("flags", [0, UV, UV | BE])
def test_nobody_touched_the_key(signer: Signer, flags: int) -> None:
    """Without user presence there is no proof, with user verification neither."""
    with pytest.raises(UnprovenError, match="nobody touched"):
        verify(signer, signer.assertion(signer.data(flags)))


def test_user_not_verified(signer: Signer) -> None:
    """Where the user has to be verified, a touch is not enough."""
    with pytest.raises(UnprovenError, match="did not verify its user"):
        verify(signer, signer.assertion(), must_verify_user=True)


def test_backed_up_and_cannot_be(signer: Signer) -> None:
    """A credential cannot be backed up where it is not eligible for that."""
    with pytest.raises(UnprovenError, match="backed up"):
        verify(signer, signer.assertion(signer.data(UP | BS)))
    verify(signer, signer.assertion(signer.data(UP | BE | BS)))


def test_new_credential_in_an_assertion(signer: Signer) -> None:
    """Attested credential data belong to a registration."""
    with pytest.raises(UnprovenError, match="new credential"):
        verify(signer, signer.assertion(signer.data(UP | AT) + bytes(60)))


def test_extensions_mean_nothing(signer: Signer) -> None:
    """Extensions that nobody asked for make nothing right and nothing wrong."""
    extensions = cbor.encode({"uvm": [[1, 2, 3]], "appid": True})
    assert Proof(7, is_user_verified=False) == verify(
        signer, signer.assertion(signer.data(UP | ED) + extensions)
    )
    with pytest.raises(UnprovenError, match="nobody touched"):
        verify(signer, signer.assertion(signer.data(ED) + extensions))


@pytest.mark.parametrize("size", [0, 1, 32, 36])
def test_cut_authenticator_data(signer: Signer, size: int) -> None:
    """Authenticator data that are cut, though signed, prove nothing."""
    with pytest.raises(UnprovenError, match="cut"):
        verify(signer, signer.assertion(signer.data()[:size]))


@pytest.mark.parametrize("at", [0, 31, 32, 33, 36])
def test_one_bit_of_authenticator_data(signer: Signer, at: int) -> None:
    """No bit of what was signed can be changed afterwards."""
    good = signer.assertion()
    changed = bytearray(good.authenticator_data)
    changed[at] ^= 0x02
    with pytest.raises(UnprovenError):
        verify(signer, good._replace(authenticator_data=bytes(changed)))


@pytest.mark.parametrize(
    "signature", [b"", b"\0" * 64, b"\x30\x06\x02\x01\0\x02\x01\0", b"\xff" * 72]
)
def test_no_signature(signer: Signer, signature: bytes) -> None:
    """What is no signature, or one of zeros, proves nothing."""
    with pytest.raises(UnprovenError, match="signature"):
        verify(signer, signer.assertion(signature=signature))


@pytest.mark.parametrize("make", [make_es256, make_eddsa, make_rs256])
def test_signature_of_another_key(make: Callable[[], tuple[CoseKey, Sign]]) -> None:
    """Another private key's signature proves nothing."""
    mine, other = Signer(make()), Signer(make())
    with pytest.raises(UnprovenError, match="signature"):
        verify(mine, other.assertion())


def test_algorithm_that_is_not_accepted() -> None:
    """A credential of an algorithm that is never asked for proves nothing."""
    signer = Signer(make_es384())
    with pytest.raises(UnprovenError, match="algorithm is not accepted"):
        verify(signer, signer.assertion())


@pytest.mark.parametrize(
    "public_key",
    [b"", b"\xff", b"\xa0", b"\x80", b"\x01", cbor.encode({3: -7}),
     cbor.encode({1: 2, 3: -7, -1: 2}),
     cbor.encode({1: 2, 3: -7, -1: 1, -2: bytes(32), -3: bytes(32)})],
)  # fmt: skip
def test_broken_public_key(signer: Signer, public_key: bytes) -> None:
    """A public key that is none proves nothing, and raises nothing else."""
    broken = signer.device._replace(public_key=public_key)
    with pytest.raises(UnprovenError):
        verify_assertion(broken, signer.assertion(), CEREMONY, must_verify_user=False)


@pytest.mark.parametrize(
    ("known", "sign_count", "expected"),
    [(-1, 0, False), (-1, 1, False), (0, 0, False), (0, 1, False), (1, 0, True), (1, 1, True),
     (5, 4, True), (5, 6, False), (2**32 - 1, 0, True), (-1, 2**32 - 1, False)],
)  # fmt: skip
def test_possible_clone(known: int, sign_count: int, *, expected: bool) -> None:
    """A count that does not grow may be a clone's, but for a key that never counts."""
    assert expected == is_possible_clone(known, sign_count)


SHOWN_OVER = bytes(range(32, 64))


def show(signer: Signer, data: bytes | None = None, **changes: Any) -> Showing:  # noqa: ANN401 - any field
    """Return what a key signs untouched."""
    data = signer.data(0) if data is None else data
    assertion = Assertion(signer.device.credential_id, data, signer.sign(data + SHOWN_OVER))
    return Showing(SHOWN_OVER, assertion._replace(**changes))


def test_shown(signer: Signer) -> None:
    """A key that signs with the credential, untouched, has shown that it holds it."""
    assert is_shown(signer.device, show(signer))


def test_not_shown(signer: Signer) -> None:
    """Another key's signature, an old one, another credential or relying party show nothing."""
    good = show(signer)
    bad = [
        good._replace(client_data_hash=bytes(32)),
        show(Signer()),
        show(signer, credential_id=b"other"),
        show(signer, signature=b""),
        show(signer, signer.data(rp_id=OTHER_RP)),
        show(signer, b""),
    ]
    assert [False] * len(bad) == [is_shown(signer.device, each) for each in bad]
