# SPDX-License-Identifier: Apache-2.0
"""A user with an enrolled SSH key, and an ssh-agent made for tests that does as it is told.

The agent is at the other end of a pair of sockets, asked by the product's own client. Its key is
made here; what it signs is put together here from OpenSSH's PROTOCOL.u2f.
"""

import datetime
import hashlib
import os
import socket
import threading
from collections.abc import Callable
from threading import Event as Cancel

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from doubles import Clock, MemoryStore, enrolled, make_request, open_device
from key_bench import Answer, Shown, carry

from pam_mfa.audit import Reason
from pam_mfa.devices import SshKeyDevice
from pam_mfa.policy import Policy
from pam_mfa.ssh_agent import Agent
from pam_mfa.ssh_keys import ED25519, SshKey, key_blob
from pam_mfa.ssh_wire import Reader, pack_strings
from pam_mfa.verification import Caller, Machine, attempt

HOST = "server.example"
PATIENCE = 30.0  # seconds
NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
MACHINE = Machine(HOST, os.urandom, lambda: None)  # type: ignore[arg-type,return-value]
HANG = b"hang"  # the body of no answer at all
Reply = Callable[[bytes, bytes], bytes]  # of the key's blob and the data: the whole reply's body


class FakeKey:
    """A key of the type sk-ssh-ed25519, its application and counter as told."""

    def __init__(self, application: str = "ssh:") -> None:
        """Make a new one."""
        self._private = Ed25519PrivateKey.generate()
        self.application = application
        self.key = SshKey(ED25519, self._private.public_key().public_bytes_raw(), application)
        self.flags = 1
        self.counter = 1

    @property
    def blob(self) -> bytes:
        """The public key as agents have it."""
        return key_blob(self.key)

    def sign(self, data: bytes, application: str | None = None) -> bytes:
        """Return a signature over data, with the counter as it is."""
        name = self.application if application is None else application
        counted = bytes((self.flags,)) + self.counter.to_bytes(4, "big")
        signed = hashlib.sha256(name.encode()).digest() + counted + hashlib.sha256(data).digest()
        return pack_strings(ED25519.encode(), self._private.sign(signed)) + counted


class FakeAgent:
    """Answers one connection after the other; what it signed stays known."""

    def __init__(self, *keys: FakeKey) -> None:
        """Hold these keys."""
        self.keys = {key.blob: key for key in keys}
        self.listed = [key.blob for key in keys]
        self.signed: list[bytes] = []  # the data
        self.on_list: Callable[[], bytes | None] = self.list_keys
        self.on_sign: Reply = self.sign
        self.asked: list[int] = []

    def open(self, seconds: float, canceled: Cancel) -> Agent:
        """Connect, as the verifier does."""
        ours, its = socket.socketpair()
        threading.Thread(target=self._serve, args=(its,), daemon=True).start()
        return _OwningAgent(ours, seconds, canceled)

    def list_keys(self) -> bytes:
        """Return the body of a list."""
        entries = b"".join(pack_strings(blob, b"laptop") for blob in self.listed)
        return b"\x0c" + len(self.listed).to_bytes(4, "big") + entries

    def sign(self, blob: bytes, data: bytes) -> bytes:
        """Return the body of an answer with a signature."""
        return signature_reply(self.keys[blob].sign(data))

    def _serve(self, its: socket.socket) -> None:
        with its, its.makefile("rb") as stream:
            while header := stream.read(4):
                request = stream.read(int.from_bytes(header, "big"))
                self.asked.append(request[0])
                body = self.on_list() if request[0] == 11 else self._signature(request)
                if body is None:
                    return
                its.sendall(pack_strings(body) if body != HANG else b"")

    def _signature(self, request: bytes) -> bytes | None:
        reader = Reader(request[1:])
        blob, data = reader.string(), reader.string()
        self.signed.append(data)
        return self.on_sign(blob, data)


class _OwningAgent(Agent):
    """The product's client, on a socket that goes when it goes."""

    def __del__(self) -> None:
        """Close the socket."""
        self._connection.close()


def signature_reply(signature: bytes) -> bytes:
    """Return the body of an answer with this signature."""
    return b"\x0e" + pack_strings(signature)


def enroll_key(key: FakeKey, name: str = "laptop") -> SshKeyDevice:
    """Return a key as a user's device."""
    return SshKeyDevice(f"ssh-key/alice/{name}", name, NOW, key.key)


class Sudo:
    """Alice's sudo, with a phone to fall back on."""

    def __init__(self, agent: FakeAgent, *devices: SshKeyDevice) -> None:
        """Enroll her devices."""
        self.agent = agent
        enrollment = enrolled(open_device())._replace(ssh_keys=devices)
        self.store = MemoryStore(alice=enrollment)
        self.clock = Clock()
        self.policy = Policy()
        self.machine = MACHINE

    def run(self, *answers: Answer, uid: int = 0, **items: object) -> Shown:
        """Run it; whatever happens, each answer has to be asked for."""
        fields: dict[str, object] = {"service": "sudo", "rhost": "", "ruser": "alice"} | items
        caller = Caller(1, uid, may_verify=True, agent=self.agent.open)
        replies = iter(answers)
        request = make_request(**fields)  # type: ignore[arg-type]
        running = attempt(request, caller, self.policy, self.store, self.clock, self.machine)
        shown = carry(running, self.store, replies)
        assert [] == list(replies)
        return shown

    def reasons(self) -> list[Reason]:
        """Return the reasons of all records."""
        return [event.reason for event in self.store.events]
