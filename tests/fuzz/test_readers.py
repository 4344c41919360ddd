# SPDX-License-Identifier: Apache-2.0
"""Readers of files, variables and answers that others write: a value, or an error of their own."""

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from fido2 import cbor
from hypothesis import strategies as st
from installed import REPOSITORY
from test_frames import EXAMPLES, POLICY, RULES, documents, fuzzed, mutations

from pam_mfa.errors import DocumentError, RefusedError
from pam_mfa.factors.attestation import Models, Wanted, verify_registration
from pam_mfa.factors.security_key import Ceremony, UnprovenError
from pam_mfa.hardware.answers import find_wrong_field
from pam_mfa.hardware.report_descriptor import ReportDescriptorError, find_fido_reports
from pam_mfa.importing.google_authenticator import parse_secret_file
from pam_mfa.importing.u2f_keys import parse_u2f_keys
from pam_mfa.importing.users_oath import parse_users_file
from pam_mfa.policy import parse_policy
from pam_mfa.pskc import parse_pskc
from pam_mfa.ssh_keys import parse_auth_info
from pam_mfa.token_csv import parse_csv

VECTORS = REPOSITORY / "tests/vectors"
PSKC = (VECTORS / "rfc6030/figure3.xml").read_bytes()
PSKC_ENCRYPTED = (VECTORS / "rfc6030/figure7.xml").read_bytes()
U2F = (VECTORS / "u2f_keys/u2f_mappings").read_bytes()
GOOGLE = b"""\
JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP
" RATE_LIMIT 3 30 1764000000
" WINDOW_SIZE 17
" DISALLOW_REUSE 58800000 58800001
" TIME_SKEW -1
" TOTP_AUTH
12345678
87654321
"""
OATH = b"""\
# a comment
HOTP/T30/6 alice - 3132333435363738393031323334353637383930 0 123456 2026-11-24T08:00:00L
HOTP/E bob + 00ff 7
HOTP carol 1234 00
"""
CSV = b"""\
Serial No;Seed;Type;Vendor;Start Date
A-1;3132333435363738393031323334353637383930;TOTP;Acme;2026-01-01
A-2;GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ;HOTP;Acme;
"""
AUTH_INFO = (
    "publickey sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIDEyMzQ1Njc4"
    "OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyAAAABHNzaDo=\npassword\n"
)
DESCRIPTOR = bytes.fromhex("06d0f10901a1010920150026ff007508954081020921150026ff00750895409102c0")
WORDS = [
    b'" ', b"TOTP_AUTH", b"HOTP_COUNTER ", b"99999999999999999999", b"-", b"+", b"HOTP/", b"T60",
    b"\r\n", b"\r", b";", b",", b"\t", b'"', b"'", b"\0", b"\xff", b"\xef\xbb\xbf", b":", b"*",
    b"<!DOCTYPE x>", b"&#0;", b"</KeyPackage>", b"<KeyPackage>", b"<!--", b"-->", b"]]>", b"1e9",
    b"9999-99-99T99:99:99L", b"\xc2\x85", b"\xe2\x80\xa8", b"=" * 9, b"A" * 300, b"es256", b"@",
]  # fmt: skip


def spoiled(good: bytes) -> st.SearchStrategy[bytes]:
    """Make a good file with words of its kind put in, left out or doubled."""
    place = st.integers(0, len(good))
    put = st.builds(
        lambda at, gone, word: good[:at] + word + good[at + gone :],
        place,
        st.integers(0, 30),
        st.sampled_from(WORDS),
    )
    doubled = st.builds(lambda a, b: good[: max(a, b)] + good[min(a, b) :], place, place)
    return st.one_of(put, doubled, mutations(good), st.binary(max_size=200))


def read_google(data: bytes) -> object:
    """Read a secret file of google-authenticator's."""
    return parse_secret_file(data, "fuzz", "alice")


def read_oath(data: bytes) -> object:
    """Read pam_oath's users file, in a time zone without changes."""
    return parse_users_file(data, "fuzz", lambda _: 1.7e9)


def read_auth_info(data: bytes) -> object:
    """Read SSH_AUTH_INFO_0 as it comes out of a frame."""
    return parse_auth_info(data.decode("utf-8", "surrogateescape"))


# The last of each: errors of its own; a reader without any leaves out what it cannot read.
READERS: dict[str, tuple[Callable[[bytes], object], bytes, tuple[type[Exception], ...]]] = {
    "google-authenticator": (read_google, GOOGLE, ()),
    "users.oath": (read_oath, OATH, ()),
    "u2f_keys": (lambda data: parse_u2f_keys(data, "fuzz"), U2F, ()),
    "SSH_AUTH_INFO_0": (read_auth_info, AUTH_INFO.encode(), ()),
    "token CSV": (lambda data: parse_csv(data, "fuzz"), CSV, (RefusedError,)),
    "PSKC": (lambda data: parse_pskc(data, "fuzz"), PSKC, (RefusedError,)),
    "PSKC, encrypted": (
        lambda data: parse_pskc(data, "fuzz", password="qwerty"), PSKC_ENCRYPTED, (RefusedError,),
    ),
    "report descriptor": (find_fido_reports, DESCRIPTOR, (ReportDescriptorError,)),
}  # fmt: skip
SLOW = 20  # times fewer examples: a key is derived, or XML read, for each


@pytest.mark.parametrize("reader", READERS)
def test_good_input_is_read(reader: str) -> None:
    """What is spoiled below is good."""
    read, good, _ = READERS[reader]
    assert read(good)


@pytest.mark.parametrize("reader", READERS)
def test_any_bytes_are_read_or_refused(reader: str) -> None:
    """Whatever stands in an input, its reader ends with a value or its own error."""
    read, good, own = READERS[reader]

    @hypothesis.settings(fuzzed, max_examples=EXAMPLES // (SLOW if "PSKC" in reader else 4))
    @hypothesis.given(spoiled(good))
    def run(data: bytes) -> None:
        with contextlib.suppress(*own):
            read(data)

    run()


fragments_of_policy = st.lists(
    st.one_of(documents, mutations(RULES), mutations(b"rules: []\n")), max_size=3
)


@hypothesis.settings(fuzzed, max_examples=EXAMPLES // 10)
@hypothesis.given(fragments_of_policy)
def test_any_fragments_are_a_policy_or_a_document_error(fragments: list[bytes]) -> None:
    """Whatever the files of an included directory hold, the policy is read or refused."""
    policy = POLICY + b"\ninclude: /etc/pam_mfa/policy.d\n"
    files = [(f"fuzz/{number}.yaml", data) for number, data in enumerate(fragments)]
    with contextlib.suppress(DocumentError):
        parse_policy(policy, "fuzz", lambda _: files)


values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-(2**63), 2**63), st.binary(max_size=20),
        st.text(max_size=10),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.integers(-5, 30), st.text(max_size=4)), inner, max_size=5),
    ),
    max_leaves=12,
)  # fmt: skip


def cbor_of(value: Any) -> bytes:  # noqa: ANN401 - anything that CBOR can say
    """Return CBOR, as a key sends it."""
    return b"\0" + cbor.encode(value)


@hypothesis.settings(fuzzed, max_examples=EXAMPLES // 2)
@hypothesis.given(
    st.sampled_from([1, 2, 4, 6, 8]),
    st.one_of(values.map(cbor_of), st.binary(max_size=60), mutations(cbor_of({1: [], 3: b"x"}))),
)
def test_any_answer_of_a_key_is_judged(command: int, answer: bytes) -> None:
    """Whatever a key answers is judged, or is CBOR that fido2 errs by: its caller sees to those."""
    with contextlib.suppress(ValueError, TypeError, LookupError, struct.error):
        find_wrong_field(command, answer)


@hypothesis.settings(fuzzed, max_examples=EXAMPLES // 4)
@hypothesis.given(
    st.one_of(
        st.binary(max_size=100),
        st.builds(
            lambda data, statement, name: cbor.encode(
                {"fmt": name, "authData": data, "attStmt": statement}
            ),
            st.one_of(st.binary(max_size=90), st.binary(min_size=37, max_size=37)),
            values,
            st.sampled_from(["packed", "fido-u2f", "none", "tpm", ""]),
        ),
    )
)
def test_no_bytes_are_a_registration(attestation: bytes) -> None:
    """Whatever a key sends for a new credential that it has not made is refused as unproven."""
    wanted = Wanted(Ceremony(b"c" * 32, "host", "service", "alice"), False, Models())
    with pytest.raises(UnprovenError):
        verify_registration(attestation, wanted)
