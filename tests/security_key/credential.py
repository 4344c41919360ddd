# SPDX-License-Identifier: Apache-2.0
"""One credential of a key, made by CTAP2 or by U2F."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from security_key.cbor import Item
from security_key.ctap import PUBLIC_KEY
from security_key.signing_key import SigningKey, load_key


class Protection(IntEnum):
    """Levels of the credProtect extension (section 12.1)."""

    OPTIONAL = 1
    OPTIONAL_WITH_LIST = 2
    REQUIRED = 3


def hash_rp_id(rp_id: str) -> bytes:
    """Return what stands for a relying party wherever something is signed."""
    return hashlib.sha256(rp_id.encode()).digest()


@dataclass
class Credential:
    """A key pair for one user at one relying party; U2F knows no user."""

    credential_id: bytes
    rp_id_hash: bytes
    key: SigningKey
    sign_count: int = 0
    user_id: bytes | None = None
    user_names: dict[str, str] = field(default_factory=dict)  # name, displayName
    is_discoverable: bool = False
    protection: Protection = Protection.OPTIONAL

    @property
    def descriptor(self) -> dict[str, Item]:
        """The PublicKeyCredentialDescriptor."""
        return {"id": self.credential_id, "type": PUBLIC_KEY}

    def is_open(self, *, is_verified: bool, is_listed: bool) -> bool:
        """Whether it may be used, or be known to be there, by its protection."""
        if self.protection is Protection.REQUIRED:
            return is_verified
        if self.protection is Protection.OPTIONAL_WITH_LIST:
            return is_verified or is_listed
        return True

    def to_json(self) -> dict[str, object]:
        """Return it as the state file has it."""
        return {
            "credential_id": self.credential_id.hex(),
            "rp_id_hash": self.rp_id_hash.hex(),
            "algorithm": self.key.algorithm,
            "private_key": self.key.raw.hex(),
            "sign_count": self.sign_count,
            "user_id": None if self.user_id is None else self.user_id.hex(),
            "user_names": self.user_names,
            "is_discoverable": self.is_discoverable,
            "protection": int(self.protection),
        }


def parse_credential(values: Mapping[str, Any]) -> Credential:
    """Return a credential of a state file."""
    user_id = values["user_id"]
    return Credential(
        credential_id=bytes.fromhex(values["credential_id"]),
        rp_id_hash=bytes.fromhex(values["rp_id_hash"]),
        key=load_key(values["algorithm"], bytes.fromhex(values["private_key"])),
        sign_count=values["sign_count"],
        user_id=None if user_id is None else bytes.fromhex(user_id),
        user_names=dict(values["user_names"]),
        is_discoverable=values["is_discoverable"],
        protection=Protection(values["protection"]),
    )
