# SPDX-License-Identifier: Apache-2.0
"""SSH signatures over a message: what is signed, and whether a signature is a key's.

Pure. Formats: OpenSSH's PROTOCOL.sshsig, PROTOCOL.u2f (signatures), PROTOCOL.certkeys, RFC 8332
(rsa-sha2), RFC 5656 (ecdsa), RFC 8709 (ed25519). Of a certificate, the key that it certifies is
read; whoever signed the certificate counts for nothing here. Whether a touch, a PIN or a counter
is enough is the caller's to decide.
"""

import base64
import binascii
import hashlib
from typing import Final, NamedTuple

from pam_mfa.errors import PamMfaError
from pam_mfa.ssh_wire import Reader, SshFormatError, pack_positive, pack_strings

UP: Final = 0x01  # flags of PROTOCOL.u2f: the key was touched
UV: Final = 0x04  # and has verified its user
SK_ED25519: Final = "sk-ssh-ed25519@openssh.com"
SK_ECDSA: Final = "sk-ecdsa-sha2-nistp256@openssh.com"
_ED25519: Final = "ssh-ed25519"
_RSA: Final = "ssh-rsa"
# Each type with a point on a curve: the curve's name in the blob, and the bytes of a point.
_POINTS: Final = {
    SK_ED25519: ("", 32),
    SK_ECDSA: ("nistp256", 65),
    _ED25519: ("", 32),
    "ecdsa-sha2-nistp256": ("nistp256", 65),
    "ecdsa-sha2-nistp384": ("nistp384", 97),
    "ecdsa-sha2-nistp521": ("nistp521", 133),
}
_RSA_HASHES: Final = {"rsa-sha2-256": "SHA256", "rsa-sha2-512": "SHA512"}  # never SHA-1
_RSA_BITS: Final = (2048, 16384)
_ED25519_SIGNATURE: Final = 64  # bytes
_CERTIFICATE: Final = "-cert-v01@openssh.com"
_UNCOMPRESSED: Final = 4  # SEC 1, section 2.3.3: how a point's bytes begin
KEY_MAX: Final = 16384  # bytes; a certificate with many principals is long
SIGNATURE_MAX: Final = 4096  # bytes
_HASHES: Final = ("sha512", "sha256")
_MAGIC: Final = b"SSHSIG"
_VERSION: Final = 1
_ARMOR_MAX: Final = 32768  # characters
_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
_END: Final = "-----END SSH SIGNATURE-----"


class SignatureError(PamMfaError):
    """A signature or a key proves nothing; the text says which check it failed."""


class PublicKey(NamedTuple):
    """A public key, out of its blob or its certificate."""

    type: str  # of the key itself, as SK_ED25519 or "ssh-rsa"; never of a certificate
    point: bytes  # empty for RSA
    application: str  # what a key on a security key was made for, as "ssh:"; else empty
    exponent: int = 0  # of RSA
    modulus: int = 0

    @property
    def is_on_security_key(self) -> bool:
        """Whether its signatures tell of touches."""
        return self.type in {SK_ED25519, SK_ECDSA}

    @property
    def blob(self) -> bytes:
        """Its own blob, without any certificate: two keys are one if these are equal."""
        if self.type == _RSA:
            parts = pack_positive(self.exponent) + pack_positive(self.modulus)
            return pack_strings(_RSA.encode()) + parts
        curve, _size = _POINTS[self.type]
        parts = pack_strings(self.type.encode(), *([curve.encode()] if curve else []), self.point)
        return parts + (pack_strings(self.application.encode()) if self.is_on_security_key else b"")


class Proof(NamedTuple):
    """What a good signature says. A key in a file says nothing of touches: no flags, no counter."""

    flags: int = 0
    counter: int | None = None

    @property
    def is_touched(self) -> bool:
        """Whether the security key says that somebody touched it."""
        return bool(self.flags & UP)

    @property
    def is_user_verified(self) -> bool:
        """Whether the security key says that it verified its user."""
        return bool(self.flags & UV)


class Armored(NamedTuple):
    """A signature as a file has it."""

    key: PublicKey
    namespace: str
    hash_algorithm: str
    signature: bytes


def signed_data(namespace: str, message: bytes, hash_algorithm: str = "sha512") -> bytes:
    """Return what a key is given to sign (PROTOCOL.sshsig, section 3)."""
    if hash_algorithm not in _HASHES:
        raise SignatureError("its hash algorithm is not accepted")
    digest = hashlib.new(hash_algorithm, message).digest()
    return _MAGIC + pack_strings(namespace.encode(), b"", hash_algorithm.encode(), digest)


def parse_public_key(blob: bytes) -> PublicKey:
    """Read a public key's blob, or the key out of a certificate.

    Raises:
        SignatureError: it is of another type, or not whole.
    """
    if len(blob) > KEY_MAX:
        raise SignatureError("its key is too long")
    try:
        return _parse_key(Reader(blob))
    except SshFormatError as error:
        raise SignatureError(f"its key is malformed: {error}") from error


def _parse_key(reader: Reader) -> PublicKey:
    kind = reader.text()
    is_certificate = kind.endswith(_CERTIFICATE)
    if is_certificate:
        reader.string()  # the nonce of the authority
        kind = kind.removesuffix(_CERTIFICATE)
        kind = f"{kind}@openssh.com" if kind.startswith("sk-") else kind
    if kind == _RSA:
        key = PublicKey(kind, b"", "", reader.positive(), reader.positive())
        if not _RSA_BITS[0] <= key.modulus.bit_length() <= _RSA_BITS[1]:
            raise SshFormatError("an RSA key is of too few or too many bits")
    elif kind in _POINTS:
        key = _parse_point(kind, reader)
    else:
        raise SshFormatError("it is of a type that is not known here")
    if not is_certificate:
        reader.end()
    return key


def _parse_point(kind: str, reader: Reader) -> PublicKey:
    curve, size = _POINTS[kind]
    if curve and reader.text() != curve:
        raise SshFormatError("its curve is not its type's")
    point = reader.string()
    if len(point) != size or (curve and point[0] != _UNCOMPRESSED):
        raise SshFormatError("its point is not of its type's form")
    application = reader.text() if kind.startswith("sk-") else ""
    return PublicKey(kind, point, application)


def verify_signature(key: PublicKey, signature: bytes, data: bytes) -> Proof:
    """Check that a signature is the key's, over data as ``signed_data`` returns it.

    Raises:
        SignatureError: it is not, or not of a form that this key's signatures have.
    """
    if len(signature) > SIGNATURE_MAX:
        raise SignatureError("its signature is too long")
    try:
        reader = Reader(signature)
        kind, raw = reader.text(), reader.string()
        proof = Proof(reader.byte(), reader.number()) if key.is_on_security_key else Proof()
        reader.end()
        if kind not in (_RSA_HASHES if key.type == _RSA else (key.type,)):
            raise SignatureError("its signature is of another type than its key")
        if proof.counter is not None:
            counted = bytes((proof.flags,)) + proof.counter.to_bytes(4, "big")
            application = hashlib.sha256(key.application.encode()).digest()
            data = application + counted + hashlib.sha256(data).digest()
        _verify(key, kind, raw, data)
    except SshFormatError as error:
        raise SignatureError(f"its signature is malformed: {error}") from error
    return proof


def _verify(key: PublicKey, kind: str, raw: bytes, data: bytes) -> None:
    from cryptography.exceptions import (  # noqa: PLC0415 - only where a key is used
        InvalidSignature,
        UnsupportedAlgorithm,
    )

    try:
        if key.type == _RSA:
            _verify_rsa(key, kind, raw, data)
        elif _POINTS[key.type][0]:
            _verify_ecdsa(key, raw, data)
        else:
            _verify_ed25519(key, raw, data)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        if isinstance(error, SshFormatError):
            raise
        raise SignatureError("its signature is wrong") from error


def _verify_ed25519(key: PublicKey, raw: bytes, data: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    if len(raw) != _ED25519_SIGNATURE:
        raise SshFormatError("it is not of its type's length")
    Ed25519PublicKey.from_public_bytes(key.point).verify(raw, data)


def _verify_ecdsa(key: PublicKey, raw: bytes, data: bytes) -> None:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, utils  # noqa: PLC0415

    curve: ec.EllipticCurve
    digest: hashes.HashAlgorithm
    if len(key.point) == _POINTS["ecdsa-sha2-nistp521"][1]:
        curve, digest = ec.SECP521R1(), hashes.SHA512()
    elif len(key.point) == _POINTS["ecdsa-sha2-nistp384"][1]:
        curve, digest = ec.SECP384R1(), hashes.SHA384()
    else:
        curve, digest = ec.SECP256R1(), hashes.SHA256()
    reader = Reader(raw)
    r, s = reader.positive(), reader.positive()
    reader.end()
    public_key = ec.EllipticCurvePublicKey.from_encoded_point(curve, key.point)
    public_key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(digest))


def _verify_rsa(key: PublicKey, kind: str, raw: bytes, data: bytes) -> None:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import padding, rsa  # noqa: PLC0415

    digest: hashes.HashAlgorithm = getattr(hashes, _RSA_HASHES[kind])()
    public_key = rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()
    public_key.verify(raw, data, padding.PKCS1v15(), digest)


def parse_armored(text: str) -> Armored:
    """Read a signature file (PROTOCOL.sshsig, section 2), as ``ssh-keygen -Y sign`` writes it.

    Raises:
        SignatureError: it is none.
    """
    lines = text.strip().splitlines() if len(text) <= _ARMOR_MAX else []
    if len(lines) < 3 or (lines[0], lines[-1]) != (_BEGIN, _END):  # noqa: PLR2004
        raise SignatureError("it is not the text of an SSH signature")
    try:
        reader = Reader(base64.b64decode("".join(lines[1:-1]), validate=True))
        if (reader.take(len(_MAGIC)), reader.number()) != (_MAGIC, _VERSION):
            raise SshFormatError("it is of another version")
        key = parse_public_key(reader.string())
        namespace, _reserved, hash_algorithm = reader.text(), reader.string(), reader.text()
        armored = Armored(key, namespace, hash_algorithm, reader.string())
        reader.end()
    except (binascii.Error, SshFormatError) as error:
        raise SignatureError(f"the SSH signature is malformed: {error}") from error
    return armored


def verify_armored(armored: Armored, namespace: str, message: bytes) -> Proof:
    """Check a signature file: made for this namespace, over this message, by its own key.

    Whether that key is the right one, the caller must compare.

    Raises:
        SignatureError: it is not.
    """
    if not namespace or armored.namespace != namespace:
        raise SignatureError("it was made for another purpose (namespace)")
    data = signed_data(namespace, message, armored.hash_algorithm)
    return verify_signature(armored.key, armored.signature, data)
