# SPDX-License-Identifier: Apache-2.0
"""Credentials made on an attached key (CTAP 2.1, section 6.1; U2F 1.2), and what keys are here.

What a key says is not judged here: ``factors.attestation`` does.
"""

import time
from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any, Final

from fido2.ctap import CtapError
from fido2.ctap1 import APDU, ApduError, Ctap1
from fido2.ctap2.base import Ctap2, Info
from fido2.ctap2.pin import ClientPin
from fido2.hid import CAPABILITY
from fido2.webauthn import AttestationObject

from pam_mfa.errors import KeyFaultError, SecurityKeyError
from pam_mfa.hardware.asking import ask_each, ask_first
from pam_mfa.hardware.exchange import (
    CHECK_INTERVAL,
    LOOK_MAX,
    PATIENCE,
    TokenUse,
    application_parameter,
    describe_credential,
    exchange,
    verify_user,
)
from pam_mfa.hardware.hotplug import wait_for_key
from pam_mfa.hardware.keys import (
    Credential,
    End,
    KeyReport,
    Made,
    Method,
    NewCredential,
    Untouched,
)
from pam_mfa.hardware.node_opening import describe
from pam_mfa.hardware.nodes import AttachedKey, list_keys
from pam_mfa.hardware.security_key import SecurityKey, open_when_free
from pam_mfa.hardware.selection import is_selected

_NO_CREDENTIALS = CtapError.ERR.NO_CREDENTIALS
_OVERHEAD: Final = 400  # bytes of a request beside its list of credentials, at most
_DESCRIPTOR: Final = 40  # bytes of a credential's descriptor beside its id, at most
_NAME_MAX: Final = 64  # bytes of a user name that a key must take (WebAuthn 3, section 6.4.1)


class AttachedKeyRegistrar:
    """The attached keys, as those on which credentials can be made."""

    def examine(self, credentials: Sequence[Credential], canceled: Event) -> tuple[KeyReport, ...]:
        """Have every attached key say what it is and which credentials it holds, untouched."""
        return _examine_all(list_keys(), credentials, canceled)

    def wait(self, seconds: float, canceled: Event) -> tuple[KeyReport, ...]:
        """Wait until a key is plugged in, and examine it."""
        give_up_at = time.monotonic() + seconds
        while not canceled.is_set() and (left := give_up_at - time.monotonic()) > 0:
            if keys := wait_for_key(min(left, 0.5)):  # a turn, to hear of a cancel
                return _examine_all(keys, (), canceled)
        return ()

    def choose(
        self, reports: Sequence[KeyReport], seconds: float, canceled: Event
    ) -> KeyReport | None:
        """Return the key that is touched first, all of them blinking."""

        def ask(report: KeyReport, ended: Event) -> KeyReport | None:
            return report if is_selected(report.key, seconds, ended) else None

        return ask_first(reports, ask, canceled)

    def make(self, wanted: NewCredential, canceled: Event) -> Made | Untouched:
        """Have one key make a credential."""

        def ask(opened: SecurityKey) -> Made | Untouched:
            if not wanted.report.is_ctap2:
                return _make_by_u2f(opened, wanted, canceled)
            return _make_by_ctap2(Ctap2(opened), wanted, canceled)

        return exchange(wanted.report.key, wanted.seconds, canceled, ask)


def _examine_all(
    keys: Sequence[AttachedKey], credentials: Sequence[Credential], canceled: Event
) -> tuple[KeyReport, ...]:
    return tuple(ask_each(keys, lambda key: _examine(key, credentials, canceled)))


def _examine(key: AttachedKey, credentials: Sequence[Credential], canceled: Event) -> KeyReport:
    try:
        with open_when_free(key, PATIENCE, lambda: None, canceled) as opened:
            opened.give_up_at = time.monotonic() + LOOK_MAX
            if not opened.capabilities & CAPABILITY.CBOR:
                versions = (Ctap1(opened).get_version(),)
                held = tuple(one for one in credentials if _holds_by_u2f(opened, one))
                return KeyReport(key, versions=versions, held=held)
            ctap = Ctap2(opened)
            return _report(key, ctap)._replace(held=_find_held(ctap, credentials, canceled))
    except SecurityKeyError as error:
        return KeyReport(key, error)
    except CtapError as error:
        return KeyReport(key, KeyFaultError(f"{describe(key)} refuses to be asked: {error}"))
    except Exception as error:  # noqa: BLE001 - a key's bytes took fido2 out of its way
        what = f"{describe(key)} answered garbage ({type(error).__name__})"
        return KeyReport(key, KeyFaultError(what))


def _report(key: AttachedKey, ctap: Ctap2) -> KeyReport:
    info = ctap.info
    options = {name: value is True for name, value in info.options.items()}
    has_pin, has_uv = options.get("clientPin", False), options.get("uv", False)
    always = options.get("alwaysUv", False)
    return KeyReport(
        key=key,
        is_ctap2=True,
        versions=tuple(str(one) for one in info.versions),
        aaguid=str(info.aaguid) if info.aaguid else "",
        has_pin=has_pin,
        pin_attempts_left=ClientPin(ctap).get_pin_retries()[0] if has_pin else -1,
        has_built_in_uv=has_uv,
        is_always_uv=always,
        must_verify_user=always
        or ((has_pin or has_uv) and not options.get("makeCredUvNotRqd", False)),
        can_be_discoverable=options.get("rk", False),
    )


def _find_held(
    ctap: Ctap2, credentials: Sequence[Credential], canceled: Event
) -> tuple[Credential, ...]:
    """Find the credentials that a key holds, as many in one question as it takes."""
    held: list[Credential] = []
    for rp_id in dict.fromkeys(one.rp_id for one in credentials):
        theirs = [one for one in credentials if one.rp_id == rp_id]
        for batch in _batches(theirs, ctap.info):
            if canceled.is_set():
                return tuple(held)
            held += _find_in_batch(ctap, batch, canceled)
    return tuple(held)


def _batches(credentials: Sequence[Credential], info: Info) -> Iterator[list[Credential]]:
    """Go through the credentials in lists that one message holds."""
    room = max(info.max_msg_size - _OVERHEAD, 1)
    count_max = info.max_creds_in_list or len(credentials)
    batch: list[Credential] = []
    size = 0
    for credential in credentials:
        more = len(credential.id) + _DESCRIPTOR
        if batch and (size + more > room or len(batch) >= count_max):
            yield batch
            batch, size = [], 0
        batch.append(credential)
        size += more
    if batch:
        yield batch


def _find_in_batch(ctap: Ctap2, batch: list[Credential], canceled: Event) -> list[Credential]:
    """Ask again without what was found, until nothing is; a key that lies ends it."""
    left, held = {one.id: one for one in batch}, []
    while left:
        found = _find_one(ctap, list(left.values()), canceled)
        if found is None or found not in left:
            break
        held.append(left.pop(found))
    return held


def _find_one(ctap: Ctap2, credentials: list[Credential], canceled: Event) -> bytes | None:
    """Ask without a touch (CTAP 2.1, section 6.2.2, "up": false)."""
    try:
        response = ctap.get_assertion(
            credentials[0].rp_id,
            bytes(32),
            [describe_credential(one) for one in credentials],
            options={"up": False},
            event=canceled,
        )
    except CtapError as error:
        if error.code == _NO_CREDENTIALS:
            return None
        raise
    # A key may leave the id out where there was one to choose from.
    return bytes((response.credential or describe_credential(credentials[0]))["id"])


def _holds_by_u2f(opened: SecurityKey, credential: Credential) -> bool:
    if len(credential.id) > 255:  # noqa: PLR2004 - U2F, section 5.1: one byte of length
        return False
    try:
        Ctap1(opened).authenticate(
            bytes(32), application_parameter(credential.rp_id), credential.id, check_only=True
        )
    except ApduError as error:
        return error.code == APDU.USE_NOT_SATISFIED  # "yes, if it were touched"
    return False


def _make_by_ctap2(ctap: Ctap2, wanted: NewCredential, canceled: Event) -> Made | Untouched:
    if wanted.method is Method.PIN and not wanted.pin:
        return Untouched(End.WRONG_PIN)  # CVE-2021-31924: an empty PIN is not "no PIN"
    same = [one for one in wanted.excluded if one.rp_id == wanted.rp_id]
    # What the key holds is all that it need exclude: the whole list may be too long for it.
    excluded = _find_held(ctap, same, canceled)
    permission = ClientPin.PERMISSION.MAKE_CREDENTIAL
    use = TokenUse(wanted.method, wanted.pin, permission, wanted.rp_id, wanted.client_data_hash)
    verification = verify_user(ctap, use, canceled)
    options: dict[str, Any] = dict(verification.pop("options", {}))
    if wanted.is_discoverable:
        options["rk"] = True
    made = ctap.make_credential(
        wanted.client_data_hash,
        {"id": wanted.rp_id, "name": wanted.rp_id},
        {"id": wanted.user_handle, "name": _cut(wanted.user), "displayName": _cut(wanted.user)},
        [{"type": "public-key", "alg": one} for one in wanted.algorithms],
        [describe_credential(one) for one in excluded] or None,
        options=options or None,
        event=canceled,
        **verification,
    )
    return Made(bytes(AttestationObject.create(made.fmt, made.auth_data, made.att_stmt)))


def _cut(name: str) -> str:
    raw = name.encode("utf-8", "replace")[:_NAME_MAX]
    return raw.decode("utf-8", "ignore")


def _make_by_u2f(opened: SecurityKey, wanted: NewCredential, canceled: Event) -> Made | Untouched:
    same = [one for one in wanted.excluded if one.rp_id == wanted.rp_id]
    if any(_holds_by_u2f(opened, one) for one in same):
        return Untouched(End.EXCLUDED)
    if wanted.is_discoverable or wanted.method is not Method.NONE:
        return Untouched(End.UNSUPPORTED)
    parameter = application_parameter(wanted.rp_id)
    give_up_at = time.monotonic() + wanted.seconds
    while time.monotonic() < give_up_at:
        try:
            made = Ctap1(opened).register(wanted.client_data_hash, parameter)
        except ApduError as error:
            if error.code != APDU.USE_NOT_SATISFIED:
                return Untouched(End.FAULTY, detail=f"U2F status {error.code:#06x}")
            if canceled.wait(CHECK_INTERVAL):
                return Untouched(End.CANCELED)
            continue
        return Made(bytes(AttestationObject.from_ctap1(parameter, made)))
    return Untouched(End.TIMED_OUT)
