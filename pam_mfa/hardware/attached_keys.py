# SPDX-License-Identifier: Apache-2.0
"""The keys at this machine, asked for credentials, touches and PINs by CTAP (CTAP 2.1, U2F 1.2).

What a key says is not judged here: ``factors.security_key`` does. Each key is served by a thread of
its own, so that one that hangs keeps no other waiting.

``fido2.ctap1`` is loaded where a U2F-only key is: it brings half of all that is loaded for a login.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from threading import Event
from typing import NamedTuple

from fido2.ctap import CtapError
from fido2.ctap2.base import AssertionResponse, Ctap2
from fido2.ctap2.pin import ClientPin
from fido2.hid import CAPABILITY

from pam_mfa.errors import KeyAccessError, SecurityKeyError, UnsafeNodeError
from pam_mfa.hardware.asking import ask_each, ask_first
from pam_mfa.hardware.exchange import (
    CHECK_INTERVAL,
    LOOK_MAX,
    PATIENCE,
    InformedCtap2,
    TokenUse,
    application_parameter,
    describe_credential,
    exchange,
    verify_user,
)
from pam_mfa.hardware.hotplug import Monitor
from pam_mfa.hardware.keys import (
    Assertion,
    Credential,
    End,
    Holder,
    Method,
    Showing,
    Sight,
    Touch,
    Touched,
    Untouched,
)
from pam_mfa.hardware.nodes import AttachedKey, list_keys
from pam_mfa.hardware.security_key import SecurityKey, open_when_free
from pam_mfa.hardware.selection import is_selected

_ERR = CtapError.ERR


class AttachedKeys:
    """The security keys that are attached to this machine."""

    def __init__(self, warn: Callable[[SecurityKeyError], None] = lambda _: None) -> None:
        """Take what tells an administrator of a key that only an administrator can help with."""
        self._warn = warn

    def look(self, credentials: Sequence[Credential], canceled: Event) -> Sight:
        """Find the keys that hold one of these credentials, without a touch."""
        return self._look_at(list_keys(), credentials, canceled)

    def wait(self, credentials: Sequence[Credential], seconds: float, canceled: Event) -> Sight:
        """Look again at every key that is plugged in, until one holds a credential."""
        give_up_at = time.monotonic() + seconds
        with Monitor() as monitor:
            sight = self._look_at(monitor.keys, credentials, canceled)
            while not sight.holders and not canceled.is_set():
                left = give_up_at - time.monotonic()
                if left <= 0:
                    break
                changes = monitor.wait(min(left, 0.5))  # a turn, to hear of a cancel
                if changes.added:
                    sight = self._look_at(changes.added, credentials, canceled)
        return sight

    def select(self, holders: Sequence[Holder], seconds: float, canceled: Event) -> Holder | None:
        """Return the key that is touched first, all of them blinking (CTAP 2.1, section 6.9)."""

        def ask(holder: Holder, ended: Event) -> Holder | None:
            return holder if is_selected(holder.key, seconds, ended) else None

        return ask_first(holders, ask, canceled)

    def touch(self, touch: Touch, canceled: Event) -> Touched | Untouched:
        """Have the keys of these holders blink, and return what the first one signs."""
        failures: list[Untouched] = []

        def ask(holder: Holder, ended: Event) -> Touched | None:
            outcome = _touch(holder, touch, ended)
            if isinstance(outcome, Untouched):
                failures.append(outcome)
                return None
            return outcome

        found = ask_first(touch.holders, ask, canceled)
        # What ended by itself says more than what was canceled because of it.
        told = [one for one in failures if one.end is not End.CANCELED]
        return found or (told or failures or [Untouched(End.GONE)])[0]

    def _look_at(
        self, attached: Iterable[AttachedKey], credentials: Sequence[Credential], canceled: Event
    ) -> Sight:
        keys = tuple(attached)
        told = ask_each(keys, lambda key: _find_holder(key, credentials, canceled))
        for one in told:
            if isinstance(one.error, KeyAccessError | UnsafeNodeError):
                self._warn(one.error)
        return Sight(
            tuple(one.holder for one in told if one.holder),
            len(keys),
            tuple(one.problem for one in told if one.problem),
        )


class _Told(NamedTuple):
    """What looking at one key showed."""

    holder: Holder | None
    problem: str
    error: SecurityKeyError | None = None


def _find_holder(key: AttachedKey, credentials: Sequence[Credential], canceled: Event) -> _Told:
    try:
        with open_when_free(key, PATIENCE, lambda: None, canceled) as opened:
            opened.give_up_at = time.monotonic() + LOOK_MAX
            if not opened.capabilities & CAPABILITY.CBOR:
                return _Told(_find_by_u2f(key, opened, credentials, canceled), "")
            return _Told(_find_by_ctap2(key, Ctap2(opened), credentials, canceled), "")
    except SecurityKeyError as error:
        return _Told(None, str(error), error)
    except CtapError as error:
        return _Told(None, f"{key.name or key.path} refuses to be asked: {error}")
    except Exception as error:  # noqa: BLE001 - a key's bytes took fido2 out of its way
        return _Told(None, f"{key.name or key.path} answered garbage ({type(error).__name__})")


def _find_by_ctap2(
    key: AttachedKey, ctap: Ctap2, credentials: Sequence[Credential], canceled: Event
) -> Holder | None:
    options = ctap.info.options
    for credential in credentials:
        showing = _show(ctap, credential, canceled)
        if showing is None:
            continue
        return Holder(
            key,
            credential,
            has_pin=options.get("clientPin") is True,
            has_built_in_uv=options.get("uv") is True,
            is_always_uv=options.get("alwaysUv") is True,
            showing=showing,
            info=ctap.info,
        )
    return None


def _show(ctap: Ctap2, credential: Credential, canceled: Event) -> Showing | None:
    """Ask without a touch (CTAP 2.1, section 6.2.2, "up": false)."""
    random_hash = os.urandom(32)  # of no client data: what is signed here proves no login
    try:
        response = ctap.get_assertion(
            credential.rp_id,
            random_hash,
            [describe_credential(credential)],
            options={"up": False},
            event=canceled,
        )
    except CtapError as error:
        if error.code == _ERR.NO_CREDENTIALS:
            return None
        raise
    return Showing(random_hash, _assertion(response))


def _find_by_u2f(
    key: AttachedKey, opened: SecurityKey, credentials: Sequence[Credential], canceled: Event
) -> Holder | None:
    from fido2.ctap1 import APDU, ApduError, Ctap1  # noqa: PLC0415 - start-up cost

    for credential in credentials:
        if canceled.is_set():
            return None
        try:
            Ctap1(opened).authenticate(
                bytes(32), application_parameter(credential.rp_id), credential.id, check_only=True
            )
        except ApduError as error:
            if error.code == APDU.USE_NOT_SATISFIED:  # "yes, if it were touched"
                return Holder(key, credential, is_ctap2=False)
    return None


def _touch(holder: Holder, touch: Touch, ended: Event) -> Touched | Untouched:
    def ask(opened: SecurityKey) -> Touched | Untouched:
        if not holder.is_ctap2:
            return _touch_by_u2f(holder, opened, touch, ended)
        return _touch_by_ctap2(holder, InformedCtap2(opened, holder.info), touch, ended)

    return exchange(holder.key, touch.seconds, ended, ask)


def _touch_by_ctap2(holder: Holder, ctap: Ctap2, touch: Touch, ended: Event) -> Touched | Untouched:
    if touch.method is Method.PIN and not touch.pin:
        return Untouched(End.WRONG_PIN)  # CVE-2021-31924: an empty PIN is not "no PIN"
    rp_id, permission = holder.credential.rp_id, ClientPin.PERMISSION.GET_ASSERTION
    use = TokenUse(touch.method, touch.pin, permission, rp_id, touch.client_data_hash)
    verification = verify_user(ctap, use, ended)
    response = ctap.get_assertion(
        rp_id,
        touch.client_data_hash,
        [describe_credential(holder.credential)],
        event=ended,
        **verification | {"options": {"up": True} | verification.get("options", {})},
    )
    return Touched(holder, _assertion(response))


def _assertion(response: AssertionResponse) -> Assertion:
    return Assertion(
        bytes(response.credential["id"]),
        bytes(response.auth_data),
        bytes(response.signature),
        bytes((response.user or {}).get("id", b"")),
    )


def _touch_by_u2f(
    holder: Holder, opened: SecurityKey, touch: Touch, ended: Event
) -> Touched | Untouched:
    from fido2.ctap1 import APDU, ApduError, Ctap1  # noqa: PLC0415 - start-up cost

    give_up_at = time.monotonic() + touch.seconds
    app_param = application_parameter(holder.credential.rp_id)
    while time.monotonic() < give_up_at:
        try:
            signed = Ctap1(opened).authenticate(
                touch.client_data_hash, app_param, holder.credential.id
            )
        except ApduError as error:
            if error.code != APDU.USE_NOT_SATISFIED:
                return Untouched(End.FAULTY, detail=f"U2F status {error.code:#06x}")
            if ended.wait(CHECK_INTERVAL):
                return Untouched(End.CANCELED)
            continue
        # The very bytes that a U2F key signs, as authenticator data (WebAuthn 3, section 6.1.2).
        data = app_param + bytes(signed[:5])
        return Touched(holder, Assertion(holder.credential.id, data, bytes(signed[5:])))
    return Untouched(End.TIMED_OUT)
