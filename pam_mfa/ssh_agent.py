# SPDX-License-Identifier: Apache-2.0
"""What an ssh-agent is asked: which keys it holds, and for a signature by one of them.

The agent protocol (draft-ietf-sshm-ssh-agent, sections 3.5 and 3.6) over a connected socket. The
agent is the user's own program, or the user's client behind a forwarding: nothing that it says is
believed, every wait ends, and what it sends is bounded.
"""

import array
import select
import socket
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from pam_mfa.errors import PamMfaError
from pam_mfa.ssh_wire import Reader, SshFormatError, pack_strings

if TYPE_CHECKING:  # whoever asks has loaded it
    from threading import Event

REPLY_MAX: Final = 256 * 1024  # bytes; OpenSSH's own limit (AGENT_MAX_LEN)
IDENTITIES_MAX: Final = 2048  # OpenSSH's own limit (MAX_AGENT_IDENTITIES)
_REQUEST_IDENTITIES, _IDENTITIES = 11, 12
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14
_FAILURES: Final = (5, 30, 102)  # SSH_AGENT_FAILURE, and as older agents say it
_CHUNK: Final = 65536
_STRAYS: Final = socket.CMSG_SPACE(253 * array.array("i").itemsize)  # SCM_MAX_FD, unix(7)
_SLICE: Final = 100  # milliseconds between two looks at whether the wait was canceled
_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
RSA_SHA2_512: Final = 4  # flag of a request to sign: not with SHA-1


class AgentEnd(StrEnum):
    """How asking an agent can fail."""

    REFUSED = "refused"  # it is locked, or refuses to sign with this key, or for this host
    GONE = "gone"  # it closed the connection
    NONSENSE = "nonsense"  # it answered what no agent answers
    LATE = "late"  # no answer in time
    CANCELED = "canceled"  # whoever waited for it went away


_SENTENCES: Final = {
    AgentEnd.REFUSED: "the ssh-agent refused",
    AgentEnd.GONE: "the ssh-agent is gone",
    AgentEnd.NONSENSE: "the ssh-agent answered what no agent answers",
    AgentEnd.LATE: "the ssh-agent did not answer in time",
    AgentEnd.CANCELED: "the wait for the ssh-agent was canceled",
}


class AgentError(PamMfaError):
    """An agent gives no answer that can be used."""

    def __init__(self, end: AgentEnd, detail: str = "") -> None:
        """Keep how it failed; ``detail`` is this program's own words, never the agent's."""
        super().__init__(f"{_SENTENCES[end]}: {detail}" if detail else _SENTENCES[end])
        self.end = end


class Identity(NamedTuple):
    """A key that an agent says it holds."""

    blob: bytes  # of the public key, or of a certificate
    comment: bytes  # anything that the agent's user likes; never to be shown as it is


class Agent:
    """One conversation with an agent. Its methods raise AgentError and nothing else.

    One thread at a time uses it. The socket stays its owner's to close.
    """

    def __init__(self, connection: socket.socket, seconds: float, canceled: "Event") -> None:
        """Take a connected stream socket, and the time that all of it may take from now."""
        self.strays: list[int] = []  # descriptors that the agent sent along, for the owner to close
        self._connection = connection
        self._deadline = time.monotonic() + seconds
        self._canceled = canceled

    def list_identities(self) -> tuple[Identity, ...]:
        """Return the keys that the agent says it holds; a locked one says none."""
        reader = self._ask(_REQUEST_IDENTITIES, b"", _IDENTITIES)
        try:
            count = reader.number()
            if count > IDENTITIES_MAX:
                raise SshFormatError("it lists too many keys")
            found = tuple(Identity(reader.string(), reader.string()) for _ in range(count))
            reader.end()
        except SshFormatError as error:
            raise AgentError(AgentEnd.NONSENSE, f"its list: {error}") from error
        return found

    def sign(self, key_blob: bytes, data: bytes, flags: int = RSA_SHA2_512) -> bytes:
        """Return the signature blob that the agent gives; whether it is one is not judged here."""
        contents = pack_strings(key_blob, data) + flags.to_bytes(4, "big")
        reader = self._ask(_SIGN_REQUEST, contents, _SIGN_RESPONSE)
        try:
            signature = reader.string()
            reader.end()
        except SshFormatError as error:
            raise AgentError(AgentEnd.NONSENSE, f"its signature: {error}") from error
        return signature

    def _ask(self, kind: int, contents: bytes, wanted: int) -> Reader:
        try:
            self._send(pack_strings(bytes((kind,)) + contents))
            size = int.from_bytes(self._receive(4), "big")
            if not 1 <= size <= REPLY_MAX:  # before any memory is taken for it
                raise AgentError(AgentEnd.NONSENSE, "its answer is of an impossible length")
            reply = self._receive(size)
        except OSError as error:
            raise AgentError(AgentEnd.GONE) from error
        if reply[0] in _FAILURES:
            raise AgentError(AgentEnd.REFUSED)
        if reply[0] != wanted:
            raise AgentError(AgentEnd.NONSENSE, f"its answer is of type {reply[0]}")
        return Reader(reply[1:])

    def _send(self, data: bytes) -> None:
        while data:
            self._wait(select.POLLOUT)
            try:
                data = data[self._connection.send(data, _FLAGS) :]
            except (BlockingIOError, InterruptedError):
                continue

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            self._wait(select.POLLIN)
            try:
                part = self._take(min(size - len(received), _CHUNK))
            except (BlockingIOError, InterruptedError):
                continue
            if not part:
                raise AgentError(AgentEnd.GONE)
            received += part
        return bytes(received)

    def _take(self, size: int) -> bytes:
        """Receive what is there.

        With room for all descriptors that can come along: those for which there is none the kernel
        closes here and now, and that blocks where a hostile agent has made them so.
        """
        part, control, _flags, _address = self._connection.recvmsg(
            size, _STRAYS, _FLAGS | socket.MSG_CMSG_CLOEXEC
        )
        strays = array.array("i")
        for _level, _kind, content in control:
            strays.frombytes(content[: len(content) - len(content) % strays.itemsize])
        self.strays += strays
        if strays:  # no agent sends any: without an end here they would use up all there are
            raise AgentError(AgentEnd.NONSENSE)
        return part

    def _wait(self, event: int) -> None:
        """Wait until the socket can be used, the time is over, or nobody waits any more."""
        poll = select.poll()
        poll.register(self._connection, event)
        while True:
            if self._canceled.is_set():
                raise AgentError(AgentEnd.CANCELED)
            left = (self._deadline - time.monotonic()) * 1000
            if left <= 0:
                raise AgentError(AgentEnd.LATE)
            if poll.poll(min(left + 1, _SLICE)):
                return
