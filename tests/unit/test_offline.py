# SPDX-License-Identifier: Apache-2.0
"""A host that is cut off from its database: who gets in by policy's word, and what comes after.

The database is an embedded store under another root, and the network a proxy that can be cut.
"""

import functools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from doubles import SEED, START, STEP, Clock, code_of, drive, make_layout, make_request
from killed_switch import run_killed

from pam_mfa.audit import Reason
from pam_mfa.devices import Device
from pam_mfa.doctor import fleet
from pam_mfa.doctor.view import View
from pam_mfa.errors import BrokenSystemError, DocumentError, StateError, UnreachableError
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.policy import (
    AuditRules,
    Engine,
    Offline,
    Policy,
    StoreRules,
    parse_policy,
    parse_store,
)
from pam_mfa.store import Change, Claim, DeviceState, Enrollment, Standing
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.offline import contact
from pam_mfa.store.offline.contact import BEHIND_MAX
from pam_mfa.store.offline.health import describe_standby
from pam_mfa.store.offline.kept import KeptUsers
from pam_mfa.store.offline.store import OfflineStore
from pam_mfa.store.opening import StoreHealth
from pam_mfa.verification import Caller, Verdict, attempt
from pam_mfa.wire import Result

HOUR = 3600.0
ALLOW = Offline(("virtual",), 24 * HOUR)
ROOT = Caller(30, 0, may_verify=True)
KEY = bytes(range(32))
LATER = START + 60.0


class Wire(EmbeddedStore):
    """The database, behind a network."""

    silence: BrokenSystemError | None = None

    def _reach(self) -> None:
        if self.silence is not None:
            raise self.silence

    def read_enrollment(self, user: str) -> Enrollment:
        """Return what a user can be verified by."""
        self._reach()
        return super().read_enrollment(user)

    def has_device(self, user: str, device: Device, version: tuple[int, ...]) -> bool:
        """Whether a device is still its user's."""
        self._reach()
        return super().has_device(user, device, version)

    def read_devices(self, serial_numbers: Sequence[str]) -> dict[str, DeviceState]:
        """Return what is known of devices."""
        self._reach()
        return super().read_devices(serial_numbers)

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Judge claims."""
        self._reach()
        return super().commit(claims)


class Host(NamedTuple):
    """A host, and the database that it shares with others."""

    layout: Layout
    database: Layout
    wire: Wire
    store: OfflineStore
    clock: Clock
    told: list[str]
    desk: Lifecycle

    def cut(self) -> None:
        """Cut the network."""
        self.wire.silence = UnreachableError("the database fleet at db: it did not answer in time")

    def mend(self) -> None:
        """Have the network carry again, and the host ask at once."""
        self.wire.silence = None

    def log_in(self, *codes: str, user: str = "alice", more: str = "", **items: Any) -> Verdict:  # noqa: ANN401
        """Log in with codes."""
        policy = parse_policy(f"version: 1\ndefaults: {{prompts: 1}}\n{more}".encode(), "p")
        running = attempt(make_request(user, **items), ROOT, policy, self.store, self.clock)
        _, verdict = drive(running, self.store, codes)  # type: ignore[arg-type]
        return verdict

    def code(self, ahead: int = 0) -> str:
        """Return Alice's code of now, or of so many time steps later."""
        return code_of(SEED, int(self.clock.now // 30) + ahead)

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds

    def records(self) -> list[dict[str, Any]]:
        """Return the verifications in this host's own log."""
        if not self.layout.audit_log.exists():
            return []
        lines = self.layout.audit_log.read_text("ascii").splitlines()
        return [one for one in map(json.loads, lines) if one["event_name"] == "VerifyMfa"]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a silent database be asked again at once."""
    monkeypatch.setattr(contact, "ASK_AGAIN", -1.0)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


Make = Callable[..., Host]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes hosts of one fleet; Alice has a phone, and recovery codes."""
    database = make_layout(tmp_path / "database")
    database.seal_key.write_bytes(KEY)
    database.seal_key.chmod(0o600)
    stores: list[Any] = []

    def make_host(rules: Offline = ALLOW, clock: Clock | None = None) -> Host:
        layout = make_layout(tmp_path / f"host-{len(stores)}")
        layout.seal_key.write_bytes(KEY)
        layout.seal_key.chmod(0o600)
        wire = Wire(database)
        clock = clock or Clock()
        store = OfflineStore(wire, layout, rules, clock)
        told: list[str] = []
        store.follow(AuditRules(journal=False, syslog=False), lambda error: told.append(str(error)))
        stores.append(store)
        desk = Lifecycle(EmbeddedStore(database), clock, Actor(0, 1, None))
        return Host(layout, database, wire, store, clock, told, desk)

    first = make_host()
    pending = first.desk.begin_virtual("alice", seed=SEED)
    first.desk.enable(pending, code_of(SEED, STEP - 1), code_of(SEED, STEP))
    yield make_host
    for store in stores:
        store.close()


@pytest.fixture
def host(make: Make) -> Host:
    """A host where Alice has logged in, and whose network is then cut."""
    host = make()
    assert Reason.CODE_ACCEPTED is host.log_in(host.code(1)).reason
    host.later(60)
    host.cut()
    return host


def test_verified_user_gets_in(host: Host) -> None:
    """Who has verified here gets in while the database is silent, and the record says how."""
    before = len(host.records())
    assert Result.SUCCESS is host.log_in(host.code()).result
    (record,) = host.records()[before:]
    assert ("code_accepted", True, "alice") == (record["reason"], record["offline"], record["user"])
    assert "without the database" in record["detail"]
    assert 1 == len([one for one in host.told if "logins by virtual go on" in one])


def test_answers_are_no_silence(host: Host) -> None:
    """A database that answers, whatever it says, has nobody let in by what is kept."""
    host.wire.silence = StateError("password authentication failed")
    with pytest.raises(StateError, match="password"):
        host.log_in(host.code())


def test_kept_is_not_asked_while_it_answers(host: Host) -> None:
    """A device that was taken away counts no more, though it is kept."""
    host.mend()
    host.desk.deactivate("alice", "virtual/alice/phone", leave_none=True)
    assert Result.DENIED is host.log_in(host.code()).result
    host.cut()
    assert Result.DENIED is host.log_in(host.code(1)).result


def test_code_is_good_once_here(host: Host) -> None:
    """A code is accepted once by a host that is cut off, and none of before the cut is."""
    code = host.code()
    assert Result.SUCCESS is host.log_in(code).result
    assert Reason.CODE_REUSED is host.log_in(code).reason


def test_code_of_before_the_cut(make: Make) -> None:
    """What was used by the database's word is used here, too."""
    host = make()
    code = host.code(1)
    host.log_in(code)
    host.cut()
    assert Reason.CODE_REUSED is host.log_in(code).reason


def test_code_of_the_cut_is_no_good_afterwards(host: Host) -> None:
    """What was used while cut off is used in the fleet before anything else is asked."""
    code = host.code()
    host.log_in(code)
    host.mend()
    assert Reason.CODE_REUSED is host.log_in(code).reason
    assert [] == [*(host.layout.offline / "pending").iterdir()]
    assert "the database answers again, and is asked again" in host.told


def test_other_process_hands_in(host: Host, make: Make) -> None:
    """What one process has noted, another one of that host hands in."""
    code = host.code()
    host.log_in(code)
    other = OfflineStore(Wire(host.database), host.layout, ALLOW, host.clock)
    second = host._replace(store=other)
    assert Reason.CODE_REUSED is second.log_in(code).reason
    third = make(clock=host.clock)
    assert Reason.CODE_REUSED is third.log_in(code).reason
    other.close()


def test_wrong_codes_lock_here_and_everywhere(host: Host, make: Make) -> None:
    """Guesses while cut off are counted, lock, and are handed in."""
    for _ in range(5):
        assert Result.DENIED is host.log_in("000000").result
    assert Reason.LOCKED is host.log_in(host.code()).reason
    host.mend()
    assert Reason.LOCKED is host.log_in(host.code()).reason
    assert Reason.LOCKED is make(clock=host.clock).log_in(host.code()).reason


def test_guesses_of_before_the_cut_count(make: Make) -> None:
    """Cutting the network hands out no guesses anew."""
    host = make()
    host.log_in(host.code(1))
    for _ in range(4):
        host.log_in("000000")
    host.cut()
    host.log_in("000000")
    host.later(60)
    assert Reason.LOCKED is host.log_in(host.code()).reason


def test_lock_of_before_the_cut(make: Make) -> None:
    """Who is locked in the fleet stays locked here."""
    host = make()
    host.log_in(host.code(1))
    for _ in range(5):
        host.log_in("000000")
    host.later(60)
    host.cut()
    assert Reason.LOCKED is host.log_in(host.code()).reason


def test_unlocking_reaches_the_host(make: Make) -> None:
    """A lock that was taken away is gone here with the next look at the database."""
    host = make()
    host.log_in(host.code(1))
    for _ in range(5):
        host.log_in("000000")
    host.desk.unlock("alice")
    host.later(60)
    host.log_in(host.code())
    host.later(60)
    host.cut()
    assert Result.SUCCESS is host.log_in(host.code()).result


@pytest.mark.parametrize("user", ["bob", "nobody-at-all"])
def test_user_who_never_verified_here(host: Host, user: str) -> None:
    """Of whom nothing is kept is refused, enrolled or not, where policy lets others by, too."""
    more = "defaults: {prompts: 1, unenrolled: allow}"
    policy = parse_policy(f"version: 1\n{more}".encode(), "p")
    uid = 1000 if user == "bob" else None
    running = attempt(make_request(user, uid=uid), ROOT, policy, host.store, host.clock)
    _, verdict = drive(running, host.store, ["123456"])  # type: ignore[arg-type]
    assert (Result.DENIED, Reason.DEVICES_UNREADABLE) == verdict
    record = host.records()[-1]
    assert (user if uid else None, True) == (record.get("user"), record["offline"])


def test_users_of_policy_alone(make: Make) -> None:
    """Where policy names users, nothing is kept of others."""
    host = make(ALLOW._replace(users=("bob",)))
    host.log_in(host.code(1))
    host.later(60)
    host.cut()
    assert Reason.DEVICES_UNREADABLE is host.log_in(host.code()).reason


def test_types_of_policy_alone(make: Make) -> None:
    """A device of a type that does not count is not kept."""
    host = make(ALLOW._replace(allow=("fido", "ssh-key")))
    host.log_in(host.code(1))
    host.later(60)
    host.cut()
    assert Reason.DEVICES_UNREADABLE is host.log_in(host.code()).reason


def test_codes_on_paper_never_count(make: Make) -> None:
    """Recovery codes and bypasses are not kept, whatever else is."""
    host = make()
    (code, *_) = host.desk.enable_recovery("alice")
    bypass = host.desk.issue_bypass("alice", 3600.0)
    host.log_in(host.code(1))
    host.cut()
    kept = host.store.read_enrollment("alice")
    assert ((), 1) == (kept.paper, len(kept.devices))
    for one in (code, bypass):
        assert Result.DENIED is host.log_in(one).result


def test_silence_at_the_prompt(make: Make) -> None:
    """Whoever was looked up by the database is judged by it, or not at all."""
    host = make()
    policy = parse_policy(b"version: 1", "p")
    running = attempt(make_request(), ROOT, policy, host.store, host.clock)
    running.send(None)  # the question
    running.send(None)  # the look, and then the wait for the answer
    host.cut()
    claim = running.send(host.code(1))
    with pytest.raises(UnreachableError):
        host.store.commit([claim.claim])  # type: ignore[union-attr]


def test_database_comes_back_at_the_prompt(host: Host) -> None:
    """Who was looked up in what is kept is judged by the database where that answers again."""
    policy = parse_policy(b"version: 1", "p")
    running = attempt(make_request(), ROOT, policy, host.store, host.clock)
    running.send(None)
    running.send(None)
    claim = running.send(host.code())
    host.mend()
    assert host.store.commit([claim.claim])[0].accepted  # type: ignore[union-attr]
    assert [] == [one for one in host.records() if one.get("offline")]
    host.cut()
    assert Reason.CODE_REUSED is host.log_in(host.code()).reason


def test_device_taken_away_at_the_prompt(host: Host) -> None:
    """A device that is no more by the database's word counts no more, though it was kept."""
    policy = parse_policy(b"version: 1\ndefaults: {prompts: 1}", "p")
    running = attempt(make_request(), ROOT, policy, host.store, host.clock)
    running.send(None)
    running.send(None)
    claim = running.send(host.code())
    host.mend()
    host.desk.deactivate("alice", "virtual/alice/phone", leave_none=True)
    assert not host.store.commit([claim.claim])[0].accepted  # type: ignore[union-attr]


def test_too_long(host: Host) -> None:
    """After policy's time nobody gets in, until the database answers."""
    host.later(24 * HOUR - 120)
    assert Result.SUCCESS is host.log_in(host.code()).result
    host.later(120)
    with pytest.raises(UnreachableError, match="has not been reached for more than 86400 s"):
        host.log_in(host.code())
    host.mend()
    assert Result.SUCCESS is host.log_in(host.code()).result


def test_user_who_was_not_seen_for_long(host: Host) -> None:
    """What is kept of a user counts as long as the database's silence may last, and no longer."""
    host.mend()
    host.later(24 * HOUR)
    host.store.read_enrollment("somebody")
    host.cut()
    assert Reason.DEVICES_UNREADABLE is host.log_in(host.code()).reason


def test_clock_set_back(host: Host) -> None:
    """A clock that is set back makes no time last longer."""
    host.later(20 * HOUR)
    host.log_in(host.code())
    host.later(-10 * HOUR)
    with pytest.raises(UnreachableError, match="clock was set back"):
        host.log_in(host.code())
    host.later(10 * HOUR - BEHIND_MAX)
    assert Result.DENIED is host.log_in("000000").result


def test_never_reached(make: Make) -> None:
    """A host that never reached its database lets nobody in."""
    host = make()
    host.cut()
    with pytest.raises(UnreachableError, match="has not been reached ever"):
        host.log_in(host.code())


def test_no_seal_key(make: Make) -> None:
    """A host without the fleet's key makes none of its own."""
    host = make()
    host.layout.seal_key.unlink()
    host.cut()
    with pytest.raises(UnreachableError, match="no seal key"):
        host.log_in(host.code())
    assert not host.layout.seal_key.exists()


@pytest.mark.parametrize("name", ["alice.sealed", "contact"])
@pytest.mark.parametrize("spoil", ["changed", "removed", "readable"])
def test_spoilt_file(host: Host, name: str, spoil: str) -> None:
    """What is kept and was changed, is gone or was open to others lets nobody in."""
    path = host.layout.offline / name
    if spoil == "changed":
        data = path.read_bytes()
        path.write_bytes(data[:-8] + (b"AAAAAAA=" if not data.endswith(b"AAAAAAA=") else b"B"))
    elif spoil == "removed":
        path.unlink()
    else:
        path.chmod(0o644)
    try:
        result = host.log_in(host.code()).result
    except BrokenSystemError:
        result = Result.DENIED
    assert Result.DENIED is result


def test_file_of_another_user(host: Host) -> None:
    """What is kept of one user is nobody else's."""
    path = host.layout.offline / "alice.sealed"
    path.rename(path.with_name("bob.sealed"))
    assert Reason.DEVICES_UNREADABLE is host.log_in(host.code(), user="bob").reason


def test_seeds_are_not_in_the_clear(host: Host) -> None:
    """Nothing of what is kept tells a seed or a user's devices."""
    host.log_in(host.code())
    data = b"".join(one.read_bytes() for one in host.layout.offline.rglob("*") if one.is_file())
    assert [False, False] == [word in data for word in (SEED.reveal(), b"sealed_seed")]
    modes = {one.stat().st_mode & 0o077 for one in host.layout.offline.rglob("*")}
    assert {0} == modes


def log_in_offline(layout: Layout, database: Layout, typed: str) -> None:
    """Log Alice in as a process of its own does, whose database is silent."""
    wire = Wire(database)
    wire.silence = UnreachableError("silent")
    store, clock = OfflineStore(wire, layout, ALLOW, Clock(LATER)), Clock(LATER)
    policy = parse_policy(b"version: 1\ndefaults: {prompts: 1}", "p")
    running = attempt(make_request(), ROOT, policy, store, clock)
    drive(running, store, [typed])  # type: ignore[arg-type]


def hand_in(layout: Layout, database: Layout) -> None:
    """Ask the database as a process of its own does, which has it know what was used here."""
    OfflineStore(Wire(database), layout, ALLOW, Clock(LATER)).read_enrollment("somebody")


@pytest.mark.parametrize("is_handing_in", [False, True])
def test_killed_at_each_write(host: Host, tmp_path: Path, *, is_handing_in: bool) -> None:
    """Killed before any of its writes, a process leaves no code good that let anybody in."""
    host.store.close()
    typed = code_of(SEED, int(LATER // 30))
    roots = (host.layout.root, host.database.root)
    if is_handing_in:
        log_in_offline(host.layout, host.database, typed)
    kept = [tmp_path / f"kept-{number}" for number in range(2)]
    for root, copy in zip(roots, kept, strict=True):
        shutil.copytree(root, copy)
    act = (
        functools.partial(hand_in, host.layout, host.database)
        if is_handing_in
        else functools.partial(log_in_offline, host.layout, host.database, typed)
    )
    number = 0
    while True:
        number += 1
        for root, copy in zip(roots, kept, strict=True):
            shutil.rmtree(root)
            shutil.copytree(copy, root)
        is_killed = run_killed(act, number)
        wire = Wire(host.database)
        again = host._replace(store=OfflineStore(wire, host.layout, ALLOW, Clock(LATER)))
        reason = again.log_in(typed).reason
        again.store.close()
        # What a kill kept from the log stands in it now.
        was_accepted = any(one.get("offline") for one in host.records())
        expected = Reason.CODE_REUSED if was_accepted else Reason.CODE_ACCEPTED
        assert (expected, []) == (reason, [*(host.layout.offline / "pending").glob("*.used")])
        if not is_killed:
            break
    assert number > 3


def test_note_that_cannot_be_read(host: Host) -> None:
    """What cannot be handed in has the host ask the database nothing, and is named."""
    host.log_in(host.code())
    (note,) = (host.layout.offline / "pending").iterdir()
    note.write_bytes(b"{")
    host.mend()
    with pytest.raises(StateError, match=r"alice\.used"):
        host.log_in(host.code(1))


def test_silent_database_is_not_asked_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a silence nobody waits for the database for some seconds; then it is asked again."""
    now = [time.monotonic()]
    monkeypatch.setattr(contact, "ASK_AGAIN", 5.0)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    host.log_in("000000")
    host.mend()
    host.later(60)
    host.log_in(host.code())
    assert host.records()[-1]["offline"]
    now[0] += 5.0
    host.later(60)
    assert Result.SUCCESS is host.log_in(host.code()).result
    assert "the database answers again, and is asked again" in host.told


def test_disk_that_keeps_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be kept the database's word stands, and nothing old is kept instead."""
    host = make()

    def fail(*_: object) -> None:
        raise BrokenSystemError("no room")

    monkeypatch.setattr(KeptUsers, "write", fail)
    assert Result.SUCCESS is host.log_in(host.code(1)).result
    assert ["no room"] == host.told
    host.later(60)
    host.cut()
    assert Reason.DEVICES_UNREADABLE is host.log_in(host.code()).reason


def test_standing_of_nobody(host: Host) -> None:
    """A name of which nothing is known is not "not enrolled": that may mean to be let by."""
    assert Standing.OUT_OF_REACH is host.store.read_enrollment("bob").standing


def test_standby_is_described(host: Host) -> None:
    """Administrators are told what goes on without the database, for how long and for whom."""
    host.log_in(host.code())
    words = describe_standby(host.layout, ALLOW, host.clock.now)
    expected = ("virtual count", "1 users", "what 1 of them used", "60 s ago", "86340 s are left")
    assert [] == [one for one in expected if one not in words]
    assert "nobody is let in" in describe_standby(host.layout, ALLOW, host.clock.now + 25 * HOUR)
    assert "nobody is let in" in describe_standby(host.layout, Offline(), host.clock.now)


@pytest.mark.parametrize(("problem", "levels"), [("", ["ok", "ok"]), ("silent", ["warning"])])
def test_doctor(
    host: Host, monkeypatch: pytest.MonkeyPatch, problem: str, levels: list[str]
) -> None:
    """``doctor`` tells how the database answers, what goes on, and what a code is worth then."""
    view = View(host.layout)
    view.policy = Policy(store=StoreRules(Engine.POSTGRESQL, offline=ALLOW))
    health = StoreHealth("postgresql", "the database", problem=problem, standby="1 users")
    monkeypatch.setattr(fleet, "examine_store", lambda _: health)
    monkeypatch.setattr(fleet, "drop_privileges", lambda: None)
    found = list(fleet.check_fleet(view))
    assert [*levels, "notice"] == [one.level.value for one in found]
    assert "1 users" in found[-2].what
    assert "a code of virtual is good at each host" in found[-1].what


STORE = "version: 1\nstore:\n  engine: postgresql\n  url: postgresql://a@%2Frun/b\n  offline: "


def read_offline(value: str) -> Offline:
    """Return what a policy says of it."""
    return parse_store(f"{STORE}{value}\n".encode(), "p").offline


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("deny", Offline()),
        ("{allow: [fido, ssh-key], for: 24h, users: [alice, bob]}",
         Offline(("fido", "ssh-key"), 86400.0, ("alice", "bob"))),
        ("{allow: [virtual, token], for: 1m}", Offline(("virtual", "token"), 60.0)),
    ],
)  # fmt: skip
def test_policy(value: str, expected: Offline) -> None:
    """What policy says is read."""
    assert expected == read_offline(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("allow", "neither 'deny' nor a mapping"), ("true", "must be a mapping"),
        ("{allow: [recovery], for: 1h}", "codes on paper never count"),
        ("{allow: [sms], for: 1h}", "SMS is not"), ("{allow: [], for: 1h}", "is empty"),
        ("{allow: [fido]}", "'store.offline.for' is missing"), ("{for: 1h}", "allow' is missing"),
        ("{allow: [fido], for: 59s}", "60s to 30d"), ("{allow: [fido], for: 31d}", "60s to 30d"),
        ("{allow: [fido], for: 1h, users: []}", "names nobody"),
        ("{allow: [fido], for: 1h, user: [a]}", "Did you mean 'users'"),
        ("{allow: [fido], for: 1h, users: alice}", "must be a list"), ("{}", "allow' is missing"),
    ],
)  # fmt: skip
def test_policy_that_is_wrong(value: str, words: str) -> None:
    """What is written wrongly is told; nothing of it has anybody let in."""
    with pytest.raises(DocumentError) as caught:
        read_offline(value)
    assert words in f"{caught.value} {caught.value.hint}"


def test_embedded_store_has_no_database() -> None:
    """What is said of a database goes with one."""
    text = b"version: 1\nstore: {offline: deny}"
    with pytest.raises(DocumentError, match="goes with 'engine: postgresql' only"):
        parse_store(text, "p")
