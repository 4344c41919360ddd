# SPDX-License-Identifier: Apache-2.0
"""The life of a device over the embedded store: nothing is lost, shared, or left half done."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles import OTHER_SEED, SEED, START, STEP, Clock, code_of, make_layout

from pam_mfa.devices import Device, VirtualDevice
from pam_mfa.errors import AuditError, BrokenSystemError, RefusedError
from pam_mfa.factors import code, paper
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.lockout import LockState
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.secret import Secret
from pam_mfa.store import Change, Claim, DeviceState, Standing
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.token_stock import TokenStock
from pam_mfa.tokens import Delivery, Token

ACTOR = Actor(uid=0, pid=4321, login_uid=1000)
TOTP, HOTP = "T-1", "H-1"  # serial numbers of the two tokens in stock
COUNTER = 7  # the next one of the event-based token
KINDS = pytest.mark.parametrize("serial_number", [TOTP, HOTP])


class Host:
    """A store with two tokens in stock, and who acts on it."""

    def __init__(self, root: Path) -> None:
        """Make it under an empty directory."""
        self.layout = make_layout(root)
        self.clock = Clock()
        self.store = EmbeddedStore(self.layout)
        self.life = Lifecycle(self.store, self.clock, ACTOR)
        self.stock = TokenStock(self.store, self.clock, ACTOR)
        tokens = (
            Token(TOTP, "Acme", Parameters(Algorithm.SHA256, 8, 60), 0, SEED),
            Token(HOTP, "Acme", Parameters(period=0), COUNTER, OTHER_SEED),
        )
        self.tokens = {token.serial_number: token for token in tokens}
        self.stock.take_in(Delivery("a file", tokens, ()), "t.csv")

    def token_code(self, serial_number: str, ahead: int) -> str:
        """Return a token's code so many steps after now's, or after its first counter."""
        token = self.tokens[serial_number]
        step = COUNTER if serial_number == HOTP else int(self.clock.now) // 60
        return code_of(token.seed, step + ahead, token.parameters)

    def give(self, user: str, serial_number: str, ahead: int = 0) -> Device:
        """Enable a token for a user by the codes so many steps ahead, and the next."""
        pending = self.life.begin_token(user, serial_number)
        pair = (self.token_code(serial_number, ahead), self.token_code(serial_number, ahead + 1))
        return self.life.enable(pending, *pair)

    def phone(self, user: str = "alice", seed: Secret | None = None) -> Device:
        """Enable an application for a user."""
        pending = self.life.begin_virtual(user, seed=seed)
        return self.life.enable(
            pending, code_of(pending.seed, STEP - 1), code_of(pending.seed, STEP)
        )

    def owner(self, serial_number: str) -> str | None:
        """Return who has a token."""
        return {one.serial_number: one.user for one in self.stock.list_tokens()}[serial_number]

    def state(self, serial_number: str) -> DeviceState:
        """Return what is known of a device."""
        return self.store.read_devices([serial_number]).get(serial_number, DeviceState())

    def find(self, user: str, typed: str) -> code.Match | None:
        """Return the match that would let a user in."""
        enrollment = self.store.read_enrollment(user)
        expected = code.expect_codes(enrollment.devices, self.clock.now, 1)
        matches = code.find_matches(code.parse_answer(typed), expected)
        matches += paper.find_matches(
            paper.parse_answer(typed), enrollment.paper, self.clock.now,
            lambda one, serial_number: self.store.code_hash(one, user, serial_number),
        )  # fmt: skip
        used = self.store.read_devices([match.key for match in matches])
        return code.find_fresh(matches, {key: state.step for key, state in used.items()})

    def accepts(self, user: str, typed: str) -> bool:
        """Whether a code would let a user in."""
        return self.find(user, typed) is not None

    def use(self, user: str, typed: str) -> None:
        """Use a code up, as a login does."""
        match = self.find(user, typed)
        assert match is not None
        used = {match.key: match.step}
        change = Change(accepted=True, events=(), used_steps=used, used_at=self.clock.now)
        self.store.commit([Claim(user, (), lambda _: change)])

    def records(self) -> list[dict[str, Any]]:
        """Return the log, without the import of the tokens."""
        lines = self.layout.audit_log.read_text("ascii").splitlines()
        return [json.loads(line) for line in lines][1:]

    @contextlib.contextmanager
    def without_log(self) -> Iterator[None]:
        """Have a directory in the log's place, so that no record can be written."""
        aside = self.layout.audit_log.with_suffix(".aside")
        self.layout.audit_log.rename(aside)
        self.layout.audit_log.mkdir()
        try:
            yield
        finally:
            self.layout.audit_log.rmdir()
            aside.rename(self.layout.audit_log)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Make a host of a user without rights."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    made = Host(tmp_path)
    yield made
    made.store.close()


def names(host: Host, user: str = "alice") -> list[str]:
    """Return the names of a user's devices."""
    return [device.name for device in host.life.list_devices(user)]


@KINDS
def test_token_is_enabled(host: Host, serial_number: str) -> None:
    """A token is enabled by two codes, is its user's then, and its next code lets in."""
    device = host.give("alice", serial_number)
    assert (device.serial_number, device.type, device.name) == (serial_number, "token", "token")
    assert (host.life.list_devices("alice"), host.owner(serial_number)) == ((device,), "alice")
    host.clock.now += 60
    assert host.accepts("alice", host.token_code(serial_number, 1 if serial_number == TOTP else 2))
    assert not host.accepts("bob", host.token_code(serial_number, 2))


@KINDS
def test_enabling_codes_are_used(host: Host, serial_number: str) -> None:
    """The two codes that enabled a token let nobody in."""
    host.give("alice", serial_number)
    assert [host.accepts("alice", host.token_code(serial_number, n)) for n in (0, 1, 2)] == [
        False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("ahead", [-1440, -100, 0, 100, 1439])
def test_token_s_clock_is_learned(host: Host, ahead: int) -> None:
    """A token whose clock is off by up to a day is enabled, and its drift is known from then on."""
    host.give("alice", TOTP, ahead)
    step = int(START) // 60 + ahead + 1
    assert host.state(TOTP) == DeviceState(step, ahead + 1)
    window = [host.accepts("alice", host.token_code(TOTP, ahead + n)) for n in (1, 2, 3)]
    assert window == [False, True, False]


@pytest.mark.parametrize("ahead", [-1441, 1440])
def test_token_s_clock_is_off_by_more(host: Host, ahead: int) -> None:
    """A token whose clock is off by more than a day is refused."""
    with pytest.raises(RefusedError, match="not consecutive codes"):
        host.give("alice", TOTP, ahead)


@pytest.mark.parametrize("ahead", [0, 1, 998])
def test_counter_is_learned(host: Host, ahead: int) -> None:
    """A token that was pressed up to a thousand times since its delivery is enabled."""
    host.give("alice", HOTP, ahead)
    assert host.state(HOTP) == DeviceState(COUNTER + ahead + 1)


@pytest.mark.parametrize("ahead", [-7, -1, 999])
def test_counter_before_delivery(host: Host, ahead: int) -> None:
    """Codes before the delivered counter, or more than a thousand after, are refused."""
    with pytest.raises(RefusedError, match="not consecutive codes"):
        host.give("alice", HOTP, ahead)
    assert host.state(HOTP) == DeviceState()


@KINDS
@pytest.mark.parametrize("pair", [(0, 0), (1, 0), (0, 2)], ids=["twice", "order", "gap"])
def test_codes_not_consecutive(host: Host, serial_number: str, pair: tuple[int, int]) -> None:
    """Codes that do not follow each other enable nothing and use nothing up."""
    pending = host.life.begin_token("alice", serial_number)
    typed = [host.token_code(serial_number, ahead) for ahead in pair]
    with pytest.raises(RefusedError, match="nothing was enabled"):
        host.life.enable(pending, *typed)
    assert (names(host), host.owner(serial_number)) == ([], None)
    assert host.state(serial_number) == DeviceState()


@pytest.mark.parametrize("serial_number", ["T-2", "", "t-1", "T-1 ", "' OR 1=1 --", "%"])
def test_unknown_token(host: Host, serial_number: str) -> None:
    """A token that is not in stock cannot be enabled, and the hint says how to bring it in."""
    with pytest.raises(RefusedError, match="there is no token") as caught:
        host.life.begin_token("alice", serial_number)
    assert "pam-mfa token import" in caught.value.hint


@KINDS
def test_token_has_one_user(host: Host, serial_number: str) -> None:
    """A token that somebody has is not given to another, and the hint says how to take it back."""
    host.give("alice", serial_number)
    for user in ("bob", "alice"):
        with pytest.raises(RefusedError, match=f"the token {serial_number} belongs to alice") as no:
            host.life.begin_token(user, serial_number)
        assert f"pam-mfa deactivate alice {serial_number}" in no.value.hint


@KINDS
def test_token_is_given_once(host: Host, serial_number: str) -> None:
    """Of two that are about to get the same token, the first gets it."""
    host.life.begin_token("alice", serial_number)
    pending = host.life.begin_token("bob", serial_number)
    host.give("alice", serial_number)
    with pytest.raises(RefusedError):
        host.life.enable(
            pending, host.token_code(serial_number, 2), host.token_code(serial_number, 3)
        )
    assert (names(host, "bob"), host.owner(serial_number)) == ([], "alice")
    assert host.accepts("alice", host.token_code(serial_number, 2))


@KINDS
def test_token_goes_back(host: Host, serial_number: str) -> None:
    """A deactivated token lets its user in no more and is free for the next one."""
    host.give("alice", serial_number)
    host.life.deactivate("alice", serial_number, leave_none=True)
    assert (names(host), host.owner(serial_number)) == ([], None)
    assert not host.accepts("alice", host.token_code(serial_number, 2))
    host.give("bob", serial_number, 2)
    assert host.owner(serial_number) == "bob"


@KINDS
@pytest.mark.parametrize("ahead", [-1, 0])
def test_used_codes_stay_used(host: Host, serial_number: str, ahead: int) -> None:
    """What a token's codes were used for by one user, they are not good for with the next."""
    host.give("alice", serial_number)
    host.life.deactivate("alice", serial_number, leave_none=True)
    with pytest.raises(RefusedError, match="nothing was enabled"):
        host.give("bob", serial_number, ahead)
    assert (names(host, "bob"), host.owner(serial_number)) == ([], None)


def test_code_used_at_login_stays_used(host: Host) -> None:
    """A token's code that the former user logged in with enables nothing for the next."""
    host.give("alice", HOTP)
    host.use("alice", host.token_code(HOTP, 5))
    host.life.deactivate("alice", HOTP, leave_none=True)
    with pytest.raises(RefusedError):
        host.give("bob", HOTP, 4)
    host.give("bob", HOTP, 6)


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_seed_is_one_device_s(host: Host, user: str) -> None:
    """A seed that a device has already makes no second one, whoever's it is."""
    seed = Secret(bytes(range(50, 70)))
    host.phone("alice", seed)
    with pytest.raises(RefusedError, match="another device's already"):
        host.phone(user, seed)
    assert names(host, "bob") == []
    assert names(host) == ["phone"]


def test_seed_is_free_after_deactivation(host: Host) -> None:
    """A deactivated device's seed may be used again; its used codes are still used."""
    device = host.phone()
    seed = host.store.read_enrollment("alice").devices[0].seed
    host.life.deactivate("alice", device.serial_number, leave_none=True)
    pending = host.life.begin_virtual("alice", seed=seed)
    host.life.enable(pending, code_of(seed, STEP + 1), code_of(seed, STEP + 2))
    assert host.state(device.serial_number).step == STEP + 2


def test_recovery_codes(host: Host) -> None:
    """A set is ten different codes, each of which lets its user in once."""
    codes = host.life.enable_recovery("alice")
    assert (len(set(codes)), names(host)) == (10, ["recovery"])
    host.use("alice", codes[3].lower())
    assert [host.accepts("alice", each) for each in codes] == [n != 3 for n in range(10)]
    assert not host.accepts("bob", codes[0])


def test_recovery_codes_are_not_kept(host: Host) -> None:
    """No code of a set can be read from what is written."""
    codes = [*host.life.enable_recovery("alice"), host.life.issue_bypass("alice", 60)]
    host.store.close()
    files = [path for path in host.layout.root.rglob("*") if path.is_file()]
    data = b"".join(path.read_bytes() for path in files).upper()
    for each in codes:
        assert each.encode() not in data
        assert each.replace("-", "").encode() not in data


def test_new_set_replaces_the_old(host: Host) -> None:
    """A new set of recovery codes ends the old one; all its ten codes are good."""
    old = host.life.enable_recovery("alice")
    host.use("alice", old[0])
    new = host.life.enable_recovery("alice")
    assert names(host) == ["recovery"]
    assert [host.accepts("alice", each) for each in old] == [False] * 10
    assert [host.accepts("alice", each) for each in new] == [True] * 10


def test_codes_left(host: Host) -> None:
    """The status says how many codes of a set are left and when one was used last."""
    codes = host.life.enable_recovery("alice")
    (before,) = host.life.device_statuses("alice")
    host.use("alice", codes[9])
    (after,) = host.life.device_statuses("alice")
    assert (before.codes_left, before.last_used_at) == (10, None)
    assert after.codes_left == 9
    assert after.last_used_at is not None
    assert after.last_used_at.timestamp() == START


def test_statuses_of_users(host: Host) -> None:
    """Users are gone through in the order given, whether they have devices or not."""
    host.phone("bob")
    host.give("alice", TOTP)
    codes = host.life.enable_recovery("alice")
    host.use("alice", codes[0])
    statuses = list(host.life.user_statuses(["carol", "alice", "bob"]))
    assert [(one.user, one.standing.value) for one in statuses] == [
        ("carol", "not enrolled"), ("alice", "enrolled"), ("bob", "enrolled"),
    ]  # fmt: skip
    assert list(statuses[1].devices) == host.life.device_statuses("alice")
    assert [one.codes_left for one in statuses[1].devices] == [None, 9]


def test_statuses_of_many_users(host: Host) -> None:
    """More users than are read at once are gone through, each once."""
    host.phone("user700")
    names_ = [f"user{n}" for n in range(1100)]
    statuses = list(host.life.user_statuses(iter(names_)))
    assert [one.user for one in statuses] == names_
    assert [one.user for one in statuses if one.devices] == ["user700"]


def test_status_of_unreadable_files(host: Host) -> None:
    """A device file that cannot be read is told in its user's status, as a login finds it."""
    for user in ("alice", "bob"):
        host.phone(user)
    host.store.documents.path("alice").chmod(0o644)
    alice, bob = host.life.user_statuses(["alice", "bob"])
    assert (alice.standing, alice.devices) == (Standing.UNREADABLE, ())
    assert alice.problem == host.store.read_enrollment("alice").problem
    assert (bob.standing, bob.problem) == (Standing.ENROLLED, "")


@pytest.mark.parametrize("are_opened", [True, False])
def test_status_of_a_seed_that_does_not_open(host: Host, *, are_opened: bool) -> None:
    """A seed that does not open is told where seeds are tried, and only there."""
    host.phone()
    host.phone()
    first, second = host.life.list_devices("alice")
    assert isinstance(first, VirtualDevice)
    spoilt = first._replace(sealed_seed="sealed:v1:AAAA")
    host.store.documents.write("alice", (spoilt, second))
    (status,) = host.life.user_statuses(["alice"], are_opened=are_opened)
    assert [bool(one.problem) for one in status.devices] == [are_opened, False]
    assert status.standing is Standing.ENROLLED


def test_status_of_a_lock(host: Host) -> None:
    """A lock and wrong codes are told in a user's status, of a user without devices too."""
    lock = LockState((START - 1,), START + 60)
    change = Change(accepted=False, events=(), lock=lock)
    host.store.commit([Claim("alice", (), lambda _: change)])
    (status,) = host.life.user_statuses(["alice"])
    assert host.life.standing("alice") == (status.locked_until, status.recent_failures)
    assert status.locked_until is not None
    assert (status.locked_until.timestamp(), status.recent_failures) == (START + 60, 1)


def fill(host: Host) -> None:
    """Give Alice eight devices of three types."""
    host.give("alice", TOTP)
    host.life.enable_recovery("alice")
    for _ in range(6):
        host.phone()


@pytest.mark.parametrize(
    "add",
    [Host.phone, lambda host: host.give("alice", HOTP)],
    ids=["virtual", "token"],
)
def test_ninth_device(host: Host, add: Callable[[Host], Device]) -> None:
    """A ninth device is refused, whatever types the eight are of."""
    fill(host)
    with pytest.raises(RefusedError, match="alice has 8 devices"):
        add(host)
    assert (len(names(host)), host.owner(HOTP)) == (8, None)


def test_recovery_as_ninth_device(host: Host) -> None:
    """A set of recovery codes is refused as the ninth device, and replaced as one of eight."""
    fill(host)
    host.life.enable_recovery("alice")
    recovery = next(one for one in host.life.list_devices("alice") if one.type == "recovery")
    host.life.deactivate("alice", recovery.serial_number)
    host.phone()
    with pytest.raises(RefusedError, match="alice has 8 devices"):
        host.life.enable_recovery("alice")


def test_bypass_takes_no_place(host: Host) -> None:
    """A user with eight devices can have a bypass, and one with a bypass eight devices."""
    made = host.life.issue_bypass("alice", 60)
    fill(host)
    again = host.life.issue_bypass("alice", 60)
    assert (len(names(host)), host.accepts("alice", made), host.accepts("alice", again)) == (
        9, False, True,
    )  # fmt: skip


def test_last_device_stays(host: Host) -> None:
    """The last device is not deactivated unless that is said; a bypass is none."""
    device = host.phone()
    host.life.issue_bypass("alice", 60)
    with pytest.raises(RefusedError, match="alice would have no MFA device left") as caught:
        host.life.deactivate("alice", device.serial_number)
    assert "--leave-none" in caught.value.hint
    assert names(host) == ["phone", "bypass"]
    host.life.deactivate("alice", device.serial_number, leave_none=True)
    assert names(host) == ["bypass"]


def test_last_but_one_goes(host: Host) -> None:
    """A device of which there are others is deactivated without more words."""
    device = host.phone()
    host.life.enable_recovery("alice")
    assert host.life.deactivate("alice", device.serial_number) == device
    assert names(host) == ["recovery"]


def test_bypass_is_deactivated(host: Host) -> None:
    """A bypass can be ended before its time, though the user has nothing else."""
    made = host.life.issue_bypass("alice", 3600)
    (bypass,) = host.life.list_devices("alice")
    host.life.deactivate("alice", bypass.serial_number)
    assert (names(host), host.accepts("alice", made)) == ([], False)


@pytest.mark.parametrize(
    "serial_number", ["virtual/bob/phone", "virtual/alice/Phone", "", "phone", TOTP]
)
def test_device_of_somebody_else(host: Host, serial_number: str) -> None:
    """What is no device of this user is not deactivated."""
    host.phone("alice")
    host.phone("bob")
    with pytest.raises(RefusedError, match="alice has no device"):
        host.life.deactivate("alice", serial_number, leave_none=True)
    assert (names(host, "alice"), names(host, "bob")) == (["phone"], ["phone"])


def test_deactivate_all(host: Host) -> None:
    """Every device goes, tokens back into the stock, if it is said that none may be left."""
    fill(host)
    host.life.issue_bypass("alice", 60)
    with pytest.raises(RefusedError, match="no MFA device left"):
        host.life.deactivate_all("alice")
    assert len(names(host)) == 9
    gone = host.life.deactivate_all("alice", leave_none=True)
    assert (len(gone), names(host), host.owner(TOTP)) == (9, [], None)
    ends = [one for one in host.records() if one["event_name"] == "DeactivateMfaDevice"]
    assert [one["device"]["serial_number"] for one in ends] == [one.serial_number for one in gone]


def test_deactivate_all_of_nobody(host: Host) -> None:
    """Who has no device has none to deactivate."""
    with pytest.raises(RefusedError, match="alice has no MFA device"):
        host.life.deactivate_all("alice", leave_none=True)


@pytest.mark.parametrize("seconds", [60.0, 3600.0, 7 * 86400.0])
def test_bypass_lasts(host: Host, seconds: float) -> None:
    """A bypass lasts as long as it was issued for, and no second more."""
    made = host.life.issue_bypass("alice", seconds)
    host.clock.now = int(START) + seconds - 1
    assert host.accepts("alice", made)
    host.clock.now = int(START) + seconds
    assert not host.accepts("alice", made)


@pytest.mark.parametrize(
    "seconds", [59.9, 0.0, -60.0, 7 * 86400 + 1.0, math.inf, -math.inf, math.nan]
)
def test_bypass_bounds(host: Host, seconds: float) -> None:
    """A bypass of less than a minute or more than a week is refused."""
    with pytest.raises(RefusedError, match="one minute to seven days"):
        host.life.issue_bypass("alice", seconds)
    assert names(host) == []


def test_bypass_is_good_once(host: Host) -> None:
    """A bypass lets its user in once, and nobody else."""
    made = host.life.issue_bypass("alice", 60)
    assert not host.accepts("bob", made)
    host.use("alice", made)
    assert not host.accepts("alice", made)


def test_bypass_replaces_bypass(host: Host) -> None:
    """A new bypass ends the old one, used or not."""
    host.phone()
    first = host.life.issue_bypass("alice", 3600)
    second = host.life.issue_bypass("alice", 60)
    assert names(host) == ["phone", "bypass"]
    assert (host.accepts("alice", first), host.accepts("alice", second)) == (False, True)


def test_resync_by_command(host: Host) -> None:
    """Two consecutive codes move a time-based device's drift, are used, and are recorded."""
    host.give("alice", TOTP)
    status = host.life.resync("alice", TOTP, host.token_code(TOTP, 500), host.token_code(TOTP, 501))
    assert (status.drift, host.state(TOTP)) == (501, DeviceState(int(START) // 60 + 501, 501))
    assert [host.accepts("alice", host.token_code(TOTP, n)) for n in (1, 501, 502)] == [
        False, False, True,
    ]  # fmt: skip
    last = host.records()[-1]
    assert (last["event_name"], last["user"], last["device"]["serial_number"]) == (
        "ResyncMfaDevice", "alice", TOTP,
    )  # fmt: skip


def test_resync_of_counter(host: Host) -> None:
    """Two consecutive codes move an event-based device's counter."""
    host.give("alice", HOTP)
    status = host.life.resync("alice", HOTP, host.token_code(HOTP, 900), host.token_code(HOTP, 901))
    assert (status.drift, host.state(HOTP)) == (0, DeviceState(COUNTER + 901))
    assert [host.accepts("alice", host.token_code(HOTP, n)) for n in (2, 901, 902)] == [
        False, False, True,
    ]  # fmt: skip


@KINDS
@pytest.mark.parametrize(
    ("first", "second"), [(0, 1), (20, 20), (21, 20), (20, 22), (5000, 5001)],
    ids=["used", "twice", "order", "gap", "too far"],
)  # fmt: skip
def test_resync_is_refused(host: Host, serial_number: str, first: int, second: int) -> None:
    """Codes that are used, not consecutive or too far off move nothing and are not recorded."""
    host.give("alice", serial_number)
    before, records = host.state(serial_number), host.records()
    with pytest.raises(RefusedError, match="nothing was changed"):
        host.life.resync(
            "alice",
            serial_number,
            host.token_code(serial_number, first),
            host.token_code(serial_number, second),
        )
    assert (host.state(serial_number), host.records()) == (before, records)


def test_paper_is_not_resynchronized(host: Host) -> None:
    """Codes on paper, and devices that are not there, cannot be out of step."""
    codes = host.life.enable_recovery("alice")
    (recovery,) = host.life.list_devices("alice")
    with pytest.raises(RefusedError, match="makes no codes"):
        host.life.resync("alice", recovery.serial_number, codes[0], codes[1])
    with pytest.raises(RefusedError, match="alice has no device"):
        host.life.resync("alice", TOTP, "123456", "123457")


def test_every_act_is_recorded(host: Host) -> None:
    """Each act leaves one record with its user, its device and who did it."""
    host.give("alice", TOTP)
    host.life.enable_recovery("alice")
    host.life.issue_bypass("alice", 60)
    host.life.deactivate("alice", TOTP)
    host.life.unlock("alice")
    found = [(one["event_name"], one.get("device", {}).get("type")) for one in host.records()]
    assert found == [
        ("EnableMfaDevice", "token"), ("EnableMfaDevice", "recovery"), ("IssueBypass", "bypass"),
        ("DeactivateMfaDevice", "token"), ("UnlockUser", None),
    ]  # fmt: skip
    assert {(one["user"], one["caller_uid"], one["login_uid"]) for one in host.records()} == {
        ("alice", 0, 1000)
    }


ACTS: dict[str, Callable[[Host], object]] = {
    "virtual": Host.phone,
    "time-based token": lambda host: host.give("alice", TOTP),
    "event-based token": lambda host: host.give("alice", HOTP),
    "recovery": lambda host: host.life.enable_recovery("alice"),
    "bypass": lambda host: host.life.issue_bypass("alice", 60),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_nothing_is_enabled_without_a_record(host: Host, act: Callable[[Host], object]) -> None:
    """Where the record cannot be written nothing is enabled, and what was there still is."""
    pending = host.life.begin_virtual("alice", "tablet")
    host.life.enable(pending, code_of(pending.seed, STEP - 1), code_of(pending.seed, STEP))
    with host.without_log(), pytest.raises(AuditError):
        act(host)
    assert names(host) == ["tablet"]


@KINDS
def test_token_goes_back_without_a_record(host: Host, serial_number: str) -> None:
    """Where the record cannot be written a token is not given to anybody."""
    with host.without_log(), pytest.raises(AuditError):
        host.give("alice", serial_number)
    assert host.owner(serial_number) is None
    host.give("bob", serial_number, 2)


def test_seed_goes_back_without_a_record(host: Host) -> None:
    """Where the record cannot be written a seed may be tried again later."""
    seed = Secret(bytes(range(50, 70)))
    with host.without_log(), pytest.raises(AuditError):
        host.phone("alice", seed)
    pending = host.life.begin_virtual("alice", seed=seed)
    host.life.enable(pending, code_of(seed, STEP + 1), code_of(seed, STEP + 2))


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_log_tells_only_what_happened(host: Host, act: Callable[[Host], object]) -> None:
    """What was not enabled for want of a record is not recorded as enabled later."""
    with host.without_log(), contextlib.suppress(BrokenSystemError):
        act(host)
    host.life.unlock("bob")
    wrong = [one["event_name"] for one in host.records() if one["outcome"] == "success"]
    assert (names(host), wrong) == ([], ["UnlockUser"])


def test_deactivation_without_a_record(host: Host) -> None:
    """Where records cannot be written a token is its user's, or free, and nothing between."""
    for serial_number in (TOTP, HOTP):
        host.give("alice", serial_number)
    with host.without_log():
        for serial_number in (TOTP, HOTP):
            with contextlib.suppress(BrokenSystemError):
                host.life.deactivate("alice", serial_number, leave_none=True)
    held = {one.serial_number for one in host.life.list_devices("alice")}
    assert {one: host.owner(one) == "alice" for one in (TOTP, HOTP)} == {
        one: one in held for one in (TOTP, HOTP)
    }
