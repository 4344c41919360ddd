# SPDX-License-Identifier: Apache-2.0
"""Proof by the ssh-agent of whoever invoked sudo or su: a security key on their own computer.

The agent is asked for its keys, and has an enrolled one sign what is to be approved. Whatever it
does, a login goes on to a code: an agent that hangs, lies or refuses must not keep its owner out.
Each end is recorded. Nothing that the agent says is believed but a signature by the enrolled key.
"""

import contextlib
import datetime
import functools
import json
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from pam_mfa.audit import Event, Outcome, Reason
from pam_mfa.devices import SshKeyDevice
from pam_mfa.factors.security_key import is_possible_clone
from pam_mfa.policy import SignCount, UserVerification
from pam_mfa.ssh_agent import AgentEnd, AgentError, Identity
from pam_mfa.ssh_keys import key_blob
from pam_mfa.sshsig import (
    Proof,
    PublicKey,
    SignatureError,
    parse_public_key,
    signed_data,
    verify_signature,
)
from pam_mfa.store import Change, Claim, Known
from pam_mfa.verification.needs import Clock, Commit, Machine, Need, Tell, Verdict, Work
from pam_mfa.verification.rules import counts_in_agent
from pam_mfa.verification.scene import Scene, make_event, refuse, refuse_key
from pam_mfa.wire import Result

if TYPE_CHECKING:  # whoever does the work has loaded it
    from threading import Event as Cancel

    from pam_mfa.ssh_agent import Agent

LIST_SECONDS: Final = 5.0  # for the list of keys, which needs nobody's touch
_NONCE_BYTES: Final = 16
_Result = TypeVar("_Result")
_Steps = Generator[Need, Any, Verdict | None]
_REASONS: Final = {
    AgentEnd.REFUSED: Reason.AGENT_REFUSED,
    AgentEnd.GONE: Reason.AGENT_UNUSABLE,
    AgentEnd.NONSENSE: Reason.AGENT_UNUSABLE,
    AgentEnd.LATE: Reason.AGENT_TIMED_OUT,
    AgentEnd.CANCELED: Reason.ABANDONED,
}
_SENTENCES: Final = {
    AgentEnd.REFUSED: (
        "Your ssh-agent refused to sign with {}: the security key is not attached there, its PIN "
        "could not be asked for (ssh-askpass), or it is bound to other hosts (ssh-add -h)."
    ),
    AgentEnd.GONE: "Your ssh-agent closed the connection.",
    AgentEnd.NONSENSE: "Your ssh-agent answered what no agent answers.",
    AgentEnd.LATE: "Your ssh-agent did not answer in time ({}).",
    AgentEnd.CANCELED: "Your ssh-agent is not waited for any more.",
}

_NO_ENROLLED_KEY: Final = "Your ssh-agent has none of your enrolled SSH keys."
_NO_KEY: Final = "Your ssh-agent has no keys: add yours with ssh-add, or unlock it (ssh-add -X)."


class _Candidate(NamedTuple):
    """An enrolled key that the agent lists."""

    device: SshKeyDevice
    key: PublicKey  # as it was enrolled, never as the agent has it
    blob: bytes  # what the agent calls it: the key, or a certificate of it


def verify_agent_signature(scene: Scene, machine: Machine, clock: Clock) -> _Steps:
    """Have an enrolled key behind the agent sign; return the success, or None to go on."""
    return (yield from _Signing(scene, machine, clock).run())


class _Signing:
    """One attempt's agent."""

    def __init__(self, scene: Scene, machine: Machine, clock: Clock) -> None:
        self._scene = scene
        self._machine = machine
        self._clock = clock

    def run(self) -> _Steps:
        for candidate in (yield from self._find()):
            yield Tell(self._instruction(candidate))
            data = signed_data(f"pam-mfa@{self._machine.host}", self._message())
            signature = yield from self._sign(candidate.blob, data)
            if not isinstance(signature, AgentError):
                return (yield from self._judge(candidate, signature, data))
            yield from self._fail(signature, candidate.device)
            if signature.end is not AgentEnd.REFUSED:
                break  # else the next key may be the one that is attached
        return None

    def _sign(self, blob: bytes, data: bytes) -> Generator[Need, Any, bytes | AgentError]:
        seconds = self._scene.policy.agent.timeout
        return (yield from self._ask(lambda agent: agent.sign(blob, data), seconds))

    def _ask(
        self, do: "Callable[[Agent], _Result]", seconds: float
    ) -> "Generator[Need, Any, _Result | AgentError]":
        """Have the agent asked something; a fault in that keeps nobody from a code."""
        open_agent = self._scene.caller.agent
        if open_agent is None:
            return AgentError(AgentEnd.GONE)

        def work(canceled: "Cancel") -> _Result | AgentError:
            try:
                return do(open_agent(seconds, canceled))
            except AgentError as error:
                return error
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no signature
                return AgentError(AgentEnd.NONSENSE, type(error).__name__)

        answer: _Result | AgentError = yield Work(work)
        return answer

    def _fail(self, error: AgentError, device: SshKeyDevice | None) -> Generator[Need, Any, None]:
        """Record and say why there is no answer."""
        yield from self._record(_REASONS[error.end], device, str(error))
        name = self._name_of(device) if device else "none of your keys"
        yield Tell(_SENTENCES[error.end].format(name))

    def _name_of(self, device: SshKeyDevice) -> str:
        """Return a device's name, for its owner; whoever runs su for somebody else learns none."""
        request = self._scene.request
        is_owner = not request.ruser or request.ruser == request.user
        return device.name if is_owner else "an enrolled key"

    def _find(self) -> Generator[Need, Any, list[_Candidate]]:
        """Return the enrolled keys that the agent lists, in the order of the devices."""
        listed = yield from self._ask(lambda agent: agent.list_identities(), LIST_SECONDS)
        if isinstance(listed, AgentError):
            yield from self._fail(listed, None)
            return []
        found = _match(self._usable_keys(), listed)
        if not found:
            detail = f"it lists {len(listed)} keys" if listed else "it lists no keys"
            yield from self._record(Reason.AGENT_KEY_ABSENT, None, detail)
            # Whoever runs su for somebody else learns nothing of that one's devices.
            if self._scene.request.ruser == self._scene.request.user:
                yield Tell(_NO_ENROLLED_KEY if listed else _NO_KEY)
        return found

    def _usable_keys(self) -> list[tuple[SshKeyDevice, PublicKey]]:
        found = []
        for device in self._scene.enrollment.ssh_keys:
            if counts_in_agent(device, self._scene.policy):
                with contextlib.suppress(SignatureError):  # of a point on no curve
                    found.append((device, parse_public_key(key_blob(device.key))))
        return found

    def _instruction(self, candidate: _Candidate) -> str:
        """Say what a touch approves, and where: CVE-2021-36368 was that nobody could tell."""
        request, name = self._scene.request, self._name_of(candidate.device)
        what = f"{request.service} on {self._machine.host}"
        if request.ruser and request.ruser != request.user:
            what = f"{what} as {request.user}"
        if not candidate.key.is_on_security_key:
            return f"Your ssh-agent is asked to approve {what} ({name})."
        return f"Touch the security key on your own computer to approve {what} ({name})."

    def _message(self) -> bytes:
        """Return what is signed: a signature for another service, user or time is none for this.

        PAM knows no command, so there is none in it.
        """
        request = self._scene.request
        values = {
            "approve": request.service,
            "host": self._machine.host,
            "user": request.user,
            "invoked_by": request.ruser,
            "tty": request.tty,
            "time": datetime.datetime.fromtimestamp(self._clock(), datetime.UTC).isoformat(),
            "nonce": self._machine.random(_NONCE_BYTES).hex(),
        }
        return json.dumps(values, separators=(",", ":")).encode("ascii")

    def _judge(self, candidate: _Candidate, signature: bytes, data: bytes) -> _Steps:
        """Judge what came as a signature, and make that durable."""
        device, policy = candidate.device, self._scene.policy
        try:
            proof = verify_signature(candidate.key, signature, data)
            if candidate.key.is_on_security_key and not proof.is_touched:
                raise SignatureError("nobody touched the security key")
            if (
                policy.fido.user_verification is UserVerification.REQUIRED
                and not proof.is_user_verified
            ):
                raise SignatureError("the security key did not verify its user")
        except SignatureError as error:
            # Before it is told: who hangs up at once is recorded, too.
            yield from self._record(Reason.UNPROVEN_SIGNATURE, device, str(error))
            yield Tell(f"The signature of your ssh-agent ({self._name_of(device)}) was refused.")
            return None
        judge = functools.partial(self._weigh, device, proof)
        claim = Claim(self._scene.enrollment.user_key, (device.serial_number,), judge)
        change: Change = yield Commit(claim)
        if change.accepted:
            return Verdict(Result.SUCCESS, Reason.AGENT_SIGNATURE_ACCEPTED)
        if change.events[0].reason is Reason.POSSIBLE_CLONE:
            yield Tell(
                f"Your security key ({self._name_of(device)}) was refused: its counter did not "
                "grow, so there may be a copy of it. Tell your administrator."
            )
        return None

    def _weigh(self, device: SshKeyDevice, proof: Proof, known: Known) -> Change:
        """Judge inside the store's transaction: the lock, and the counter."""
        now, serial_number = self._clock(), device.serial_number
        if (refusal := refuse_key(self._scene, now, known, device)) is not None:
            return refusal
        counter = proof.counter or 0
        went_back = is_possible_clone(known.used_steps.get(serial_number, -1), counter)
        if went_back and self._scene.policy.fido.sign_count is SignCount.REFUSE:
            change = refuse(self._scene, now, Reason.POSSIBLE_CLONE, known.lock, device)
            return change._replace(events=(_counted(change.events[0], proof),))
        event = make_event(
            self._scene, now, Outcome.SUCCESS, Reason.AGENT_SIGNATURE_ACCEPTED, device
        )
        events: tuple[Event, ...] = (_counted(event, proof),)
        if went_back:
            events = (*events, events[0]._replace(reason=Reason.POSSIBLE_CLONE))
        # Wrong codes stay counted: the agent is within reach of programs that a person runs, which
        # could otherwise guess codes without end, by one touch after every few.
        return Change(
            accepted=True, events=events, used_steps={serial_number: counter}, used_at=now
        )

    def _record(
        self, reason: Reason, device: SshKeyDevice | None, detail: str
    ) -> Generator[Need, Any, None]:
        event = make_event(self._scene, self._clock(), Outcome.DENIED, reason, device)
        change = Change(accepted=False, events=(event._replace(detail=detail),))
        yield Commit(Claim(self._scene.enrollment.user_key, (), lambda _: change))


def _match(
    keys: list[tuple[SshKeyDevice, PublicKey]], listed: tuple[Identity, ...]
) -> list[_Candidate]:
    """Return the enrolled keys that are listed.

    A certificate counts for the key in it, and for nothing else: whoever signed it is not asked, so
    no certificate makes a key count that is not enrolled.
    """
    blobs: dict[bytes, bytes] = {}
    for identity in listed:
        try:
            plain = parse_public_key(identity.blob).blob
        except SignatureError:
            continue
        if plain == identity.blob or plain not in blobs:
            blobs[plain] = identity.blob
    return [_Candidate(device, key, blobs[key.blob]) for device, key in keys if key.blob in blobs]


def _counted(event: Event, proof: Proof) -> Event:
    detail = "user verified by the key" if proof.is_user_verified else event.detail
    return event._replace(sign_count=proof.counter, detail=detail)
