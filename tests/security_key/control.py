# SPDX-License-Identifier: Apache-2.0
"""How a test speaks to a key in another process: lines of JSON on a socket.

A request is an array of words, an answer an object with ``ok``:

    ["touch", "yes"]                    yes, no, wait, once; a number after it is seconds of delay
    ["finger", "ok"]                    ok, fail
    ["fault", "bad-signature", "on"]    on, off; after "on": seconds, and a command such as
                                        "get_assertion"; ["fault", "all", "off"]
    ["plug"]  ["unplug"]  ["status"]  ["quit"]
"""

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

from security_key.ctap import Command
from security_key.faults import Fault
from security_key.person import Touch
from security_key.server import Server

LONGEST_LINE = 4096
Answer = dict[str, object]


class Control:
    """The socket, and what its words do to the key."""

    def __init__(self, server: Server, path: Path) -> None:
        """Listen; whoever may reach the socket may command the key."""
        self.server = server
        self.path = path
        path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        self.peers: dict[int, tuple[socket.socket, bytearray]] = {}

    def filenos(self) -> list[int]:
        """Return the descriptors."""
        return [self.listener.fileno(), *self.peers]

    def attend(self, fileno: int) -> None:
        """Let somebody in, or do what a line says."""
        if fileno == self.listener.fileno():
            peer = self.listener.accept()[0]
            self.peers[peer.fileno()] = (peer, bytearray())
            return
        peer, buffer = self.peers[fileno]
        data = b""
        with contextlib.suppress(OSError):
            data = peer.recv(LONGEST_LINE)
        if not data:
            del self.peers[fileno]
            peer.close()
            return
        buffer += data
        while b"\n" in buffer:
            line, _, rest = bytes(buffer).partition(b"\n")
            buffer[:] = rest
            with contextlib.suppress(OSError):
                peer.sendall(json.dumps(self.answer(line)).encode() + b"\n")

    def close(self) -> None:
        """Close the socket and remove it."""
        for peer, _ in self.peers.values():
            peer.close()
        self.listener.close()
        self.path.unlink(missing_ok=True)

    def answer(self, line: bytes) -> Answer:
        """Do what a line says."""
        try:
            words = [str(word) for word in json.loads(line)]
            return {"ok": True, **self.perform(words)}
        except (ValueError, TypeError, IndexError, KeyError, OSError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}

    def perform(self, words: list[str]) -> Answer:
        """Do what the words say; a word that is none is an error."""
        verb, *rest = words
        person, server = self.server.key.person, self.server
        if verb == "touch":
            person.touch = Touch(rest[0])
            person.delay = float(rest[1]) if rest[1:] else 0.0
        elif verb == "finger":
            person.is_finger_right = {"ok": True, "fail": False}[rest[0]]
        elif verb == "fault":
            self.switch(*rest)
        else:
            actions = {"plug": server.plug, "unplug": server.unplug, "quit": server.stop}
            if verb != "status":
                actions[verb]()
        return self.status()

    def switch(self, name: str, state: str, seconds: str = "", during: str = "") -> None:
        """Switch a fault on or off, or all of them off."""
        faults = self.server.key.faults
        if state == "on":
            faults.switch_on(
                Fault(name),
                seconds=float(seconds) if seconds else None,
                during=Command[during.upper()] if during else None,
            )
        elif state == "off":
            faults.switch_off(*(() if name == "all" else (Fault(name),)))
        else:
            raise ValueError(f"a fault is on or off, not {state!r}")

    def status(self) -> Answer:
        """Return how the key is."""
        key = self.server.key
        return {
            "is_plugged": self.server.is_plugged,
            "is_blinking": self.server.engine.is_blinking(),
            "touch": key.person.touch,
            "finger": "ok" if key.person.is_finger_right else "fail",
            "faults": sorted(key.faults.extents),
            "credentials": len(key.memory.credentials),
            "pin_retries": key.memory.pin_retries,
            "counters": dict(key.counters),
        }


def tell(path: Path, *words: str) -> Any:  # noqa: ANN401 - JSON
    """Say words to a key, and return its answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        connection.sendall(json.dumps(words).encode() + b"\n")
        with connection.makefile("rb") as lines:
            return json.loads(lines.readline())
