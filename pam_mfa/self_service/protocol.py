# SPDX-License-Identifier: Apache-2.0
"""The protocol between ``pam-mfa`` of a user who is not root and ``pam-mfa-selfd``.

A conversation is one SOCK_SEQPACKET connection: one petition, any number of prompts and rows, one
end. Frames, nonce and fields are built as in ``wire``; ANSWER, ABORT and PROMPT are the very same.

====== ========= ================== ==========================================================
type   frame     from               fields
====== ========= ================== ==========================================================
0x11   PETITION  command line       1 operation, 2 user, 3 serial number, 4 name, 5 algorithm,
                                    6 digits, 7 period, 8 secret (base32), 9 first code,
                                    10 second code, 11 wishes for a security key (words of
                                    "discoverable verification"), 12 an SSH key's public half,
                                    13 its attestation file, 14 the challenge of that; all
                                    texts, absent where not given; at most 1,024 bytes each,
                                    12 and 13 at most 8,192
0x12   SIGNATURE command line       1 text: the signature that was asked for, as ssh-keygen -Y
                                    sign writes it; absent: there is none
0x91   ROWS      service            1 a JSON list of objects, at most 16,384 bytes
0x93   SIGN      service            1 the challenge that an SSH key is to sign, for the
                                    namespace that both sides know; answered by SIGNATURE
0x92   END       service            1 result (1 byte): 0 done, 1 refused, 3 system broken,
                                    2 sentence, 3 hint; texts
====== ========= ================== ==========================================================

Who petitions, SO_PEERCRED says and no field.
"""

import enum
import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from pam_mfa import wire
from pam_mfa.errors import BrokenSystemError, PamMfaError, RefusedError, WireError

PETITION: Final = 0x11
SIGNATURE: Final = 0x12
ROWS: Final = 0x91
END: Final = 0x92
SIGN: Final = 0x93
_TEXT_BYTES: Final = 1024  # of one field of a petition
_LONG_BYTES: Final = 8192  # of one with a public key or an attestation, certificates in them
_LONG_TAGS: Final = (12, 13)
_SENTENCE_BYTES: Final = 4096


class Operation(enum.StrEnum):
    """What can be asked for."""

    LIST = "list"
    STATUS = "status"
    ENABLE_VIRTUAL = "enable-virtual"
    ENABLE_TOKEN = "enable-token"  # noqa: S105 - a device
    ENABLE_RECOVERY = "enable-recovery"
    ENABLE_FIDO = "enable-fido"
    ENABLE_SSH_KEY = "enable-ssh-key"
    RESYNC = "resync"
    DEACTIVATE = "deactivate"


class Petition(NamedTuple):
    """What a user asks for; "" where nothing was said."""

    operation: Operation
    user: str
    serial_number: str = ""
    name: str = ""
    algorithm: str = ""
    digits: str = ""
    period: str = ""
    secret: str = ""
    first_code: str = ""
    second_code: str = ""
    wishes: str = ""  # words: discoverable, verification
    public_key: str = ""  # of an SSH key
    attestation: str = ""  # its file's bytes, as surrogateescape has them
    challenge: str = ""  # what it was made for, the same

    def __repr__(self) -> str:
        """Show neither the secret nor codes."""
        return f"Petition({self.operation}, {self.user!r})"


def build_petition(nonce: bytes, petition: Petition) -> bytes:
    """Make the first frame of a conversation."""
    fields = [
        (tag, text.encode("utf-8", "surrogateescape"))
        for tag, text in enumerate(petition, start=1)
        if text
    ]
    return wire.build_frame(PETITION, nonce, fields)


def parse_petition(packet: bytes) -> tuple[bytes, Petition]:
    """Read the first frame of a conversation: its nonce, and what is asked for.

    Raises:
        WireError: it is no whole petition.
    """
    kind, nonce = wire.parse_header(packet)
    if kind != PETITION:
        raise WireError(f"the first frame is of type {kind:#x}, not a petition")
    fields = wire.parse_fields(packet)
    if not {1, 2} <= set(fields) <= set(range(1, len(Petition._fields) + 1)):
        raise WireError("a petition lacks its operation or user, or has an unknown field")
    if any(len(value) > longest_text(tag) for tag, value in fields.items()):
        raise WireError("a petition has a text that is too long")
    texts = {
        Petition._fields[tag - 1]: value.decode("utf-8", "surrogateescape")
        for tag, value in fields.items()
    }
    try:
        operation = Operation(texts.pop("operation"))
    except ValueError as error:
        raise WireError("a petition asks for an unknown operation") from error
    return nonce, Petition(operation, **texts)


def longest_text(tag: int) -> int:
    """Return how many bytes a field of a petition may have."""
    return _LONG_BYTES if tag in _LONG_TAGS else _TEXT_BYTES


def build_sign_request(nonce: bytes, challenge: str) -> bytes:
    """Ask for a signature over a challenge."""
    return wire.build_frame(SIGN, nonce, [(1, challenge.encode("utf-8", "surrogateescape"))])


def build_signature(nonce: bytes, text: str | None) -> bytes:
    """Make the answer to that; None: there is no signature."""
    value = (text or "").encode("utf-8", "surrogateescape")[: wire.FIELD_MAX]
    return wire.build_frame(SIGNATURE, nonce, [(1, value)] if value else [])


def parse_signature(packet: bytes, nonce: bytes) -> str | None:
    """Read the frame that is due after a request to sign: the text, or None where there is none.

    Raises:
        WireError: it is not a whole answer of this conversation.
    """
    kind, its_nonce = wire.parse_header(packet)
    fields = wire.parse_fields(packet)
    if its_nonce != nonce or kind != SIGNATURE or not set(fields) <= {1}:
        raise WireError(f"a frame of type {kind:#x} is no signature of this conversation")
    return fields[1].decode("utf-8", "surrogateescape") if fields.get(1) else None


def build_rows(nonce: bytes, rows: Iterable[dict[str, object]]) -> Iterable[bytes]:
    """Make the frames of a listing, a row each: a user has nine at most."""
    for row in rows:
        text = json.dumps([row]).encode("ascii")
        yield wire.build_frame(ROWS, nonce, [(1, text)])


def build_end(nonce: bytes, error: PamMfaError | None) -> bytes:
    """Make the last frame of a conversation, from the error that ended it if one did."""
    if error is None:
        return wire.build_frame(END, nonce, [(1, b"\0")])
    fields = [(1, bytes((error.exit_status,)))]
    for tag, text in ((2, str(error)), (3, error.hint)):
        fields.append((tag, text.encode("utf-8", "surrogateescape")[:_SENTENCE_BYTES]))
    return wire.build_frame(END, nonce, fields)


class Prompt(NamedTuple):
    """Something to show, and to have answered where its style says so."""

    style: wire.Style
    text: str


class Rows(NamedTuple):
    """A part of a listing."""

    rows: list[dict[str, object]]


class SignRequest(NamedTuple):
    """Something for an SSH key to sign."""

    challenge: str


class End(NamedTuple):
    """How a conversation ended."""

    error: PamMfaError | None


def parse_reply(packet: bytes, nonce: bytes) -> Prompt | Rows | SignRequest | End:
    """Read a frame of the service.

    Raises:
        WireError: it is none of this conversation.
    """
    kind, its_nonce = wire.parse_header(packet)
    if its_nonce != nonce:
        raise WireError("a frame carries another conversation's nonce")
    fields = wire.parse_fields(packet)
    value = fields.get(1, b"")
    if kind == wire.FrameType.PROMPT and len(value) == 1 and value[0] in set(wire.Style):
        return Prompt(wire.Style(value[0]), _text(fields.get(2, b"")))
    if kind == ROWS:
        return Rows(json.loads(value))
    if kind == SIGN and set(fields) == {1} and value:
        return SignRequest(value.decode("utf-8", "surrogateescape"))
    if kind == END and len(value) == 1:
        return End(_error(value[0], _text(fields.get(2, b"")), _text(fields.get(3, b""))))
    raise WireError(f"a frame of type {kind:#x} is none of self-service")


def _error(status: int, sentence: str, hint: str) -> PamMfaError | None:
    if status == 0:
        return None
    kind = BrokenSystemError if status == BrokenSystemError.exit_status else RefusedError
    return kind(sentence, hint=hint)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
