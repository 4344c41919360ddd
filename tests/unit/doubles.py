# SPDX-License-Identifier: Apache-2.0
"""Stand-ins and makers for the unit layer: a clock, a store in memory, devices, frames.

Codes are computed here from the two RFCs with the standard library alone, so that nothing under
test makes its own expected values.
"""

import datetime
import gc
import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import settings

from pam_mfa.audit import Event, EventName, Outcome, Reason
from pam_mfa.devices import VirtualDevice
from pam_mfa.errors import BrokenSystemError
from pam_mfa.lockout import LockState
from pam_mfa.mfa_age import Verified
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.policy import AuditRules, StoreRules
from pam_mfa.secret import Secret
from pam_mfa.store import (
    AdministratorsStore,
    Change,
    Claim,
    Enrollment,
    Known,
    OpenDevice,
    Standing,
)
from pam_mfa.store.enrollment import DeviceState
from pam_mfa.store.layout import Layout
from pam_mfa.verification import Ask, Attempt, Commit, Listen, Verdict
from pam_mfa.wire import Phase, Request

# A loaded machine is slow and not wrong, and the tests must not need to write into their folder.
settings.register_profile("unit", deadline=None, database=None)
settings.load_profile("unit")

REPOSITORY = Path(__file__).resolve().parent.parent.parent
VECTORS = REPOSITORY / "tests/vectors"
START = 1_700_000_045.0  # five seconds into a time step of 30 s and into one of 60 s
STEP = 56_666_668  # the time step of 30 s that START lies in
SEED = Secret(bytes(range(20)))
OTHER_SEED = Secret(bytes(range(100, 120)))
NONCE = bytes(range(200, 216))


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self, now: float = START) -> None:
        """Start at a moment."""
        self.now = now

    def __call__(self) -> float:
        """Return the seconds since the epoch."""
        return self.now


def code_of(seed: Secret, step: int, parameters: Parameters = Parameters()) -> str:  # noqa: B008
    """Return the code of a time step, by RFC 4226, section 5.3."""
    hashes = {Algorithm.SHA1: "sha1", Algorithm.SHA256: "sha256", Algorithm.SHA512: "sha512"}
    name = hashes[parameters.algorithm]
    digest = hmac.new(seed.reveal(), step.to_bytes(8, "big"), getattr(hashlib, name)).digest()
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**parameters.digits:0{parameters.digits}d}"


def make_device(
    name: str = "phone",
    *,
    user: str = "alice",
    parameters: Parameters = Parameters(),  # noqa: B008 - immutable
    sealed_seed: str = "sealed:v1:AAAA",
) -> VirtualDevice:
    """Return a virtual device as the lifecycle makes it."""
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    return VirtualDevice(f"virtual/{user}/{name}", name, moment, parameters, sealed_seed)


def open_device(
    name: str = "phone",
    seed: Secret = SEED,
    parameters: Parameters = Parameters(),  # noqa: B008 - immutable
) -> OpenDevice:
    """Return a device with its seed."""
    return OpenDevice(make_device(name, parameters=parameters), seed)


def enrolled(*devices: OpenDevice, problem: str = "") -> Enrollment:
    """Return the enrollment of Alice."""
    return Enrollment("alice", Standing.ENROLLED, devices or (open_device(),), problem=problem)


DECOY = OpenDevice(make_device("decoy", user="?"), Secret(bytes(20)))
NOT_ENROLLED = Enrollment("?7", Standing.NOT_ENROLLED, (DECOY,))
UNREADABLE = Enrollment("?8", Standing.UNREADABLE, (DECOY,), problem="the file is torn")


class MemoryStore:
    """A ``Store`` without a disk."""

    def __init__(self, **enrollments: Enrollment) -> None:
        """Know these users; everybody else is not enrolled."""
        self.enrollments = enrollments
        self.locks: dict[str, LockState] = {}
        self.used_steps: dict[str, int] = {}
        self.events: list[Event] = []
        self.looked_up: list[str] = []
        self.claims: list[Claim] = []
        self.failure: BrokenSystemError | None = None
        self.taken_away: list[object] = []
        self.audit_rules = AuditRules()
        self.policies: list[tuple[str, bool]] = []
        self.signings: list[bool] = []
        self.remembered: list[Verified] = []

    def read_enrollment(self, user: str) -> Enrollment:
        """Return what a user can be verified by."""
        self.looked_up.append(user)
        return self.enrollments.get(user, NOT_ENROLLED)

    def has_device(self, user: str, device: object, version: tuple[int, ...]) -> bool:
        """Whether nobody has taken the device away."""
        del user, version
        return device not in self.taken_away

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims one after the other, or fail as told."""
        if self.failure is not None:
            raise self.failure
        return [self._judge(claim) for claim in claims]

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return the last used step of each device that has one."""
        return {
            serial_number: DeviceState(self.used_steps[serial_number])
            for serial_number in serial_numbers
            if serial_number in self.used_steps
        }

    def code_hash(self, code: str, user: str, serial_number: str) -> str:
        """Return what no two codes share."""
        return f"{user}/{serial_number}/{code}"

    def close(self) -> None:
        """Nothing is open."""

    def follow(self, rules: AuditRules, tell: Callable[[BrokenSystemError], None]) -> None:
        """Keep in mind how records are to be kept."""
        del tell
        self.audit_rules = rules

    def note_policy(self, digest: str, *, is_accepted: bool) -> None:
        """Keep in mind what policy is to be recorded."""
        self.policies.append((digest, is_accepted))

    patience = 0.0

    def open(self) -> None:
        """Nothing is to be opened."""

    def choose(self, rules: StoreRules) -> None:
        """Be the store, whatever policy says."""
        del rules

    def require_desk(self) -> AdministratorsStore:
        """Take nobody's device."""
        raise BrokenSystemError("devices are not changed from here")

    def follow_up(self, *, must_sign: bool = False) -> None:
        """Count how often signing was thought of."""
        self.signings.append(must_sign)

    def pseudonym(self, text: str) -> str:
        """Return the same for every text of one length."""
        return f"pseudonym-{len(text)}"

    def _judge(self, claim: Claim) -> Change:
        self.claims.append(claim)
        used = {key: self.used_steps[key] for key in claim.serial_numbers if key in self.used_steps}
        before = self.locks.get(claim.user_key, LockState())
        mine = tuple(one for one in self.remembered if one.user_key == claim.user_key)
        change = claim.judge(Known(before, used, mine if claim.asks_memory else ()))
        if change.memory is not None:
            self.remembered.append(change.memory.verified)
        if change.lock is not None:
            if change.lock.locked_until > before.locked_until:
                self.remembered = [one for one in self.remembered if one not in mine]
            self.locks[claim.user_key] = change.lock
        for key, step in change.used_steps.items():
            self.used_steps[key] = max(step, self.used_steps.get(key, -1))
        self.events += change.events
        return change


def make_request(user: str = "alice", **items: Any) -> Request:  # noqa: ANN401 - any field
    """Return a request of an account's login; ``uid=None`` for a name that no account has."""
    fields: dict[str, Any] = {
        "nonce": NONCE, "phase": Phase.AUTH, "user": user, "service": "sshd", "uid": 1000,
        "tty": "ssh", "rhost": "192.0.2.7", "ruser": "bob",
    }  # fmt: skip
    return Request(**(fields | items))


def drive(
    attempt: Attempt, store: MemoryStore, answers: Iterable[str | Reason]
) -> tuple[list[str], Verdict]:
    """Carry an attempt to its end; return its needs in their order, by name, and the verdict."""
    needs: list[str] = []
    replies: Iterator[str | Reason] = iter(answers)
    reply: object = None
    while True:
        try:
            need = attempt.send(reply)
        except StopIteration as end:
            verdict: Verdict = end.value
            return needs, verdict
        needs.append(type(need).__name__)
        if isinstance(need, Listen):
            reply = next(replies)
        elif isinstance(need, Commit):
            reply = store.commit([need.claim])[0]
        else:
            assert isinstance(need, Ask)
            reply = None


def encode_frame(
    kind: int, fields: Iterable[tuple[int, bytes]], *, nonce: bytes = NONCE, version: int = 1
) -> bytes:
    """Return a frame as ``pam_mfa/wire.py`` describes it."""
    parts = [bytes((version, kind)), nonce]
    for tag, value in fields:
        parts += [bytes((tag,)), len(value).to_bytes(2, "big"), value]
    return b"".join(parts)


def encode_request(request: Request) -> bytes:
    """Return a request's frame, its empty texts left out and its timeout last."""
    texts = (
        (3, request.service), (4, request.user), (6, request.tty), (7, request.rhost),
        (8, request.ruser), (9, request.ssh_auth_info), (10, request.ssh_connection),
    )  # fmt: skip
    fields = [(1, number(request.phase)), (2, number(request.flags))]
    fields += [
        (tag, text.encode("utf-8", "surrogateescape")) for tag, text in texts if text or tag == 4
    ]
    if request.uid is not None:
        fields.append((5, number(request.uid)))
    if request.descriptor_kinds:
        fields.append((12, request.descriptor_kinds))
    fields.append((11, number(request.timeout)))
    return encode_frame(1, fields, nonce=request.nonce)


def encode_answer(text: str, *, nonce: bytes = NONCE) -> bytes:
    """Return an answer's frame."""
    return encode_frame(2, [(2, text.encode("utf-8", "surrogateescape"))], nonce=nonce)


def number(value: int) -> bytes:
    """Return a number as it stands in a field."""
    return value.to_bytes(4, "big")


def make_layout(root: Path) -> Layout:
    """Return the paths under a root, with the directories that the service user's are."""
    layout = Layout(root)
    for directory in (layout.policy.parent, layout.devices, layout.audit_log.parent, layout.run):
        directory.mkdir(parents=True)
    layout.library.chmod(0o700)
    return layout


def make_event(user: str = "alice", **items: Any) -> Event:  # noqa: ANN401 - any field
    """Return a record of a wrong code."""
    return Event(
        EventName.VERIFY_MFA,
        Outcome.DENIED,
        Reason.WRONG_CODE,
        START,
        user=user,
        phase="auth",
        mode="enforce",
        caller_uid=0,
        caller_pid=4321,
    )._replace(**items)


def count_descriptors() -> int:
    """Return how many descriptors this process has, without what waits for its collection."""
    gc.collect()  # an earlier test's garbage, gone in the middle of this one, would be counted
    return len(list(Path("/proc/self/fd").iterdir()))
