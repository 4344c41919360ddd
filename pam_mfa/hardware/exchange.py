# SPDX-License-Identifier: Apache-2.0
"""One exchange with one attached key: opened, asked, released, and its refusals in our words.

What is asked for is the caller's; what a key's bytes do to fido2 ends here.
"""

import hashlib
import time
from collections.abc import Callable
from threading import Event
from typing import Any, Final, NamedTuple, TypeVar

from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2, Info
from fido2.ctap2.pin import ClientPin

from pam_mfa.errors import KeyBusyError, KeyGoneError, SecurityKeyError
from pam_mfa.hardware.keys import Credential, End, Method, Untouched
from pam_mfa.hardware.nodes import AttachedKey
from pam_mfa.hardware.security_key import SecurityKey, open_when_free

_Result = TypeVar("_Result")

PATIENCE: Final = 2.0  # seconds for another program to release a key
LOOK_MAX: Final = 5.0  # seconds for a key to answer what needs no touch
CHECK_INTERVAL: Final = 0.2  # seconds between two questions to a U2F key whether it was touched
_ERR = CtapError.ERR
_ENDS: Final = {
    _ERR.KEEPALIVE_CANCEL: End.CANCELED,
    _ERR.USER_ACTION_TIMEOUT: End.TIMED_OUT,
    _ERR.ACTION_TIMEOUT: End.TIMED_OUT,
    _ERR.OPERATION_DENIED: End.DENIED,
    _ERR.PIN_INVALID: End.WRONG_PIN,
    _ERR.PIN_AUTH_INVALID: End.WRONG_PIN,
    _ERR.PIN_AUTH_BLOCKED: End.PIN_LOCKED_UNTIL_REPLUGGED,
    _ERR.PIN_BLOCKED: End.PIN_BLOCKED,
    _ERR.PIN_NOT_SET: End.NO_PIN,
    _ERR.PUAT_REQUIRED: End.NOT_VERIFIED,
    _ERR.UV_INVALID: End.NOT_VERIFIED,
    _ERR.UV_BLOCKED: End.NOT_VERIFIED,
    _ERR.CREDENTIAL_EXCLUDED: End.EXCLUDED,
    _ERR.KEY_STORE_FULL: End.FULL,
    _ERR.UNSUPPORTED_ALGORITHM: End.UNSUPPORTED,
    _ERR.UNSUPPORTED_OPTION: End.UNSUPPORTED,
}


class TokenUse(NamedTuple):
    """What the user is to be verified for, and how (CTAP 2.1, section 6.5)."""

    method: Method
    pin: str
    permission: ClientPin.PERMISSION
    rp_id: str
    client_data_hash: bytes

    def __repr__(self) -> str:
        """Do not show the PIN."""
        return f"TokenUse({self.method}, {self.rp_id!r})"


class InformedCtap2(Ctap2):
    """A key that has said what it is while it was looked at, and is not asked again."""

    def __init__(self, opened: SecurityKey, info: Info | None) -> None:
        """Take what the key has said; None: ask it."""
        self._known = info
        super().__init__(opened)

    def get_info(self) -> Info:
        """Return what is known, or ask."""
        return self._known or super().get_info()


def exchange(
    key: AttachedKey, seconds: float, ended: Event, ask: Callable[[SecurityKey], _Result]
) -> _Result | Untouched:
    """Open a key, ask it, release it; whatever it does, there is an answer.

    Args:
        key: the key.
        seconds: for all of its answers together; a touch is waited for so long.
        ended: set by another thread, it cancels.
        ask: what is asked for; it may raise what fido2 raises.
    """
    try:
        with open_when_free(key, PATIENCE, lambda: None, ended) as opened:
            opened.give_up_at = time.monotonic() + seconds
            try:
                return ask(opened)
            except CtapError as error:
                return _translate(error, opened)
    except KeyGoneError:
        return Untouched(End.GONE)
    except KeyBusyError as error:
        return Untouched(End.BUSY, detail=str(error))
    except Exception as error:  # noqa: BLE001 - a key's bytes took fido2 out of its way
        detail = str(error) if isinstance(error, SecurityKeyError) else type(error).__name__
        return Untouched(End.FAULTY, detail=detail)


def _translate(error: CtapError, opened: SecurityKey) -> Untouched:
    end = _ENDS.get(_ERR(error.code) if error.code in set(_ERR) else _ERR.OTHER, End.FAULTY)
    if end is End.WRONG_PIN:
        left, needs_replug = ClientPin(Ctap2(opened)).get_pin_retries()
        if left == 0:
            return Untouched(End.PIN_BLOCKED, 0)
        replug = End.PIN_LOCKED_UNTIL_REPLUGGED
        return Untouched(replug if needs_replug else End.WRONG_PIN, left)
    return Untouched(end, detail=str(error) if end is End.FAULTY else "")


def verify_user(ctap: Ctap2, use: TokenUse, ended: Event) -> dict[str, Any]:
    """Return what the user's verification adds to a command: arguments of ``Ctap2``'s methods."""
    if use.method is Method.NONE:
        return {}
    if use.method is Method.BUILT_IN and ctap.info.options.get("pinUvAuthToken") is not True:
        return {"options": {"uv": True}}
    client_pin = ClientPin(ctap)
    if use.method is Method.PIN:
        token = client_pin.get_pin_token(use.pin, use.permission, use.rp_id)
    else:
        token = client_pin.get_uv_token(use.permission, use.rp_id, event=ended)
    return {
        "pin_uv_param": client_pin.protocol.authenticate(token, use.client_data_hash),
        "pin_uv_protocol": client_pin.protocol.VERSION,
    }


def describe_credential(credential: Credential) -> dict[str, Any]:
    """Return a credential's descriptor, as CTAP has it."""
    return {"type": "public-key", "id": credential.id}


def application_parameter(rp_id: str) -> bytes:
    """Return what stands for a relying party in U2F."""
    return hashlib.sha256(rp_id.encode()).digest()
