# SPDX-License-Identifier: Apache-2.0
"""What every command of a key works on: its model, memory and faults, and what power-off ends."""

from collections.abc import Callable
from dataclasses import dataclass, field

from security_key.credential import Credential
from security_key.faults import Faults
from security_key.memory import Memory
from security_key.model import Model
from security_key.pin_protocol import make_protocols
from security_key.pin_token import PinToken

PIN_ATTEMPTS = 3  # wrong PINs until the key wants to be unplugged


@dataclass
class Queue:
    """Assertions that getNextAssertion may ask for."""

    rp_id_hash: bytes
    client_data_hash: bytes
    is_present: bool
    is_verified: bool
    credentials: list[Credential]
    total: int = 0


@dataclass
class Power:
    """State that lasts from plugging in to pulling out."""

    since: float
    attempts: int = PIN_ATTEMPTS
    token: PinToken = field(default_factory=PinToken)
    queue: Queue | None = None


@dataclass
class Parts:
    """The insides of one key."""

    model: Model
    memory: Memory
    faults: Faults
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        """Power up."""
        self.power_up()

    def power_up(self) -> None:
        """Begin anew, with what memory keeps."""
        self.power = Power(self.clock())
        self.protocols = make_protocols(self.model.pin_protocols)

    @property
    def aaguid(self) -> bytes:
        """The model's number."""
        return bytes.fromhex(self.model.aaguid)

    @property
    def is_protected(self) -> bool:
        """Whether there is any way to verify a user."""
        return self.memory.pin_hash is not None or self.model.built_in_uv
