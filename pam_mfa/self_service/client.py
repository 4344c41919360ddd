# SPDX-License-Identifier: Apache-2.0
"""The command line's side: sends a petition, shows what comes, answers what is asked."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

from pam_mfa import wire
from pam_mfa.errors import BrokenSystemError, WireError
from pam_mfa.self_service.protocol import (
    End,
    Petition,
    Rows,
    SignRequest,
    build_petition,
    build_signature,
    parse_reply,
)
from pam_mfa.verifier.packets import peer_of
from pam_mfa.wire import Style

Answer = Callable[[Style, str], str | None]  # shows a text; returns what was typed, if anything
Sign = Callable[[str], str | None]  # has an SSH key sign a challenge; returns the signature's text


def sign_nothing(_challenge: str) -> None:
    """Have no key sign: the petition is about none."""


def send_petition(
    path: Path, petition: Petition, answer: Answer, sign: Sign = sign_nothing
) -> list[dict[str, object]]:
    """Carry a petition to its end; return the rows of a listing.

    Args:
        path: of the service's socket.
        petition: what is asked for.
        answer: called for every prompt and message.
        sign: called for a challenge.

    Raises:
        RefusedError: as the service says.
        BrokenSystemError: as the service says, or there is none.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            raise BrokenSystemError(
                f"nobody serves users on {path}: {error.strerror}",
                hint="Ask your administrator to start it: systemctl enable --now "
                "pam-mfa-selfd.socket. As root: sudo pam-mfa ...",
            ) from error
        if peer_of(connection).uid != 0:  # it will ask for the login password
            raise BrokenSystemError(
                f"the service on {path} was not started by root, so it is told nothing",
                hint="Tell your administrator.",
            )
        try:
            return _converse(connection, petition, answer, sign)
        except (OSError, WireError) as error:
            raise BrokenSystemError(
                f"the conversation with pam-mfa-selfd broke off: {error}",
                hint="See whether the change was made: pam-mfa list. "
                "The system log (facility authpriv) says why.",
            ) from error


def _converse(
    connection: socket.socket, petition: Petition, answer: Answer, sign: Sign
) -> list[dict[str, object]]:
    nonce = os.urandom(wire.NONCE_SIZE)
    connection.send(build_petition(nonce, petition))
    rows: list[dict[str, object]] = []
    while True:
        packet = connection.recv(wire.FRAME_MAX + 1)
        if not packet:
            raise WireError("it ended without an answer")
        reply = parse_reply(packet, nonce)
        if isinstance(reply, End):
            if reply.error is not None:
                raise reply.error
            return rows
        if isinstance(reply, Rows):
            rows += reply.rows
            continue
        if isinstance(reply, SignRequest):
            connection.send(build_signature(nonce, sign(reply.challenge)))
            continue
        typed = answer(reply.style, reply.text)
        if reply.style in (Style.ECHO_OFF, Style.ECHO_ON):
            connection.send(wire.build_answer(nonce, typed))
