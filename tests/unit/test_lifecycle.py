# SPDX-License-Identifier: Apache-2.0
"""The life of a device on a store in a temporary directory."""

import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles import OTHER_SEED, SEED, START, STEP, Clock, code_of, make_layout, make_request

from pam_mfa import oath
from pam_mfa.audit import AuditLog, Reason
from pam_mfa.devices import VirtualDevice
from pam_mfa.enrolling import enroll
from pam_mfa.errors import AuditError, RefusedError, StateError
from pam_mfa.lifecycle import (
    Actor,
    DevicesChangedError,
    Lifecycle,
    Standing,
    current_actor,
    refuse_sms,
)
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.policy import Policy
from pam_mfa.secret import Secret
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.verification import Ask, Caller, Commit, Listen, Tell, Verdict, attempt
from pam_mfa.wire import Phase, Result

PAIR = (code_of(SEED, STEP), code_of(SEED, STEP + 1))
PHONE = "virtual/alice/phone"


class Host:
    """A store in a directory, a clock, and what can be done to devices."""

    def __init__(self, layout: Layout) -> None:
        """Open the store."""
        self.layout = layout
        self.clock = Clock()
        self.store = EmbeddedStore(layout)
        self.lifecycle = Lifecycle(self.store, self.clock, Actor(0, 4321, 1000))

    def enable(self, name: str = "phone", user: str = "alice") -> VirtualDevice:
        """Enable a device by its codes of two time steps ago and of the one before this."""
        seed = SEED if name == "phone" and user != "bob" else Secret(os.urandom(20))
        pending = self.lifecycle.begin_virtual(user, name, seed=seed)
        device = self.lifecycle.enable(pending, code_of(seed, STEP - 2), code_of(seed, STEP - 1))
        assert isinstance(device, VirtualDevice)
        return device

    def log_in(self, code: str, user: str = "alice") -> tuple[Result, Reason | None]:
        """Log in with a code; return the verdict."""
        caller = Caller(1, 0, may_verify=True)
        policy = Policy(prompts=1)
        running = attempt(make_request(user), caller, policy, self.store, self.clock)
        assert isinstance(next(running), Ask)
        assert isinstance(next(running), Listen)
        need = running.send(code)
        assert isinstance(need, Commit)
        try:
            running.send(self.store.commit([need.claim])[0])
        except StopIteration as end:
            return end.value.result, end.value.reason
        raise AssertionError("the attempt goes on")

    def records(self) -> list[dict[str, Any]]:
        """Return the records in the log."""
        if not self.layout.audit_log.exists():
            return []
        return [json.loads(line) for line in self.layout.audit_log.read_bytes().splitlines()]

    def names(self) -> list[str]:
        """Return the names of the events in the log."""
        return [record["event_name"] for record in self.records()]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host where nobody is enrolled."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    host = Host(make_layout(tmp_path))
    yield host
    host.store.close()


def test_enable(host: Host) -> None:
    """Two consecutive codes enable a device, which is then listed and served."""
    pending = host.lifecycle.begin_virtual("alice", seed=SEED)
    device = host.lifecycle.enable(pending, *PAIR)
    moment = datetime.datetime(2023, 11, 14, 22, 14, 5, tzinfo=datetime.UTC)
    assert (PHONE, "phone", moment, Parameters()) == device[:4]
    assert ((device,), ["alice"]) == (host.lifecycle.list_devices("alice"), host.lifecycle.users())


def test_enable_is_recorded(host: Host) -> None:
    """An enabled device's record says who acted and for whom."""
    host.enable()
    record = host.records()[0]
    expected = {
        "event_name": "EnableMfaDevice", "outcome": "success", "reason": "requested",
        "user": "alice", "caller_uid": 0, "caller_pid": 4321, "login_uid": 1000,
        "device": {"serial_number": PHONE, "type": "virtual", "name": "phone"},
    }  # fmt: skip
    assert expected == {key: record[key] for key in expected}


def test_seed_is_sealed(host: Host) -> None:
    """The seed opens from what is stored, and stands in no file."""
    device = host.enable()
    assert SEED == host.store.sealer.open(device.sealed_seed, "alice", PHONE)
    for path in host.layout.root.rglob("*"):
        assert not path.is_file() or SEED.reveal() not in path.read_bytes()


@pytest.mark.parametrize("steps", [(-2, -1), (-1, 0), (0, 1), (1, 2)])
def test_consecutive_codes(host: Host, steps: tuple[int, int]) -> None:
    """Two consecutive codes may lie up to two time steps either side of now."""
    pending = host.lifecycle.begin_virtual("alice", seed=SEED)
    host.lifecycle.enable(pending, *(code_of(SEED, STEP + step) for step in steps))
    assert 1 == len(host.lifecycle.list_devices("alice"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (PAIR[0], PAIR[0]),
        (PAIR[1], PAIR[0]),
        (PAIR[0], code_of(SEED, STEP + 2)),
        (PAIR[0], "000000"),
        ("000000", PAIR[1]),
        (code_of(SEED, STEP - 3), code_of(SEED, STEP - 2)),
        (code_of(SEED, STEP + 2), code_of(SEED, STEP + 3)),
        (code_of(OTHER_SEED, STEP), code_of(OTHER_SEED, STEP + 1)),
        ("", ""),
        (PAIR[0], ""),
        (PAIR[0] + PAIR[1], ""),
        (PAIR[0][:5], PAIR[1][:5]),
    ],
    ids=["equal", "swapped", "one left out", "second wrong", "first wrong", "too old", "too new",
         "another device's", "empty", "second empty", "in one", "cut"],
)  # fmt: skip
def test_other_codes(host: Host, first: str, second: str) -> None:
    """Codes that are not two consecutive ones of the device and of now enable nothing."""
    pending = host.lifecycle.begin_virtual("alice", seed=SEED)
    with pytest.raises(RefusedError, match="not consecutive codes of the device phone of alice"):
        host.lifecycle.enable(pending, first, second)
    assert ((), [], []) == (
        host.lifecycle.list_devices("alice"), host.lifecycle.users(), host.names(),
    )  # fmt: skip


def test_refused_codes_are_not_quoted(host: Host) -> None:
    """The error for wrong codes holds none of them and no seed."""
    pending = host.lifecycle.begin_virtual("alice", seed=SEED)
    with pytest.raises(RefusedError) as caught:
        host.lifecycle.enable(pending, "135790", "246801")
    told = f"{caught.value} {caught.value.hint}"
    assert not [text for text in ("135790", "246801", "AAAQEAYE") if text in told]


def test_codes_typed_with_spaces(host: Host) -> None:
    """Codes are read as applications show them, in groups."""
    pending = host.lifecycle.begin_virtual("alice", seed=SEED)
    typed = [f" {code[:3]} {code[3:]} " for code in PAIR]
    assert "phone" == host.lifecycle.enable(pending, *typed).name


@pytest.mark.parametrize(
    "parameters",
    [Parameters(Algorithm.SHA256, 8, 60), Parameters(Algorithm.SHA512, 7, 30)],
    ids=["SHA256", "SHA512"],
)
def test_parameters(host: Host, parameters: Parameters) -> None:
    """A device of another hash, length and period is enabled by its own codes."""
    pending = host.lifecycle.begin_virtual("alice", seed=SEED, parameters=parameters)
    step = int(START) // parameters.period
    codes = [code_of(SEED, step + more, parameters) for more in (-1, 0)]
    host.lifecycle.enable(pending, *codes)
    (device,) = host.lifecycle.list_devices("alice")
    assert isinstance(device, VirtualDevice)
    assert parameters == device.parameters


def test_enabling_codes_are_used_up(host: Host) -> None:
    """The two codes that enabled a device log nobody in; the next one does."""
    pending = host.lifecycle.begin_virtual("alice", seed=SEED)
    host.lifecycle.enable(pending, code_of(SEED, STEP - 1), code_of(SEED, STEP))
    verdicts = [host.log_in(code_of(SEED, STEP + step)) for step in (-1, 0, 1)]
    reused = (Result.DENIED, Reason.CODE_REUSED)
    assert [reused, reused, (Result.SUCCESS, Reason.CODE_ACCEPTED)] == verdicts


def test_new_seed(host: Host) -> None:
    """Without a given seed, one of 160 random bits is made."""
    seeds = [host.lifecycle.begin_virtual("alice").seed.reveal() for _ in range(20)]
    assert ({20}, 20) == ({len(seed) for seed in seeds}, len(set(seeds)))


def test_nothing_is_stored_before_the_codes(host: Host) -> None:
    """A device that was begun and never enabled leaves nothing."""
    host.lifecycle.begin_virtual("alice")
    assert ([], []) == (host.lifecycle.users(), host.names())


def test_uri(host: Host) -> None:
    """The URI for the QR code names the user and the issuer."""
    uri = host.lifecycle.begin_virtual("alice", seed=SEED).uri("host.example")
    assert uri.startswith("otpauth://totp/host.example:alice?secret=")


def test_default_names(host: Host) -> None:
    """Without a given name, the next free one is chosen."""
    chosen = []
    for _ in range(3):
        pending = host.lifecycle.begin_virtual("alice")
        codes = (code_of(pending.seed, STEP), code_of(pending.seed, STEP + 1))
        chosen.append(host.lifecycle.enable(pending, *codes).name)
    host.lifecycle.deactivate("alice", "virtual/alice/phone-2")
    chosen.append(host.lifecycle.begin_virtual("alice").name)
    assert ["phone", "phone-2", "phone-3", "phone-2"] == chosen


def test_same_name(host: Host) -> None:
    """A second device of one name is refused, and the first stands."""
    device = host.enable()
    with pytest.raises(RefusedError, match="alice has a device named phone already"):
        host.lifecycle.begin_virtual("alice", "phone")
    assert (device,) == host.lifecycle.list_devices("alice")


def test_same_name_of_two_users(host: Host) -> None:
    """Two users may call their devices the same."""
    host.enable()
    host.enable(user="bob")
    assert ["alice", "bob"] == host.lifecycle.users()


def test_same_name_at_once(host: Host) -> None:
    """Of two devices begun with one name, the second is refused when it is to be enabled."""
    first = host.lifecycle.begin_virtual("alice", seed=SEED)
    second = host.lifecycle.begin_virtual("alice")
    host.lifecycle.enable(first, *PAIR)
    with pytest.raises(RefusedError, match="named phone already"):
        host.lifecycle.enable(
            second, code_of(second.seed, STEP + 1), code_of(second.seed, STEP + 2)
        )


def test_first_device_only(host: Host) -> None:
    """A device that was to be the user's first is refused when there is another meanwhile."""
    pending = host.lifecycle.begin_virtual("alice", "new", seed=OTHER_SEED)
    host.enable()
    codes = (code_of(OTHER_SEED, STEP), code_of(OTHER_SEED, STEP + 1))
    with pytest.raises(DevicesChangedError):
        host.lifecycle.enable(pending._replace(beside=frozenset()), *codes)
    with pytest.raises(DevicesChangedError):
        host.lifecycle.enable_recovery("alice", beside=frozenset())
    assert ["phone"] == [device.name for device in host.lifecycle.list_devices("alice")]
    # Nothing of it was used up or kept, so by a verified user it can be enabled after all.
    host.lifecycle.enable(pending._replace(beside=frozenset([PHONE])), *codes)


def test_enrolling_beside_another_device(host: Host) -> None:
    """Enrolling at a login, by the password alone, ends when a device was enabled meanwhile."""
    caller = Caller(1, 0, may_verify=True)
    request = make_request("alice", phase=Phase.ACCOUNT)
    running = enroll(request, caller, host.store, host.clock)
    needs = iter(running)
    shown = ""
    while not isinstance(need := next(needs), Ask):
        shown += f"{need.text} " if isinstance(need, Tell) else ""
    seed = oath.parse_seed(shown.rpartition(": ")[2])
    host.enable()
    assert isinstance(next(needs), Listen)
    assert isinstance(running.send(code_of(seed, STEP)), Ask)
    assert isinstance(next(needs), Listen)
    refused = running.send(code_of(seed, STEP + 1))
    assert isinstance(refused, Commit)
    with pytest.raises(StopIteration) as end:
        running.send(host.store.commit([refused.claim])[0])
    assert Verdict(Result.DENIED, Reason.DEVICES_CHANGED) == end.value.value
    assert ["phone"] == [device.name for device in host.lifecycle.list_devices("alice")]


def test_device_named_as_a_bypass(host: Host) -> None:
    """A user's device named "bypass" does not make the file with a bypass in it unreadable."""
    host.enable("bypass")
    host.lifecycle.issue_bypass("alice", 3600)
    assert ["bypass", "bypass-2"] == [one.name for one in host.lifecycle.list_devices("alice")]


def test_ninth_device(host: Host) -> None:
    """A user has eight devices at most."""
    for number in range(8):
        host.enable(f"phone-{number}")
    with pytest.raises(RefusedError, match="alice has 8 devices, the most"):
        host.lifecycle.begin_virtual("alice", "ninth")
    assert 8 == len(host.lifecycle.list_devices("alice"))


@pytest.mark.parametrize("name", ["../x", "a b", "", "ü", "x" * 65])
def test_device_names(host: Host, name: str) -> None:
    """A name that cannot be a device's is refused; an empty one counts as none."""
    if not name:
        assert "phone" == host.lifecycle.begin_virtual("alice", name).name
        return
    with pytest.raises(RefusedError, match="cannot be a device's name"):
        host.lifecycle.begin_virtual("alice", name)


@pytest.mark.parametrize("user", ["", "a\nb", "x" * 257])
def test_user_names(host: Host, user: str) -> None:
    """Whatever is done, a name that cannot be an account's is refused."""
    for act in (
        lambda: host.lifecycle.begin_virtual(user),
        lambda: host.lifecycle.list_devices(user),
        lambda: host.lifecycle.deactivate(user, PHONE),
        lambda: host.lifecycle.unlock(user),
    ):
        with pytest.raises(RefusedError, match="user name"):
            act()


@pytest.mark.parametrize("user", ["../x", "a/b", "DOMAIN\\user", "ü", "-rf", "x" * 256])
def test_odd_user_names(host: Host, user: str) -> None:
    """A user of an odd name can have a device and log in with it."""
    host.enable(user=user)
    assert [user] == host.lifecycle.users()
    assert Result.SUCCESS is host.log_in(code_of(SEED, STEP), user)[0]


@pytest.mark.parametrize("user", ["\udcff", "a\u0085b"], ids=["not UTF-8", "next line"])
def test_user_names_that_files_cannot_hold(host: Host, user: str) -> None:
    """A user name is refused in words, or its device can be used: there is nothing between."""
    try:
        host.enable(user=user)
    except RefusedError:
        return
    assert Result.SUCCESS is host.log_in(code_of(SEED, STEP), user)[0]


def test_deactivate(host: Host) -> None:
    """A deactivated device serves no more; the others do, and it is recorded."""
    host.enable("phone")
    tablet = host.enable("tablet")
    host.lifecycle.deactivate("alice", PHONE)
    assert ((tablet,), "DeactivateMfaDevice") == (
        host.lifecycle.list_devices("alice"), host.names()[-1],
    )  # fmt: skip


def test_deactivate_last(host: Host) -> None:
    """Who has had the last device taken is not enrolled."""
    host.enable()
    host.lifecycle.deactivate("alice", PHONE, leave_none=True)
    assert (Result.DENIED, Reason.NOT_ENROLLED) == host.log_in(code_of(SEED, STEP))
    assert [] == host.lifecycle.users()


@pytest.mark.parametrize("serial_number", ["", "phone", "virtual/bob/phone", "virtual/alice/PHONE"])
def test_deactivate_nothing(host: Host, serial_number: str) -> None:
    """A serial number that is none of the user's is refused, with the command that lists them."""
    host.enable()
    with pytest.raises(RefusedError, match="alice has no device") as caught:
        host.lifecycle.deactivate("alice", serial_number)
    assert ("See: pam-mfa list alice", 1) == (
        caught.value.hint, len(host.lifecycle.list_devices("alice")),
    )  # fmt: skip


def test_enabled_again(host: Host) -> None:
    """A seed that is enabled again takes no code up to those that enabled it."""
    host.enable()
    assert Result.SUCCESS is host.log_in(code_of(SEED, STEP))[0]
    host.lifecycle.deactivate("alice", PHONE, leave_none=True)
    pending = host.lifecycle.begin_virtual("alice", seed=SEED)
    host.lifecycle.enable(pending, code_of(SEED, STEP + 1), code_of(SEED, STEP + 2))
    assert (Result.DENIED, Reason.CODE_REUSED) == host.log_in(code_of(SEED, STEP))


def lock(host: Host) -> None:
    """Lock Alice by five wrong codes."""
    for _ in range(5):
        host.log_in("000000")


def test_standing(host: Host) -> None:
    """A user's standing tells the lock's end while it lasts."""
    host.enable()
    lock(host)
    locked = host.lifecycle.standing("alice")
    host.clock.now += 900.0
    end = datetime.datetime.fromtimestamp(START + 900.0, datetime.UTC)
    assert [Standing(end, 0), Standing(None, 0)] == [locked, host.lifecycle.standing("alice")]


def test_standing_counts(host: Host) -> None:
    """A user's standing tells the wrong codes that are counted, and counts none itself."""
    host.enable()
    host.log_in("000000")
    assert [Standing(None, 1)] * 3 == [host.lifecycle.standing("alice") for _ in range(3)]


def test_unlock(host: Host) -> None:
    """An unlocked user logs in with the next right code, and the unlocking is recorded."""
    host.enable()
    lock(host)
    assert host.lifecycle.unlock("alice")
    assert "UnlockUser" == host.names()[-1]
    assert (Result.SUCCESS, Reason.CODE_ACCEPTED) == host.log_in(code_of(SEED, STEP))


def test_unlock_forgets_failures(host: Host) -> None:
    """Unlocking forgets wrong codes that have not locked yet."""
    host.enable()
    host.log_in("000000")
    assert (True, Standing(None, 0)) == (
        host.lifecycle.unlock("alice"), host.lifecycle.standing("alice"),
    )  # fmt: skip


def test_unlock_nobody(host: Host) -> None:
    """Unlocking who is not locked says so."""
    assert not host.lifecycle.unlock("alice")


def break_log(host: Host) -> None:
    """Make the log unusable."""
    host.layout.audit_log.touch()
    host.layout.audit_log.chmod(0o644)


def mend_log(host: Host) -> None:
    """Make the log usable again."""
    host.layout.audit_log.chmod(0o640)


def test_enabling_that_cannot_be_recorded(host: Host) -> None:
    """Where the log cannot be written nothing is enabled, and nothing recorded later."""
    break_log(host)
    with pytest.raises(AuditError):
        host.enable()
    assert () == host.lifecycle.list_devices("alice")
    mend_log(host)
    host.store.commit([])
    assert [] == host.names()


def test_enabling_that_cannot_be_recorded_leaves_others(host: Host) -> None:
    """Where the log cannot be written, the user's other devices stand."""
    device = host.enable()
    break_log(host)
    host.store.close()
    with pytest.raises(AuditError):
        host.enable("tablet")
    assert (device,) == host.lifecycle.list_devices("alice")


def test_no_record_of_a_device_that_is_not_there(host: Host) -> None:
    """Once the log is mended, it does not end with a device enabled that is not there."""
    break_log(host)
    with pytest.raises(AuditError):
        host.enable()
    mend_log(host)
    host.store.commit([])
    is_there = bool(host.lifecycle.list_devices("alice"))
    assert is_there is (host.names()[-1:] == ["EnableMfaDevice"])


def test_enabling_without_state(host: Host) -> None:
    """Where the codes cannot be used up, no device is left."""
    host.layout.state.write_bytes(b"garbage" * 1000)
    host.layout.state.chmod(0o600)
    with pytest.raises(StateError):
        host.enable()
    assert () == host.lifecycle.list_devices("alice")


def test_killed_between_device_and_record(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill right after the commit leaves the device and, with the next commit, its record."""

    def killed(_log: AuditLog, _lines: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            host.enable()
    host.store.close()
    host.store.commit([])
    assert (1, ["EnableMfaDevice"]) == (len(host.lifecycle.list_devices("alice")), host.names())


def test_deactivating_without_state(host: Host) -> None:
    """Where deactivating cannot be recorded at all, the device stands."""
    device = host.enable()
    host.store.close()
    for path in host.layout.library.glob("state.db*"):
        path.unlink()
    host.layout.state.write_bytes(b"garbage" * 1000)
    host.layout.state.chmod(0o600)
    with pytest.raises(StateError):
        host.lifecycle.deactivate("alice", PHONE, leave_none=True)
    assert (device,) == host.lifecycle.list_devices("alice")


def test_current_actor() -> None:
    """Who acts is this process, and who has logged in above it, if anybody."""
    actor = current_actor()
    assert (os.getuid(), os.getpid(), True) == (
        actor.uid, actor.pid, actor.login_uid is None or actor.login_uid < 2**32 - 1,
    )  # fmt: skip


def test_sms() -> None:
    """Who asks for SMS gets the reason and what to use instead."""
    error = refuse_sms()
    assert "SMS is not a device type" in str(error)
    assert "Use a virtual MFA device: pam-mfa enable virtual USER" == error.hint
