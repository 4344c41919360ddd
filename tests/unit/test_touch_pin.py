# SPDX-License-Identifier: Apache-2.0
"""User verification by a security key: its PIN, its fingerprint reader, and policy's say."""

import traceback
from collections.abc import Iterator

import pytest
from key_bench import (
    BY_CODE,
    CODE,
    CODE_PROMPT,
    PIN,
    PIN_PROMPT,
    SUCCESS,
    TOUCH_TEXT,
    Login,
    enroll,
    enroll_by_u2f,
    give_key,
    go_wrong_at_touch,
    login_at_bench,
    set_pin,
)
from security_key.faults import Fault
from security_key.model import CTAP2_0, FINGERPRINT, U2F_ONLY, Model

from pam_mfa.audit import Reason
from pam_mfa.devices import FidoDevice
from pam_mfa.hardware.keys import Touched, Untouched
from pam_mfa.policy import UserVerification
from pam_mfa.verification import Ask

NOT_RECOGNIZED = "Your security key (blue-key) did not recognize you."
OLD_FINGERPRINT = Model(versions=CTAP2_0.versions, built_in_uv=True)  # by the option "uv"


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    """A login at a machine without keys, where user verification is required."""
    with login_at_bench(monkeypatch) as login:
        login.use(user_verification=UserVerification.REQUIRED)
        yield login


@pytest.mark.parametrize("model", [Model(), CTAP2_0, Model(pin_protocols=(1,))])
def test_pin(login: Login, model: Model) -> None:
    """Where it is required, the PIN is asked for and then the touch; the record says so."""
    give_key(login, model, PIN)
    shown = login.run(PIN)
    assert ([PIN_PROMPT], [TOUCH_TEXT], SUCCESS) == (shown.prompts, shown.texts, shown.verdict)
    assert "user verified by the key" == login.details()


def test_pin_is_no_code(login: Login) -> None:
    """The PIN is asked for by itself: it is not split off a password and a code."""
    give_key(login, pin=PIN)
    asked = [need for need in login.run(PIN).needs if isinstance(need, Ask)]
    assert [Ask(PIN_PROMPT, may_follow_password=False)] == asked


def test_wrong_pin(login: Login) -> None:
    """A wrong PIN says how many attempts are left, and is asked for again."""
    give_key(login, pin=PIN)
    shown = login.run("0000", PIN)
    wrong = "Wrong PIN of your security key (blue-key); 7 attempts left before the key blocks"
    assert [TOUCH_TEXT, f"{wrong} itself.", TOUCH_TEXT] == shown.texts
    assert SUCCESS == shown.verdict


def test_one_attempt_left(login: Login) -> None:
    """The last attempt is said to be one."""
    give_key(login, pin=PIN).key.memory.pin_retries = 2
    assert "; 1 attempt left" in login.run("0000", PIN).texts[1]


def test_locked_until_replugged(login: Login) -> None:
    """After three wrong PINs the key has to be put in again, and a code does; then the PIN does."""
    key = give_key(login, pin=PIN)
    shown = login.run("0000", "0001", "0002", CODE)
    assert (
        "Too many wrong PINs: pull your security key (blue-key) out and attach it again."
        == shown.texts[-1]
    )
    assert ([PIN_PROMPT] * 3 + [CODE_PROMPT], BY_CODE) == (shown.prompts, shown.verdict)
    login.bench.detach(key)
    login.bench.replug(key)
    key.key.power_cycle()
    assert SUCCESS == login.run(PIN).verdict


def test_locked_before(login: Login) -> None:
    """A key that is locked until replugged takes the right PIN no more, and says so."""
    give_key(login, pin=PIN).key.parts.power.attempts = 0
    shown = login.run(PIN, CODE)
    assert "pull your security key (blue-key) out" in shown.texts[-1]
    assert ([PIN_PROMPT, CODE_PROMPT], BY_CODE) == (shown.prompts, shown.verdict)


@pytest.mark.parametrize("left", [0, 1])
def test_blocked_for_good(login: Login, left: int) -> None:
    """A blocked PIN is said to be, with what to do, and a code does."""
    give_key(login, pin=PIN).key.memory.pin_retries = left
    shown = login.run("0000", CODE)
    assert (
        "The PIN of your security key (blue-key) is blocked. Only a reset, which erases the key, "
        "ends that: use another device and tell your administrator."
    ) == shown.texts[-1]
    assert BY_CODE == shown.verdict
    assert [Reason.KEY_PIN_REFUSED, Reason.CODE_ACCEPTED] == login.reasons()


@pytest.mark.parametrize("required_by", ["policy", "credential"])
def test_cve_2021_31924_empty_pin_never_skips_the_pin(login: Login, required_by: str) -> None:
    """Nothing typed is no PIN: the key is not even asked, and never goes without one."""
    key = give_key(login, pin=PIN)
    if required_by == "credential":
        strict = [one._replace(user_verification="required") for one in keys_of(login)]
        login.enroll(*strict)
        login.use(user_verification=UserVerification.DISCOURAGED)
    shown = login.run("", "", "", CODE)
    assert ["The PIN is empty, so it was not tried."] * 3 == shown.texts
    assert ([PIN_PROMPT] * 3 + [CODE_PROMPT], BY_CODE) == (shown.prompts, shown.verdict)
    # The one getAssertion is the look's, which asks for no touch.
    assert (1, 0, 0) == (
        key.counters["get_assertion"], key.counters["touches"], key.counters["client_pin"],
    )  # fmt: skip


def keys_of(login: Login) -> tuple[FidoDevice, ...]:
    """Return Alice's keys."""
    return login.store.enrollments["alice"].security_keys


@pytest.mark.parametrize("pin", ["123", "471\udcff", "x" * 64, "\u00e9" * 32])
def test_what_no_key_can_have_as_pin_costs_no_attempt(login: Login, pin: str) -> None:
    """A PIN that is too short, too long or no text is not sent to the key."""
    key = give_key(login, pin=PIN)
    shown = login.run(pin, PIN)
    assert ["That cannot be a PIN, so it was not tried.", TOUCH_TEXT] == shown.texts
    assert (SUCCESS, 8) == (shown.verdict, key.key.memory.pin_retries)


def test_wrong_pins_are_no_wrong_codes(login: Login) -> None:
    """A key counts wrong PINs itself; they lock no user."""
    give_key(login, pin=PIN)
    login.run("0000", "0001", "0002", CODE)
    assert {} == {user: lock for user, lock in login.store.locks.items() if lock.failures}


@pytest.mark.parametrize("model", [FINGERPRINT, OLD_FINGERPRINT])
def test_fingerprint_comes_first(login: Login, model: Model) -> None:
    """A key that recognizes its user by itself is not asked for its PIN."""
    give_key(login, model, PIN)
    shown = login.run()
    assert ([], [TOUCH_TEXT], SUCCESS) == (shown.prompts, shown.texts, shown.verdict)
    assert "user verified by the key" == login.details()


@pytest.mark.parametrize("model", [FINGERPRINT, OLD_FINGERPRINT])
def test_wrong_finger_falls_back_to_the_pin(login: Login, model: Model) -> None:
    """A finger that is not recognized is followed by the PIN."""
    give_key(login, model, PIN).person.is_finger_right = False
    shown = login.run(PIN)
    assert [TOUCH_TEXT, NOT_RECOGNIZED, TOUCH_TEXT] == shown.texts
    assert ([PIN_PROMPT], SUCCESS) == (shown.prompts, shown.verdict)


def test_blocked_fingerprint_falls_back_to_the_pin(login: Login) -> None:
    """A reader that has given up is followed by the PIN."""
    give_key(login, FINGERPRINT, PIN).key.memory.uv_retries = 0
    shown = login.run(PIN)
    assert ([PIN_PROMPT], SUCCESS) == (shown.prompts, shown.verdict)


def test_wrong_finger_without_a_pin(login: Login) -> None:
    """A finger that is not recognized, on a key without a PIN, goes on to a code."""
    give_key(login, FINGERPRINT).person.is_finger_right = False
    shown = login.run(CODE)
    assert ([TOUCH_TEXT, NOT_RECOGNIZED], BY_CODE) == (shown.texts, shown.verdict)


@pytest.mark.parametrize("model", [Model(), CTAP2_0])
def test_key_without_a_pin_where_one_is_required(login: Login, model: Model) -> None:
    """A key without a PIN is not touched where one is required, and it is said how to set one."""
    key = give_key(login, model)
    shown = login.run(CODE)
    assert "Your security key (blue-key) has no PIN, and one is required here." in shown.texts[-1]
    assert (BY_CODE, 0) == (shown.verdict, key.counters["touches"])
    assert [Reason.KEY_PIN_REFUSED, Reason.CODE_ACCEPTED] == login.reasons()


def test_u2f_only_key_where_a_pin_is_required(login: Login) -> None:
    """A key that speaks U2F alone cannot verify its user, so it does not do."""
    key = login.bench.make(U2F_ONLY)
    login.enroll(enroll_by_u2f(key))
    login.bench.attach(key)
    assert BY_CODE == login.run(CODE).verdict
    assert Reason.KEY_PIN_REFUSED == login.reasons()[0]


def test_preferred_asks_who_has_a_pin(login: Login) -> None:
    """Where it is preferred, a key with a PIN is asked for it."""
    give_key(login, pin=PIN)
    login.use(user_verification=UserVerification.PREFERRED)
    shown = login.run(PIN)
    assert ([PIN_PROMPT], SUCCESS) == (shown.prompts, shown.verdict)


@pytest.mark.parametrize("model", [Model(), CTAP2_0])
def test_preferred_takes_a_touch(login: Login, model: Model) -> None:
    """Where it is preferred, a key without a PIN is only touched."""
    give_key(login, model)
    login.use(user_verification=UserVerification.PREFERRED)
    shown = login.run()
    assert ([], [TOUCH_TEXT], SUCCESS) == (shown.prompts, shown.texts, shown.verdict)
    assert "" == login.details()


def test_discouraged_asks_for_no_pin(login: Login) -> None:
    """Where it is discouraged, a key with a PIN is only touched."""
    give_key(login, pin=PIN)
    login.use(user_verification=UserVerification.DISCOURAGED)
    shown = login.run()
    assert ([], SUCCESS) == (shown.prompts, shown.verdict)


def test_key_that_always_verifies(login: Login) -> None:
    """A key that itself insists on its PIN is given it, whatever policy says."""
    relaxed, strict = login.bench.make(), login.bench.make(Model(always_uv=True))
    login.enroll(enroll(relaxed))
    strict.key.memory.credentials += relaxed.key.memory.credentials
    set_pin(strict)
    login.bench.attach(strict)
    login.use(user_verification=UserVerification.DISCOURAGED)
    shown = login.run(PIN)
    assert ([PIN_PROMPT], SUCCESS) == (shown.prompts, shown.verdict)


@pytest.mark.parametrize(
    "fault", [Fault.NO_USER_VERIFICATION, Fault.NO_USER_PRESENCE, Fault.BAD_SIGNATURE]
)
def test_assertion_without_what_was_asked_for(login: Login, fault: Fault) -> None:
    """A key that takes the PIN and signs without user verification proves nothing."""
    key = give_key(login, pin=PIN)
    go_wrong_at_touch(login, key, fault)
    assert BY_CODE == login.run(PIN, CODE).verdict
    assert [Reason.UNPROVEN_ASSERTION, Reason.CODE_ACCEPTED] == login.reasons()


@pytest.mark.parametrize("fault", [Fault.SHORT_PIN_TOKEN, Fault.BAD_KEY_AGREEMENT])
def test_broken_pin_protocol_goes_on_to_a_code(login: Login, fault: Fault) -> None:
    """A key that breaks the PIN protocol is told not to work, and a code does."""
    give_key(login, pin=PIN).faults.switch_on(fault)
    shown = login.run(PIN, CODE)
    assert "Your security key (blue-key) cannot be used now." == shown.texts[-1]
    assert BY_CODE == shown.verdict


def test_wrong_pin_token_ends(login: Login) -> None:
    """A key whose token is never right does not ask for the PIN for ever."""
    give_key(login, pin=PIN).faults.switch_on(Fault.WRONG_PIN_TOKEN)
    assert BY_CODE == login.run(PIN, PIN, PIN, CODE).verdict


SECRET_PIN = "91827364"


@pytest.mark.parametrize("typed", [SECRET_PIN, SECRET_PIN + "x", "\udcff" + SECRET_PIN])
@pytest.mark.parametrize("fault", [None, Fault.GARBAGE, Fault.BAD_KEY_AGREEMENT])
def test_pin_is_nowhere_to_be_read(
    login: Login,
    typed: str,
    fault: Fault | None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The PIN is in no text, need, record, log line or output, however the key behaves."""
    caplog.set_level(1)
    key = give_key(login, pin=SECRET_PIN)
    if fault:
        go_wrong_at_touch(login, key, fault)
    tries = 1 if typed == SECRET_PIN or (fault and typed.isprintable()) else 3
    shown = login.run(*[typed] * tries, *[CODE] * (typed != SECRET_PIN or bool(fault)))
    out, err = capfd.readouterr()
    written = "".join((repr(shown), *map(repr, login.store.events), caplog.text, out, err))
    assert SECRET_PIN not in written


def test_exception_that_quotes_the_pin_is_not_recorded(login: Login) -> None:
    """Of a fault of this program its kind is recorded, and not its text; a code does."""
    give_key(login, pin=SECRET_PIN)

    def fail(_: Touched | Untouched) -> Touched | Untouched:
        raise ValueError(SECRET_PIN)

    login.bench.after_touch = fail
    shown = login.run(SECRET_PIN, CODE)
    assert BY_CODE == shown.verdict
    assert "(ValueError)" in login.details()
    assert SECRET_PIN not in repr(login.store.events) + repr(shown.texts) + traceback.format_exc()
