# SPDX-License-Identifier: Apache-2.0
"""What users send to pam-mfa-selfd, which reads the first frame as root."""

import hypothesis
from hypothesis import strategies as st
from test_frames import NONCE, encode, fields, fuzzed, mutations

from pam_mfa.errors import WireError
from pam_mfa.self_service.protocol import Operation, build_petition, parse_petition

HEADER = b"\1\x11" + NONCE
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
    assert max(map(len, petition)) <= 1024
    again = build_petition(nonce, petition._replace(user=petition.user or "?"))
    assert parse_petition(again) == (nonce, petition._replace(user=petition.user or "?"))
