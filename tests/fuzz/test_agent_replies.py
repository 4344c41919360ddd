# SPDX-License-Identifier: Apache-2.0
"""What an ssh-agent, the user's own program, sends back: a value, or an error of its own."""

import socket
import threading

import hypothesis
import pytest
from hypothesis import strategies as st
from test_frames import EXAMPLES, fuzzed, mutations

from pam_mfa.ssh_agent import Agent, AgentEnd, AgentError
from pam_mfa.ssh_keys import ED25519, SshKey, key_blob
from pam_mfa.ssh_wire import pack_strings
from pam_mfa.sshsig import SignatureError, parse_public_key, verify_signature

PATIENCE = 30.0  # seconds
BLOB = key_blob(SshKey(ED25519, bytes(range(32)), "ssh:"))
LIST = pack_strings(b"\x0c" + (1).to_bytes(4, "big") + pack_strings(BLOB, b"laptop"))
SIGNATURE = pack_strings(b"sk-ssh-ed25519@openssh.com", bytes(64)) + b"\1" + (9).to_bytes(4, "big")
SIGNED = pack_strings(b"\x0e" + pack_strings(SIGNATURE))
replies = st.one_of(
    st.binary(max_size=100),
    st.binary(max_size=100).map(pack_strings),
    st.binary(max_size=100).map(lambda rest: pack_strings(b"\x0c" + rest)),
    mutations(LIST),
    mutations(SIGNED),
)
fewer = hypothesis.settings(fuzzed, max_examples=EXAMPLES // 4)


def ask(reply: bytes, *, to_sign: bool) -> object:
    """Ask an agent that has its reply ready and is gone behind it."""
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(reply)
        its.shutdown(socket.SHUT_WR)
        agent = Agent(ours, PATIENCE, threading.Event())
        return agent.sign(BLOB, b"data") if to_sign else agent.list_identities()


def test_good_reply_is_read() -> None:
    """The replies that are spoiled below are good ones."""
    assert ask(LIST, to_sign=False) == ((BLOB, b"laptop"),)
    assert ask(SIGNED, to_sign=True) == SIGNATURE


@fewer
@hypothesis.given(replies, st.booleans())
def test_any_reply_is_one_or_an_agent_error(reply: bytes, to_sign: bool) -> None:  # noqa: FBT001
    """Whatever an agent sends is a reply, a refusal, nonsense or its end: told without a wait."""
    try:
        ask(reply, to_sign=to_sign)
    except AgentError as error:
        assert error.end in {  # noqa: PT017 - some replies raise none
            AgentEnd.REFUSED, AgentEnd.GONE, AgentEnd.NONSENSE,
        }  # fmt: skip


@fewer
@hypothesis.given(st.one_of(st.binary(max_size=120), mutations(SIGNATURE)))
def test_no_bytes_are_a_signature(signature: bytes) -> None:
    """Whatever an agent calls a signature, which the key did not make, is refused."""
    with pytest.raises(SignatureError):
        verify_signature(parse_public_key(BLOB), signature, b"data")


@fewer
@hypothesis.given(st.one_of(st.binary(max_size=120), mutations(BLOB)))
def test_any_key_blob_is_a_key_or_a_signature_error(blob: bytes) -> None:
    """Whatever is called a public key is one, or is refused."""
    try:
        key = parse_public_key(blob)
    except SignatureError:
        return
    assert pack_strings(key.type.encode()) == blob[: 4 + len(key.type)]
