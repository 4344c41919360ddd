# SPDX-License-Identifier: Apache-2.0
"""Which of several keys is meant: the one that is touched, as a way of pointing at it.

Nothing is proven by such a touch, and nothing is made.
"""

import os
from threading import Event
from typing import Final

from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2
from fido2.hid import CAPABILITY

from pam_mfa.hardware.exchange import CHECK_INTERVAL, exchange
from pam_mfa.hardware.nodes import AttachedKey
from pam_mfa.hardware.security_key import SecurityKey

_ERR = CtapError.ERR
# What a key answers after the touch: it has no such PIN.
_TOUCHED: Final = frozenset((_ERR.PIN_INVALID, _ERR.PIN_AUTH_INVALID, _ERR.PIN_NOT_SET))


def is_selected(key: AttachedKey, seconds: float, ended: Event) -> bool:
    """Have a key blink; return whether it is touched (CTAP 2.1, section 6.9)."""

    def ask(opened: SecurityKey) -> bool:
        if not opened.capabilities & CAPABILITY.CBOR:
            return _is_u2f_touched(opened, seconds, ended)
        ctap = Ctap2(opened)
        if "FIDO_2_1" in ctap.info.versions:
            ctap.selection(event=ended)
            return True
        return _is_2_0_touched(ctap, ended)

    return exchange(key, seconds, ended, ask) is True


def _is_2_0_touched(ctap: Ctap2, ended: Event) -> bool:
    """Have a key of CTAP 2.0 blink: an empty PIN parameter only asks for a touch (section 5.1)."""
    user, algorithm = {"id": b"\0", "name": "x"}, {"type": "public-key", "alg": -7}
    try:
        ctap.make_credential(
            bytes(32), {"id": "pam-mfa"}, user, [algorithm],
            pin_uv_param=b"", pin_uv_protocol=1, event=ended,
        )  # fmt: skip
    except CtapError as error:
        if error.code not in _TOUCHED:
            raise
    return True


def _is_u2f_touched(opened: SecurityKey, seconds: float, ended: Event) -> bool:
    """Have a U2F key blink, by a registration that nobody keeps."""
    from fido2.ctap1 import APDU, ApduError, Ctap1  # noqa: PLC0415 - start-up cost

    nobody = os.urandom(32)
    waits = int(seconds / CHECK_INTERVAL)
    for _ in range(waits):
        try:
            Ctap1(opened).register(bytes(32), nobody)
        except ApduError as error:
            if error.code != APDU.USE_NOT_SATISFIED:
                return False
            if ended.wait(CHECK_INTERVAL):
                return False
        else:
            return True
    return False
