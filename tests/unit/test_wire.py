# SPDX-License-Identifier: Apache-2.0
"""Frames: the numbers that Python and C share, round trips, and every frame that is refused."""

import contextlib
import re
from collections.abc import Callable

import pytest
from doubles import (
    NONCE,
    REPOSITORY,
    encode_answer,
    encode_frame,
    encode_request,
    make_request,
    number,
)
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa import wire
from pam_mfa.errors import WireError
from pam_mfa.wire import FrameType, Phase, Request, RequestTag, Result, Style

HEADER = REPOSITORY / "pam_mfa/native/frame.h"
ITEMS = st.binary(max_size=200).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
NUMBERS = st.integers(0, 2**32 - 1)
REQUESTS = st.builds(
    Request,
    nonce=st.binary(min_size=16, max_size=16),
    phase=st.sampled_from(Phase),
    user=ITEMS,
    service=ITEMS,
    flags=NUMBERS,
    uid=st.none() | NUMBERS,
    tty=ITEMS,
    rhost=ITEMS,
    ruser=ITEMS,
    ssh_auth_info=ITEMS,
    ssh_connection=ITEMS,
    timeout=NUMBERS,
    descriptor_kinds=st.binary(max_size=4),
)
GOOD = encode_request(make_request())
LEAST = [(1, number(1)), (4, b"alice"), (11, number(110))]  # the fields that must be there


def read_header() -> dict[str, int]:
    """Return every number that frame.h names."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text("ascii"), flags=re.DOTALL)
    numbers: dict[str, int] = {}
    for block in re.findall(r"enum\s*\w*\s*\{(.*?)\};", text, flags=re.DOTALL):
        last = -1
        for entry in filter(None, map(str.strip, block.split(","))):
            name, _, value = map(str.strip, entry.partition("="))
            terms = [term.strip() for term in value.split("+")] if value else []
            last = sum(numbers.get(t) or int(t, 0) for t in terms) if terms else last + 1
            numbers[name] = last
    return numbers


def fields_of(frame: bytes) -> dict[int, bytes]:
    """Return the fields of a whole frame."""
    fields, at = {}, 18
    while at < len(frame):
        size = int.from_bytes(frame[at + 1 : at + 3], "big")
        fields[frame[at]] = frame[at + 3 : at + 3 + size]
        at += 3 + size
    assert at == len(frame)
    return fields


def test_numbers() -> None:
    """The numbers that frame.h names are those of wire.py, and neither has more."""
    limits = ("PROTOCOL_VERSION", "NONCE_SIZE", "HEADER_SIZE", "FRAME_MAX", "FIELD_MAX")
    expected = {name: getattr(wire, name) for name in limits}
    expected |= {kind.name: kind.value for kind in FrameType}
    expected |= {f"TAG_{tag.name}": tag.value for tag in RequestTag}
    expected |= {f"PHASE_{phase.name}": phase.value for phase in Phase}
    expected |= {f"RESULT_{result.name}": result.value for result in Result}
    # Without a name of their own in wire.py; the tests of prompts and verdicts hold them.
    expected |= {"TAG_STYLE": 1, "TAG_TEXT": 2, "TAG_IS_CODE": 3, "TAG_RESULT": 1}
    expected |= {"TAG_LAST": max(RequestTag).value, "ANSWER_MAX": 1024}
    assert expected == read_header()


def test_documented_numbers() -> None:
    """The sizes in the protocol's own description are the sizes in force."""
    text = wire.__doc__ or ""
    documented = [int(size.replace(",", "")) for size in re.findall(r"at most ([\d,]+)", text)]
    expected = [wire.FRAME_MAX, wire.FIELD_MAX, read_header()["ANSWER_MAX"], wire.TEXT_MAX]
    assert expected == documented


@given(REQUESTS)
def test_request_round_trip(request: Request) -> None:
    """A request is read back as it was sent, bytes that are no UTF-8 included."""
    assert request == wire.parse_request(encode_request(request))


def test_request_least() -> None:
    """A request of phase, user and timeout alone has no account and empty items."""
    expected = Request(NONCE, Phase.AUTH, "alice", "", timeout=110, uid=None)
    assert expected == wire.parse_request(encode_frame(1, LEAST))


@given(ITEMS, st.binary(min_size=16, max_size=16))
def test_answer_round_trip(text: str, nonce: bytes) -> None:
    """An answer is read back as it was typed."""
    assert text == wire.parse_answer(encode_answer(text, nonce=nonce), nonce)


def test_abort() -> None:
    """An abort is read as no answer."""
    assert wire.parse_answer(encode_frame(3, []), NONCE) is None


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("is_code", [False, True])
def test_prompt(style: Style, is_code: bool) -> None:  # noqa: FBT001 - both values
    """A prompt is a frame of this request with style, text and whether it is for a code."""
    frame = wire.build_prompt(NONCE, style, "Code: ", is_code=is_code)
    fields = [(1, bytes([style])), (2, b"Code: "), (3, bytes([is_code]))]
    assert encode_frame(0x81, fields) == frame


@given(st.text(min_size=400))
def test_prompt_text_is_cut(text: str) -> None:
    """A prompt's text has at most the 511 bytes that a PAM message may have."""
    expected = text.encode()[:511]
    assert expected == fields_of(wire.build_prompt(NONCE, Style.ECHO_OFF, text))[2]


@pytest.mark.parametrize("result", Result)
def test_verdict(result: Result) -> None:
    """A verdict is a frame of this request with the result alone."""
    expected = encode_frame(0x82, [(1, bytes([result]))])
    assert expected == wire.build_verdict(NONCE, result)


@pytest.mark.parametrize("size", range(len(GOOD)))
def test_cut_request(size: int) -> None:
    """A request that was cut, wherever, is refused."""
    with pytest.raises(WireError):
        wire.parse_request(GOOD[:size])


@given(st.binary(min_size=1, max_size=40))
def test_bytes_after_request(more: bytes) -> None:
    """Bytes after a request's last field are refused, unless they are a field of their own."""
    tag, size = more[0], int.from_bytes(more[1:3], "big")
    if 9 <= tag <= 10 and len(more) >= 3 and len(more) == 3 + size:
        return
    with pytest.raises(WireError):
        wire.parse_request(GOOD + more)


def big(size: int) -> bytes:
    """Return a request of so many bytes, its fields no longer than allowed."""
    room = size - 18 - sum(3 + len(value) for _, value in LEAST) - 6
    return encode_frame(
        1, [*LEAST, (3, b"s" * (room // 2)), (6, b"t" * (room - room // 2))]
    )  # fmt: skip


def test_largest_request() -> None:
    """A request of 32,768 bytes is read."""
    frame = big(32768)
    assert (32768, "alice") == (len(frame), wire.parse_request(frame).user)


WITHOUT = {
    f"without field {left_out}": encode_frame(1, [pair for pair in LEAST if pair[0] != left_out])
    for left_out, _ in LEAST
}
SHORT_NUMBERS = {
    f"field {tag} of {size} bytes": encode_frame(
        1, [pair for pair in LEAST if pair[0] != tag] + [(tag, bytes(size - 1) + b"\1")]
    )
    for tag in (1, 2, 5, 11)
    for size in (1, 3, 5, 8)
}
EMPTY_NUMBERS = {
    f"field {tag} is empty": encode_frame(
        1, [pair for pair in LEAST if pair[0] != tag] + [(tag, b"")]
    )
    for tag in (1, 2, 5, 11)
}
TWICE = {
    f"field {tag} twice": GOOD + encode_frame(1, [(tag, number(1))])[18:] * (2 if tag > 8 else 1)
    for tag in RequestTag
}
UNKNOWN = {
    f"field {tag}": encode_frame(1, [*LEAST, (tag, b"")]) for tag in (0, 13, 14, 127, 128, 255)
}
VERSIONS = {
    f"version {version}": encode_frame(1, LEAST, version=version) for version in (0, 2, 128, 255)
}
KINDS = {f"frame type {kind}": encode_frame(kind, LEAST) for kind in (0, 2, 3, 4, 0x81, 0x82, 255)}
PHASES = {
    f"phase {phase}": encode_frame(1, [(1, number(phase)), *LEAST[1:]])
    for phase in (0, 4, 255, 256, 257, 2**32 - 1)
}
OTHERS = {
    "empty": b"",
    "only a header": GOOD[:18],
    "of 32,769 bytes": big(32769),
    "of a megabyte": GOOD.ljust(2**20, b"\0"),
    "a field of 16,385 bytes": encode_frame(1, [*LEAST, (3, b"s" * 16385)]),
    "a length beyond the end": encode_frame(1, LEAST) + b"\3\0\2s",
    "the longest length": encode_frame(1, LEAST) + b"\3\xff\xff",
    "five descriptors": encode_frame(1, [*LEAST, (12, b"\1\1\1\1\1")]),
}
MALFORMED = (
    WITHOUT | SHORT_NUMBERS | EMPTY_NUMBERS | TWICE | UNKNOWN | VERSIONS | KINDS | PHASES | OTHERS
)


@pytest.mark.parametrize("frame", MALFORMED.values(), ids=list(MALFORMED))
def test_malformed_request(frame: bytes) -> None:
    """A request that breaks one rule of the protocol is refused."""
    with pytest.raises(WireError):
        wire.parse_request(frame)


def test_version_hint() -> None:
    """A frame of another version says that the two halves must come from one installation."""
    with pytest.raises(WireError) as caught:
        wire.parse_request(encode_frame(1, LEAST, version=2))
    assert "same installation" in caught.value.hint


BAD_ANSWERS = {
    "another nonce": encode_answer("123456", nonce=bytes(16)),
    "one bit of the nonce": encode_answer("123456", nonce=NONCE[:15] + bytes([NONCE[15] ^ 1])),
    "another version": encode_frame(2, [(2, b"123456")], version=2),
    "a request": encode_frame(1, [(2, b"123456")]),
    "a prompt": encode_frame(0x81, [(2, b"123456")]),
    "a verdict": encode_frame(0x82, [(1, b"\1")]),
    "no text": encode_frame(2, []),
    "an unknown field": encode_frame(2, [(1, b"123456")]),
    "a field too many": encode_frame(2, [(2, b"123456"), (3, b"")]),
    "the text twice": encode_frame(2, [(2, b"123456"), (2, b"123456")]),
    "an abort with a field": encode_frame(3, [(2, b"123456")]),
    "a byte too many": encode_answer("123456") + b"\0",
    "a cut text": encode_answer("123456")[:-1],
    "empty": b"",
}


@pytest.mark.parametrize("frame", BAD_ANSWERS.values(), ids=list(BAD_ANSWERS))
def test_malformed_answer(frame: bytes) -> None:
    """What is no whole answer to this request is refused."""
    with pytest.raises(WireError):
        wire.parse_answer(frame, NONCE)


@pytest.mark.parametrize(
    "parse", [wire.parse_request, lambda packet: wire.parse_answer(packet, NONCE)]
)
@given(st.binary(max_size=120), st.booleans())
def test_noise(parse: Callable[[bytes], object], noise: bytes, has_header: bool) -> None:  # noqa: FBT001
    """Noise, with a right header before it or not, is read or refused, and nothing else."""
    packet = GOOD[:18] + noise if has_header else noise
    with contextlib.suppress(WireError):
        assert isinstance(parse(packet), Request | str | None)
