# SPDX-License-Identifier: Apache-2.0
"""Attacks by a device at the machine: a false key, bombs, replays of good assertions."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fido2 import cbor
from key_bench import (
    BY_CODE,
    CODE,
    LONG_ENOUGH,
    PIN,
    PIN_PROMPT,
    SUCCESS,
    Login,
    enroll,
    give_key,
    login_at_bench,
    set_pin,
)
from security_key.ctap import ES256, Command
from security_key.faults import Fault
from security_key.injected import InjectedKey
from security_key.model import Model
from security_key.signing_key import generate_key

from pam_mfa.audit import Reason
from pam_mfa.hardware.keys import Touched, Untouched
from pam_mfa.policy import UserVerification

QUICK = 0.3  # seconds that a touch is waited for


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    """A login at a machine without keys, where nobody waits long for one that does not answer."""
    with login_at_bench(monkeypatch) as login:
        login.bench.hurry()
        login.use(touch=QUICK)
        yield login


def make_impostor(login: Login, genuine: InjectedKey, pin: str = "") -> InjectedKey:
    """Return a device that says it holds a key's credential, and has no private key for it."""
    impostor = login.bench.make()
    impostor.key.memory.credentials = [
        replace(each, key=generate_key(ES256)) for each in genuine.key.memory.credentials
    ]
    if pin:
        set_pin(impostor, pin)
    return impostor


def test_device_that_only_says_it_is_the_key_is_not_given_the_pin(login: Login) -> None:
    """A PIN is asked for a key that has shown that it is the enrolled one, and for no other."""
    genuine = login.bench.make()
    login.enroll(enroll(genuine))
    impostor = make_impostor(login, genuine, PIN)
    login.bench.attach(impostor)
    login.use(user_verification=UserVerification.REQUIRED)
    shown = login.run(CODE)
    assert PIN_PROMPT not in shown.prompts
    assert BY_CODE == shown.verdict
    assert "does not show that it is blue-key" in login.details()
    assert (0, 0) == (impostor.counters["client_pin"], impostor.counters["touches"])


def test_device_that_only_says_it_is_the_key_ends_no_wait_for_it(login: Login) -> None:
    """Beside the genuine key an impostor neither blinks nor takes the first touch."""
    genuine = login.bench.make()
    login.enroll(enroll(genuine))
    impostor = make_impostor(login, genuine)
    login.bench.attach(impostor, genuine)
    genuine.person.delay = 0.1
    login.use(touch=LONG_ENOUGH)
    assert SUCCESS == login.run().verdict
    assert 0 == impostor.counters["touches"]


@pytest.mark.parametrize(
    ("command", "at_touch"),
    [
        (Command.GET_INFO, False),  # asked when the key is looked at, and not again
        (Command.GET_ASSERTION, False),
        (Command.GET_ASSERTION, True),
        (Command.CLIENT_PIN, True),
    ],
)
def test_number_in_the_place_of_bytes_takes_no_memory(
    login: Login, command: Command, *, at_touch: bool
) -> None:
    """A key that sends a number for bytes does not have this program make so many zeros."""
    key = give_key(login, pin=PIN)
    login.use(user_verification=UserVerification.REQUIRED)
    fields = {Command.GET_INFO: 3, Command.GET_ASSERTION: 2, Command.CLIENT_PIN: 2}
    bomb = b"\0" + cbor.encode({fields[command]: 2**34})
    spoil = key.faults.spoil_answer

    def send_bomb() -> None:
        key.faults.spoil_answer = (  # type: ignore[method-assign]
            lambda answer: bomb if key.faults.command == command else spoil(answer)
        )

    if at_touch:
        login.bench.before_touch = send_bomb
        answers = (PIN, CODE)
    else:
        send_bomb()
        answers = (CODE,)  # type: ignore[assignment]
    assert BY_CODE == login.run(*answers).verdict
    assert f"wrong type of value in field {fields[command]}" in login.details()


@pytest.mark.parametrize("retries", ["many", [1], {}, b"8"])
def test_attempts_left_that_are_no_number_end_no_login(login: Login, retries: object) -> None:
    """A key whose attempts left are no number is a broken key, and a code does."""
    key = give_key(login, pin=PIN)
    login.use(user_verification=UserVerification.REQUIRED)
    spoil = key.faults.spoil_answer

    def lie(answer: bytes) -> bytes:
        if key.faults.command == Command.CLIENT_PIN and answer[:3] == b"\0\xa2\x03":
            return b"\0" + cbor.encode({3: retries})
        return spoil(answer)

    key.faults.spoil_answer = lie  # type: ignore[method-assign]
    assert BY_CODE == login.run("0000", CODE).verdict
    assert Reason.KEY_UNUSABLE == login.reasons()[0]


def test_longest_device_name(login: Login) -> None:
    """What a device calls itself is only ever part of a sentence."""
    bad = login.bench.make(Model(product="x" * 64))
    bad.faults.switch_on(Fault.GARBAGE)
    login.enroll(enroll(login.bench.make()))
    login.bench.attach(bad)
    [text] = login.run(CODE).texts
    assert f"X{'x' * 63} answered garbage (ValueError)." == text


@pytest.mark.parametrize("other", [{}, {"service": "sudo"}, {"user": "bob"}])
def test_assertion_of_another_login_proves_nothing(login: Login, other: dict[str, str]) -> None:
    """An assertion that was good once, or for another service or user, is good for no more."""
    key = give_key(login)
    login.use(touch=LONG_ENOUGH)
    login.store.enrollments["bob"] = login.store.enrollments["alice"]
    kept: list[Touched | Untouched] = []

    def keep(outcome: Touched | Untouched) -> Touched | Untouched:
        kept.append(outcome)
        return outcome

    login.bench.after_touch = keep
    assert SUCCESS == login.run(**other).verdict
    login.store.used_steps.clear()  # so that it is not the count that refuses
    login.bench.after_touch = lambda _: kept[0]
    assert BY_CODE == login.run(CODE).verdict
    assert [Reason.UNPROVEN_ASSERTION, Reason.CODE_ACCEPTED] == login.reasons()[1:]
    assert key.counters["touches"] == 2


def test_touch_with_the_same_challenge_is_good_once(login: Login) -> None:
    """Were a challenge used twice, the sign count would still refuse the same assertion."""
    give_key(login)
    login.use(touch=LONG_ENOUGH)
    login.bench.machine = login.bench.machine._replace(random=bytes)
    kept: list[Touched | Untouched] = []

    def keep(outcome: Touched | Untouched) -> Touched | Untouched:
        kept.append(outcome)
        return kept[0]

    login.bench.after_touch = keep
    assert SUCCESS == login.run().verdict
    login.run(CODE)
    assert Reason.POSSIBLE_CLONE == login.reasons()[1]


def test_look_is_no_touch(login: Login) -> None:
    """What a key signs untouched at the look proves no login, whatever flags it sets."""
    give_key(login)
    login.use(touch=LONG_ENOUGH)

    def show(outcome: Touched | Untouched) -> Touched | Untouched:
        assert isinstance(outcome, Touched)
        assert outcome.holder.showing is not None
        return outcome._replace(assertion=outcome.holder.showing.assertion)

    login.bench.after_touch = show
    assert BY_CODE == login.run(CODE).verdict
    assert Reason.UNPROVEN_ASSERTION == login.reasons()[0]
