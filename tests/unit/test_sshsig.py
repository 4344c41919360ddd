# SPDX-License-Identifier: Apache-2.0
"""SSH signatures: those of ssh-keygen are understood, and nothing else is one."""

import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sk_keys import PATIENCE, PROVIDER, TYPES, certify, make_sk_key, public_half

from pam_mfa.ssh_wire import SshFormatError, pack_strings
from pam_mfa.sshsig import (
    SK_ECDSA,
    SK_ED25519,
    UP,
    Armored,
    Proof,
    PublicKey,
    SignatureError,
    parse_armored,
    parse_public_key,
    signed_data,
    verify_armored,
    verify_signature,
)

NAMESPACE = "pam-mfa@server"
MESSAGE = b"service sudo\nuser alice\n"
# By ssh-keygen's names: the type of key, and its number of bits.
IN_FILES = (("ed25519", 0), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521), ("rsa", 2048))
NAMES = (*TYPES, *(f"{kind}{bits}" for kind, bits in IN_FILES))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key of each type by ssh-keygen."""
    folder = tmp_path_factory.mktemp("signatures")
    for kind in TYPES:
        make_sk_key(folder / kind, kind)
    for kind, bits in IN_FILES:
        size = ("-b", str(bits)) if bits else ()
        keygen("-q", "-t", kind, *size, "-N", "", "-f", str(folder / f"{kind}{bits}"))
    return folder


def keygen(*words: str, message: bytes = b"") -> str:
    """Return what ssh-keygen prints."""
    done = subprocess.run(
        ["ssh-keygen", *words],
        input=message,
        capture_output=True,
        check=True,
        timeout=PATIENCE,
        env={"SSH_SK_PROVIDER": str(PROVIDER), "PATH": "/usr/bin:/bin"},
    )
    return done.stdout.decode()


def sign(key: Path, hash_algorithm: str = "sha512", message: bytes = MESSAGE) -> Armored:
    """Return ssh-keygen's signature."""
    words = ("-Y", "sign", "-n", NAMESPACE, "-O", f"hashalg={hash_algorithm}", "-f", str(key))
    return parse_armored(keygen(*words, message=message))


def blob_of(public_key: Path) -> bytes:
    """Return the blob in a file of a public key or certificate."""
    return base64.b64decode(public_key.read_text().split()[1])


def fault(key: PublicKey, signature: bytes, data: bytes) -> str:
    """Return why a signature is refused."""
    with pytest.raises(SignatureError) as caught:
        verify_signature(key, signature, data)
    return str(caught.value)


@pytest.mark.parametrize("hash_algorithm", ["sha512", "sha256"])
@pytest.mark.parametrize("name", NAMES)
def test_signature_of_ssh_keygen(place: Path, name: str, hash_algorithm: str) -> None:
    """A signature by ssh-keygen, with any key and either hash, is its key's over the message."""
    armored = sign(place / name, hash_algorithm)
    assert blob_of(public_half(place / name)) == armored.key.blob
    proof = verify_armored(armored, NAMESPACE, MESSAGE)
    assert (name in TYPES) == proof.is_touched
    assert not proof.is_user_verified
    assert (proof.counter is None) != (name in TYPES)


@pytest.mark.parametrize("name", NAMES)
def test_ssh_keygen_agrees(place: Path, name: str, tmp_path: Path) -> None:
    """What is signed is what ssh-keygen verifies: it takes the same bytes, with the same key."""
    armored = sign(place / name)
    data = signed_data(NAMESPACE, MESSAGE)
    verify_signature(armored.key, armored.signature, data)
    signature = tmp_path / "message.sig"
    magic = b"SSHSIG" + (1).to_bytes(4, "big")
    parts = (armored.key.blob, NAMESPACE.encode(), b"", b"sha512", armored.signature)
    text = base64.encodebytes(magic + pack_strings(*parts)).decode()
    signature.write_text(
        f"-----BEGIN SSH SIGNATURE-----\n{text}-----END SSH SIGNATURE-----\n", "ascii"
    )
    words = ("-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(signature))
    assert "Good" in keygen(*words, message=MESSAGE)


@pytest.mark.parametrize("name", NAMES)
def test_other_message(place: Path, name: str) -> None:
    """A signature over another message, or for another namespace, proves nothing."""
    armored = sign(place / name)
    other = signed_data(NAMESPACE, MESSAGE + b"root")
    assert "its signature is wrong" == fault(armored.key, armored.signature, other)
    elsewhere = signed_data("pam-mfa@elsewhere", MESSAGE)
    assert "its signature is wrong" == fault(armored.key, armored.signature, elsewhere)
    with pytest.raises(SignatureError, match="another purpose"):
        verify_armored(armored, "pam-mfa@elsewhere", MESSAGE)


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_counts(place: Path, name: str) -> None:
    """No bit of a signature can be turned: not its type, flags or counter either."""
    armored, data = sign(place / name), signed_data(NAMESPACE, MESSAGE)
    for at in range(len(armored.signature)):
        turned = bytearray(armored.signature)
        turned[at] ^= 0x01
        assert fault(armored.key, bytes(turned), data)


@pytest.mark.parametrize("name", NAMES)
def test_cut_and_long(place: Path, name: str) -> None:
    """A signature that is cut anywhere, or has a byte behind its end, is refused."""
    armored, data = sign(place / name), signed_data(NAMESPACE, MESSAGE)
    for size in range(len(armored.signature)):
        assert fault(armored.key, armored.signature[:size], data)
    long = armored.signature + b"\0"
    assert "its signature is malformed: it has bytes behind its end" == fault(
        armored.key, long, data
    )
    assert "its signature is too long" == fault(armored.key, bytes(5000), data)


def test_other_key(place: Path, tmp_path: Path) -> None:
    """A signature by another key of the same type, or of another application, proves nothing."""
    armored, data = sign(place / "ed25519-sk"), signed_data(NAMESPACE, MESSAGE)
    other = make_sk_key(tmp_path / "other")
    key = parse_public_key(blob_of(public_half(other)))
    assert "its signature is wrong" == fault(key, armored.signature, data)
    moved = armored.key._replace(application="ssh:other")
    assert "its signature is wrong" == fault(moved, armored.signature, data)


def test_no_touch(place: Path, tmp_path: Path) -> None:
    """A key made without the demand for a touch says in its signature that nobody touched it."""
    key = make_sk_key(tmp_path / "silent", TYPES[0], "no-touch-required")
    armored = sign(key)
    proof = verify_armored(armored, NAMESPACE, MESSAGE)
    assert not proof.is_touched
    assert verify_armored(sign(place / TYPES[0]), NAMESPACE, MESSAGE).flags & UP


def test_key_in_certificate(place: Path, tmp_path: Path) -> None:
    """Of a certificate the certified key is read, of every type."""
    authority = place / "ed255190"
    for name in NAMES:
        key = tmp_path / name
        key.write_bytes((place / name).read_bytes())
        key.chmod(0o600)
        public_half(key).write_bytes(public_half(place / name).read_bytes())
        certificate = parse_public_key(blob_of(certify(authority, key, "alice")))
        assert parse_public_key(blob_of(public_half(key))) == certificate


def test_sha1_is_no_signature(place: Path) -> None:
    """An RSA signature of SHA-1 is refused by its name."""
    armored, data = sign(place / "rsa2048"), signed_data(NAMESPACE, MESSAGE)
    raw = armored.signature[-256:]
    assert "its signature is of another type than its key" == fault(
        armored.key, pack_strings(b"ssh-rsa", raw), data
    )


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (b"", "it is cut"),
        (pack_strings(b"ssh-dss", b"x"), "it is of a type that is not known here"),
        (pack_strings(SK_ED25519.encode(), bytes(31), b"ssh:"), "not of its type's form"),
        (pack_strings(SK_ED25519.encode(), bytes(32), b"ssh:") + b"x", "bytes behind its end"),
        (pack_strings(SK_ED25519.encode(), bytes(32), b"\xff"), "a name in it is not ASCII"),
        (pack_strings(SK_ECDSA.encode(), b"nistp384", bytes(65), b"ssh:"), "its curve is not"),
        (pack_strings(SK_ECDSA.encode(), b"nistp256", bytes(65), b"ssh:"), "its type's form"),
        (pack_strings(b"ssh-rsa", b"\3", b"\x7f" * 100), "too few or too many bits"),
        (pack_strings(b"ssh-rsa", b"\3", b"\0\x7f" + bytes(300)), "not in its shortest form"),
        (pack_strings(b"ssh-rsa", b"\3", b"\xff" * 300), "not above 0"),
        (b"x" * 20000, "its key is too long"),
    ],
)  # fmt: skip
def test_bad_keys(blob: bytes, why: str) -> None:
    """What is no whole key of a known type is refused, and says why."""
    with pytest.raises(SignatureError, match=why):
        parse_public_key(blob)


def test_point_off_the_curve(place: Path) -> None:
    """A point that is not on its curve verifies nothing, and breaks nothing."""
    armored, data = sign(place / "ecdsa-sk"), signed_data(NAMESPACE, MESSAGE)
    key = armored.key._replace(point=b"\4" + bytes(63) + b"\1")
    assert "its signature is wrong" == fault(key, armored.signature, data)


@pytest.mark.parametrize(
    "text",
    ["", "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----", "x" * 40000,
     "-----BEGIN SSH SIGNATURE-----\n!!!!\n-----END SSH SIGNATURE-----",
     "-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAg==\n-----END SSH SIGNATURE-----"],
)  # fmt: skip
def test_bad_armor(text: str) -> None:
    """What is no signature file is refused."""
    with pytest.raises(SignatureError):
        parse_armored(text)


def test_unknown_hash() -> None:
    """No other hash than SHA-256 and SHA-512 is made or accepted."""
    with pytest.raises(SignatureError, match="hash algorithm"):
        signed_data(NAMESPACE, MESSAGE, "sha1")


@given(st.binary(max_size=300))
def test_any_bytes(blob: bytes) -> None:
    """Whatever bytes come as key or signature, nothing but a refusal follows."""
    key = PublicKey(SK_ED25519, bytes(32), "ssh:")
    with pytest.raises(SignatureError):
        verify_signature(key, blob, b"data")
    with pytest.raises(SignatureError):
        parse_public_key(blob)


def test_proof_of_a_key_in_a_file() -> None:
    """A key that lives in a file proves no touch."""
    assert not Proof().is_touched
    assert issubclass(SshFormatError, ValueError)
