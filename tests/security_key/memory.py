# SPDX-License-Identifier: Apache-2.0
"""What a key still knows after it was unplugged, and its file."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from security_key.attestation import Attestation, make_attestation, parse_attestation
from security_key.credential import Credential, parse_credential
from security_key.model import CounterKind, Model, parse_model

PIN_RETRIES = 8
UV_RETRIES = 3


@dataclass
class Memory:
    """Credentials, counters, the PIN: all that is not in the model."""

    attestation: Attestation
    sign_count: int
    credentials: list[Credential] = field(default_factory=list)
    pin_hash: bytes | None = None
    pin_retries: int = PIN_RETRIES
    uv_retries: int = UV_RETRIES

    def find_credentials(self, rp_id_hash: bytes) -> list[Credential]:
        """Return a relying party's credentials, the newest first."""
        return [each for each in reversed(self.credentials) if each.rp_id_hash == rp_id_hash]

    def count(self, credential: Credential, kind: CounterKind) -> int:
        """Return the signature counter after one more signature."""
        if kind is CounterKind.CREDENTIAL:
            credential.sign_count += 1
            return credential.sign_count
        self.sign_count += 1
        return self.sign_count

    def reset(self) -> None:
        """Forget credentials and the PIN; the counter of the key goes on."""
        self.credentials.clear()
        self.pin_hash = None
        self.pin_retries, self.uv_retries = PIN_RETRIES, UV_RETRIES

    def to_json(self) -> dict[str, object]:
        """Return it as the state file has it."""
        return {
            "attestation": self.attestation.to_json(),
            "sign_count": self.sign_count,
            "credentials": [each.to_json() for each in self.credentials],
            "pin_hash": None if self.pin_hash is None else self.pin_hash.hex(),
            "pin_retries": self.pin_retries,
            "uv_retries": self.uv_retries,
        }


def make_memory(model: Model) -> Memory:
    """Return what a new key knows."""
    attestation = make_attestation(bytes.fromhex(model.aaguid))
    return Memory(attestation, model.first_sign_count)


def parse_memory(values: dict[str, Any]) -> Memory:
    """Return the memory of a state file."""
    pin_hash = values["pin_hash"]
    return Memory(
        attestation=parse_attestation(values["attestation"]),
        sign_count=values["sign_count"],
        credentials=[parse_credential(each) for each in values["credentials"]],
        pin_hash=None if pin_hash is None else bytes.fromhex(pin_hash),
        pin_retries=values["pin_retries"],
        uv_retries=values["uv_retries"],
    )


def dump_state(model: Model, memory: Memory) -> str:
    """Return a state file's text."""
    return json.dumps({"model": asdict(model), "memory": memory.to_json()}, indent=1) + "\n"


def write_state(path: Path, text: str) -> None:
    """Replace a state file as a whole."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def parse_state(text: str) -> tuple[Model, Memory]:
    """Return what a state file says."""
    values = json.loads(text)
    return parse_model(values["model"]), parse_memory(values["memory"])
