# SPDX-License-Identifier: Apache-2.0
"""Enabling security keys, by two touches: one makes a credential, one proves that it signs.

A part of ``lifecycle``, which is the public Python API. Owns whose a credential is and its record
in the audit log; what a key answers comes from the caller and is judged by ``factors``.
"""

import functools
import os
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from pam_mfa.audit import EventName
from pam_mfa.devices import Device, FidoDevice, require_name, serial_number_of
from pam_mfa.enabling import Enabling, KeyRefusedError, free_name, require_room
from pam_mfa.errors import RefusedError
from pam_mfa.factors.attestation import Models, Registered, Wanted, verify_registration
from pam_mfa.factors.security_key import (
    CHALLENGE_BYTES,
    RP_ID,
    Ceremony,
    Proof,
    UnprovenError,
    is_possible_clone,
    verify_assertion,
)
from pam_mfa.hardware.keys import Assertion, Credential, Made
from pam_mfa.key_models import load_models
from pam_mfa.policy import Fido, SignCount, UserVerification
from pam_mfa.secret import Secret
from pam_mfa.store import Change, Claim, Inventory, encode_user

SERVICE: Final = "pam-mfa"  # of the ceremonies
DEFAULT_NAME: Final = "security-key"
_NAME_MAX: Final = 40  # characters of a name that is made from a product's
_UNSAFE = re.compile(r"[^a-z0-9]+")


class KeyWish(NamedTuple):
    """How a security key is to be enabled."""

    name: str = ""  # "": from what the key calls itself
    is_discoverable: bool = False
    must_verify_user: bool = False  # for this credential, whatever policy says


class PendingKey(NamedTuple):
    """A security key that is not enabled yet: two touches must come first."""

    user: str
    wish: KeyWish
    fido: Fido  # policy's part
    models: Models
    creation: Ceremony  # of the first touch
    proof: Ceremony  # of the second
    own: tuple[Credential, ...]  # that the user has already
    device: FidoDevice | None = None  # after the first touch
    registered: Registered | None = None  # the same
    beside: frozenset[str] | None = None  # serial numbers that its user must still have; no others

    @property
    def must_verify_user(self) -> bool:
        """Whether the key has to verify who touches it."""
        required = self.fido.user_verification is UserVerification.REQUIRED
        return required or self.wish.must_verify_user


class KeyEnabling(Enabling):
    """How security keys come to the users of one store."""

    def begin_fido(
        self,
        user: str,
        fido: Fido = Fido(),  # noqa: B008 - immutable
        wish: KeyWish = KeyWish(),  # noqa: B008 - immutable
    ) -> PendingKey:
        """Prepare a security key for a user.

        Args:
            user: whose it is to be.
            fido: policy's part on security keys.
            wish: how it is to be enabled.

        Raises:
            RefusedError: the user has eight devices, or one of this name.
            BrokenSystemError: a file that policy names for attestation cannot be used.
        """
        devices = self.list_devices(user)
        require_room(user, wish.name or free_name(DEFAULT_NAME, devices), devices)
        return PendingKey(
            user=user,
            wish=wish,
            fido=fido,
            models=load_models(fido, self._clock()),
            creation=_ceremony(user),
            proof=_ceremony(user),
            own=tuple(
                Credential(one.credential_id, one.rp_id)
                for one in devices
                if isinstance(one, FidoDevice)
            ),
        )

    def accept_registration(self, pending: PendingKey, made: Made, product: str = "") -> PendingKey:
        """Judge the first touch; the second one is then asked of the credential in ``device``.

        Args:
            pending: from ``begin_fido``.
            made: what the key answered to its ceremony ``creation``.
            product: what the key calls itself.

        Raises:
            KeyRefusedError: it is not what was asked for; that is recorded.
        """
        wanted = Wanted(pending.creation, pending.must_verify_user, pending.models)
        try:
            registered = verify_registration(made.attestation_object, wanted)
        except UnprovenError as error:
            raise self._refuse(pending, error) from error
        devices = self.list_devices(pending.user)
        name = pending.wish.name or free_name(name_from_product(product), devices)
        device = FidoDevice(
            serial_number=serial_number_of("fido", pending.user, name),
            name=name,
            enabled_at=self._now(),
            credential_id=registered.credential_id,
            public_key=registered.public_key,
            rp_id=RP_ID,
            aaguid=registered.aaguid,
            user_verification="required" if pending.wish.must_verify_user else "",
        )
        self._require_new(pending, device, devices)
        return pending._replace(device=device, registered=registered)

    def enable_fido(self, pending: PendingKey, assertion: Assertion) -> FidoDevice:
        """Enable a security key by its second touch.

        Args:
            pending: from ``accept_registration``.
            assertion: what the key signed for its ceremony ``proof``.

        Raises:
            KeyRefusedError: it proves nothing; that is recorded.
            RefusedError: the credential is somebody's, or the name was taken meanwhile.
            DevicesChangedError: the user's devices are not those of ``pending.beside``.
            BrokenSystemError: the device could not be stored.
        """
        device, registered = pending.device, pending.registered
        if device is None or registered is None:
            raise RefusedError("the first touch has not been judged", hint="accept_registration")
        proof = self._verify_proof(pending, device, registered, assertion)
        detail = f"attestation: {registered.attestation}; model: {device.aaguid or 'not said'}"
        event = self._event(EventName.ENABLE_MFA_DEVICE, pending.user, device)
        event = event._replace(sign_count=proof.sign_count, detail=detail)
        claim = functools.partial(self._claim, pending.user, device, proof)
        self._add(pending.user, device, claim, event, pending.beside)
        return device

    def enrolled_keys(self) -> Mapping[Credential, tuple[tuple[str, FidoDevice], ...]]:
        """Return every enrolled credential, and which users have it as which device."""
        found: dict[Credential, tuple[tuple[str, FidoDevice], ...]] = {}
        for user in self._files.users():
            for device in self._files.read(user):
                if isinstance(device, FidoDevice):
                    credential = Credential(device.credential_id, device.rp_id)
                    found[credential] = (*found.get(credential, ()), (user, device))
        return found

    def credential_fingerprint(self, credential_id: bytes) -> str:
        """Return the keyed hash by which a credential is known to be somebody's."""
        return self._store.sealer.fingerprint(Secret(b"fido credential\0" + credential_id))

    def _verify_proof(
        self, pending: PendingKey, device: FidoDevice, registered: Registered, assertion: Assertion
    ) -> Proof:
        try:
            proof = verify_assertion(
                device, assertion, pending.proof, must_verify_user=pending.must_verify_user
            )
            went_back = is_possible_clone(registered.sign_count, proof.sign_count)
            if went_back and pending.fido.sign_count is SignCount.REFUSE:
                raise UnprovenError("its counter did not grow from one touch to the next")
        except UnprovenError as error:
            raise self._refuse(pending, error) from error
        return proof

    def _claim(self, user: str, device: FidoDevice, proof: Proof) -> None:
        """Make the credential this device's alone and note its count, in one transaction."""
        fingerprint = self.credential_fingerprint(device.credential_id)

        def take(inventory: Inventory) -> None:
            if inventory.find_owner(fingerprint) is not None:
                raise _taken_error()
            inventory.add_fingerprint(fingerprint, device.serial_number)
            # An older device of this name had another counter: the new one is no clone of it.
            inventory.forget_use(device.serial_number, keep_step=False)

        change = Change(
            accepted=True, events=(), used_steps={device.serial_number: proof.sign_count}
        )
        self._store.commit([Claim(encode_user(user), (), lambda _: change, take)])

    def _require_new(
        self, pending: PendingKey, device: FidoDevice, devices: tuple[Device, ...]
    ) -> None:
        own = [one.credential_id for one in devices if isinstance(one, FidoDevice)]
        fingerprint = self.credential_fingerprint(device.credential_id)
        owner = self._store.read_inventory(lambda db: db.find_owner(fingerprint))
        if device.credential_id in own or owner is not None:
            raise self._refuse(pending, _taken_error())

    def _refuse(self, pending: PendingKey, error: Exception) -> KeyRefusedError:
        """Record that a key's answer was refused, and return the error that says so."""
        self._record_unproven(pending.user, str(error))
        return KeyRefusedError(
            f"the security key was refused: {error}; nothing was enabled",
            hint="Use another key; the administrator's policy says which models may be enabled: "
            "fido: attestation."
            if pending.models.asks
            else "Try it once more; if that stays, the key is broken.",
        )


def name_from_product(product: str) -> str:
    """Return a device's name made of what a key calls itself: "YubiKey 5 NFC" -> yubikey-5-nfc."""
    name = _UNSAFE.sub("-", product.lower())[:_NAME_MAX].strip("-") or DEFAULT_NAME
    require_name(name)
    return name


def _ceremony(user: str) -> Ceremony:
    return Ceremony(os.urandom(CHALLENGE_BYTES), os.uname().nodename, SERVICE, user)


def _taken_error() -> RefusedError:
    return RefusedError("its credential is enabled on this host already")
