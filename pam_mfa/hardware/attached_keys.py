# SPDX-License-Identifier: Apache-2.0
"""The keys at this machine, asked for credentials, touches and PINs by CTAP (CTAP 2.1, U2F 1.2).

What a key says is not judged here: ``factors.security_key`` does. Each key is served by a thread of
its own, so that one that hangs keeps no other waiting.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple, TypeVar

from fido2.ctap import CtapError
from fido2.ctap1 import APDU, ApduError, Ctap1
from fido2.ctap2.base import Ctap2, Info
from fido2.ctap2.pin import ClientPin
from fido2.hid import CAPABILITY

from pam_mfa.errors import KeyBusyError, KeyGoneError, SecurityKeyError
from pam_mfa.hardware.hotplug import Monitor
from pam_mfa.hardware.keys import (
    Assertion,
    Credential,
    End,
    Holder,
    Method,
    Sight,
    Touch,
    Touched,
    Untouched,
)
from pam_mfa.hardware.nodes import AttachedKey, list_keys
from pam_mfa.hardware.security_key import SecurityKey, open_when_free

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_PATIENCE = 2.0  # seconds for another program to release a key
_LOOK_MAX = 5.0  # seconds for a key to answer what needs no touch
_CHECK_INTERVAL = 0.2  # seconds between two questions to a U2F key whether it was touched
_ERR = CtapError.ERR
_ENDS = {
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
}


class AttachedKeys:
    """The security keys that are attached to this machine."""

    def look(self, credentials: Sequence[Credential], canceled: Event) -> Sight:
        """Find the keys that hold one of these credentials, without a touch."""
        return _look_at(list_keys(), credentials, canceled)

    def wait(self, credentials: Sequence[Credential], seconds: float, canceled: Event) -> Sight:
        """Look again at every key that is plugged in, until one holds a credential."""
        give_up_at = time.monotonic() + seconds
        with Monitor() as monitor:
            sight = _look_at(monitor.keys, credentials, canceled)
            while not sight.holders and not canceled.is_set():
                left = give_up_at - time.monotonic()
                if left <= 0:
                    break
                changes = monitor.wait(min(left, 0.5))  # a turn, to hear of a cancel
                if changes.added:
                    sight = _look_at(changes.added, credentials, canceled)
        return sight

    def select(self, holders: Sequence[Holder], seconds: float, canceled: Event) -> Holder | None:
        """Return the key that is touched first, all of them blinking (CTAP 2.1, section 6.9)."""

        def ask(holder: Holder, ended: Event) -> Holder | None:
            return holder if _is_selected(holder, seconds, ended) else None

        return _first(holders, ask, canceled)

    def touch(self, touch: Touch, canceled: Event) -> Touched | Untouched:
        """Have the keys of these holders blink, and return what the first one signs."""
        failures: list[Untouched] = []

        def ask(holder: Holder, ended: Event) -> Touched | None:
            outcome = _touch(holder, touch, ended)
            if isinstance(outcome, Untouched):
                failures.append(outcome)
                return None
            return outcome

        found = _first(touch.holders, ask, canceled)
        # What ended by itself says more than what was canceled because of it.
        told = [one for one in failures if one.end is not End.CANCELED]
        return found or (told or failures or [Untouched(End.GONE)])[0]


class _Told(NamedTuple):
    """What looking at one key showed."""

    holder: Holder | None
    problem: str


def _look_at(
    attached: Iterable[AttachedKey], credentials: Sequence[Credential], canceled: Event
) -> Sight:
    keys = tuple(attached)
    told = _each(keys, lambda key: _find_holder(key, credentials, canceled))
    return Sight(
        tuple(one.holder for one in told if one.holder),
        len(keys),
        tuple(one.problem for one in told if one.problem),
    )


def _find_holder(key: AttachedKey, credentials: Sequence[Credential], canceled: Event) -> _Told:
    try:
        with open_when_free(key, _PATIENCE, lambda: None, canceled) as opened:
            opened.call_max = _LOOK_MAX
            if not opened.capabilities & CAPABILITY.CBOR:
                return _Told(_find_by_u2f(key, opened, credentials, canceled), "")
            return _Told(_find_by_ctap2(key, Ctap2(opened), credentials, canceled), "")
    except SecurityKeyError as error:
        return _Told(None, str(error))
    except CtapError as error:
        return _Told(None, f"{key.name or key.path} refuses to be asked: {error}")
    except Exception as error:  # noqa: BLE001 - a key's bytes took fido2 out of its way
        return _Told(None, f"{key.name or key.path} answered garbage ({type(error).__name__})")


def _find_by_ctap2(
    key: AttachedKey, ctap: Ctap2, credentials: Sequence[Credential], canceled: Event
) -> Holder | None:
    options = ctap.info.options
    for credential in credentials:
        if not _holds(ctap, credential, canceled):
            continue
        return Holder(
            key,
            credential,
            has_pin=options.get("clientPin") is True,
            has_built_in_uv=options.get("uv") is True,
            is_always_uv=options.get("alwaysUv") is True,
        )
    return None


def _holds(ctap: Ctap2, credential: Credential, canceled: Event) -> bool:
    """Ask without a touch (CTAP 2.1, section 6.2.2, "up": false)."""
    try:
        ctap.get_assertion(
            credential.rp_id,
            bytes(32),
            [_descriptor(credential)],
            options={"up": False},
            event=canceled,
        )
    except CtapError as error:
        if error.code == _ERR.NO_CREDENTIALS:
            return False
        raise
    return True


def _find_by_u2f(
    key: AttachedKey, opened: SecurityKey, credentials: Sequence[Credential], canceled: Event
) -> Holder | None:
    for credential in credentials:
        if canceled.is_set():
            return None
        try:
            Ctap1(opened).authenticate(
                bytes(32), _app_param(credential), credential.id, check_only=True
            )
        except ApduError as error:
            if error.code == APDU.USE_NOT_SATISFIED:  # "yes, if it were touched"
                return Holder(key, credential, is_ctap2=False)
    return None


def _touch(holder: Holder, touch: Touch, ended: Event) -> Touched | Untouched:
    try:
        with open_when_free(holder.key, _PATIENCE, lambda: None, ended) as opened:
            ask = _touch_by_ctap2 if holder.is_ctap2 else _touch_by_u2f
            return ask(holder, opened, touch, ended)
    except KeyGoneError:
        return Untouched(End.GONE)
    except KeyBusyError as error:
        return Untouched(End.BUSY, detail=str(error))
    except Exception as error:  # noqa: BLE001 - a key's bytes took fido2 out of its way
        detail = str(error) if isinstance(error, SecurityKeyError) else type(error).__name__
        return Untouched(End.FAULTY, detail=detail)


def _touch_by_ctap2(
    holder: Holder, opened: SecurityKey, touch: Touch, ended: Event
) -> Touched | Untouched:
    ctap = Ctap2(opened)
    opened.call_max = touch.seconds
    try:
        return _sign(holder, ctap, touch, ended)
    except CtapError as error:
        return _translate(error, ctap)


def _sign(holder: Holder, ctap: Ctap2, touch: Touch, ended: Event) -> Touched | Untouched:
    if touch.method is Method.PIN and not touch.pin:
        return Untouched(End.WRONG_PIN)  # CVE-2021-31924: an empty PIN is not "no PIN"
    rp_id, options = holder.credential.rp_id, {"up": True}
    parameter, version = None, None
    has_tokens = ctap.info.options.get("pinUvAuthToken") is True
    if touch.method is Method.BUILT_IN and not has_tokens:
        options["uv"] = True
    elif touch.method is not Method.NONE:
        client_pin = ClientPin(ctap)
        token = _token(client_pin, touch, rp_id, ended)
        parameter = client_pin.protocol.authenticate(token, touch.client_data_hash)
        version = client_pin.protocol.VERSION
    response = ctap.get_assertion(
        rp_id,
        touch.client_data_hash,
        [_descriptor(holder.credential)],
        None,
        options,
        parameter,
        version,
        event=ended,
    )
    assertion = Assertion(
        bytes(response.credential["id"]),
        bytes(response.auth_data),
        bytes(response.signature),
        bytes((response.user or {}).get("id", b"")),
    )
    return Touched(holder, assertion)


def _token(client_pin: ClientPin, touch: Touch, rp_id: str, ended: Event) -> bytes:
    permission = ClientPin.PERMISSION.GET_ASSERTION
    if touch.method is Method.PIN:
        return client_pin.get_pin_token(touch.pin, permission, rp_id)
    return client_pin.get_uv_token(permission, rp_id, event=ended)


def _translate(error: CtapError, ctap: Ctap2) -> Untouched:
    end = _ENDS.get(_ERR(error.code) if error.code in set(_ERR) else _ERR.OTHER, End.FAULTY)
    if end is End.WRONG_PIN:
        left, needs_replug = ClientPin(ctap).get_pin_retries()
        if left == 0:
            return Untouched(End.PIN_BLOCKED, 0)
        replug = End.PIN_LOCKED_UNTIL_REPLUGGED
        return Untouched(replug if needs_replug else End.WRONG_PIN, left)
    return Untouched(end, detail=str(error) if end is End.FAULTY else "")


def _touch_by_u2f(
    holder: Holder, opened: SecurityKey, touch: Touch, ended: Event
) -> Touched | Untouched:
    give_up_at = time.monotonic() + touch.seconds
    app_param = _app_param(holder.credential)
    while time.monotonic() < give_up_at:
        try:
            signed = Ctap1(opened).authenticate(
                touch.client_data_hash, app_param, holder.credential.id
            )
        except ApduError as error:
            if error.code != APDU.USE_NOT_SATISFIED:
                return Untouched(End.FAULTY, detail=f"U2F status {error.code:#06x}")
            if ended.wait(_CHECK_INTERVAL):
                return Untouched(End.CANCELED)
            continue
        # The very bytes that a U2F key signs, as authenticator data (WebAuthn 3, section 6.1.2).
        data = app_param + bytes(signed[:5])
        return Touched(holder, Assertion(holder.credential.id, data, bytes(signed[5:])))
    return Untouched(End.TIMED_OUT)


def _is_selected(holder: Holder, seconds: float, ended: Event) -> bool:
    try:
        with open_when_free(holder.key, _PATIENCE, lambda: None, ended) as opened:
            ctap = Ctap2(opened)
            opened.call_max = seconds
            if "FIDO_2_1" in ctap.info.versions:
                ctap.selection(event=ended)
                return True
            _ask_touch_of_2_0(ctap, ended)
            return True
    except Exception:  # noqa: BLE001 - a key that cannot be touched is not selected
        return False


def _ask_touch_of_2_0(ctap: Ctap2, ended: Event) -> None:
    """Have a key of CTAP 2.0 blink: an empty PIN parameter only asks for a touch (section 5.1)."""
    user, algorithm = {"id": b"\0", "name": "x"}, {"type": "public-key", "alg": -7}
    try:
        ctap.make_credential(
            bytes(32), {"id": "pam-mfa"}, user, [algorithm],
            pin_uv_param=b"", pin_uv_protocol=1, event=ended,
        )  # fmt: skip
    except CtapError as error:
        if error.code not in (_ERR.PIN_INVALID, _ERR.PIN_AUTH_INVALID, _ERR.PIN_NOT_SET):
            raise


def describe_options(info: Info) -> dict[str, Any]:
    """Return what a key's getInfo says, as plain values."""
    return {
        "versions": list(info.versions),
        "aaguid": str(info.aaguid),
        "options": dict(info.options),
    }


def _descriptor(credential: Credential) -> dict[str, Any]:
    return {"type": "public-key", "id": credential.id}


def _app_param(credential: Credential) -> bytes:
    return hashlib.sha256(credential.rp_id.encode()).digest()


def _each(items: Sequence[_Item], ask: Callable[[_Item], _Result]) -> list[_Result]:
    """Ask all at once; return the answers in the items' order."""
    answers: list[_Result | None] = [None] * len(items)

    def keep(index: int, item: _Item) -> None:
        answers[index] = ask(item)

    threads = [Thread(target=keep, args=pair, daemon=True) for pair in enumerate(items)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answer for answer in answers if answer is not None]


def _first(
    items: Sequence[_Item], ask: Callable[[_Item, Event], _Result | None], canceled: Event
) -> _Result | None:
    """Ask all at once; return the first answer that is one, and cancel the others."""
    ended = _Either(canceled)
    answers: SimpleQueue[_Result | None] = SimpleQueue()

    def put(item: _Item) -> None:
        answers.put(ask(item, ended))

    for item in items:
        Thread(target=put, args=(item,), daemon=True).start()
    found = None
    for _ in items:
        answer = answers.get()
        if answer is not None and found is None:
            found = answer
            ended.set()
    return found


class _Either(Event):
    """An event that is also set when another one is."""

    def __init__(self, other: Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        """Whether this event or the other one is set."""
        return super().is_set() or self._other.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for this one, for at most a turn, and look at the other one."""
        super().wait(timeout)
        return self.is_set()
