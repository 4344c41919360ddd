# SPDX-License-Identifier: Apache-2.0
"""Enabling SSH keys that live on a security key: by proof that the key is at hand, or vouched for.

A part of ``lifecycle``, which is the public Python API. The security key itself stays with the
user's own computer: what it signs, and what it attested when the SSH key was made, is brought here.

**Why a proof:** somebody else's public key that is enabled for a user is a back door of theirs. A
signature shows that whoever had it made has the key; that this is the user, the caller sees to.

**What is signed** is a challenge: a keyed hash of host, user, key, the time and how often this
user's key was enabled. So it is good for ``CHALLENGE_SECONDS`` to twice as long and until it is
used, and nothing has to be kept of it: whoever asks again meanwhile is given the same one.
"""

import functools
import os
from collections.abc import Callable
from typing import Final, NamedTuple

from pam_mfa.audit import EventName
from pam_mfa.devices import Device, SshKeyDevice, require_user, serial_number_of
from pam_mfa.enabling import Enabling, KeyRefusedError, free_name, require_room
from pam_mfa.errors import RefusedError
from pam_mfa.factors.attestation import Models
from pam_mfa.factors.security_key import UnprovenError
from pam_mfa.factors.ssh_attestation import Evidence, verify_ssh_attestation
from pam_mfa.key_models import load_models
from pam_mfa.policy import Fido
from pam_mfa.secret import Secret
from pam_mfa.ssh_keys import SshKey, fingerprint, format_key, require_key
from pam_mfa.ssh_possession import make_challenge, namespace_of, verify_possession
from pam_mfa.sshsig import Proof, SignatureError
from pam_mfa.store import Change, Claim, Inventory, encode_user

DEFAULT_NAME: Final = "ssh-key"
CHALLENGE_SECONDS: Final = 300
_TOKEN_DIGITS: Final = 32  # hexadecimal ones: 128 bits
_VOUCHED: Final = "vouched for, no signature"
_PROVEN: Final = "proven by a signature"


class SshKeyWish(NamedTuple):
    """How an SSH key is to be enabled."""

    name: str = ""  # "": ``DEFAULT_NAME``, with a number where it is taken
    fido: Fido = Fido()  # policy's part on security keys
    evidence: Evidence = Evidence()  # of the model; needed where ``fido`` asks for it
    may_be_in_file: bool = False  # whether a key counts that lives in a file (agent_keys: any)


class PendingSshKey(NamedTuple):
    """An SSH key that is not enabled yet: a signature must come first, or somebody's word."""

    user: str
    name: str
    key: SshKey
    namespace: str  # of the signature
    challenge: str  # what is signed, with or without a line end
    attestation: str  # for the record; "": none was shown
    beside: frozenset[str] | None = None  # serial numbers that its user must still have; no others


class SshKeyEnabling(Enabling):
    """How SSH keys come to the users of one store."""

    def begin_ssh_key(
        self,
        user: str,
        public_key: str,
        wish: SshKeyWish = SshKeyWish(),  # noqa: B008 - immutable
    ) -> PendingSshKey:
        """Prepare an SSH key of a security key for a user.

        Args:
            user: whose it is to be.
            public_key: the text of its ``.pub`` file, ``TYPE BASE64 COMMENT``.
            wish: how it is to be enabled.

        Raises:
            KeyRefusedError: what was shown of its model proves nothing, or policy does not allow
                that model; that is recorded.
            RefusedError: it is no key of a security key, the user has it already, or the user has
                eight devices; or policy asks for its model, and nothing was shown.
            BrokenSystemError: a file that policy names for attestation cannot be used.
        """
        require_user(user)
        key = require_key(public_key, may_be_in_file=wish.may_be_in_file)
        devices = self._files.read(user)
        name = wish.name or free_name(DEFAULT_NAME, devices)
        require_room(user, name, devices)
        _require_new(user, key, devices)
        attestation = self._judge_evidence(user, key, wish)
        return PendingSshKey(
            user=user,
            name=name,
            key=key,
            namespace=namespace_of(_host()),
            challenge=self._challenge(user, key, self._period(), self._count(user, key)),
            attestation=attestation,
        )

    def enable_proven_ssh_key(self, pending: PendingSshKey, signature: str) -> SshKeyDevice:
        """Enable an SSH key by its signature over the challenge, which then counts as used.

        Args:
            pending: from ``begin_ssh_key``; it need not be the one whose challenge was signed.
            signature: the text that ``ssh-keygen -Y sign -n NAMESPACE -f KEY`` makes of the
                challenge.

        Raises:
            KeyRefusedError: it proves nothing; that is recorded.
            RefusedError: the challenge was used meanwhile, or the name or key was taken.
            DevicesChangedError: the user's devices are not those of ``pending.beside``.
            BrokenSystemError: the device could not be stored.
        """
        user, key, period = pending.user, pending.key, self._period()
        count = self._count(user, key)
        challenges = [self._challenge(user, key, one, count) for one in (period, period - 1)]
        try:
            proof = verify_possession(key, signature, _host(), challenges)
        except SignatureError as error:
            raise self._refuse_ssh_key(
                user,
                f"the signature: {error}",
                hint="Ask for a new challenge, have the very key sign it, and bring the signature "
                f"within {CHALLENGE_SECONDS // 60} minutes.",
            ) from error
        use = functools.partial(self._use, pending, count, proof)
        return self._enable(pending, use, _PROVEN, proof.counter)

    def vouch_for_ssh_key(self, pending: PendingSshKey) -> SshKeyDevice:
        """Enable an SSH key because the caller vouches that it is the user's; that is recorded.

        Raises:
            RefusedError: the name or key was taken meanwhile.
            DevicesChangedError: the user's devices are not those of ``pending.beside``.
            BrokenSystemError: the device could not be stored.
        """
        return self._enable(pending, lambda: None, _VOUCHED, None)

    def enable_ssh_key(
        self, user: str, public_key: str, name: str | None = None, *, may_be_in_file: bool = False
    ) -> SshKeyDevice:
        """Enable an SSH key that the caller vouches for, of whatever model.

        Args:
            user: whose it is.
            public_key: the text of its ``.pub`` file, ``TYPE BASE64 COMMENT``.
            name: the device's; None: ``DEFAULT_NAME``, with a number where it is taken.
            may_be_in_file: whether a key counts that lives in a file (policy ``agent_keys: any``).

        Raises:
            RefusedError: it is no key of a security key, the user has it already, or the user has
                eight devices.
            BrokenSystemError: it could not be stored.
        """
        wish = SshKeyWish(name or "", may_be_in_file=may_be_in_file)
        return self.vouch_for_ssh_key(self.begin_ssh_key(user, public_key, wish))

    def _enable(
        self, pending: PendingSshKey, take: Callable[[], None], proof: str, sign_count: int | None
    ) -> SshKeyDevice:
        user, key = pending.user, pending.key
        device = SshKeyDevice(_serial_number(pending), pending.name, self._now(), key)
        event = self._event(EventName.ENABLE_MFA_DEVICE, user, device)
        parts = (proof, pending.attestation, fingerprint(key))
        detail = "; ".join(part for part in parts if part)
        event = event._replace(detail=detail, sign_count=sign_count)

        def take_new() -> None:
            _require_new(user, key, self._files.read(user))  # under the lock, now
            take()

        self._add(user, device, take_new, event, pending.beside)
        return device

    def _judge_evidence(self, user: str, key: SshKey, wish: SshKeyWish) -> str:
        """Judge an attestation file where there is one, and return words for the record."""
        models: Models = load_models(wish.fido, self._clock())
        if not wish.evidence.attestation:
            if not models.asks:
                return ""
            raise RefusedError(
                "policy asks which model of security key it is, and no attestation was shown",
                hint="It is written when the key is made: ssh-keygen -t ed25519-sk "
                "-O challenge=FILE -O write-attestation=FILE. Bring both: --attestation FILE "
                "--challenge FILE",
            )
        try:
            attested = verify_ssh_attestation(key, wish.evidence, models)
        except UnprovenError as error:
            raise self._refuse_ssh_key(
                user,
                str(error),
                hint="The administrator's policy says which models may be enabled: "
                "fido: attestation."
                if models.asks
                else "Policy does not ask for it: leave --attestation out, or bring the files "
                "that belong to this key.",
            ) from error
        return f"attestation: {attested.attestation}; model: {attested.aaguid or 'not said'}"

    def _refuse_ssh_key(self, user: str, problem: str, *, hint: str) -> KeyRefusedError:
        self._record_unproven(user, problem)
        return KeyRefusedError(
            f"the SSH key was refused: {problem}; nothing was enabled", hint=hint
        )

    def _period(self) -> int:
        return int(self._clock()) // CHALLENGE_SECONDS

    def _count(self, user: str, key: SshKey) -> int:
        """Return how often this user's key was enabled by a proof."""
        noted = _note_of(user, key)
        return self._store.read_inventory(lambda db: db.find_step(noted)) or 0

    def _challenge(self, user: str, key: SshKey, period: int, count: int) -> str:
        bound = ("ssh key challenge", _host(), user, format_key(key), str(period), str(count))
        secret = Secret("\0".join(bound).encode("utf-8", "surrogateescape"))
        token = self._store.sealer.fingerprint(secret)[:_TOKEN_DIGITS]
        return make_challenge(_host(), user, key, token)

    def _use(self, pending: PendingSshKey, count: int, proof: Proof) -> None:
        """Use the challenge up, in one transaction: of two who bring it, one comes through.

        The key's counter is noted, too: a copy of the key that counts from before is one.
        """
        noted, serial_number = _note_of(pending.user, pending.key), _serial_number(pending)

        def take(inventory: Inventory) -> None:
            if (inventory.find_step(noted) or 0) != count:
                raise RefusedError(
                    "this challenge was used meanwhile; nothing was enabled",
                    hint="Ask for a new one.",
                )

        used_steps = {noted: count + 1, serial_number: proof.counter or 0}
        change = Change(accepted=True, events=(), used_steps=used_steps)
        self._store.commit([Claim(encode_user(pending.user), (), lambda _: change, take)])


def _require_new(user: str, key: SshKey, devices: tuple[Device, ...]) -> None:
    for one in devices:
        if isinstance(one, SshKeyDevice) and one.key == key:
            raise RefusedError(f"{user} has this key already, as {one.serial_number}")


def _serial_number(pending: PendingSshKey) -> str:
    return serial_number_of("ssh-key", pending.user, pending.name)


def _note_of(user: str, key: SshKey) -> str:
    """Return under what the state counts the challenges that were used."""
    return f"challenge/{user}/{fingerprint(key)}"


def _host() -> str:
    return os.uname().nodename
