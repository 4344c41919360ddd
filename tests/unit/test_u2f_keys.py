# SPDX-License-Identifier: Apache-2.0
"""The file of pam_u2f: lines that pamu2fcfg 1.1.0 made with keys of software, and bad ones.

``vectors/u2f_keys`` has those lines and the two keys; their PIN is 4711.
"""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from doubles import VECTORS
from fido2 import cbor
from fido2.cose import CoseKey
from fido2.utils import websafe_encode
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.importing.u2f_keys import EnrolledKey, parse_u2f_keys

FILE = (VECTORS / "u2f_keys/u2f_mappings").read_bytes()
HANDLE = bytes(range(64))
POINT = ec.generate_private_key(ec.SECP256R1()).public_key()
RAW = POINT.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
OLD = f"{websafe_encode(HANDLE)},04{RAW.hex()}"


def b64(data: bytes) -> str:
    """Return what the new format has."""
    return base64.b64encode(data).decode()


NEW = f"{b64(HANDLE)},{b64(RAW)},es256,+presence"


def parse_one(text: str) -> EnrolledKey:
    """Read Alice's one credential."""
    said = parse_u2f_keys(f"alice:{text}\n".encode(), "u2f_keys")
    assert () == said.bad
    (credential,) = said.credentials
    return credential


def reason_of(text: str) -> str:
    """Return why Alice's one credential is bad."""
    said = parse_u2f_keys(f"alice:{text}\n".encode(), "u2f_keys")
    assert () == said.credentials
    (bad,) = said.bad
    assert ("alice", "u2f_keys", 1) == bad[:3]
    return bad.reason


def test_made_by_pamu2fcfg() -> None:
    """Lines of pamu2fcfg's own are read: users, options, and what lies on the key alone."""
    said = parse_u2f_keys(FILE, "u2f_mappings")
    assert () == said.bad
    found = [(one.user, one.line, one.must_verify_user, bool(one.obstacle)) for one in said[0]]
    expected = [
        ("alice", 1, False, False),
        ("alice", 1, False, False),
        ("alice", 1, False, True),
        ("alice", 1, True, False),
        ("alice", 1, True, False),
        ("bob", 2, False, False),
    ]
    assert expected == found
    assert {64} == {len(one.credential_id) for one in said.credentials if not one.obstacle}
    assert {"es256"} == {one.algorithm for one in said.credentials}


def test_old_format() -> None:
    """A credential of 1.0.8 is the same as its own in the new format, but for its age."""
    old, new = parse_one(OLD), parse_one(NEW)
    assert (True, False) == (old.is_old, new.is_old)
    assert new == old._replace(is_old=False)


@pytest.mark.parametrize("padding", ["", "="])
def test_old_handle(padding: str) -> None:
    """A key handle of the old format is base64url, whatever padding it has."""
    handle = bytes((0xFB, 0xFF, 0xFE, 0xFB, 0xEF))
    text = websafe_encode(handle)
    assert "-" in text
    assert handle == parse_one(f"{text}{padding},04{RAW.hex()}").credential_id


def test_es256() -> None:
    """An ES256 key is the COSE key of its two coordinates."""
    key = _decode(parse_one(NEW).public_key)
    assert {1: 2, 3: -7, -1: 1, -2: RAW[:32], -3: RAW[32:]} == key


def test_eddsa() -> None:
    """An EdDSA key is the COSE key of its 32 bytes."""
    public_key = ed25519.Ed25519PrivateKey.generate().public_key()
    raw = public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    credential = parse_one(f"{b64(HANDLE)},{b64(raw)},eddsa,+presence")
    assert {1: 1, 3: -8, -1: 6, -2: raw} == _decode(credential.public_key)


def test_rs256() -> None:
    """An RS256 key is the COSE key of its modulus and exponent."""
    public_key = rsa.generate_private_key(65537, 2048).public_key()
    numbers = public_key.public_numbers()
    raw = numbers.n.to_bytes(256, "big") + numbers.e.to_bytes(3, "big")
    credential = parse_one(f"{b64(HANDLE)},{b64(raw)},rs256,+presence")
    expected = {1: 3, 3: -257, -1: raw[:256], -2: b"\x01\x00\x01"}
    assert expected == _decode(credential.public_key)


def _decode(data: bytes) -> dict[int, object]:
    key = cbor.decode(data)
    assert isinstance(key, dict)
    return key


@pytest.mark.parametrize(
    ("options", "must_verify_user"),
    [
        ("+presence", False),
        ("", False),
        ("+presence+verification", True),
        ("+verification", True),
        ("+presence+pin", True),
        ("+pin", True),
        ("+presence+tomorrow", False),
    ],
)
def test_options(options: str, *, must_verify_user: bool) -> None:
    """A credential that pam_u2f asks a PIN or fingerprint for is asked for it here."""
    text = f"{b64(HANDLE)},{b64(RAW)},es256,{options}"
    assert must_verify_user is parse_one(text).must_verify_user


def test_last_line_counts() -> None:
    """Of two lines of one user the last one counts, as for pam_u2f; the other is left out."""
    said = parse_u2f_keys(f"alice:{NEW}\nbob:{NEW}\nalice:{OLD}\n".encode(), "u2f_keys")
    found = [(one.user, one.line, bool(one.obstacle)) for one in said.credentials]
    assert [("alice", 1, True), ("bob", 2, False), ("alice", 3, False)] == found


def test_several_credentials() -> None:
    """A line has any number of credentials, of both formats."""
    said = parse_u2f_keys(f"alice:{OLD}:{NEW}::{OLD}".encode(), "u2f_keys")
    assert [True, False, True] == [one.is_old for one in said.credentials]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# pam_u2f's file\n", b"   \r\n"])
def test_nothing(data: bytes) -> None:
    """Empty lines and comments say nothing."""
    assert ((), ()) == parse_u2f_keys(data, "u2f_keys")


def test_line_without_credentials() -> None:
    """A user without credentials is told of."""
    assert "no credential" in reason_of("")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("abc", "two fields"),
        (f"{b64(HANDLE)},{b64(RAW)},es256,+presence,more", "more than four"),
        (f"{b64(HANDLE)},{b64(RAW)},es384,+presence", "type"),
        (f"{b64(HANDLE)},{b64(RAW)},ES256,+presence", "type"),
        (f"{b64(HANDLE)},{b64(RAW)},,+presence", "type"),
        (f"{b64(HANDLE)},{b64(RAW)},es256,presence", "options"),
        (f"{b64(HANDLE)},{b64(RAW)},es256,+PIN", "options"),
        (f"!!,{b64(RAW)},es256,+presence", "key handle is not base64"),
        (f",{b64(RAW)},es256,+presence", "key handle is not 1 to"),
        (f"{b64(bytes(1024))},{b64(RAW)},es256,+presence", "key handle is not 1 to"),
        (f"{b64(HANDLE)},!!,es256,+presence", "public key is not base64"),
        (f"{b64(HANDLE)},{b64(RAW[:63])},es256,+presence", "64 bytes"),
        (f"{b64(HANDLE)},{b64(bytes(64))},es256,+presence", "point"),
        (f"{b64(HANDLE)},{b64(RAW)},eddsa,+presence", "32 bytes"),
        (f"{b64(HANDLE)},{b64(RAW)},rs256,+presence", "2048 bits"),
        (f"{websafe_encode(HANDLE)},{b64(RAW)}", "old format"),
        (f"{websafe_encode(HANDLE)},02{RAW.hex()}", "old format"),
        (f"{websafe_encode(HANDLE)},04{bytes(64).hex()}", "point"),
    ],
)
def test_bad_credentials(text: str, reason: str) -> None:
    """What is not to be understood is named by what is wrong with it, and nothing is quoted."""
    told = reason_of(text)
    assert reason in told
    assert b64(HANDLE)[:20] not in told


def test_bad_one_among_good_ones() -> None:
    """A bad credential does not hide the others of its line."""
    said = parse_u2f_keys(f"alice:{NEW}:bad:{OLD}".encode(), "u2f_keys")
    assert (2, 1) == (len(said.credentials), len(said.bad))


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    """Whatever a file holds, it is read to its end."""
    said = parse_u2f_keys(data, "u2f_keys")
    lines = data.count(b"\n") + 1
    numbers = [one.line for one in said.credentials] + [one.line for one in said.bad]
    assert {1 <= number <= lines for number in numbers} <= {True}


@given(st.integers(0, len(FILE) - 1), st.binary(max_size=3))
def test_changed_file(index: int, change: bytes) -> None:
    """A file with bytes changed gives credentials with a point of the curve, or none."""
    said = parse_u2f_keys(FILE[:index] + change + FILE[index + len(change) :], "u2f_keys")
    for credential in said.credentials:
        assert CoseKey.parse(_decode(credential.public_key)).ALGORITHM in {-7, -8, -257}


@given(
    st.binary(min_size=1, max_size=1023),
    st.binary(min_size=32, max_size=32),
    st.sets(st.sampled_from(["presence", "verification", "pin"])),
)
def test_round_trip(handle: bytes, key: bytes, options: set[str]) -> None:
    """Whatever is written in the new format is read back."""
    words = "".join(f"+{one}" for one in sorted(options))
    credential = parse_one(f"{b64(handle)},{b64(key)},eddsa,{words}")
    assert (handle, key) == (credential.credential_id, _decode(credential.public_key)[-2])
    assert bool(options - {"presence"}) is credential.must_verify_user
