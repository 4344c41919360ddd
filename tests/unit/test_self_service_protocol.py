# SPDX-License-Identifier: Apache-2.0
"""The frames of self-service: what is built comes out whole, anything else is refused."""

from typing import Any

import pytest
from doubles import NONCE, encode_answer, encode_frame
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa import wire
from pam_mfa.errors import BrokenSystemError, DocumentError, PamMfaError, RefusedError, WireError
from pam_mfa.self_service.protocol import (
    End,
    Operation,
    Petition,
    Prompt,
    Rows,
    build_end,
    build_petition,
    build_rows,
    parse_petition,
    parse_reply,
)
from pam_mfa.wire import Style

PETITION, ROWS, END = 0x11, 0x91, 0x92
LIST = [(1, b"list"), (2, b"alice")]

texts = st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
petitions = st.builds(
    Petition,
    st.sampled_from(list(Operation)),
    texts.filter(bool),
    *[texts] * (len(Petition._fields) - 2),
)


@given(petitions)
def test_petition_comes_through_whole(petition: Petition) -> None:
    """A petition comes out as it went in, bytes that are not UTF-8 included."""
    assert (NONCE, petition) == parse_petition(build_petition(NONCE, petition))


@given(st.one_of(st.binary(max_size=200), st.binary().map(lambda rest: b"\1\x11" + NONCE + rest)))
def test_any_bytes_are_a_petition_or_a_wire_error(packet: bytes) -> None:
    """Whatever comes first is a petition or raises WireError."""
    try:
        nonce, petition = parse_petition(packet)
    except WireError:
        return
    assert (nonce, Operation) == (packet[2:18], type(petition.operation))


def test_fields_of_a_petition() -> None:
    """Each text has the tag that the protocol's description gives it."""
    fields = [(tag, f"text {tag}".encode()) for tag in range(2, 11)]
    packet = encode_frame(PETITION, [(1, b"resync"), *fields])
    assert (
        NONCE,
        Petition(Operation.RESYNC, *(f"text {tag}" for tag in range(2, 11))),
    ) == parse_petition(packet)


def test_longest_text() -> None:
    """A text of 1,024 bytes is the longest."""
    packet = encode_frame(PETITION, [*LIST, (4, b"n" * 1024)])
    assert "n" * 1024 == parse_petition(packet)[1].name


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        encode_frame(PETITION, LIST)[:-1],
        encode_frame(PETITION, LIST) + b"\0",
        encode_frame(PETITION, LIST, version=2),
        encode_frame(0x01, LIST),
        encode_answer("123456"),
        encode_frame(PETITION, LIST[:1]),
        encode_frame(PETITION, LIST[1:]),
        encode_frame(PETITION, [*LIST, (2, b"bob")]),
        encode_frame(PETITION, [*LIST, (15, b"more")]),
        encode_frame(PETITION, [*LIST, (0, b"more")]),
        encode_frame(PETITION, [(1, b"unlock"), (2, b"alice")]),
        encode_frame(PETITION, [(1, b"LIST"), (2, b"alice")]),
        encode_frame(PETITION, [*LIST, (8, b"A" * 1025)]),
        encode_frame(PETITION, [*LIST, *((tag, bytes(16384)) for tag in (3, 4))]),
    ],
    ids=["empty", "cut", "more", "version", "request", "answer", "no-user", "no-operation", "twice",
         "unknown", "zero", "operation", "case", "long", "frame"],
)  # fmt: skip
def test_no_petition(packet: bytes) -> None:
    """What is no whole petition of this version is refused."""
    with pytest.raises(WireError):
        parse_petition(packet)


def test_petition_shows_no_secret() -> None:
    """Neither the secret nor a code shows where a petition is printed."""
    petition = Petition(Operation.ENABLE_VIRTUAL, "alice", "", "", "", "", "", "SEED", "1234", "56")
    assert "Petition(enable-virtual, 'alice')" == f"{petition}" == repr(petition)


@pytest.mark.parametrize(
    "rows", [[], [{"name": "phone"}], [{"name": "ä\n", "drift": -3, "used": None}, {"a": True}]]
)
def test_rows_come_through_whole(rows: list[dict[str, Any]]) -> None:
    """A listing comes out as it went in, a frame for each row."""
    replies = [parse_reply(frame, NONCE) for frame in build_rows(NONCE, rows)]
    assert [Rows([row]) for row in rows] == replies


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RefusedError("no", hint="ask"), RefusedError),
        (RefusedError("never"), RefusedError),
        (BrokenSystemError("full", hint="df"), BrokenSystemError),
        (DocumentError("torn"), BrokenSystemError),
        (WireError("odd"), RefusedError),
    ],
)
def test_end_comes_through(error: PamMfaError, kind: type[PamMfaError]) -> None:
    """An error comes out with its sentence, its hint and its exit status."""
    end = parse_reply(build_end(NONCE, error), NONCE)
    assert isinstance(end, End)
    assert type(end.error) is kind
    assert isinstance(end.error, PamMfaError)
    assert (str(error), error.hint) == (str(end.error), end.error.hint)
    assert error.exit_status == end.error.exit_status


def test_end_without_error() -> None:
    """Success is an explicit zero."""
    assert encode_frame(END, [(1, b"\0")]) == build_end(NONCE, None)
    assert End(None) == parse_reply(build_end(NONCE, None), NONCE)


def test_long_sentence() -> None:
    """A sentence and a hint of any length and any bytes make a frame that can be read."""
    error = RefusedError("ä\udcff" * 20000, hint="ö" * 20000)
    frame = build_end(NONCE, error)
    assert len(frame) < wire.FRAME_MAX
    assert isinstance(parse_reply(frame, NONCE), End)


def test_prompt() -> None:
    """A prompt is the verifier's own frame."""
    frame = wire.build_prompt(NONCE, Style.ECHO_OFF, "Password: ")
    assert Prompt(Style.ECHO_OFF, "Password: ") == parse_reply(frame, NONCE)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        encode_frame(END, [(1, b"\0")], nonce=bytes(16)),
        encode_frame(END, []),
        encode_frame(END, [(1, b"\0\0")]),
        encode_frame(END, [(1, b"")]),
        encode_frame(0x82, [(1, b"\1")]),
        encode_frame(0x81, [(1, b"\5"), (2, b"x")]),
        encode_frame(PETITION, LIST),
    ],
    ids=["empty", "nonce", "no-result", "long", "short", "verdict", "style", "petition"],
)
def test_no_reply(packet: bytes) -> None:
    """What is no reply of this conversation is refused, and so is never taken for success."""
    with pytest.raises(WireError):
        parse_reply(packet, NONCE)
