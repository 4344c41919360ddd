# SPDX-License-Identifier: Apache-2.0
"""One whole security key: its insides, its faults, its person, and what was counted."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from security_key.authenticator import Authenticator
from security_key.ctap import Command
from security_key.exchange import Need, Step
from security_key.faults import Fault, Faults
from security_key.memory import Memory, dump_state, make_memory, parse_state, write_state
from security_key.model import Model
from security_key.parts import Parts
from security_key.person import Person
from security_key.u2f import U2f


class SecurityKey:
    """A key that messages are put to; ``ctaphid`` cuts them into packets."""

    def __init__(
        self,
        model: Model | None = None,
        memory: Memory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Plug in a key of a kind: a new one, or one that comes back."""
        self.model = model or Model()
        self.memory = memory or make_memory(self.model)
        self.clock = clock
        self.counters: Counter[str] = Counter()
        self.faults = Faults(clock)
        self.person = Person(self.counters)
        self.parts = Parts(self.model, self.memory, self.faults, clock)
        self.authenticator = Authenticator(self.parts)
        self.u2f = U2f(self.parts)

    def run_cbor(self, request: bytes) -> Step[bytes]:
        """Answer a CTAP2 command, well or badly."""
        command = request[0] if request else None
        name = command_name(command)
        self.counters[name] += 1
        return self._run_badly(self.authenticator.run(request), command)

    def run_apdu(self, message: bytes) -> Step[bytes]:
        """Answer a U2F command, well or badly."""
        self.counters["u2f"] += 1
        return self._run_badly(self.u2f.run(message), None)

    def _run_badly(self, step: Step[bytes], command: int | None) -> Step[bytes]:
        """Answer as the faults have it."""
        self.faults.command = command
        if self.model.processing:
            yield Need.PROCESSING
        while self.faults.is_on(Fault.HANG):
            yield Need.SILENCE
        while self.faults.is_on(Fault.ENDLESS_KEEPALIVES):
            yield Need.FOREVER
        answer = yield from step
        return self.faults.spoil_answer(answer)

    def power_cycle(self) -> None:
        """Pull the key out and plug it in again."""
        self.parts.power_up()
        self.person.forget()

    def dump(self) -> str:
        """Return what the key keeps, as a state file's text."""
        return dump_state(self.model, self.memory)

    def save(self, path: Path) -> None:
        """Write the state file."""
        write_state(path, self.dump())


def command_name(command: int | None) -> str:
    """Return what a CTAP2 command is counted as."""
    if command in set(Command):
        return Command(command).name.lower()
    return "unknown_command"


def load_key(path: Path, clock: Callable[[], float] = time.monotonic) -> SecurityKey:
    """Return the key that a state file keeps."""
    model, memory = parse_state(path.read_text("utf-8"))
    return SecurityKey(model, memory, clock)
