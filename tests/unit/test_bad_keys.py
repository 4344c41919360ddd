# SPDX-License-Identifier: Apache-2.0
"""Keys that lie, hang or break off: each ends in a refusal, and a code still does."""

import gc
import itertools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from doubles import count_descriptors
from key_bench import (
    BY_CODE,
    CODE,
    CODE_PROMPT,
    LONG_ENOUGH,
    PIN,
    SUCCESS,
    Answer,
    Login,
    carry,
    enroll,
    enroll_by_u2f,
    give_key,
    go_wrong_at_touch,
    login_at_bench,
    wait_until,
)
from security_key.ctap import Command
from security_key.faults import Fault
from security_key.model import U2F_ONLY, Model
from security_key.person import Touch

from pam_mfa.audit import Reason
from pam_mfa.hardware.keys import Touched, Untouched
from pam_mfa.policy import UserVerification
from pam_mfa.verification import Machine
from pam_mfa.wire import Result

QUICK = 0.3  # seconds that a touch is waited for
CEREMONIES = 48

# What a key signs or says wrong, and what is found wrong with it when only the touch is bad.
LIES = {
    Fault.OTHER_CREDENTIAL: "another credential",
    Fault.UNASKED_CREDENTIAL_ID: "another credential",
    Fault.WRONG_USER_HANDLE: "another user",
    Fault.WRONG_RP_ID_HASH: "another relying party",
    Fault.NO_USER_PRESENCE: "nobody touched the key",
    Fault.BAD_SIGNATURE: "its signature is wrong",
}
BROKEN = (
    Fault.TRUNCATED_AUTH_DATA, Fault.GARBAGE, Fault.EMPTY, Fault.UNKNOWN_STATUS, Fault.DEEP_CBOR,
    Fault.LONG_CBOR, Fault.OVERSIZED_MESSAGE,
)  # fmt: skip
SILENT = (Fault.MUTE, Fault.HANG, Fault.ENDLESS_KEEPALIVES, Fault.WRONG_CHANNEL, Fault.BUSY)


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    """A login at a machine without keys, where nobody waits long for one that does not answer."""
    with login_at_bench(monkeypatch) as login:
        login.bench.hurry()
        login.use(touch=QUICK)
        yield login


@pytest.mark.parametrize("fault", LIES)
def test_lie_in_the_touch(login: Login, fault: Fault) -> None:
    """A key that was good at the look and lies in the touch is refused, and it is recorded why."""
    key = give_key(login)
    login.use(touch=LONG_ENOUGH)
    go_wrong_at_touch(login, key, fault)
    shown = login.run(CODE)
    assert "The answer of your security key (blue-key) was refused." == shown.texts[-1]
    assert ([CODE_PROMPT], BY_CODE) == (shown.prompts, shown.verdict)
    assert [Reason.UNPROVEN_ASSERTION, Reason.CODE_ACCEPTED] == login.reasons()
    assert LIES[fault] in login.details()
    assert "fido/alice/blue-key" not in login.store.used_steps


@pytest.mark.parametrize("fault", [*BROKEN, *SILENT])
def test_fault_in_the_touch(login: Login, fault: Fault) -> None:
    """A key that breaks down in the touch is said not to work, and a code does."""
    key = give_key(login)
    go_wrong_at_touch(login, key, fault)
    shown = login.run(CODE)
    assert ([CODE_PROMPT], BY_CODE) == (shown.prompts, shown.verdict)
    assert login.reasons()[0] in (Reason.KEY_UNUSABLE, Reason.KEY_TIMED_OUT)
    assert "blue-key" in shown.texts[-1]


@pytest.mark.parametrize("fault", [*LIES, *BROKEN, *SILENT])
def test_fault_from_the_look_on(login: Login, fault: Fault) -> None:
    """A key that is bad from the start ends in a clear line, and a code does."""
    give_key(login).faults.switch_on(fault)
    shown = login.run(CODE)
    assert BY_CODE == shown.verdict
    assert login.reasons()[0] in {
        Reason.UNPROVEN_ASSERTION, Reason.KEY_UNUSABLE, Reason.KEY_TIMED_OUT,
    }  # fmt: skip
    assert Reason.CODE_ACCEPTED == login.reasons()[-1]
    assert all(text.endswith(".") for text in shown.texts)


@pytest.mark.parametrize("fault", [*BROKEN, *SILENT])
def test_bad_key_beside_a_good_one(login: Login, fault: Fault) -> None:
    """A bad key of somebody else keeps nobody from using a good one."""
    bad = login.bench.make()
    bad.faults.switch_on(fault)
    login.bench.attach(bad)
    give_key(login)
    assert SUCCESS == login.run().verdict


@pytest.mark.parametrize("fault", [Fault.GARBAGE, Fault.EMPTY, Fault.LONG_CBOR, Fault.HANG])
@pytest.mark.parametrize("command", [Command.CLIENT_PIN, Command.GET_ASSERTION])
def test_fault_in_each_step_of_a_pin(login: Login, command: Command, fault: Fault) -> None:
    """Whichever command of a PIN's ceremony goes wrong, a code does."""
    key = give_key(login, pin=PIN)
    login.use(user_verification=UserVerification.REQUIRED)
    login.bench.before_touch = lambda: key.faults.switch_on(fault, during=command)
    assert BY_CODE == login.run(PIN, CODE).verdict
    assert Reason.TOUCH_ACCEPTED not in login.reasons()


@pytest.mark.parametrize("fault", [Fault.ENDLESS_KEEPALIVES, Fault.HANG, Fault.MUTE, Fault.GARBAGE])
def test_u2f_only_key_that_hangs(login: Login, fault: Fault) -> None:
    """A U2F-only key that keeps the line is left at policy's time, like any other."""
    key = login.bench.make(U2F_ONLY)
    login.enroll(enroll_by_u2f(key))
    login.bench.attach(key)
    go_wrong_at_touch(login, key, fault)
    started = time.monotonic()
    assert BY_CODE == login.run(CODE).verdict
    assert time.monotonic() - started < 10


def test_key_that_answers_each_question_late_is_left(login: Login) -> None:
    """A key that needs long for each of eight credentials is not waited for eight times."""
    key = login.bench.make(Model(processing=0.2))
    others = [enroll(login.bench.make(), f"key-{number}") for number in range(8)]
    login.enroll(*others)
    login.bench.attach(key)
    shown = login.run(CODE)
    assert BY_CODE == shown.verdict
    assert "does not answer in time" in login.details()
    assert key.counters["get_assertion"] < 4


def test_key_that_answers_each_step_of_the_touch_late_is_left(login: Login) -> None:
    """All steps of one touch together have policy's time, however many there are."""
    key = give_key(login, pin=PIN)
    login.use(user_verification=UserVerification.REQUIRED)
    login.bench.before_touch = lambda: setattr(
        key.key, "model", replace(key.key.model, processing=0.2)
    )
    assert BY_CODE == login.run(PIN, CODE).verdict
    assert key.counters["get_assertion"] == 1  # the look's


def test_busy_key_is_waited_for_briefly(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that another program releases soon is used."""
    give_key(login)
    login.use(touch=LONG_ENOUGH)
    monkeypatch.setattr("pam_mfa.hardware.attached_keys.PATIENCE", LONG_ENOUGH)
    login.bench.is_locked = True
    threading.Timer(0.1, setattr, (login.bench, "is_locked", False)).start()
    assert SUCCESS == login.run().verdict


def test_busy_key_is_said_to_be(login: Login) -> None:
    """A key that another program keeps is said to be busy, and a code does."""
    give_key(login)
    login.bench.is_locked = True
    shown = login.run(CODE)
    assert ["Another program is using the security key Software Security Key."] == shown.texts
    assert (BY_CODE, Reason.KEY_UNUSABLE) == (shown.verdict, login.reasons()[0])


def test_key_that_gets_busy_is_said_to_be(login: Login) -> None:
    """A key that another program takes between the look and the touch is said to be busy."""
    give_key(login)
    login.bench.before_touch = lambda: setattr(login.bench, "is_locked", True)
    shown = login.run(CODE)
    assert "Your security key (blue-key) is busy with another program." == shown.texts[-1]
    assert BY_CODE == shown.verdict


@pytest.mark.parametrize("fault", [None, Fault.BAD_SIGNATURE, Fault.GARBAGE])
def test_key_is_released_in_every_path(login: Login, fault: Fault | None) -> None:
    """After a login no descriptor of a key is left open, and nothing blinks."""
    key = give_key(login)
    if fault:
        go_wrong_at_touch(login, key, fault)
    login.run(*([CODE] if fault else []))
    assert wait_until(lambda: not key.wire.ends)
    assert 2 == login.bench.opened


def test_untouched_key_blinks_no_more(login: Login) -> None:
    """A key that was waited for in vain is told to stop."""
    key = give_key(login)
    key.person.touch = Touch.WAIT
    login.run(CODE)
    assert wait_until(lambda: key.server.engine.pending is None)


def test_two_logins_with_one_touch(login: Login) -> None:
    """Of two logins at once, one touch lets one in; the other goes on to a code."""
    key = give_key(login)
    login.use(touch=1.0)
    key.person.touch = Touch.ONCE
    key.person.delay = 0.2
    verdicts: list[Result] = []

    def log_in() -> None:
        answers: itertools.chain[Answer] = itertools.chain([Reason.ABANDONED])
        verdicts.append(login_once(login, answers))

    threads = [threading.Thread(target=log_in) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [Result.SUCCESS, Result.DENIED] == sorted(verdicts)
    assert 1 == login.reasons().count(Reason.TOUCH_ACCEPTED)


def login_once(login: Login, answers: Iterator[Answer]) -> Result:
    """Log in; not every answer has to be asked for."""
    return carry(login.begin(), login.store, answers).verdict.result


@pytest.mark.parametrize("error", [ImportError, OSError, MemoryError, RuntimeError])
def test_library_that_is_missing_keeps_nobody_from_a_code(
    login: Login, error: type[Exception]
) -> None:
    """Where keys cannot be asked at all (no fido2, no libudev, no threads), a code does."""
    give_key(login)

    def fail() -> object:
        raise error("no such library")

    login.bench.machine = Machine("host.example", os.urandom, fail)  # type: ignore[arg-type]
    shown = login.run(CODE)
    assert [f"Security keys cannot be used now ({error.__name__})."] == shown.texts
    assert (BY_CODE, Reason.KEY_UNUSABLE) == (shown.verdict, login.reasons()[0])


def test_fault_is_never_a_success_without_a_code(login: Login) -> None:
    """A fault of this program refuses who has nothing but a key."""
    key = give_key(login)
    login.enroll(enroll(key), codes=False)

    def fail(_: Touched | Untouched) -> Touched | Untouched:
        raise RuntimeError

    login.bench.after_touch = fail
    login.policy = login.policy._replace(prompts=1)
    assert Result.DENIED == login.run("123456").verdict.result


def test_refusal_is_recorded_before_it_is_told(login: Login) -> None:
    """Who hangs up when refusals are told has them recorded all the same."""
    key = give_key(login)
    login.use(touch=LONG_ENOUGH)
    go_wrong_at_touch(login, key, Fault.BAD_SIGNATURE)
    names = [type(need).__name__ for need in login.run(CODE).needs]
    assert ["Work", "Tell", "Work", "Commit", "Tell", "Ask"] == names[:6]


def count_open() -> tuple[int, int]:
    """Return how many descriptors and threads this process has."""
    gc.collect()
    return count_descriptors(), threading.active_count()


def test_nothing_is_left_of_many_bad_ceremonies(login: Login) -> None:
    """However keys misbehave, neither descriptors nor threads are left behind."""
    key = give_key(login)
    login.use(touch=LONG_ENOUGH)
    quick = [*LIES, *(fault for fault in BROKEN if fault is not Fault.OVERSIZED_MESSAGE)]
    login.run()
    assert wait_until(lambda: not key.wire.ends)
    before = count_open()
    for fault in itertools.islice(itertools.cycle(quick), CEREMONIES):
        key.faults.switch_off()
        go_wrong_at_touch(login, key, fault)
        login.store.used_steps.clear()
        assert BY_CODE == login.run(CODE).verdict
    assert wait_until(lambda: not key.wire.ends)
    assert wait_until(lambda: before == count_open())
