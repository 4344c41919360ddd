# SPDX-License-Identifier: Apache-2.0
"""PIN/UV auth protocols one and two, the authenticator's side (CTAP 2.1, sections 6.5.6, 6.5.7)."""

import hashlib
import hmac
import os

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from security_key.cbor import Item
from security_key.parameters import Parameters
from security_key.signing_key import CURVE, encode_point
from security_key.status import Status, StatusError

BLOCK = 16
SECRET = 32
ECDH = -25  # what the specification has it say, whatever the key derivation


def run_cipher(key: bytes, vector: bytes, data: bytes, *, encrypt: bool) -> bytes:
    """Return data through AES-256-CBC without padding."""
    if len(data) % BLOCK:
        raise StatusError(Status.INVALID_PARAMETER)
    cipher = Cipher(algorithms.AES(key), modes.CBC(vector))
    context = cipher.encryptor() if encrypt else cipher.decryptor()
    return context.update(data) + context.finalize()


class PinProtocol:
    """Protocol one; its key agreement key lives until the next power-up or wrong PIN."""

    number = 1
    mac_size = 16

    def __init__(self) -> None:
        """Begin with a new key."""
        self.renew()

    def renew(self) -> None:
        """Take a new key agreement key."""
        self.secret = ec.generate_private_key(CURVE)

    @property
    def public_key(self) -> dict[int, Item]:
        """The key agreement key as a COSE_Key."""
        x, y = encode_point(self.secret.public_key())
        return {1: 2, 3: ECDH, -1: 1, -2: x, -3: y}

    def agree(self, peer: Parameters) -> bytes:
        """Return the shared secret with a platform's COSE_Key."""
        x, y = (int.from_bytes(peer.require(key, bytes), "big") for key in (-2, -3))
        try:
            point = ec.EllipticCurvePublicNumbers(x, y, CURVE).public_key()
        except ValueError as error:
            raise StatusError(Status.INVALID_PARAMETER) from error
        return self.derive(self.secret.exchange(ec.ECDH(), point))

    def derive(self, agreed: bytes) -> bytes:
        """Return the shared secret from what was agreed."""
        return hashlib.sha256(agreed).digest()

    def encrypt(self, shared: bytes, data: bytes) -> bytes:
        """Return data as only the platform can read it."""
        return run_cipher(shared, bytes(BLOCK), data, encrypt=True)

    def decrypt(self, shared: bytes, data: bytes) -> bytes:
        """Return what the platform encrypted."""
        return run_cipher(shared, bytes(BLOCK), data, encrypt=False)

    def authenticate(self, key: bytes, message: bytes) -> bytes:
        """Return the code that shows that a message comes from who knows the key."""
        return hmac.digest(key[:SECRET], message, "sha256")[: self.mac_size]


class PinProtocolTwo(PinProtocol):
    """Protocol two: two keys from one agreement, and a vector before each cipher text."""

    number = 2
    mac_size = 32

    def derive(self, agreed: bytes) -> bytes:
        """Return a key for codes and a key for ciphers."""
        return b"".join(
            HKDF(SHA256(), SECRET, bytes(SECRET), label).derive(agreed)
            for label in (b"CTAP2 HMAC key", b"CTAP2 AES key")
        )

    def encrypt(self, shared: bytes, data: bytes) -> bytes:
        """Return data as only the platform can read it."""
        vector = os.urandom(BLOCK)
        return vector + run_cipher(shared[SECRET:], vector, data, encrypt=True)

    def decrypt(self, shared: bytes, data: bytes) -> bytes:
        """Return what the platform encrypted."""
        if len(data) < BLOCK:
            raise StatusError(Status.INVALID_PARAMETER)
        return run_cipher(shared[SECRET:], data[:BLOCK], data[BLOCK:], encrypt=False)


def make_protocols(numbers: tuple[int, ...]) -> dict[int, PinProtocol]:
    """Return the protocols that a model has."""
    kinds = {kind.number: kind for kind in (PinProtocol, PinProtocolTwo)}
    return {number: kinds[number]() for number in numbers}
