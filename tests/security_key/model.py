# SPDX-License-Identifier: Apache-2.0
"""What kind of key it is: everything that a manufacturer decides."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from security_key.ctap import EDDSA, ES256

U2F_V2, FIDO_2_0, FIDO_2_1 = "U2F_V2", "FIDO_2_0", "FIDO_2_1"


class AttestationKind(StrEnum):
    """What a new credential comes with."""

    X5C = "x5c"  # packed, signed by a key whose certificate names the AAGUID
    SELF = "self"  # packed, signed by the credential itself
    NONE = "none"


class CounterKind(StrEnum):
    """What the signature counter counts."""

    KEY = "key"
    CREDENTIAL = "credential"


@dataclass(frozen=True)
class Model:
    """A kind of key; times are in seconds."""

    versions: tuple[str, ...] = (U2F_V2, FIDO_2_0, FIDO_2_1)
    aaguid: str = "5ec0de00c0de4a11900dfeedfacebeef"
    algorithms: tuple[int, ...] = (ES256, EDDSA)
    resident_keys: bool = True
    client_pin: bool = True
    built_in_uv: bool = False
    always_uv: bool = False
    make_cred_uv_not_rqd: bool = True
    pin_protocols: tuple[int, ...] = (2, 1)
    attestation: AttestationKind = AttestationKind.X5C
    sign_counter: CounterKind = CounterKind.KEY
    first_sign_count: int = 16
    max_discoverable: int = 25
    max_message_size: int = 1200
    touch_timeout: float = 30.0
    reset_within: float = 10.0  # of plugging in
    keepalive: float = 0.1
    processing: float = 0.0  # before each answer
    vendor_id: int = 0x1209  # pid.codes, and its number for tests
    product_id: int = 0x0001
    manufacturer: str = "Example Keys"
    product: str = "Software Security Key"
    serial_number: str = "SK000001"

    @property
    def speaks_ctap2(self) -> bool:
        """Whether it knows more than U2F."""
        return FIDO_2_0 in self.versions or FIDO_2_1 in self.versions

    @property
    def speaks_u2f(self) -> bool:
        """Whether it knows U2F."""
        return U2F_V2 in self.versions

    @property
    def is_2_1(self) -> bool:
        """Whether it knows permissions of pinUvAuthTokens."""
        return FIDO_2_1 in self.versions


U2F_ONLY = Model(versions=(U2F_V2,), resident_keys=False, client_pin=False)
CTAP2_0 = Model(versions=(U2F_V2, FIDO_2_0), make_cred_uv_not_rqd=False, pin_protocols=(1,))
FINGERPRINT = Model(built_in_uv=True)


def parse_model(values: Mapping[str, object]) -> Model:
    """Return the model of a state file or a command line; what is not named stays usual.

    Raises:
        ValueError: a name or a value that no model has.
    """
    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(Model)}
    unknown = set(values) - set(kinds)
    if unknown:
        raise ValueError(f"a model has no {', '.join(unknown)}; it has {', '.join(kinds)}")
    # JSON's words into ours: lists into tuples, text into members of an enumeration.
    return Model(**{name: kinds[name](value) for name, value in values.items()})
