# SPDX-License-Identifier: Apache-2.0
"""The verification protocol between ``pam_mfa.so`` and the verifier.

A conversation is one SOCK_SEQPACKET connection: one request, any number of prompts, one verdict.
A frame is one packet of at most 32,768 bytes::

    byte 0        protocol version, 1; anything else is refused by either side
    byte 1        type of the frame
    bytes 2..17   nonce: 16 random bytes that the module chose for this request; every later
                  frame of the conversation, in both directions, carries the same
    then fields   tag (1 byte), length (2 bytes, big-endian, at most 16,384), value

A tag stands at most once. An unknown tag, a cut field or a byte too many makes the whole frame
invalid, and an invalid frame ends the conversation without a verdict: the module then answers
PAM_AUTHINFO_UNAVAIL. Numbers are 4 bytes, big-endian. Texts are bytes of the PAM item, without
a final NUL.

====== ========= ================== ==========================================================
type   frame     from               fields
====== ========= ================== ==========================================================
0x01   REQUEST   module             1 phase (1 auth, 2 account, 3 session opened), 2 PAM flags,
                                    3 service, 4 user, 5 uid (absent: no such account), 6 tty,
                                    7 rhost, 8 ruser, 9 SSH_AUTH_INFO_0 and 10 SSH_CONNECTION
                                    of the PAM environment, 11 timeout in seconds,
                                    12 kinds of the descriptors sent along (SCM_RIGHTS), one
                                    byte each: 1 connection to the user's ssh-agent
0x02   ANSWER    module             2 text: what the person typed, at most 1,024 bytes
0x03   ABORT     module             none: nobody could be asked
0x81   PROMPT    verifier           1 style as PAM's (1 echo off, 2 echo on, 3 error,
                                    4 information; 1 byte), 2 text (at most 511 bytes),
                                    3 whether a code is asked for, which forward_pass may split
                                    off a password (1 byte, 0 or 1)
0x82   VERDICT   verifier           1 result (1 byte): 1 success, 2 denied, 3 unavailable,
                                    4 ignore (by an explicit result of policy only)
====== ========= ================== ==========================================================

An echo-on or echo-off prompt is answered by ANSWER or ABORT; the other styles by nothing.
``native/frame.h`` has the same numbers; tests/unit/test_wire.py holds the two together.
"""

import enum
from typing import Final, NamedTuple

from pam_mfa.errors import WireError

PROTOCOL_VERSION: Final = 1
NONCE_SIZE: Final = 16
HEADER_SIZE: Final = 2 + NONCE_SIZE
FRAME_MAX: Final = 32768
FIELD_MAX: Final = 16384
TEXT_MAX: Final = 511
ANSWER_MAX: Final = 1024
DESCRIPTORS_MAX: Final = 4


class FrameType(enum.IntEnum):
    """What a frame is."""

    REQUEST = 0x01
    ANSWER = 0x02
    ABORT = 0x03
    PROMPT = 0x81
    VERDICT = 0x82


class Phase(enum.IntEnum):
    """Which PAM call is being answered."""

    AUTH = 1
    ACCOUNT = 2
    SESSION = 3


class Style(enum.IntEnum):
    """PAM's message styles (security/_pam_types.h)."""

    ECHO_OFF = 1
    ECHO_ON = 2
    ERROR = 3
    INFORMATION = 4


class Result(enum.IntEnum):
    """The verdict as the module is told it."""

    SUCCESS = 1
    DENIED = 2
    UNAVAILABLE = 3
    IGNORE = 4


class RequestTag(enum.IntEnum):
    """Fields of a request."""

    PHASE = 1
    FLAGS = 2
    SERVICE = 3
    USER = 4
    UID = 5
    TTY = 6
    RHOST = 7
    RUSER = 8
    SSH_AUTH_INFO = 9
    SSH_CONNECTION = 10
    TIMEOUT = 11
    DESCRIPTORS = 12


class DescriptorKind(enum.IntEnum):
    """What a descriptor that is sent along with a request is."""

    AGENT = 1  # a connection to the invoking user's ssh-agent


class Request(NamedTuple):
    """One PAM call, as the module tells it. Texts are as the host program gave them."""

    nonce: bytes
    phase: Phase
    user: str
    service: str
    flags: int = 0
    uid: int | None = None
    tty: str = ""
    rhost: str = ""
    ruser: str = ""
    ssh_auth_info: str = ""
    ssh_connection: str = ""
    timeout: int = 110
    descriptor_kinds: bytes = b""


_REQUEST_TAGS: Final = frozenset(int(tag) for tag in RequestTag)
_PHASES: Final = frozenset(int(phase) for phase in Phase)
_NUMBERS: Final = {RequestTag.PHASE, RequestTag.FLAGS, RequestTag.UID, RequestTag.TIMEOUT}
_REQUIRED: Final = (RequestTag.PHASE, RequestTag.USER, RequestTag.TIMEOUT)
_ANSWER_TEXT: Final = 2
_MINIMUM_FIELD: Final = 3


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def parse_fields(packet: bytes) -> dict[int, bytes]:
    """Return a frame's fields, each by its tag.

    Raises:
        WireError: a field is cut, too long, or there twice.
    """
    fields: dict[int, bytes] = {}
    at = HEADER_SIZE
    while at < len(packet):
        if len(packet) - at < _MINIMUM_FIELD:
            raise WireError("a frame ends inside a field's header")
        tag, length = packet[at], int.from_bytes(packet[at + 1 : at + 3], "big")
        at += _MINIMUM_FIELD
        if length > FIELD_MAX or length > len(packet) - at:
            raise WireError("a frame ends inside a field's value")
        if tag in fields:
            raise WireError("a frame has the same field twice")
        fields[tag] = packet[at : at + length]
        at += length
    return fields


def parse_header(packet: bytes) -> tuple[int, bytes]:
    """Return the type and nonce of a frame.

    Raises:
        WireError: it is of another version, cut or too long.
    """
    if not HEADER_SIZE <= len(packet) <= FRAME_MAX:
        raise WireError(f"a frame of {len(packet)} bytes is not of {HEADER_SIZE} to {FRAME_MAX}")
    if packet[0] != PROTOCOL_VERSION:
        raise WireError(
            f"a frame is of protocol version {packet[0]}, this program speaks {PROTOCOL_VERSION}",
            hint="pam_mfa.so and pam-mfad must come from the same installation.",
        )
    return packet[1], packet[2:HEADER_SIZE]


def parse_request(packet: bytes) -> Request:
    """Read the first frame of a conversation.

    Raises:
        WireError: it is not a whole request of this version.
    """
    kind, nonce = parse_header(packet)
    if kind != FrameType.REQUEST:
        raise WireError(f"the first frame is of type {kind:#x}, not a request")
    fields = parse_fields(packet)
    if any(tag not in fields for tag in _REQUIRED):
        raise WireError("a request lacks its phase, user or timeout")
    numbers: dict[int, int] = {}
    for tag in fields:
        if tag not in _REQUEST_TAGS:
            raise WireError(f"a request has the unknown field {tag}")
        if tag in _NUMBERS:
            if len(fields[tag]) != 4:  # noqa: PLR2004 - numbers are 4 bytes
                raise WireError(f"the number in field {tag} is not of 4 bytes")
            numbers[tag] = int.from_bytes(fields[tag], "big")
    if numbers[RequestTag.PHASE] not in _PHASES:
        raise WireError(f"a request is of the unknown phase {numbers[RequestTag.PHASE]}")
    if len(fields.get(RequestTag.DESCRIPTORS, b"")) > DESCRIPTORS_MAX:
        raise WireError("a request announces too many descriptors")
    return Request(
        nonce=nonce,
        phase=Phase(numbers[RequestTag.PHASE]),
        user=_text(fields[RequestTag.USER]),
        service=_text(fields.get(RequestTag.SERVICE, b"")),
        flags=numbers.get(RequestTag.FLAGS, 0),
        uid=numbers.get(RequestTag.UID),
        tty=_text(fields.get(RequestTag.TTY, b"")),
        rhost=_text(fields.get(RequestTag.RHOST, b"")),
        ruser=_text(fields.get(RequestTag.RUSER, b"")),
        ssh_auth_info=_text(fields.get(RequestTag.SSH_AUTH_INFO, b"")),
        ssh_connection=_text(fields.get(RequestTag.SSH_CONNECTION, b"")),
        timeout=numbers[RequestTag.TIMEOUT],
        descriptor_kinds=fields.get(RequestTag.DESCRIPTORS, b""),
    )


def parse_answer(packet: bytes, nonce: bytes) -> str | None:
    """Read the frame that is due after a question: the text, or None where nobody was asked.

    Raises:
        WireError: it is not a whole answer to this request.
    """
    kind, its_nonce = parse_header(packet)
    if its_nonce != nonce:
        raise WireError("an answer carries another request's nonce")
    fields = parse_fields(packet)
    if kind == FrameType.ABORT and not fields:
        return None
    if kind == FrameType.ANSWER and set(fields) == {_ANSWER_TEXT}:
        if len(fields[_ANSWER_TEXT]) > ANSWER_MAX:
            raise WireError(f"an answer is longer than {ANSWER_MAX} bytes")
        return _text(fields[_ANSWER_TEXT])
    raise WireError(f"a frame of type {kind:#x} with fields {sorted(fields)} is no answer")


def build_frame(kind: int, nonce: bytes, fields: list[tuple[int, bytes]]) -> bytes:
    """Make a frame of this version."""
    parts = [bytes((PROTOCOL_VERSION, kind)), nonce]
    for tag, value in fields:
        parts += (bytes((tag,)), len(value).to_bytes(2, "big"), value)
    return b"".join(parts)


def build_answer(nonce: bytes, text: str | None) -> bytes:
    """Make the answer to a question; None: nobody could be asked."""
    if text is None:
        return build_frame(FrameType.ABORT, nonce, [])
    value = text.encode("utf-8", "surrogateescape")[:ANSWER_MAX]
    return build_frame(FrameType.ANSWER, nonce, [(_ANSWER_TEXT, value)])


def build_prompt(nonce: bytes, style: Style, text: str, *, is_code: bool = False) -> bytes:
    """Make a prompt; its text is cut to what a PAM message may hold."""
    fields = [(1, bytes((style,))), (2, text.encode()[:TEXT_MAX]), (3, bytes((is_code,)))]
    return build_frame(FrameType.PROMPT, nonce, fields)


def build_verdict(nonce: bytes, result: Result) -> bytes:
    """Make the last frame of a conversation."""
    return build_frame(FrameType.VERDICT, nonce, [(1, bytes((result,)))])
