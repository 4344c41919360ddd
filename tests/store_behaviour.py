# SPDX-License-Identifier: Apache-2.0
"""What any store must do, whatever engine is behind it; each engine's tests run all of it.

A ``Fleet`` stands for what several verifiers and administrators share. Each ``serving`` and
``administration`` is a store of its own, as another process has one.
"""

import datetime
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest

from pam_mfa import lockout
from pam_mfa.audit import Event, EventName, Outcome, Reason
from pam_mfa.devices import Device, VirtualDevice
from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.lockout import LockState
from pam_mfa.mfa_age import Place, Verified
from pam_mfa.oath import Parameters
from pam_mfa.secret import Secret
from pam_mfa.store import (
    AdministratorsStore,
    Change,
    Claim,
    DeviceState,
    Inventory,
    Known,
    Memory,
    ServingStore,
    Standing,
    StoredToken,
    encode_user,
)

PHONE = "virtual/alice/phone"
NOW = 1_700_000_000.0
SEED = Secret(bytes(range(20)))
NOTHING = Change(accepted=False, events=())
_MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


class Fleet(Protocol):
    """What is shared, and how processes get at it."""

    def serving(self) -> ServingStore:
        """Return a verifier's store; closed by the fleet."""

    def administration(self) -> AdministratorsStore:
        """Return an administrator's store; closed by the fleet."""

    def logs(self) -> list[Path]:
        """Return the audit logs of all hosts."""


def event_of(user: str = "alice", reason: Reason = Reason.WRONG_CODE) -> Event:
    """Return the event of a verification that failed, whatever became of it."""
    return Event(
        EventName.VERIFY_MFA, Outcome.DENIED, reason, NOW,
        user=user, phase="auth", mode="enforce", caller_uid=0, caller_pid=4321,
    )  # fmt: skip


def take_step(step: int, user: str = "alice", serial_number: str = PHONE) -> Claim:
    """Return a claim to use a step, which is accepted where it is the first to have it."""

    def judge(known: Known) -> Change:
        if step <= known.used_steps.get(serial_number, -1):
            return Change(accepted=False, events=(event_of(user, Reason.CODE_REUSED),))
        used = {serial_number: step}
        return Change(accepted=True, events=(event_of(user),), used_steps=used, used_at=NOW)

    return Claim(encode_user(user), (serial_number,), judge)


def decide(change: Change, user: str = "alice", serial_number: str = PHONE) -> Claim:
    """Return a claim that is decided already."""
    return Claim(encode_user(user), (serial_number,), lambda _: change)


def known_of(store: ServingStore, user: str = "alice") -> Known:
    """Return what a judge of a user is told."""
    seen: list[Known] = []

    def judge(known: Known) -> Change:
        seen.append(known)
        return NOTHING

    store.commit([Claim(encode_user(user), (PHONE,), judge, asks_memory=True)])
    return seen[0]


def device_of(store: AdministratorsStore, user: str = "alice", name: str = "phone") -> Device:
    """Return a device whose seed is sealed for a user."""
    serial_number = f"virtual/{user}/{name}"
    sealed = store.sealer.seal(SEED, user, serial_number)
    return VirtualDevice(serial_number, name, _MOMENT, Parameters(), sealed)


def give(store: AdministratorsStore, *devices: Device, user: str = "alice") -> None:
    """Write a user's devices."""
    with store.documents.lock():
        store.documents.write(user, devices)


def records(fleet: Fleet) -> list[str]:
    """Return whom the records name, log by log."""
    lines = [line for log in fleet.logs() if log.exists() for line in log.read_text().splitlines()]
    return [json.loads(line).get("user", "") for line in lines]


def at_once(count: int, act: Callable[[int], bool]) -> list[bool]:
    """Do something so many times at the same instant."""
    barrier = threading.Barrier(count)

    def run(number: int) -> bool:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def remember(at: float, user: str = "alice") -> Change:
    """Return a change that has a verification remembered for 100 s."""
    place = Place("login", "", "audit:1", "boot", "console")
    verified = Verified(encode_user(user), "virtual", PHONE, "hash", "sudo", "pts/0", place, at)
    return Change(accepted=True, events=(), memory=Memory(verified, 100.0, at))


def look(store: AdministratorsStore, act: Callable[[Inventory], None]) -> None:
    """Change the inventory."""
    store.commit([Claim("", (), lambda _: NOTHING, act)])


class StoreBehaviour:
    """The tests; an engine's class has a fixture ``fleet``."""

    def test_nothing_is_known_of_a_new_user(self, fleet: Fleet) -> None:
        """Of a user who was never here nothing is known."""
        assert Known(LockState(), {}) == known_of(fleet.serving())

    def test_step_is_taken_once(self, fleet: Fleet) -> None:
        """A step that one verifier took, no other takes; the next one is good."""
        one, other = fleet.serving(), fleet.serving()
        tries = ((one, 7), (other, 7), (one, 7), (other, 8), (one, 6))
        taken = [store.commit([take_step(step)])[0].accepted for store, step in tries]
        assert taken == [True, False, False, True, False]

    def test_step_is_taken_once_at_the_same_instant(self, fleet: Fleet) -> None:
        """Of eight verifiers with the same code at the same instant, one lets its user in."""
        stores = [fleet.serving() for _ in range(8)]
        for round_ in range(5):
            taken = at_once(
                len(stores), lambda n, s=round_: stores[n].commit([take_step(s)])[0].accepted  # type: ignore[misc]
            )  # fmt: skip
            assert sum(taken) == 1

    def test_step_is_taken_once_in_one_commit(self, fleet: Fleet) -> None:
        """Of two claims in one commit the second sees what the first changed."""
        changes = fleet.serving().commit([take_step(7), take_step(7)])
        assert [change.accepted for change in changes] == [True, False]

    def test_paper_code_is_taken_once(self, fleet: Fleet) -> None:
        """A code on paper is noted like a step, and good once over all verifiers."""
        key = "recovery/alice/1#3"
        one, other = fleet.serving(), fleet.serving()
        taken = [store.commit([take_step(1, serial_number=key)])[0].accepted
                 for store in (one, other)]  # fmt: skip
        assert taken == [True, False]
        assert {key: DeviceState(1, 0, NOW)} == one.read_devices([key, "unused"])

    def test_step_never_goes_back(self, fleet: Fleet) -> None:
        """A change with an older step leaves the newer one, and the later use."""
        store = fleet.administration()
        look(store, lambda _: None)
        for step, used_at in ((9, NOW), (4, NOW - 50)):
            store.commit([Claim("alice", (), lambda _, s=step, u=used_at: Change(  # type: ignore[misc]
                accepted=True, events=(), used_steps={PHONE: s}, used_at=u))])  # fmt: skip
        assert {PHONE: DeviceState(9, 0, NOW)} == store.read_devices([PHONE])

    def test_equal_counter_is_kept(self, fleet: Fleet) -> None:
        """A security key that counts nothing may sign in again and again."""
        store = fleet.serving()
        again = Change(accepted=True, events=(), used_steps={PHONE: 0}, used_at=NOW)
        accepted = [store.commit([decide(again)])[0].accepted for _ in range(2)]
        assert (accepted, known_of(store).used_steps) == ([True, True], {PHONE: 0})

    def test_drift_is_kept(self, fleet: Fleet) -> None:
        """A device's drift is read back with its step."""
        store = fleet.serving()
        change = Change(accepted=True, events=(), used_steps={PHONE: 5}, drifts={PHONE: -3})
        store.commit([decide(change)])
        assert {PHONE: DeviceState(5, -3, 0.0)} == fleet.serving().read_devices([PHONE])

    @pytest.mark.parametrize(
        "lock",
        [
            LockState((1.5, 2.25)),
            LockState((), 1_700_000_000.123456),
            LockState(tuple(1_700_000_000.1 + n / 3 for n in range(300)), 0.1 + 0.2),
        ],
    )
    def test_lock_is_kept(self, fleet: Fleet, lock: LockState) -> None:
        """Wrong codes and locks are read back exactly by every other verifier."""
        fleet.serving().commit([decide(Change(accepted=False, events=(), lock=lock))])
        assert lock == known_of(fleet.serving()).lock
        assert {"alice": lock} == fleet.administration().read_locks(["alice", "bob"])

    def test_guesses_are_counted_over_all(self, fleet: Fleet) -> None:
        """However many verifiers are guessed at in parallel, five wrong codes are judged."""
        rule = lockout.LockoutRule()
        stores = [fleet.serving() for _ in range(4)]
        judged: list[float] = []

        def guess(number: int) -> bool:
            def judge(known: Known) -> Change:
                if lockout.is_locked(known.lock, NOW):
                    return NOTHING
                lock = lockout.register_failure(known.lock, rule, NOW)
                judged.append(NOW)
                return Change(accepted=True, events=(), lock=lock)

            claim = Claim("alice", (PHONE,), judge)
            return sum(stores[number].commit([claim])[0].accepted for _ in range(6)) > 0

        at_once(len(stores), guess)
        lock = known_of(fleet.serving()).lock
        assert (len(judged), lockout.is_locked(lock, NOW)) == (rule.failures, True)

    def test_locks_are_of_one_user(self, fleet: Fleet) -> None:
        """What is kept of one user says nothing of another."""
        store = fleet.serving()
        store.commit([decide(Change(accepted=False, events=(), lock=LockState((), NOW)))])
        assert LockState() == known_of(store, "bob").lock

    def test_failed_judge_changes_nothing(self, fleet: Fleet) -> None:
        """Where one claim's judge fails, no other claim of the commit has changed anything."""
        store = fleet.serving()

        def fail(_known: Known) -> Change:
            raise BrokenSystemError("a judge fails")

        with pytest.raises(BrokenSystemError, match="a judge fails"):
            store.commit([take_step(7), Claim("bob", (), fail)])
        assert known_of(store).used_steps == {}
        assert [name for name in records(fleet) if name] == []

    def test_record_is_there_when_commit_returns(self, fleet: Fleet) -> None:
        """A change's record is in the log of a host before anybody is told of it."""
        fleet.serving().commit([take_step(7), take_step(3, "bob", "virtual/bob/phone")])
        assert [name for name in records(fleet) if name] == ["alice", "bob"]

    def test_memory_is_of_one_user(self, fleet: Fleet) -> None:
        """What is remembered is known to the user's judges, and ended for that user alone."""
        store, desk = fleet.serving(), fleet.administration()
        store.commit([decide(remember(NOW)), decide(remember(NOW, "bob"), "bob")])
        before = [len(known_of(store, user).remembered) for user in ("alice", "bob")]
        ended: list[int] = []
        look(desk, lambda inventory: ended.append(inventory.end_sessions("alice")))
        after = [len(known_of(store, user).remembered) for user in ("alice", "bob")]
        assert (before, ended, after) == ([1, 1], [1], [0, 1])

    def test_lock_ends_memory(self, fleet: Fleet) -> None:
        """Who guesses is nobody's session any more: a new lock forgets what was verified."""
        store = fleet.serving()
        store.commit([decide(remember(NOW))])
        store.commit([decide(Change(accepted=False, events=(), lock=LockState((NOW,))))])
        kept = len(known_of(store).remembered)
        store.commit([decide(Change(accepted=False, events=(), lock=LockState((), NOW + 9)))])
        assert (kept, len(known_of(store).remembered)) == (1, 0)

    def test_memory_has_an_end(self, fleet: Fleet) -> None:
        """What is older than any rule asks for goes when something new is remembered."""
        store = fleet.serving()
        store.commit([decide(remember(NOW))])
        store.commit([decide(remember(NOW + 500))])
        assert [one.at for one in known_of(store).remembered] == [NOW + 500]

    def test_memory_is_read_by_administrators(self, fleet: Fleet) -> None:
        """What is remembered of a user, and of everybody, is listed; all of it can be ended."""
        desk = fleet.administration()
        fleet.serving().commit([decide(remember(NOW)), decide(remember(NOW, "bob"), "bob")])
        counts = [len(desk.read_inventory(lambda inventory: inventory.remembered("alice"))),
                  len(desk.read_inventory(lambda inventory: inventory.remembered()))]  # fmt: skip
        ended: list[int] = []
        look(desk, lambda inventory: ended.append(inventory.end_sessions()))
        assert (counts, ended) == ([1, 2], [2])

    def test_devices_are_read_by_verifiers(self, fleet: Fleet) -> None:
        """A device that an administrator gives is what every verifier finds, with its seed."""
        desk = fleet.administration()
        device = device_of(desk)
        give(desk, device)
        found = fleet.serving().read_enrollment("alice")
        assert (Standing.ENROLLED, [device], [SEED]) == (
            found.standing,
            list(found.all_devices()),
            [one.seed for one in found.devices],
        )

    @pytest.mark.parametrize("user", ["alice", "Ünïcode", "a/../b", ".hidden", "x" * 300])
    def test_any_name(self, fleet: Fleet, user: str) -> None:
        """Any name has devices of its own, is listed by its name, and loses them."""
        desk = fleet.administration()
        give(desk, device_of(desk, user), user=user)
        found = fleet.serving().read_enrollment(user).standing
        listed = list(desk.documents.users())
        give(desk, user=user)
        gone = fleet.serving().read_enrollment(user).standing
        assert (Standing.ENROLLED, [user], Standing.NOT_ENROLLED, []) == (
            found, listed, gone, list(desk.documents.users()),
        )  # fmt: skip

    def test_users_are_in_order(self, fleet: Fleet) -> None:
        """Users are listed by name, and each one's document is whole."""
        desk = fleet.administration()
        with desk.documents.lock():
            desk.documents.write_all({user: (device_of(desk, user),) for user in ("b", "c", "a")})
        assert list(desk.documents.users()) == ["a", "b", "c"]
        assert [tuple(one) for one in desk.documents.entries()] == [("a", ""), ("b", ""), ("c", "")]

    def test_nobody_is_a_decoy(self, fleet: Fleet) -> None:
        """Whoever has no device gets a decoy, whose row is none of a user's."""
        found = fleet.serving().read_enrollment("nobody")
        assert (
            found.standing, len(found.devices), found.user_key.startswith("?"), found.all_devices(),
        ) == (Standing.NOT_ENROLLED, 1, True, ())  # fmt: skip

    def test_version_tells_of_a_change(self, fleet: Fleet) -> None:
        """A document's version is another after each change, and nothing where there is none."""
        desk = fleet.administration()
        versions = [desk.documents.version("alice")]
        for devices in ((device_of(desk),), (device_of(desk, name="tablet"),), ()):
            give(desk, *devices)
            versions.append(desk.documents.version("alice"))
        assert (versions[0], len({*versions}), versions[-1]) == ((), 3, ())

    def test_device_taken_away_meanwhile(self, fleet: Fleet) -> None:
        """A judge is told of a device that was taken away after it was looked up."""
        desk, store = fleet.administration(), fleet.serving()
        phone, tablet = device_of(desk), device_of(desk, name="tablet")
        give(desk, phone, tablet)
        version = store.read_enrollment("alice").version
        seen: list[bool] = []

        def judge(_known: Known) -> Change:
            seen.extend(store.has_device("alice", one, version) for one in (phone, tablet))
            return NOTHING

        store.commit([Claim("alice", (), judge)])
        give(desk, tablet)
        store.commit([Claim("alice", (), judge)])
        assert seen == [True, True, False, True]

    def test_seed_is_one_devices(self, fleet: Fleet) -> None:
        """A fingerprint that is somebody's cannot be another's; given free, it can."""
        desk = fleet.administration()
        look(desk, lambda inventory: inventory.add_fingerprint("f1", PHONE))
        with pytest.raises(BrokenSystemError):
            look(desk, lambda inventory: inventory.add_fingerprint("f1", "virtual/bob/phone"))
        owner = desk.read_inventory(lambda inventory: inventory.find_owner("f1"))
        look(desk, lambda inventory: inventory.drop_fingerprints(PHONE))
        assert (owner, desk.read_inventory(lambda one: one.find_owner("f1"))) == (PHONE, None)

    def test_tokens(self, fleet: Fleet) -> None:
        """A token is put in once, listed, given to a user and taken back."""
        desk = fleet.administration()
        tokens = [StoredToken(number, "ACME", Parameters(digits=8), 3, "sealed:v1:AA", None)
                  for number in ("T2", "T1")]  # fmt: skip
        for token in tokens:
            look(desk, lambda inventory, one=token: inventory.add_token(one))  # type: ignore[misc]
        with pytest.raises(BrokenSystemError):
            look(desk, lambda inventory: inventory.add_token(tokens[0]))
        look(desk, lambda inventory: inventory.assign_token("T1", "alice"))
        listed = desk.read_inventory(lambda inventory: list(inventory.list_tokens()))
        assert [tokens[1]._replace(user="alice"), tokens[0]] == listed
        look(desk, lambda inventory: inventory.assign_token("T1", None))
        assert tokens[1] == desk.read_inventory(lambda inventory: inventory.find_token("T1"))

    def test_use_is_forgotten_with_the_device(self, fleet: Fleet) -> None:
        """A token that leaves its user keeps its step; an application's step and memory go."""
        store, desk = fleet.serving(), fleet.administration()
        store.commit([take_step(7), take_step(5, serial_number="T1"), decide(remember(NOW))])
        look(desk, lambda inventory: inventory.forget_use("T1", keep_step=True))
        look(desk, lambda inventory: inventory.forget_use(PHONE, keep_step=False))
        assert {"T1": DeviceState(5, 0, 0.0)} == store.read_devices([PHONE, "T1"])
        assert known_of(store).remembered == ()

    def test_refusal_in_the_inventory_changes_nothing(self, fleet: Fleet) -> None:
        """Where what a change takes is refused, nothing of it is taken and nothing recorded."""
        desk = fleet.administration()

        def take(inventory: Inventory) -> None:
            inventory.add_fingerprint("f1", PHONE)
            raise RefusedError("it is taken")

        used = Change(accepted=True, events=(event_of(),), used_steps={PHONE: 7})
        with pytest.raises(RefusedError, match="it is taken"):
            desk.commit([Claim("alice", (), lambda _: used, take)])
        assert None is desk.read_inventory(lambda inventory: inventory.find_owner("f1"))
        assert (desk.read_devices([PHONE]), [name for name in records(fleet) if name]) == ({}, [])

    def test_step_is_seen_in_the_inventory(self, fleet: Fleet) -> None:
        """What was used before is found inside a change, and nothing where nothing was."""
        desk = fleet.administration()
        fleet.serving().commit([take_step(7)])
        seen = [desk.read_inventory(lambda inventory, key=key: inventory.find_step(key))  # type: ignore[misc]
                for key in (PHONE, "unused")]  # fmt: skip
        assert seen == [7, None]

    def test_writers_take_turns(self, fleet: Fleet) -> None:
        """Administrators who add devices at the same time lose none of them."""
        desks = [fleet.administration() for _ in range(4)]

        def add(number: int) -> bool:
            desk = desks[number]
            with desk.documents.lock():
                devices = desk.documents.read("alice")
                desk.documents.write("alice", (*devices, device_of(desk, name=f"phone-{number}")))
            return True

        at_once(len(desks), add)
        names = {device.name for device in desks[0].documents.read("alice")}
        assert {f"phone-{number}" for number in range(len(desks))} == names
