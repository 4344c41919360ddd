# SPDX-License-Identifier: Apache-2.0
"""What policy makes of a touch: report-only, the unenrolled, and sign counts that go back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_records import read_records
from doubles import SEED, STEP, code_of, make_layout, open_device
from key_bench import (
    BY_CODE,
    CODE,
    SUCCESS,
    Login,
    carry,
    enroll,
    give_key,
    login_at_bench,
)
from security_key.person import Touch

from pam_mfa.audit import Reason
from pam_mfa.lockout import LockState
from pam_mfa.policy import Mode, SignCount, Unenrolled, UserVerification
from pam_mfa.store import Enrollment
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.verification import Verdict
from pam_mfa.wire import Result

IGNORED = Result.IGNORE


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    """A login at a machine without keys."""
    with login_at_bench(monkeypatch) as login:
        yield login


def test_report_only_touch(login: Login) -> None:
    """Where policy only reports, a touch succeeds as ever."""
    give_key(login)
    login.policy = login.policy._replace(mode=Mode.REPORT_ONLY)
    assert SUCCESS == login.run().verdict
    assert ["report-only"] == [event.mode for event in login.store.events]


def test_report_only_refuses_nobody_at_the_pin(login: Login) -> None:
    """Where policy only reports, a PIN that nobody could type in is recorded and not refused."""
    give_key(login, pin="4711")
    login.policy = login.policy._replace(mode=Mode.REPORT_ONLY)
    login.use(user_verification=UserVerification.REQUIRED)
    shown = login.run(Reason.NO_CONVERSATION)
    assert Verdict(Result.IGNORE, Reason.NO_CONVERSATION) == shown.verdict
    assert [Reason.NO_CONVERSATION] == login.reasons()


def test_pin_that_nobody_could_type_is_a_refusal(login: Login) -> None:
    """Where policy enforces, a PIN that nobody could type in refuses; it never ignores."""
    give_key(login, pin="4711")
    login.use(user_verification=UserVerification.REQUIRED)
    assert Verdict(Result.DENIED, Reason.ABANDONED) == login.run(Reason.ABANDONED).verdict


@pytest.mark.parametrize("unenrolled", [Unenrolled.ALLOW, Unenrolled.ENROLL])
def test_unenrolled_users_do_not_touch(login: Login, unenrolled: Unenrolled) -> None:
    """Who has no device is let by, where policy says so, and no key is opened."""
    give_key(login)
    login.policy = login.policy._replace(unenrolled=unenrolled)
    shown = login.run(user="bob")
    assert (IGNORED, [], 0) == (shown.verdict.result, shown.prompts, login.bench.opened)


@pytest.mark.parametrize("unenrolled", Unenrolled)
def test_enrolled_by_a_key_alone(login: Login, unenrolled: Unenrolled) -> None:
    """A user whose one device is a key is enrolled, whatever becomes of others."""
    key = give_key(login)
    login.enroll(enroll(key), codes=False)
    login.policy = login.policy._replace(unenrolled=unenrolled)
    assert SUCCESS == login.run().verdict


@pytest.mark.parametrize("unenrolled", [Unenrolled.ALLOW, Unenrolled.ENROLL])
def test_fault_of_a_key_lets_nobody_by(login: Login, unenrolled: Unenrolled) -> None:
    """Where the unenrolled are let by, an enrolled user with a dead key is not."""
    key = give_key(login)
    login.enroll(enroll(key), codes=False)
    login.policy = login.policy._replace(unenrolled=unenrolled, prompts=1)
    login.use(touch=0.1)
    key.person.touch = Touch.WAIT
    assert Result.DENIED == login.run("123456").verdict.result


def test_sign_count_that_goes_back_is_refused(login: Login) -> None:
    """A count that does not grow is refused, said and recorded as a possible clone."""
    give_key(login)
    login.store.used_steps["fido/alice/blue-key"] = 1000
    shown = login.run(CODE)
    assert "its counter went back, so there may be a copy of it" in shown.texts[-1]
    assert ([Reason.POSSIBLE_CLONE, Reason.CODE_ACCEPTED], 1000) == (
        login.reasons(), login.store.used_steps["fido/alice/blue-key"],
    )  # fmt: skip


def test_sign_count_that_stays_is_refused(login: Login) -> None:
    """The very count that was accepted last is no new one."""
    key = give_key(login)
    assert SUCCESS == login.run().verdict
    known = login.store.used_steps["fido/alice/blue-key"]
    login.bench.before_touch = lambda: setattr(key.key.memory, "sign_count", known - 1)
    login.run(CODE)
    assert Reason.POSSIBLE_CLONE == login.reasons()[1]


def test_sign_count_that_goes_back_is_warned_of(login: Login) -> None:
    """Where policy only warns, the login goes on, and both are recorded; the count stays."""
    give_key(login)
    login.use(sign_count=SignCount.WARN)
    login.store.used_steps["fido/alice/blue-key"] = 1000
    assert SUCCESS == login.run().verdict
    assert [Reason.TOUCH_ACCEPTED, Reason.POSSIBLE_CLONE] == login.reasons()
    assert 1000 == login.store.used_steps["fido/alice/blue-key"]


def test_key_without_a_counter(login: Login) -> None:
    """A key whose count is always 0 is no clone."""
    key = give_key(login)
    login.bench.before_touch = lambda: setattr(key.key.memory, "sign_count", -1)
    assert [SUCCESS] * 3 == [login.run().verdict for _ in range(3)]
    assert {"fido/alice/blue-key": 0} == login.store.used_steps


def test_counter_that_falls_to_zero(login: Login) -> None:
    """A key that counted and says 0 now is a possible clone."""
    key = give_key(login)
    assert SUCCESS == login.run().verdict
    login.bench.before_touch = lambda: setattr(key.key.memory, "sign_count", -1)
    login.run(CODE)
    assert Reason.POSSIBLE_CLONE == login.reasons()[1]


def test_code_before_a_touch_is_unaffected(login: Login) -> None:
    """A code's time step and a key's count are kept apart."""
    give_key(login)
    assert SUCCESS == login.run().verdict
    assert BY_CODE == login.run(code_of(SEED, STEP), rhost="192.0.2.7").verdict
    assert {"fido/alice/blue-key", open_device().device.serial_number} == set(
        login.store.used_steps
    )


def test_touch_of_a_locked_user_is_refused(login: Login) -> None:
    """While a user is locked, a touch is refused like a right code, and stores no count."""
    give_key(login)
    login.store.locks["alice"] = LockState((), login.clock.now + 60)
    shown = login.run(CODE, CODE, CODE)
    assert Result.DENIED == shown.verdict.result
    assert ({Reason.LOCKED}, {}) == (set(login.reasons()), login.store.used_steps)


def test_touch_forgives_failures(login: Login) -> None:
    """A touch forgives wrong codes as a right code does."""
    give_key(login)
    login.store.locks["alice"] = LockState((login.clock.now - 1,), 0.0)
    assert SUCCESS == login.run().verdict
    assert LockState() == login.store.locks["alice"]


def test_each_touch_has_a_challenge_of_its_own(login: Login) -> None:
    """Two touches of one login have two challenges of 32 bytes each."""
    give_key(login).person.touch = Touch.NO
    asked: list[int] = []

    def random(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    login.bench.machine = login.bench.machine._replace(random=random)
    login.run("", CODE)
    assert [32, 32] == asked


class KeyStore(EmbeddedStore):
    """The store on disk, with Alice's key in it."""

    def __init__(self, layout: Layout, enrollment: Enrollment) -> None:
        """Open it."""
        super().__init__(layout)
        self._enrollment = enrollment
        self.documents.write("alice", enrollment.security_keys)

    def read_enrollment(self, user: str) -> Enrollment:
        """Return Alice's key."""
        del user
        return self._enrollment


def test_count_and_record_are_on_disk(login: Login, tmp_path: Path) -> None:
    """A touch's count and record are where a new process finds them; the count holds there."""
    key = give_key(login)
    layout, enrollment = make_layout(tmp_path), login.store.enrollments["alice"]
    stores = [KeyStore(layout, enrollment) for _ in range(2)]
    shown = [carry(login.begin_on(store), store, iter([CODE])) for store in stores[:1]]
    assert [SUCCESS] == [each.verdict for each in shown]
    stores[0].close()
    state = stores[1].read_devices(["fido/alice/blue-key"])["fido/alice/blue-key"]
    [record] = read_records(layout.audit_log)
    assert (key.key.memory.sign_count, login.clock.now) == (state.step, state.last_used_at)
    assert state.step == record["sign_count"]
    login.bench.before_touch = lambda: setattr(key.key.memory, "sign_count", 1)
    denied = carry(login.begin_on(stores[1]), stores[1], iter([Reason.ABANDONED]))
    assert Result.DENIED == denied.verdict.result
    stores[1].close()
