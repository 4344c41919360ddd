# SPDX-License-Identifier: Apache-2.0
"""What users send to pam-mfa-selfd, which reads the first frame as root."""

import base64
import hashlib

import hypothesis
from hypothesis import strategies as st
from test_frames import NONCE, encode, fields, fuzzed, mutations

from pam_mfa.errors import WireError
from pam_mfa.factors.attestation import Models
from pam_mfa.factors.security_key import UnprovenError
from pam_mfa.factors.ssh_attestation import Evidence, verify_ssh_attestation
from pam_mfa.self_service.protocol import (
    Operation,
    build_petition,
    build_signature,
    longest_text,
    parse_petition,
    parse_signature,
)
from pam_mfa.ssh_keys import ED25519, SshKey
from pam_mfa.ssh_possession import BEGIN, END, format_armored, verify_possession
from pam_mfa.ssh_wire import pack_strings
from pam_mfa.sshsig import SignatureError

HEADER = b"\1\x11" + NONCE
KEY = SshKey(ED25519, bytes(range(32)), "ssh:")
SIGNATURE = b"\1\x12" + NONCE + encode((1, b"text"))
ARMORED = format_armored(KEY, "pam-mfa-enable@host", bytes(100))
DATA = hashlib.sha256(b"ssh:").digest() + b"\x41" + bytes(90)
ATTESTATION = pack_strings(b"ssh-sk-attest-v01", b"0\x82", b"0E", DATA) + bytes(8)
GOOD = HEADER + encode(
    (1, b"enable-virtual"), (2, b"alice"), (4, b"phone"), (6, b"6"), (8, b"A" * 32), (9, b"123456")
)


@fuzzed
@hypothesis.given(
    st.one_of(
        st.binary(max_size=200),
        fields.map(lambda pairs: HEADER + encode(*pairs)),
        mutations(GOOD),
    )
)
@hypothesis.example(GOOD)
def test_any_bytes_are_a_petition_or_a_wire_error(packet: bytes) -> None:
    """Whatever comes as a petition is one, and the same when sent on, or raises WireError."""
    try:
        nonce, petition = parse_petition(packet)
    except WireError:
        return
    assert packet[:2] == b"\1\x11"
    assert petition.operation in set(Operation)
    assert all(len(text) <= longest_text(tag) for tag, text in enumerate(petition, start=1))
    again = build_petition(nonce, petition._replace(user=petition.user or "?"))
    assert parse_petition(again) == (nonce, petition._replace(user=petition.user or "?"))


@fuzzed
@hypothesis.given(st.one_of(st.binary(max_size=200), mutations(SIGNATURE)))
@hypothesis.example(SIGNATURE)
def test_any_bytes_are_a_signature_or_a_wire_error(packet: bytes) -> None:
    """Whatever comes in the place of a signature is one, or none, or raises WireError."""
    try:
        text = parse_signature(packet, NONCE)
    except WireError:
        return
    assert text == parse_signature(build_signature(NONCE, text), NONCE)


@fuzzed
@hypothesis.given(
    st.one_of(
        st.text(max_size=300),
        mutations(ARMORED.encode()).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
        st.binary(max_size=300).map(
            lambda raw: f"{BEGIN}\n{base64.b64encode(b'SSHSIG' + raw).decode()}\n{END}\n"
        ),
    )
)
@hypothesis.example(ARMORED)
def test_any_text_proves_nothing(text: str) -> None:
    """No text that a key did not sign enables it, whatever it is made of."""
    try:
        verify_possession(KEY, text, "host", ["challenge"])
    except SignatureError:
        return
    raise AssertionError(text)


@fuzzed
@hypothesis.given(st.one_of(st.binary(max_size=300), mutations(ATTESTATION)))
@hypothesis.example(ATTESTATION)
def test_any_file_attests_nothing(data: bytes) -> None:
    """No file that a security key did not sign says what a key is."""
    try:
        verify_ssh_attestation(KEY, Evidence(data, b"challenge"), Models())
    except UnprovenError:
        return
    raise AssertionError(data)
