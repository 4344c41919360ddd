# SPDX-License-Identifier: Apache-2.0
"""Logins by an attached security key: which key is touched, what is said, and who is not asked."""

import threading
import time
from collections.abc import Iterator

import pytest
from doubles import make_request
from key_bench import (
    BY_CODE,
    CODE,
    CODE_PROMPT,
    KEY_OR_CODE_PROMPT,
    PATIENCE,
    ROOT,
    SUCCESS,
    TOUCH_TEXT,
    Login,
    enroll,
    enroll_by_u2f,
    give_key,
    login_at_bench,
    set_pin,
)
from security_key.model import CTAP2_0, U2F_ONLY, Model
from security_key.person import Touch

from pam_mfa.audit import Outcome, Reason
from pam_mfa.policy import UserVerification
from pam_mfa.store import Enrollment, Standing
from pam_mfa.verification import NEXT_PROMPT, Caller, Verdict, attempt
from pam_mfa.wire import Phase, Result

IGNORED = Result.IGNORE


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    """A login at a machine without keys."""
    with login_at_bench(monkeypatch) as login:
        yield login


def test_touch_is_enough(login: Login) -> None:
    """An attached key is named and touched once, and no code is asked for."""
    key = give_key(login)
    shown = login.run()
    assert ([TOUCH_TEXT], [], SUCCESS) == (shown.texts, shown.prompts, shown.verdict)
    assert 1 == key.counters["touches"]


def test_record_of_a_touch(login: Login) -> None:
    """The record names the key, and its count is stored before success is told."""
    give_key(login)
    login.run()
    [event] = login.store.events
    assert event.device is not None
    assert ("fido/alice/blue-key", Outcome.SUCCESS) == (event.device.serial_number, event.outcome)
    assert event.sign_count == login.store.used_steps["fido/alice/blue-key"]
    assert event.sign_count is not None
    assert event.sign_count > 0


@pytest.mark.parametrize("model", [Model(), CTAP2_0, Model(pin_protocols=(1,))])
def test_kinds_of_keys(login: Login, model: Model) -> None:
    """Keys of CTAP 2.0 and 2.1 verify."""
    give_key(login, model)
    assert SUCCESS == login.run().verdict


def test_discoverable_credential(login: Login) -> None:
    """A discoverable credential, which comes with its user handle, verifies."""
    key = login.bench.make()
    login.enroll(enroll(key, rk=True))
    login.bench.attach(key)
    assert SUCCESS == login.run().verdict


@pytest.mark.parametrize("rp_id", ["pam-mfa", "pam://host.example"])
def test_u2f_only_key(login: Login, rp_id: str) -> None:
    """A key that speaks U2F alone verifies too, with its credential's own relying party."""
    key = login.bench.make(U2F_ONLY)
    login.enroll(enroll_by_u2f(key, rp_id=rp_id))
    login.bench.attach(key)
    key.person.delay = 0.05
    shown = login.run()
    assert ([TOUCH_TEXT], SUCCESS) == (shown.texts, shown.verdict)


def test_u2f_credential_on_a_newer_key(login: Login) -> None:
    """A credential that was made by U2F verifies on a key that speaks CTAP2, too."""
    key = login.bench.make()
    login.enroll(enroll_by_u2f(key, rp_id="pam://host.example"))
    login.bench.attach(key)
    assert SUCCESS == login.run().verdict


@pytest.mark.parametrize(
    "items", [{"rhost": "192.0.2.7"}, {"service": "sshd"}, {"ssh_connection": "a 1 b 2"}]
)
def test_remote_user_is_not_asked_for_a_key(login: Login, items: dict[str, object]) -> None:
    """Who comes over the network is asked for a code at once, though the key is attached."""
    give_key(login)
    shown = login.run(CODE, **items)
    assert (["Ask", "Listen", "Commit"], [CODE_PROMPT], BY_CODE) == (
        [type(need).__name__ for need in shown.needs], shown.prompts, shown.verdict,
    )  # fmt: skip
    assert 0 == login.bench.opened


def test_sudo_inside_an_ssh_session_makes_nobodys_key_blink(login: Login) -> None:
    """Who runs su or sudo in a session from another machine is asked for a code alone."""
    give_key(login)
    login.bench.machine = login.bench.machine._replace(
        is_remote=lambda uid, session: (uid, session) == (ROOT.login_uid, ROOT.login_session)
    )
    shown = login.run(CODE, service="sudo", tty="/dev/pts/3", ruser="mallory")
    assert ([CODE_PROMPT], BY_CODE) == (shown.prompts, shown.verdict)
    assert 0 == login.bench.opened


def test_type_that_policy_does_not_accept(login: Login) -> None:
    """Where policy takes no keys, none is looked for."""
    give_key(login)
    login.policy = login.policy._replace(devices=("virtual",))
    shown = login.run(CODE)
    assert ([CODE_PROMPT], BY_CODE, 0) == (shown.prompts, shown.verdict, login.bench.opened)


def test_user_without_keys_opens_nobody_elses(login: Login) -> None:
    """At the console, too, a user without keys is asked for a code, and no key is opened."""
    give_key(login)
    login.enroll()
    shown = login.run(CODE)
    assert ([CODE_PROMPT], BY_CODE, 0) == (shown.prompts, shown.verdict, login.bench.opened)


@pytest.mark.parametrize("user", ["alice", "nobody-there"])
def test_remote_prompt_goes_out_before_the_user_is_looked_up(login: Login, user: str) -> None:
    """For remote callers the prompt is the first thing, whoever they are."""
    give_key(login)
    running = login.begin(user=user, rhost="192.0.2.7")
    next(running)
    assert [] == login.store.looked_up


def test_caller_that_may_not_verify_makes_no_key_blink(login: Login) -> None:
    """Who may not verify this user is refused before any key is opened."""
    give_key(login)
    request = make_request(service="login", rhost="")
    caller = Caller(1, 1001, may_verify=False)
    running = attempt(request, caller, login.policy, login.store, login.clock, login.bench.machine)
    assert ["Commit"] == [type(next(running)).__name__]
    assert 0 == login.bench.opened


@pytest.mark.parametrize("phase", [Phase.ACCOUNT, Phase.SESSION])
def test_other_phases_touch_nothing(login: Login, phase: Phase) -> None:
    """In the account and session phases there is nothing to verify."""
    give_key(login)
    shown = login.run(phase=phase)
    assert (Verdict(IGNORED), [], 0) == (shown.verdict, shown.needs, login.bench.opened)


def test_absent_key_takes_a_code(login: Login) -> None:
    """Without the key a code does, and the prompt says what else could be done."""
    login.enroll(enroll(login.bench.make()))
    shown = login.run(CODE)
    assert ([KEY_OR_CODE_PROMPT], [], BY_CODE) == (shown.prompts, shown.texts, shown.verdict)


def test_key_attached_at_the_prompt(login: Login) -> None:
    """A key that is attached while the prompt is out is used when Enter is pressed."""
    key = login.bench.make()
    login.enroll(enroll(key))

    def attach() -> str:
        login.bench.attach(key)
        return ""

    shown = login.run(attach)
    assert ([TOUCH_TEXT], SUCCESS) == (shown.texts, shown.verdict)


def test_key_attached_after_enter(login: Login) -> None:
    """Enter without a key says to attach one; one that comes in time is used."""
    key = login.bench.make()
    login.enroll(enroll(key))
    login.use(insert=PATIENCE)
    login.bench.while_waiting = lambda: login.bench.attach(key)
    shown = login.run("")
    texts = ["Attach your security key (blue-key) within 20 seconds.", TOUCH_TEXT]
    assert (texts, SUCCESS) == (shown.texts, shown.verdict)


def test_foreign_key_does_not_end_the_wait(login: Login) -> None:
    """While the right key is waited for, another one may come and go."""
    key, foreign = login.bench.make(), login.bench.make()
    login.enroll(enroll(key), codes=False)
    login.use(insert=PATIENCE)

    def come_and_go() -> None:
        login.bench.attach(foreign)
        threading.Timer(0.1, login.bench.attach, [key]).start()

    login.bench.while_waiting = come_and_go
    assert SUCCESS == login.run().verdict
    assert 0 == foreign.counters["touches"]


def test_enter_without_a_key_says_so(login: Login) -> None:
    """Enter without a key says that none is attached, and a code still does."""
    login.enroll(enroll(login.bench.make()))
    shown = login.run("", CODE)
    assert "None of your security keys is attached to this machine." == shown.texts[-1]
    assert ([KEY_OR_CODE_PROMPT, NEXT_PROMPT], BY_CODE) == (shown.prompts, shown.verdict)
    assert [Reason.KEY_ABSENT, Reason.CODE_ACCEPTED] == login.reasons()


def test_enter_is_no_guess(login: Login) -> None:
    """Enter in the place of a code counts toward no lock."""
    login.enroll(enroll(login.bench.make()))
    login.use(insert=0.01)
    for _ in range(4):
        login.run("", "", "")
    assert {} == login.store.locks


def test_only_key_absent_is_refused(login: Login) -> None:
    """A user with nothing but an absent key is told to attach it, and is refused in the end."""
    login.enroll(enroll(login.bench.make()), codes=False)
    shown = login.run("123456", "123456", "123456")
    assert "Attach your security key (blue-key) within 0 seconds." == shown.texts[0]
    assert Result.DENIED == shown.verdict.result
    assert Reason.NO_ACCEPTABLE_DEVICE == login.reasons()[-1]


def test_untouched_key_goes_on_to_a_code(login: Login) -> None:
    """A key that nobody touches ends after policy's time, and a code is asked for."""
    key = give_key(login)
    key.person.touch = Touch.WAIT
    login.use(touch=0.3)
    shown = login.run(CODE)
    assert [TOUCH_TEXT, "Your security key (blue-key) was not touched in time."] == shown.texts
    assert ([CODE_PROMPT], BY_CODE) == (shown.prompts, shown.verdict)
    assert [Reason.KEY_TIMED_OUT, Reason.CODE_ACCEPTED] == login.reasons()
    assert key.counters["cancels"]


def test_enter_after_an_untouched_key_asks_again(login: Login) -> None:
    """Who was too slow can press Enter for another touch."""
    key = give_key(login)
    key.person.touch = Touch.WAIT
    login.use(touch=0.2)

    def come_back() -> str:
        key.person.touch = Touch.YES
        return ""

    assert SUCCESS == login.run(come_back).verdict


def test_refused_by_its_button(login: Login) -> None:
    """A key that the person tells to refuse goes on to a code."""
    give_key(login).person.touch = Touch.NO
    shown = login.run(CODE)
    assert "Your security key (blue-key) was told to refuse." == shown.texts[-1]
    assert BY_CODE == shown.verdict


def test_another_users_key_is_not_touched(login: Login) -> None:
    """A key without a credential of this user stays dark."""
    other = login.bench.make()
    login.enroll(enroll(login.bench.make()))
    enroll(other, user="bob")
    login.bench.attach(other)
    touches = other.counters["touches"]
    assert BY_CODE == login.run(CODE).verdict
    assert touches == other.counters["touches"]


def test_one_key_of_two_users(login: Login) -> None:
    """One key serves two users, each with a count of its own."""
    key = give_key(login)
    bobs = enroll(key, "blue-key", "bob")
    login.store.enrollments["bob"] = Enrollment("bob", Standing.ENROLLED, (), security_keys=(bobs,))
    assert [SUCCESS] * 3 == [login.run(user=user).verdict for user in ("alice", "bob", "alice")]
    assert {"fido/alice/blue-key", "fido/bob/blue-key"} == set(login.store.used_steps)


def test_right_one_of_several_keys(login: Login) -> None:
    """Of several attached keys only the one that holds a credential is touched, once."""
    keys = [login.bench.make() for _ in range(3)]
    login.enroll(enroll(keys[1]), enroll(login.bench.make(), "absent-key"))
    login.bench.attach(*keys)
    before = [each.counters["touches"] for each in keys]
    shown = login.run()
    after = [each.counters["touches"] for each in keys]
    assert ([TOUCH_TEXT], SUCCESS) == (shown.texts, shown.verdict)
    assert [0, 1, 0] == [late - early for early, late in zip(before, after, strict=True)]


def test_first_touch_of_two_keys_wins(login: Login) -> None:
    """Two keys of the user blink; the touched one logs in and the other is canceled."""
    blue, green = login.bench.make(), login.bench.make()
    login.enroll(enroll(blue), enroll(green, "green-key"))
    login.bench.attach(blue, green)
    blue.person.touch = Touch.WAIT
    green.person.delay = 0.2
    started = time.monotonic()
    shown = login.run()
    assert time.monotonic() - started < PATIENCE
    assert ["Touch your security key (blue-key or green-key)."] == shown.texts
    assert (SUCCESS, 1) == (shown.verdict, blue.counters["cancels"])
    event = login.store.events[-1]
    assert event.device is not None
    assert "fido/alice/green-key" == event.device.serial_number


@pytest.mark.parametrize("model", [None, CTAP2_0])
def test_selected_of_two_keys_with_pins(login: Login, model: Model | None) -> None:
    """Where a PIN is wanted, a first touch says of which of two keys."""
    blue, green = login.bench.make(model), login.bench.make(model)
    login.enroll(enroll(blue), enroll(green, "green-key"))
    login.bench.attach(blue, green)
    for each in (blue, green):
        set_pin(each)
    blue.person.touch = Touch.WAIT
    login.use(user_verification=UserVerification.REQUIRED)
    shown = login.run("4711")
    assert [
        "Touch the security key to use (blue-key or green-key).",
        "Touch your security key (green-key).",
    ] == shown.texts
    assert (["PIN of your security key (green-key): "], SUCCESS) == (shown.prompts, shown.verdict)


def test_nobody_selects(login: Login) -> None:
    """Where none of two keys is touched, a code is asked for."""
    keys = [login.bench.make(), login.bench.make()]
    login.enroll(enroll(keys[0]), enroll(keys[1], "green-key"))
    login.bench.attach(*keys)
    for each in keys:
        set_pin(each)
        each.person.touch = Touch.WAIT
    login.use(user_verification=UserVerification.REQUIRED, touch=0.2)
    assert BY_CODE == login.run(CODE).verdict
    assert [Reason.KEY_TIMED_OUT, Reason.CODE_ACCEPTED] == login.reasons()


def test_selected_key_is_judged_by_its_own_rule(login: Login) -> None:
    """A credential that needs no PIN needs none because another attached one does."""
    blue, green = login.bench.make(), login.bench.make()
    strict = enroll(blue)._replace(user_verification="required")
    set_pin(blue)
    login.enroll(strict, enroll(green, "green-key"))
    login.bench.attach(blue, green)
    blue.person.touch = Touch.WAIT
    shown = login.run()
    assert ([], SUCCESS) == (shown.prompts, shown.verdict)


def test_back_under_another_name(login: Login) -> None:
    """A key that was pulled out and comes back as another node is found again."""
    key = give_key(login)
    assert SUCCESS == login.run().verdict
    login.bench.detach(key)
    login.bench.replug(key)
    assert ["hidraw1"] == list(login.bench.ports)
    assert SUCCESS == login.run().verdict


def test_pulled_out_in_the_ceremony(login: Login) -> None:
    """A key that is pulled out while it blinks is said to be, and a code does."""
    key = give_key(login)
    key.person.touch = Touch.WAIT
    login.bench.before_touch = lambda: threading.Timer(0.1, login.bench.detach, [key]).start()
    shown = login.run(CODE)
    assert "Your security key (blue-key) was pulled out." == shown.texts[-1]
    assert BY_CODE == shown.verdict
    assert [Reason.KEY_UNUSABLE, Reason.CODE_ACCEPTED] == login.reasons()


def test_pulled_out_and_put_back_in_the_ceremony(login: Login) -> None:
    """A key that comes back under another name is used at the next Enter."""
    key = give_key(login)
    key.person.touch = Touch.WAIT
    login.bench.before_touch = lambda: threading.Timer(0.1, login.bench.detach, [key]).start()

    def put_back() -> str:
        key.person.touch = Touch.YES
        login.bench.before_touch = lambda: None
        login.bench.replug(key)
        return ""

    shown = login.run(put_back)
    assert (TOUCH_TEXT, SUCCESS) == (shown.texts[-1], shown.verdict)
