# SPDX-License-Identifier: Apache-2.0
"""A store moved into another: all of it, once, and used codes stay used; between two roots here."""

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from moved_hosts import ACTOR, NOW, STEP, KeptHost, make_root

from pam_mfa import lockout
from pam_mfa.devices import Device, TokenDevice, VirtualDevice
from pam_mfa.errors import BrokenSystemError, RefusedError, UnsafeFileError
from pam_mfa.lockout import LockState
from pam_mfa.moving import Move, Side, Stage, Summary, join_locks, join_states
from pam_mfa.store import Change, Claim, DeviceState, Standing
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.retiring import collect, is_retired, retire, return_to_service
from pam_mfa.store.rows import rows_of

Two = tuple[KeptHost, KeptHost]


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    """A root with users and an empty one, with one seal key."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    one = KeptHost(tmp_path / "one")
    other = KeptHost(tmp_path / "other", one.layout.seal_key.read_bytes())
    yield one, other
    one.store.close()
    other.store.close()


def move(
    source: KeptHost, target: KeptHost, *, close: bool = False, is_closed: bool = False
) -> Summary:
    """Copy one root into the other."""
    sides = (Side("embedded", source.store, is_closed), Side("postgresql", target.store))
    ending = (lambda: retire(source.layout, "postgresql")) if close else None
    return Move(*sides, ACTOR, lambda _: lambda _: None).run(ending)


def test_all_of_it(hosts: Two) -> None:
    """Devices, used steps, codes on paper, locks, tokens, seeds and sessions are at the target."""
    one, other = hosts
    one.fill()
    summary = move(one, other)
    assert one.everything() == other.everything()
    assert {"users": 3, "used codes": 5, "locks": 1, "tokens": 2, "seeds": 5, "sessions": 1} == (
        summary.copied
    )
    assert summary.copied == summary.held
    assert 64 == len(summary.digest)


def test_second_run(hosts: Two) -> None:
    """A second run copies nothing, records nothing, and finds the same digest."""
    one, other = hosts
    one.fill()
    first = move(one, other)
    before = other.layout.audit_log.read_bytes()
    second = move(one, other)
    assert (True, first.digest) == (second.is_idle, second.digest)
    assert before == other.layout.audit_log.read_bytes()


def test_sealed_anew(hosts: Two) -> None:
    """The same seeds sealed by another key at the target are the same devices."""
    one, other = hosts
    one.fill()
    first = move(one, other)
    for user in other.life.users():
        devices = other.life.list_devices(user)
        with other.store.documents.lock():
            other.store.documents.write(
                user, tuple(seal_anew(other, user, each) for each in devices)
            )
    assert one.life.list_devices("bob") != other.life.list_devices("bob")
    second = move(one, other)
    assert (True, first.digest) == (second.is_idle, second.digest)


def seal_anew(host: KeptHost, user: str, device: Device) -> Device:
    """Return a device whose seed was sealed once more."""
    if not isinstance(device, VirtualDevice | TokenDevice):
        return device
    seed = host.store.sealer.open(device.sealed_seed, user, device.serial_number)
    sealed = host.store.sealer.seal(seed, user, device.serial_number)
    return device._replace(sealed_seed=sealed)


def test_recorded(hosts: Two) -> None:
    """What was copied is a record of the target's host, with who has done it."""
    one, other = hosts
    one.fill()
    move(one, other)
    record = json.loads(other.layout.audit_log.read_bytes().splitlines()[-1])
    assert ("CopyStore", "success", 0, 1000) == (
        record["event_name"], record["outcome"], record["caller_uid"], record["login_uid"],
    )  # fmt: skip
    assert record["detail"].startswith("from embedded to postgresql: 5 used codes, 1 locks, ")


def test_used_codes_stay_used(hosts: Two) -> None:
    """A step that was used before is not good at the target; the next one is."""
    one, other = hosts
    one.enable("alice")
    assert one.use(STEP + 5)
    move(one, other)
    assert (False, True) == (other.use(STEP + 5), other.use(STEP + 6))


def test_codes_on_paper(hosts: Two) -> None:
    """A recovery code that was used is used, the others are left."""
    one, other = hosts
    one.fill()
    move(one, other)
    (status,) = [
        each for each in other.life.device_statuses("alice") if each.codes_left is not None
    ]
    assert 9 == status.codes_left


def test_used_between_two_runs(hosts: Two) -> None:
    """What was used, and how often was guessed, since the last run is brought over."""
    one, other = hosts
    one.fill()
    move(one, other)
    one.use(STEP + 9)
    rule = lockout.LockoutRule()
    one.decide("alice", Change(False, (), lock=lockout.register_failure(LockState(), rule, NOW)))
    summary = move(one, other)
    assert (1, 1, 0) == tuple(summary.copied[name] for name in ("used codes", "locks", "users"))
    assert one.everything() == other.everything()


def test_target_is_ahead(hosts: Two) -> None:
    """What was used at the target meanwhile does not go back."""
    one, other = hosts
    one.fill()
    move(one, other)
    other.use(STEP + 9)
    move(one, other)
    assert not other.use(STEP + 9)


def test_two_states_of_one_user(hosts: Two) -> None:
    """Users whose devices differ are named, and nothing at all is copied."""
    one, other = hosts
    one.fill()
    other.enable("bob")
    before = other.everything()
    with pytest.raises(RefusedError, match=r"1 users have other devices in postgresql .* bob;"):
        move(one, other)
    assert before == other.everything()


def test_token_that_is_anothers(hosts: Two) -> None:
    """A token that is another user's at the target is named, and nothing at all is copied."""
    one, other = hosts
    one.fill()
    move(one, other)
    change = Change(accepted=False, events=())
    give = Claim("", (), lambda _: change, lambda inventory: inventory.assign_token("T-1", "eve"))
    one.store.commit([give])
    one.enable("dora")
    before = other.everything()
    with pytest.raises(RefusedError, match="T-1; nothing was copied"):
        move(one, other)
    assert before == other.everything()


def test_others_of_the_fleet(hosts: Two) -> None:
    """Users that the target has from other hosts stay as they are."""
    one, other = hosts
    one.enable("alice")
    eve = other.enable("eve")
    move(one, other)
    assert ["alice", "eve"] == other.life.users()
    assert (eve,) == other.life.list_devices("eve")


def test_closed(hosts: Two) -> None:
    """A source that is closed lets nobody in, whatever policy says of who is not enrolled."""
    one, other = hosts
    one.fill()
    move(one, other)
    before = one.everything()
    enrollment = one.store.read_enrollment("alice")
    (device,) = [each.device for each in enrollment.devices]
    move(one, other, close=True)
    assert before == other.everything()
    found = one.store.read_enrollment("alice")
    assert (Standing.UNREADABLE, True) == (found.standing, "moved to postgresql" in found.problem)
    assert Standing.UNREADABLE == one.store.read_enrollment("nobody").standing
    assert not one.store.has_device("alice", device, enrollment.version)
    record = json.loads(other.layout.audit_log.read_bytes().splitlines()[-1])
    assert "from embedded to postgresql: embedded closed" == record["detail"]
    with pytest.raises(UnsafeFileError, match="were moved to postgresql"):
        one.life.users()
    with pytest.raises(UnsafeFileError, match="were moved to postgresql"):
        one.enable("dora")


def test_used_while_it_is_closed(hosts: Two) -> None:
    """A code that a login uses right before the source is closed is used at the target."""
    one, other = hosts
    one.fill()

    def close() -> None:
        assert one.use(STEP + 50)
        retire(one.layout, "postgresql")

    sides = (Side("embedded", one.store), Side("postgresql", other.store))
    Move(*sides, ACTOR, lambda _: lambda _: None).run(close)
    assert not other.use(STEP + 50)


def test_killed_after_it_was_closed(hosts: Two) -> None:
    """A run that was killed once the source was closed is run again, and ends."""
    one, other = hosts
    one.fill()
    move(one, other)
    one.use(STEP + 50)
    retire(one.layout, "postgresql")
    assert is_retired(one.layout)
    move(one, other, close=True, is_closed=True)
    assert not other.use(STEP + 50)


def return_all(fleet: KeptHost, host: KeptHost) -> Summary:
    """Copy a fleet's store back into a host that was closed, as the command does."""
    layout, is_new = collect(host.layout)
    store = EmbeddedStore(layout)
    if is_new:
        nothing = Change(accepted=False, events=())
        forget = Claim("", (), lambda _: nothing,
                       lambda inventory: rows_of(inventory).drop_inventory())  # fmt: skip
        store.commit([forget])
    sides = (Side("postgresql", fleet.store), Side("embedded", store))
    summary = Move(*sides, ACTOR, lambda _: lambda _: None).run()
    store.close()
    return_to_service(host.layout)
    return summary


def test_there_and_back(hosts: Two) -> None:
    """Back again a host has what the fleet had, and nothing of what it had before."""
    one, other = hosts
    one.fill()
    move(one, other, close=True)
    other.enable("dora")
    other.life.deactivate_all("bob", leave_none=True)
    other.use(STEP + 9)
    return_all(other, one)
    one.open()
    there, here = other.everything(), one.everything()
    assert (there[0], there[3:]) == (here[0], here[3:])  # devices, seeds, tokens, sessions
    assert ["alice", "c/../d", "dora"] == one.life.users()
    assert not one.use(STEP + 9)
    assert sorted(each.name for each in one.layout.devices.iterdir()) == [
        ".lock", "alice.yaml", "c%2F..%2Fd.yaml", "dora.yaml",
    ]  # fmt: skip


def run_killed(act: Callable[[], None], calls: tuple[str, ...], number: int) -> bool:
    """Do something in a process that is killed at a system call; return whether it was."""
    child = os.fork()
    if not child:
        try:
            counter = itertools.count(1)
            for name in calls:
                kill_at(name, counter, number)
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def kill_at(name: str, counter: "itertools.count[int]", number: int) -> None:
    """Have this process killed at the so-many-th of some calls."""
    original = getattr(os, name)

    def call(*arguments: object, **options: object) -> object:
        if next(counter) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(os, name, call)


KILLED_IN = ("fsync", "rename", "replace", "unlink", "mkdir", "rmdir", "open", "write")


@pytest.mark.parametrize("first", [1, 4, 7])
def test_killed_anywhere(tmp_path: Path, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A move that is killed at any of its calls is run again, and nothing is lost or doubled."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    kills = 0
    for number in itertools.count(first, 8):
        base = tmp_path / str(number)
        base.mkdir()
        one = KeptHost(base / "one")
        one.fill()
        before = one.everything()
        other = KeptHost(base / "other", one.layout.seal_key.read_bytes())
        one.store.close()
        other.store.close()

        def act(one: KeptHost = one, other: KeptHost = other) -> None:
            one.open()
            other.open()
            move(one, other, close=True)

        was_killed = run_killed(act, KILLED_IN, number)
        one.open()
        other.open()
        move(one, other, close=True, is_closed=is_retired(one.layout))
        assert before == other.everything()
        assert Standing.UNREADABLE == one.store.read_enrollment("alice").standing
        one.store.close()
        other.store.close()
        if not was_killed:
            break
        kills += 1
    assert kills >= 3


def test_joined_states() -> None:
    """Of two states of a device the higher step counts, and the drift that was seen later."""
    one, other = DeviceState(7, 1, 50.0), DeviceState(9, 0, 20.0)
    assert DeviceState(9, 1, 50.0) == join_states(one, other) == join_states(other, one)
    assert one == join_states(one, None)


def test_joined_locks() -> None:
    """Of two locks all guesses count, and the later end."""
    one, other = LockState((1.0, 3.0), 5.0), LockState((2.0, 3.0), 4.0)
    assert LockState((1.0, 2.0, 3.0), 5.0) == join_locks(one, other) == join_locks(other, one)


def test_progress(hosts: Two) -> None:
    """Who shows how far it is is told of each stage and of all of it."""
    one, other = hosts
    one.fill()
    told: dict[str, list[int]] = {}

    def watch(stage: Stage) -> Callable[[int], None]:
        return told.setdefault(stage.name, [stage.total]).append

    sides = (Side("embedded", one.store), Side("postgresql", other.store))
    Move(*sides, ACTOR, watch).run()
    assert {"Comparing", "Copying used codes", "Copying users", "Verifying"} <= {*told}
    assert [3, 3] == told["Copying users"]
    assert all(total == sum(counts) for total, *counts in told.values())


def test_target_that_cannot_be_written(hosts: Two) -> None:
    """A target that does not take a user is said, and the source stays in service."""
    one, other = hosts
    one.fill()
    (other.layout.devices / ".moved").write_text("elsewhere\n")
    with pytest.raises(BrokenSystemError, match="were moved to elsewhere"):
        move(one, other, close=True)
    assert not is_retired(one.layout)
    assert Standing.ENROLLED == one.store.read_enrollment("alice").standing


def test_other_layout(tmp_path: Path) -> None:
    """Where devices are collected nothing else lies elsewhere."""
    layout, is_empty = collect(make_root(tmp_path))
    (layout.devices / "alice.yaml").touch()
    assert (True, False) == (is_empty, collect(Layout(tmp_path))[1])
    assert layout.state == Layout(tmp_path).state
    assert tmp_path / "var/lib/pam_mfa/devices.incoming" == layout.devices
