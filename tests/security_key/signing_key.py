# SPDX-License-Identifier: Apache-2.0
"""A credential's key pair: ES256 or EdDSA (RFC 9053), its COSE form and its signatures."""

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from security_key.ctap import EDDSA, ES256

CURVE = ec.SECP256R1()
SIZE = 32


def encode_point(key: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    """Return a point's two coordinates."""
    numbers = key.public_numbers()
    return numbers.x.to_bytes(SIZE, "big"), numbers.y.to_bytes(SIZE, "big")


class SigningKey:
    """A private key of one algorithm."""

    def __init__(self, secret: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
        """Keep the key."""
        self.secret = secret

    @property
    def algorithm(self) -> int:
        """COSE's number for its algorithm."""
        return ES256 if isinstance(self.secret, ec.EllipticCurvePrivateKey) else EDDSA

    @property
    def cose(self) -> dict[int, int | bytes]:
        """The public key as a COSE_Key."""
        if isinstance(self.secret, ec.EllipticCurvePrivateKey):
            x, y = encode_point(self.secret.public_key())
            return {1: 2, 3: ES256, -1: 1, -2: x, -3: y}
        raw = self.secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {1: 1, 3: EDDSA, -1: 6, -2: raw}

    @property
    def point(self) -> bytes:
        """The public key as U2F has it: an uncompressed point."""
        return self.secret.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @property
    def raw(self) -> bytes:
        """The private key's 32 bytes."""
        if isinstance(self.secret, ec.EllipticCurvePrivateKey):
            return self.secret.private_numbers().private_value.to_bytes(SIZE, "big")
        return self.secret.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    def sign(self, message: bytes) -> bytes:
        """Return a signature."""
        if isinstance(self.secret, ec.EllipticCurvePrivateKey):
            return self.secret.sign(message, ec.ECDSA(SHA256()))
        return self.secret.sign(message)


def generate_key(algorithm: int) -> SigningKey:
    """Return a new key."""
    if algorithm == ES256:
        return SigningKey(ec.generate_private_key(CURVE))
    return SigningKey(ed25519.Ed25519PrivateKey.generate())


def load_key(algorithm: int, raw: bytes) -> SigningKey:
    """Return a key from its private bytes."""
    if algorithm == ES256:
        return SigningKey(ec.derive_private_key(int.from_bytes(raw, "big"), CURVE))
    return SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(raw))
