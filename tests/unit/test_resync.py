# SPDX-License-Identifier: Apache-2.0
"""Two consecutive codes bring a device back into step, and nothing less does."""

import base64
import datetime
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyotp
import pytest
from doubles import OTHER_SEED, SEED, START, STEP, Clock, code_of, make_request
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa import oath, verification
from pam_mfa.audit import Event, EventName, Outcome, Reason
from pam_mfa.devices import TokenDevice, VirtualDevice
from pam_mfa.factors import code
from pam_mfa.lockout import LockoutRule, LockState
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.policy import Policy
from pam_mfa.secret import Secret
from pam_mfa.store import Change, Claim, DeviceState, Enrollment, Known, OpenDevice, Standing
from pam_mfa.verification import Ask, Caller, Commit, Listen, Tell, Verdict
from pam_mfa.wire import Request, Result

ROOT = Caller(pid=4321, uid=0, may_verify=True)
ENABLED = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
DAY = 2880  # time steps of 30 s
FAR = STEP + 100  # a time step far outside the window
PROMPTS = [
    "Verification code: ",
    *["Verification code (the next one that your device shows): "] * 2,
]
OATHTOOL = shutil.which("oathtool")
needs_oathtool = pytest.mark.skipif(OATHTOOL is None, reason="oathtool is not installed")
PARAMETERS = pytest.mark.parametrize(
    "parameters",
    [Parameters(algorithm, digits) for algorithm in Algorithm for digits in oath.DIGITS],
    ids=lambda parameters: f"{parameters.algorithm}-{parameters.digits}",
)


def phone(seed: Secret = SEED, name: str = "phone", period: int = 30) -> OpenDevice:
    """Return Alice's application, opened."""
    serial_number, parameters = f"virtual/alice/{name}", Parameters(period=period)
    return OpenDevice(VirtualDevice(serial_number, name, ENABLED, parameters, "sealed"), seed)


def event_token(step: int = -1) -> OpenDevice:
    """Return an event-based token of which the codes up to a counter were used."""
    device = TokenDevice("A-1", "token", ENABLED, Parameters(period=0), "sealed")
    return OpenDevice(device, SEED, DeviceState(step=step))


class MemoryStore:
    """A ``Store`` without a disk, which keeps each device's state."""

    patience = 0.0

    def __init__(self, *devices: OpenDevice, standing: Standing = Standing.ENROLLED) -> None:
        """Know Alice's devices."""
        self.devices, self.standing = devices, standing
        self.states = {one.device.serial_number: one.state for one in devices}
        self.lock = LockState()
        self.events: list[Event] = []

    def read_enrollment(self, user: str) -> Enrollment:
        """Return Alice's devices with their states, whoever asks."""
        opened = [one._replace(state=self.states[one.device.serial_number]) for one in self.devices]
        return Enrollment(user, self.standing, tuple(opened))

    def has_device(self, user: str, device: object, version: tuple[int, ...]) -> bool:
        """Nobody takes a device away here."""
        del user, device, version
        return True

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims one after the other."""
        return [self._judge(claim) for claim in claims]

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what is known of devices."""
        return {key: self.states[key] for key in serial_numbers if key in self.states}

    def code_hash(self, code: str, user: str, serial_number: str) -> str:
        """Return a hash that no device has."""
        return f"{code}/{user}/{serial_number}"

    def close(self) -> None:
        """Nothing is open."""

    def pseudonym(self, text: str) -> str:
        """Return the same for every text of one length."""
        return f"pseudonym-{len(text)}"

    def _judge(self, claim: Claim) -> Change:
        used = {key: one.step for key, one in self.read_devices(claim.serial_numbers).items()}
        change = claim.judge(Known(self.lock, used))
        self.lock = self.lock if change.lock is None else change.lock
        for key, step in change.used_steps.items():
            before = self.states[key]
            drift = change.drifts.get(key, before.drift)
            self.states[key] = DeviceState(max(step, before.step), drift, change.used_at)
        self.events += change.events
        return change


def drive(
    store: MemoryStore, answers: Iterable[str], policy: Policy, request: Request
) -> tuple[list[str], Verdict]:
    """Carry one attempt to its end; return what was asked and told, and the verdict."""
    attempt = verification.attempt(request, ROOT, policy, store, Clock())
    shown: list[str] = []
    replies = iter(answers)
    reply: object = None
    while True:
        try:
            need: Any = attempt.send(reply)
        except StopIteration as end:
            return shown, end.value
        reply = None
        if isinstance(need, Listen):
            reply = next(replies)
        elif isinstance(need, Commit):
            reply = store.commit([need.claim])[0]
        else:
            assert isinstance(need, Ask | Tell)
            shown.append(need.text)


def log_in(store: MemoryStore, *answers: str, **policy: Any) -> Verdict:  # noqa: ANN401
    """Run one attempt of Alice with as many prompts as there are answers."""
    rules = Policy(**{"prompts": len(answers), **policy})
    return drive(store, answers, rules, make_request())[1]


def seen(store: MemoryStore) -> list[tuple[EventName, Outcome, Reason]]:
    """Return what was recorded, in short."""
    return [(event.name, event.outcome, event.reason) for event in store.events]


def far_code(step: int = 0, seed: Secret = SEED) -> str:
    """Return the code of so many time steps after FAR."""
    return code_of(seed, FAR + step)


def by_oathtool(seed: Secret, parameters: Parameters, step: int) -> str:
    """Return a code as oathtool makes it."""
    done = subprocess.run(
        [str(OATHTOOL), f"--totp={parameters.algorithm}", "--now", f"@{step * 30}",
         "--digits", str(parameters.digits), "-"],
        input=seed.reveal().hex(), capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout.strip()


def by_pyotp(seed: Secret, parameters: Parameters, step: int) -> str:
    """Return a code as pyotp makes it."""
    key = base64.b32encode(seed.reveal()).decode("ascii")
    digest = getattr(hashlib, parameters.algorithm.value.lower())
    return pyotp.HOTP(key, digits=parameters.digits, digest=digest).at(step)


@PARAMETERS
@pytest.mark.parametrize(
    "maker", [pytest.param(by_oathtool, marks=needs_oathtool), by_pyotp], ids=["oathtool", "pyotp"]
)
def test_pair_of_another_program(
    parameters: Parameters, maker: Callable[[Secret, Parameters, int], str]
) -> None:
    """Two consecutive codes of somebody else's program are found at the second's step."""
    pair = (maker(SEED, parameters, STEP - 8), maker(SEED, parameters, STEP - 7))
    steps = range(STEP - 50, STEP + 51)
    assert oath.find_pair(SEED, parameters, pair, steps) == STEP - 7
    assert oath.find_pair(OTHER_SEED, parameters, pair, steps) is None


@given(
    st.binary(min_size=14, max_size=128).map(Secret),
    st.builds(Parameters, st.sampled_from(Algorithm), st.sampled_from(oath.DIGITS)),
    st.integers(0, 2**40), st.integers(1, 50),
)  # fmt: skip
def test_any_pair(seed: Secret, parameters: Parameters, start: int, offset: int) -> None:
    """Any pair among the steps is found, at its step or an earlier one with the same codes."""
    pair = (
        code_of(seed, start + offset - 1, parameters), code_of(seed, start + offset, parameters),
    )  # fmt: skip
    found = oath.find_pair(seed, parameters, pair, range(start, start + 51))
    assert found is not None
    made = (code_of(seed, found - 1, parameters), code_of(seed, found, parameters))
    assert (made, found <= start + offset) == (pair, True)


@pytest.mark.parametrize(
    ("first", "second"), [(5, 7), (7, 5), (6, 5), (5, 5), (5, 4), (0, 19)],
    ids=["gap", "gap back", "order", "twice", "back", "ends"],
)  # fmt: skip
def test_no_pair(first: int, second: int) -> None:
    """Two codes that do not follow each other in their order are no pair."""
    pair = (code_of(SEED, first), code_of(SEED, second))
    assert oath.find_pair(SEED, Parameters(), pair, range(20)) is None


@pytest.mark.parametrize(
    ("second", "is_found"), [(9, False), (10, False), (11, True), (19, True), (20, False)]
)
def test_ends_of_steps(second: int, is_found: bool) -> None:  # noqa: FBT001 - a table's column
    """Both codes have to lie among the steps."""
    pair = (code_of(SEED, second - 1), code_of(SEED, second))
    found = oath.find_pair(SEED, Parameters(), pair, range(10, 20))
    assert found == (second if is_found else None)


@pytest.mark.parametrize("zeros", ["0", "00"])
def test_pair_of_another_length(zeros: str) -> None:
    """Codes with zeros in front, the same as numbers, are no codes of the device."""
    pair = (zeros + code_of(SEED, 5), zeros + code_of(SEED, 6))
    assert oath.find_pair(SEED, Parameters(), pair, range(20)) is None


def test_pair_with_a_zero_in_front() -> None:
    """A code that begins with a zero is found like any other."""
    step = next(each for each in range(2000) if code_of(SEED, each).startswith("0"))
    pair = (code_of(SEED, step), code_of(SEED, step + 1))
    assert oath.find_pair(SEED, Parameters(), pair, range(2100)) == step + 1


@pytest.mark.parametrize("period", [30, 60])
@pytest.mark.parametrize(
    ("edge", "offset", "is_found"), [(-1, 0, False), (-1, 1, True), (1, 0, True), (1, 1, False)]
)
def test_a_day_either_side(period: int, edge: int, offset: int, is_found: bool) -> None:  # noqa: FBT001
    """A time-based device is found a day off, either way, and not one time step farther."""
    opened, now = phone(period=period), int(START) // period
    step = now + edge * (86400 // period) + offset
    pair = (code_of(SEED, step - 1), code_of(SEED, step))
    match = code.Match(opened.device, step, opened.device.serial_number, step - now)
    assert code.find_pair(pair, [opened], START) == ((match,) if is_found else ())


@pytest.mark.parametrize("used", [-1, 0, 41, 2**40])
@pytest.mark.parametrize(
    ("ahead", "is_found"), [(1, False), (2, True), (999, True), (1000, True), (1001, False)]
)
def test_thousand_counters(used: int, ahead: int, is_found: bool) -> None:  # noqa: FBT001
    """An event-based device is found a thousand counters on, and never at a used one."""
    opened, step = event_token(used), used + ahead
    pair = (code_of(SEED, step - 1) if step else "000000", code_of(SEED, step))
    match = code.Match(opened.device, step, "A-1")
    assert code.find_pair(pair, [opened], START) == ((match,) if is_found else ())


def test_drift_is_from_the_host_s_clock() -> None:
    """The drift found is against the host's clock, also where another was known before."""
    opened = phone()._replace(state=DeviceState(drift=40))
    (match,) = code.find_pair((far_code(), far_code(1)), [opened], START)
    assert match.drift == 101


def test_every_device_is_searched() -> None:
    """Of several devices those are found whose codes they are."""
    devices = [phone(), phone(OTHER_SEED, "tablet"), phone(SEED, "twin")]
    found = code.find_pair((far_code(), far_code(1)), devices, START)
    assert [match.device.name for match in found] == ["phone", "twin"]


def test_resync_at_login() -> None:
    """A code far outside the window and then its successor let in and are recorded as both."""
    store = MemoryStore(phone())
    verdict = log_in(store, far_code(), far_code(1))
    assert verdict == Verdict(Result.SUCCESS, Reason.CODE_ACCEPTED)
    assert seen(store) == [
        (EventName.VERIFY_MFA, Outcome.DENIED, Reason.WRONG_CODE),
        (EventName.VERIFY_MFA, Outcome.SUCCESS, Reason.CODE_ACCEPTED),
        (EventName.RESYNC_MFA_DEVICE, Outcome.SUCCESS, Reason.RESYNCHRONIZED),
    ]
    devices = [event.device.name for event in store.events if event.device]
    assert devices == ["phone", "phone"]


def test_resync_is_kept() -> None:
    """After it the drift is known, the second code used, and the wrong code forgotten."""
    store = MemoryStore(phone())
    log_in(store, far_code(), far_code(1))
    assert store.states["virtual/alice/phone"] == DeviceState(FAR + 1, 101, START)
    assert store.lock == LockState()


@pytest.mark.parametrize(
    ("step", "result"), [(0, Result.DENIED), (1, Result.DENIED), (2, Result.SUCCESS),
                         (3, Result.DENIED)],
)  # fmt: skip
def test_window_after_resync(step: int, result: Result) -> None:
    """After it one code alone lets in again: of the device's time, later than the used one."""
    store = MemoryStore(phone())
    log_in(store, far_code(), far_code(1))
    assert log_in(store, far_code(step)).result is result


@pytest.mark.parametrize("behind", [100, DAY - 1])
def test_resync_of_a_slow_clock(behind: int) -> None:
    """A device whose clock is behind is brought into step as well."""
    store = MemoryStore(phone())
    pair = (code_of(SEED, STEP - behind - 1), code_of(SEED, STEP - behind))
    assert log_in(store, *pair).result is Result.SUCCESS
    assert store.states["virtual/alice/phone"].drift == -behind


def test_resync_of_an_event_token() -> None:
    """A token that was pressed too often is brought into step, and has no drift."""
    store = MemoryStore(event_token(5))
    assert log_in(store, code_of(SEED, 500), code_of(SEED, 501)).result is Result.SUCCESS
    assert store.states["A-1"] == DeviceState(501, 0, START)
    assert [event.name for event in store.events][1:] == ["VerifyMfa", "ResyncMfaDevice"]


def test_resync_of_the_second_device() -> None:
    """Whichever of a user's devices is out of step, it alone is brought back."""
    store = MemoryStore(phone(), phone(OTHER_SEED, "tablet"))
    log_in(store, far_code(0, OTHER_SEED), far_code(1, OTHER_SEED))
    assert [store.states[f"virtual/alice/{name}"].drift for name in ("phone", "tablet")] == [0, 101]


@pytest.mark.parametrize("used", [1, 2, 500])
def test_used_pair(used: int) -> None:
    """A pair of which the second code, or a later one, was used is refused and mends nothing."""
    opened = phone()._replace(state=DeviceState(step=FAR + used))
    store = MemoryStore(opened)
    assert log_in(store, far_code(), far_code(1)) == Verdict(Result.DENIED, Reason.CODE_REUSED)
    assert store.states[opened.device.serial_number] == opened.state


def test_pair_again() -> None:
    """The pair that has just mended a device lets nobody else in."""
    store = MemoryStore(phone())
    log_in(store, far_code(), far_code(1))
    state = store.states["virtual/alice/phone"]
    assert log_in(store, far_code(), far_code(1)).result is Result.DENIED
    assert store.states["virtual/alice/phone"] == state


NOT_PAIRS = {
    "gap": (far_code(0), far_code(2)),
    "order": (far_code(1), far_code(0)),
    "twice": (far_code(0), far_code(0)),
    "one only": (far_code(0), "000000"),
    "two devices": (far_code(0), far_code(1, OTHER_SEED)),
    "something between": (far_code(0), "000000", far_code(1)),
    "nothing between": (far_code(0), "", far_code(1)),
    "a word between": (far_code(0), "password", far_code(1)),
    "paper between": (far_code(0), "ABCD-EFGH-IJKL-MNOP", far_code(1)),
    "a day and a step": (code_of(SEED, STEP + DAY), code_of(SEED, STEP + DAY + 1)),
}


@pytest.mark.parametrize("answers", NOT_PAIRS.values(), ids=NOT_PAIRS)
def test_no_pair_at_login(answers: Sequence[str]) -> None:
    """Codes that are not two consecutive ones, answered one after the other, mend nothing."""
    store = MemoryStore(phone(), phone(OTHER_SEED, "tablet"))
    assert log_in(store, *answers).result is Result.DENIED
    assert set(store.states.values()) == {DeviceState()}
    assert EventName.RESYNC_MFA_DEVICE not in {event.name for event in store.events}


def test_pair_at_the_second_prompt() -> None:
    """A pair may begin at the second prompt, after a typing error."""
    store = MemoryStore(phone())
    assert log_in(store, "000000", far_code(), far_code(1)).result is Result.SUCCESS


def test_pair_over_two_logins() -> None:
    """The two codes belong into one login: what two attempts saw is put together by nobody."""
    store = MemoryStore(phone())
    assert log_in(store, far_code()).result is Result.DENIED
    assert log_in(store, far_code(1)).result is Result.DENIED
    assert store.states["virtual/alice/phone"] == DeviceState()


def test_device_type_that_does_not_count() -> None:
    """A device of a type that policy leaves out is not brought into step."""
    store = MemoryStore(phone())
    verdict = log_in(store, far_code(), far_code(1), devices=("token", "recovery"))
    assert (verdict.result, store.states["virtual/alice/phone"]) == (Result.DENIED, DeviceState())


@pytest.mark.parametrize("step", [-1, 0, 1])
@pytest.mark.parametrize("wrong", [(), ("000000",)], ids=["first", "second"])
def test_single_code_teaches_no_drift(step: int, wrong: tuple[str, ...]) -> None:
    """One code at the window's edge lets in and moves the window by nothing."""
    store = MemoryStore(phone())
    assert log_in(store, *wrong, code_of(SEED, STEP + step)).result is Result.SUCCESS
    assert store.states["virtual/alice/phone"] == DeviceState(STEP + step, 0, START)
    assert EventName.RESYNC_MFA_DEVICE not in {event.name for event in store.events}


def test_locked_user() -> None:
    """While a user is locked no pair counts, and none is used up."""
    store = MemoryStore(phone())
    store.lock = LockState((), START + 1)
    assert log_in(store, far_code(), far_code(1)) == Verdict(Result.DENIED, Reason.LOCKED)
    assert (store.states["virtual/alice/phone"], store.lock) == (
        DeviceState(), LockState((), START + 1),
    )  # fmt: skip


def test_first_code_locks() -> None:
    """Where the first of the two codes is the wrong one that locks, the second does not help."""
    store = MemoryStore(phone())
    store.lock = LockState((START - 1,) * 4)
    assert log_in(store, far_code(), far_code(1)) == Verdict(Result.DENIED, Reason.LOCKED)
    assert store.states["virtual/alice/phone"] == DeviceState()


def test_guessing_pairs_locks() -> None:
    """Pairs that are tried count as wrong codes, every one."""
    store = MemoryStore(phone())
    rule = LockoutRule(3, 300.0, 900.0)
    verdict = log_in(store, "000000", "000001", "000002", "000003", lockout=rule)
    assert (verdict.reason, store.lock.locked_until) == (Reason.LOCKED, START + 900.0)


STANDINGS = {
    "enrolled": (MemoryStore(phone()), make_request()),
    "unenrolled": (MemoryStore(phone(), standing=Standing.NOT_ENROLLED), make_request()),
    "unknown": (MemoryStore(phone(), standing=Standing.NOT_ENROLLED), make_request("x", uid=None)),
    "unreadable": (MemoryStore(phone(), standing=Standing.UNREADABLE), make_request()),
}


@pytest.mark.parametrize("who", STANDINGS)
def test_prompts_are_the_same(who: str) -> None:
    """Everybody is asked for the next code in the same words, enrolled or not."""
    store, request = STANDINGS[who]
    shown, verdict = drive(store, ["000000", "", "000001"], Policy(prompts=3), request)
    assert (shown, verdict.result) == (PROMPTS, Result.DENIED)


@pytest.mark.parametrize("standing", [Standing.NOT_ENROLLED, Standing.UNREADABLE])
def test_decoy_is_not_resynchronized(standing: Standing) -> None:
    """A pair of the decoy's own codes lets nobody in."""
    store = MemoryStore(phone(), standing=standing)
    assert log_in(store, far_code(), far_code(1)).result is Result.DENIED
    assert store.states["virtual/alice/phone"] == DeviceState()


@pytest.mark.parametrize("standing", Standing)
def test_everybody_is_searched_for(standing: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search through a day of codes is made for everybody, so its time tells nothing."""
    calls: list[int] = []
    search = oath.find_pair

    def count(seed: Secret, parameters: Parameters, pair: tuple[str, str], steps: range) -> Any:  # noqa: ANN401
        calls.append(len(steps))
        return search(seed, parameters, pair, steps)

    monkeypatch.setattr(oath, "find_pair", count)
    log_in(MemoryStore(phone(), standing=standing), "000000", "000001")
    assert calls == [2 * DAY + 1]
