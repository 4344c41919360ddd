# SPDX-License-Identifier: Apache-2.0
"""The types of what a key answers (CTAP 2.1, section 6), checked before fido2 sees it.

fido2 makes bytes of whatever stands where bytes belong, and ``bytes(n)`` of a number is n zeros:
nine bytes from a hostile key would fill this program's memory.
"""

from typing import Final

from fido2 import cbor

_MAKE_CREDENTIAL, _GET_ASSERTION, _GET_INFO, _CLIENT_PIN, _GET_NEXT = 0x01, 0x02, 0x04, 0x06, 0x08
_ASSERTION: Final[dict[int, type]] = {1: dict, 2: bytes, 3: bytes, 4: dict, 7: bytes}
_TYPES: Final[dict[int, dict[int, type]]] = {
    _MAKE_CREDENTIAL: {1: str, 2: bytes, 3: dict, 5: bytes},
    _GET_ASSERTION: _ASSERTION,
    _GET_NEXT: _ASSERTION,
    _GET_INFO: {1: list, 3: bytes, 4: dict, 25: bytes, 28: bytes, 30: bytes},
    _CLIENT_PIN: {1: dict, 2: bytes, 3: int, 4: bool, 5: int},
}
_OK = 0


def find_wrong_field(command: int, answer: bytes) -> int | None:
    """Return the field of a CTAP2 command's answer that holds what it must not; None: all is well.

    What is no CBOR map at all is left for fido2 to refuse.
    """
    types = _TYPES.get(command, {})
    if answer[:1] != bytes((_OK,)) or not answer[1:] or not types:
        return None
    decoded = cbor.decode(answer[1:])
    if not isinstance(decoded, dict):
        return None
    for field, value in decoded.items():
        wanted = types.get(field)
        if wanted is not None and type(value) is not wanted:
            return int(field)
        # The descriptor of a credential, and the user: each has an id of bytes.
        if isinstance(value, dict) and not isinstance(value.get("id", b""), bytes):
            return int(field)
    return None
