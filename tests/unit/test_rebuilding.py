# SPDX-License-Identifier: Apache-2.0
"""A damaged state rebuilt: no code that was used is good again, whatever could not be read."""

import contextlib
import fcntl
import gzip
import os
import sqlite3
from pathlib import Path

import pytest
from doubles import code_of, make_layout
from killed_switch import run_killed

from pam_mfa.audit import Head
from pam_mfa.doctor import files, rebuilding, repairing
from pam_mfa.doctor.database import find_damage
from pam_mfa.doctor.rebuilding import (
    PLACEHOLDER,
    PLACEHOLDER_MODE,
    Rebuilt,
    rebuild,
)
from pam_mfa.doctor.used_codes import UsedCodes
from pam_mfa.doctor.view import View
from pam_mfa.errors import RefusedError, StateError
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.lockout import LockoutRule
from pam_mfa.oath import time_step
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.files import replace_file
from pam_mfa.store.layout import Layout
from pam_mfa.store.state import create_schema

NOW = time_step(1_700_000_045.0, 30) * 30 + 5.0
STEP = time_step(NOW, 30)
USERS = 60
WRITES_MAX = 200


def open_lifecycle(layout: Layout, now: float = NOW) -> tuple[EmbeddedStore, Lifecycle]:
    """Open the store at a moment."""
    store = EmbeddedStore(layout)
    return store, Lifecycle(store, lambda: now, Actor(0, 1, None))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A store in which many have a device and Alice recovery codes; her last code is of now."""
    layout = make_layout(tmp_path)
    store, mfa = open_lifecycle(layout)
    for number in range(USERS):
        pending = mfa.begin_virtual(f"user-{number}", "phone")
        codes = [code_of(pending.seed, STEP - 1), code_of(pending.seed, STEP)]
        mfa.enable(pending, *codes)
    mfa.enable_recovery("user-0")
    store.close()
    return layout


def damage(layout: Layout, *, everything: bool = False) -> None:
    """Write nonsense over half of the database, or all but its head."""
    with contextlib.closing(sqlite3.connect(layout.state)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(layout.state.read_bytes())
    start = 100 if everything else len(data) // 2 // 4096 * 4096
    data[start:] = b"\xa5" * (len(data) - start)
    layout.state.write_bytes(data)


def last_steps(layout: Layout) -> dict[str, int]:
    """Return the used step of each device."""
    with contextlib.closing(sqlite3.connect(layout.state)) as connection:
        return dict(connection.execute("SELECT serial_number, step FROM used_step").fetchall())


@pytest.mark.parametrize("everything", [False, True])
def test_used_code_stays_used(layout: Layout, everything: bool) -> None:  # noqa: FBT001
    """After the rebuilding every device's codes of now and before are used, known or not."""
    damage(layout, everything=everything)
    rebuilt = rebuild(layout, NOW)
    steps = last_steps(layout)
    names = [f"virtual/user-{number}/phone" for number in range(USERS)]
    assert all(steps[name] >= STEP + 10 for name in names)
    assert rebuilt.void == [name for name in rebuilt.void if name.startswith("recovery/")]
    assert 1 == len(rebuilt.void)
    assert Path(rebuilt.broken).exists()


def test_next_codes_are_good(layout: Layout) -> None:
    """A device is of use again minutes later, by its own codes."""
    damage(layout, everything=True)
    rebuild(layout, NOW)
    later = NOW + 13 * 30
    store, mfa = open_lifecycle(layout, later)
    device = store.read_enrollment("user-1").devices[0]
    step = time_step(later, 30)
    mfa.resync("user-1", device.device.serial_number,
               *(code_of(device.seed, step + one) for one in (0, 1)))  # fmt: skip
    assert step + 1 == last_steps(layout)[device.device.serial_number]
    store.close()


def test_codes_before_are_not_good(layout: Layout) -> None:
    """Two consecutive codes that somebody has seen before the rebuilding move no device."""
    damage(layout, everything=True)
    rebuild(layout, NOW)
    store, mfa = open_lifecycle(layout, NOW + 60)
    device = store.read_enrollment("user-1").devices[0]
    with pytest.raises(RefusedError, match="not two consecutive, unused codes"):
        mfa.resync("user-1", device.device.serial_number,
                   *(code_of(device.seed, STEP + one) for one in (-1, 0)))  # fmt: skip
    store.close()


def test_resynchronized_device_waits_for_a_day(layout: Layout) -> None:
    """Where the log tells of a resynchronization and its record is lost, no future is assumed."""
    store, mfa = open_lifecycle(layout, NOW + 300)
    opened = store.read_enrollment("user-3").devices[0]
    ahead = STEP + 500
    mfa.resync("user-3", opened.device.serial_number, *(code_of(opened.seed, ahead + one)
                                                         for one in (0, 1)))  # fmt: skip
    store.close()
    damage(layout, everything=True)
    rebuilt = rebuild(layout, NOW + 300)
    assert [opened.device.serial_number] == rebuilt.waiting
    assert last_steps(layout)[opened.device.serial_number] >= STEP + 86400 // 30


def test_what_can_be_read_is_kept(layout: Layout) -> None:
    """Rows that SQLite can still read are taken over: drifts, locks, fingerprints."""
    before = last_steps(layout)
    damage(layout)
    rebuilt = rebuild(layout, NOW)
    assert rebuilt.rows > 0
    assert set(before) <= set(last_steps(layout))


def test_killed_rebuilding_refuses_until_it_is_run_again(tmp_path: Path) -> None:
    """Killed at any write, it leaves no state in which a used code would be good."""
    number, was_killed = 0, True
    while was_killed:
        number += 1
        assert number < WRITES_MAX
        layout = make_layout(tmp_path / f"{number}")
        store, mfa = open_lifecycle(layout)
        pending = mfa.begin_virtual("alice", "phone")
        mfa.enable(pending, code_of(pending.seed, STEP - 1), code_of(pending.seed, STEP))
        store.close()
        damage(layout, everything=True)
        was_killed = run_killed(lambda at=layout: rebuild(at, NOW), number)  # type: ignore[misc]
        assert layout.state.exists()
        if was_killed:
            require_refusing(layout)
            rebuild(layout, NOW)
        assert last_steps(layout)["virtual/alice/phone"] >= STEP + 10
    assert number > 8


def require_refusing(layout: Layout) -> None:
    """A store in the middle of its rebuilding refuses, or has the rebuilt state already."""
    if layout.state.read_bytes().startswith(b"SQLite format 3\0" + bytes(1)):
        return
    store, _ = open_lifecycle(layout)
    try:
        steps = store.read_devices(["virtual/alice/phone"])
    except StateError:
        return
    finally:
        store.close()
    assert steps["virtual/alice/phone"].step >= STEP


def test_interrupted_one_goes_on_with_the_damaged_one(layout: Layout) -> None:
    """A rebuilding after a killed one reads what was kept, and not the text in its place."""
    damage(layout)
    rows = rebuild(layout, NOW).rows
    layout.state.write_bytes(PLACEHOLDER)
    assert rows == rebuild(layout, NOW).rows


def test_verifier_at_work(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier that does not let go of the state is waited for, and not for ever."""
    monkeypatch.setattr(rebuilding, "_PATIENCE", 0.05)
    with (layout.library / "commit.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match="keeps the state locked"):
            rebuild(layout, NOW)


def test_names(layout: Layout) -> None:
    """The kept database has a name of its own each time, and nobody else can read it."""
    damage(layout)
    first, second = (rebuild(layout, NOW).broken for _ in range(2))
    assert first != second
    assert 0o600 == layout.state.stat().st_mode & 0o777


def test_old_log_beside_an_interrupted_one(layout: Layout) -> None:
    """A log that a killed rebuilding left is not played back over the new state."""
    damage(layout)
    rebuild(layout, NOW)
    layout.state.write_bytes(PLACEHOLDER)
    log = layout.state.with_name("state.db-wal")
    log.write_bytes(b"old")
    rebuild(layout, NOW)
    assert not log.exists()


def test_old_log_does_not_come_alive(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the old log is gone, a rebuilding leaves nothing that a verifier would open."""
    with contextlib.closing(sqlite3.connect(layout.state, isolation_level=None)) as held:
        held.execute("INSERT INTO outbox(line) VALUES(x'')")  # its log stays while it is open
        assert layout.state.with_name("state.db-wal").stat().st_size > 0
        log = layout.state.with_name("state.db-wal").read_bytes()
    replace_file(layout.state, PLACEHOLDER, PLACEHOLDER_MODE)
    layout.state.with_name("state.db-wal").write_bytes(log)
    layout.state.with_name("state.db-wal").chmod(0o600)
    store, _ = open_lifecycle(layout)
    with contextlib.closing(store), pytest.raises(StateError, match="others"):
        store.read_devices(["virtual/alice/phone"])
    assert "its repair was interrupted" == find_damage(layout.state)
    monkeypatch.setattr(repairing, "rebuild_state", lambda _: Rebuilt("kept", 0, [], []))
    monkeypatch.setattr(files, "service_ids", lambda: (os.geteuid(), os.getegid()))
    list(repairing.repair(View(layout)))
    assert PLACEHOLDER_MODE == layout.state.stat().st_mode & 0o777


def test_resynchronized_in_a_compressed_log(layout: Layout) -> None:
    """A resynchronization counts where its record was packed away; a spoilt log spares nobody."""
    lines = layout.audit_log.read_bytes()
    layout.audit_log.unlink()
    packed = layout.audit_log.with_name(f"{layout.audit_log.name}.2.gz")
    packed.write_bytes(gzip.compress(lines.replace(b"EnableMfaDevice", b"ResyncMfaDevice")))
    used = UsedCodes(LockoutRule())
    used.read(layout.audit_log, (), Head())
    assert (True, True) == (used.is_readable, used.find("virtual/user-1/phone").was_moved)
    packed.write_bytes(packed.read_bytes()[:30])
    used.read(layout.audit_log, (), Head())
    assert not used.is_readable


def test_counter_that_one_copy_lowers(tmp_path: Path) -> None:
    """Of two copies of a counter the larger counts, and of a lock the stricter."""
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as old,
        contextlib.closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as made,
    ):
        for database in (old, made):
            create_schema(database)
        old.execute("INSERT INTO used_step VALUES('a', 900, 0, 0), ('b', 7, 0, 0)")
        old.execute("INSERT INTO lock_state VALUES('u', '1.0 2.0', 50.0)")
        made.execute("INSERT INTO used_step VALUES('a', 3, 0, 0)")
        made.execute("INSERT INTO lock_state VALUES('u', '1.0', 9.0)")
        rebuilding.salvage_copy(old, made, rebuilding.STEP_COPY, rebuilding.UPSERT)
        rebuilding.salvage_copy(old, made, rebuilding.LOCK_COPY, rebuilding.STRICTER_LOCK)
        steps = dict(made.execute("SELECT serial_number, step FROM used_step").fetchall())
        locks = made.execute("SELECT * FROM lock_state").fetchall()
    assert ({"a": 900, "b": 7}, [("u", "1.0 2.0", 50.0)]) == (steps, locks)
