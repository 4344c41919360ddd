# SPDX-License-Identifier: Apache-2.0
"""State and records together: no record is lost, and none is there twice."""

import errno
import gzip
import json
import multiprocessing
import os
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from doubles import make_event
from ledgers import Opener

from pam_mfa.audit import AuditLog
from pam_mfa.audit.outlets import Outlets
from pam_mfa.errors import AuditError, StateError
from pam_mfa.lockout import LockState
from pam_mfa.policy import AuditRules
from pam_mfa.store import Change, Claim, Known
from pam_mfa.store.layout import Layout
from pam_mfa.store.ledger import Ledger

pytest_plugins = ["ledger_fixtures"]


def record(ledger: Ledger, *users: str, rhost: str = "") -> None:
    """Commit one claim with a record of each user."""
    events = tuple(make_event(user, rhost=rhost) for user in users)
    change = Change(accepted=False, events=events, lock=LockState((), 9.0))
    ledger.commit([Claim("alice", (), lambda _: change)])


def users_in(*paths: Path) -> list[str]:
    """Return the users of the records in logs."""
    lines = [line for path in paths for line in path.read_bytes().splitlines()]
    records = [json.loads(line) for line in lines if line.endswith(b"}")]
    return [record["user"] for record in records if "user" in record]


def count_rows(layout: Layout) -> int:
    """Return how many records are in the outbox."""
    connection = sqlite3.connect(layout.state)
    count: int = connection.execute("SELECT count(*) FROM outbox").fetchone()[0]
    connection.close()
    return count


def lose(ledger: Ledger, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit a record that is kept from the log, as by a kill right after the state's commit."""

    def killed(_log: AuditLog, _lines: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            record(ledger, user)


def rotate(layout: Layout, number: int) -> Path:
    """Move the log away as logrotate does; return where to."""
    rotated = layout.audit_log.with_name(f"audit.jsonl.{number}")
    layout.audit_log.rename(rotated)
    return rotated


def test_records(open_ledger: Opener, layout: Layout) -> None:
    """Records are in the log when the commit returns, in their order."""
    ledger = open_ledger()
    record(ledger, "a", "b")
    record(ledger, "c")
    assert ["a", "b", "c"] == users_in(layout.audit_log)


def test_ids(open_ledger: Opener, layout: Layout) -> None:
    """Every record has an id of its own, and this host's name."""
    record(open_ledger(), *"abcdefgh")
    records = [json.loads(line) for line in layout.audit_log.read_bytes().splitlines()]
    assert (8, {os.uname().nodename}) == (
        len({each["event_id"] for each in records}), {each["host"] for each in records},
    )  # fmt: skip


def test_changes(open_ledger: Opener) -> None:
    """The changes come back in the claims' order."""
    changes = [Change(accepted=accepted, events=(make_event(),)) for accepted in (True, False)]
    claims = [Claim("alice", (), lambda _, change=change: change) for change in changes]  # type: ignore[misc]
    assert changes == open_ledger().commit(claims)


def test_commit_without_records(open_ledger: Opener, layout: Layout) -> None:
    """A commit that records nothing makes no log."""
    open_ledger().commit([Claim("alice", (), lambda _: Change(accepted=False, events=()))])
    assert not layout.audit_log.exists()


def test_taking_turns(open_ledger: Opener, layout: Layout) -> None:
    """Processes that commit in turn find each record once, in the order of the commits."""
    one, other = open_ledger(), open_ledger()
    for pair in ("ab", "cd", "ef"):
        record(one, pair[0])
        record(other, pair[1])
    assert list("abcdef") == users_in(layout.audit_log)


def commit_often(layout: Layout, name: str) -> None:
    """Commit thirty records, one by one."""
    ledger = Ledger(layout)
    for number in range(30):
        record(ledger, f"{name}{number}")
    ledger.close()


def test_at_once(layout: Layout) -> None:
    """Processes that commit at once find each record once, and each its own in their order."""
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=commit_often, args=(layout, name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    users = users_in(layout.audit_log)
    for name in "abc":
        expected = [f"{name}{number}" for number in range(30)]
        assert expected == [user for user in users if user.startswith(name)]


def test_turn_lasts_until_the_record_is_in_the_log(
    open_ledger: Opener, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a commit and its record in the log no other process commits; it says so."""
    one, other = open_ledger(), open_ledger()
    record(one, "a")
    write = AuditLog.write
    monkeypatch.setattr("pam_mfa.store.ledger._LOCK_PATIENCE", 0.01)

    def cut_in(log: AuditLog, lines: Sequence[bytes]) -> None:
        with pytest.raises(StateError, match=r"commit\.lock cannot be locked"):
            record(other, "b")
        write(log, lines)

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "write", cut_in)
        record(one, "c")
    record(other, "d")
    assert ["a", "c", "d"] == users_in(layout.audit_log)


def test_alone(open_ledger: Opener, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that commits alone does not read the log again for every commit."""
    ledger = open_ledger()
    record(ledger, "a")
    monkeypatch.setattr(AuditLog, "read_end", None)
    monkeypatch.setattr(AuditLog, "recent", None)
    record(ledger, "b")
    record(ledger, "c")
    assert ["a", "b", "c"] == users_in(layout.audit_log)


def test_lost_record(open_ledger: Opener, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that a kill kept from the log is appended by another process, before its own."""
    first = open_ledger()
    record(first, "a")
    lose(first, "b", monkeypatch)
    record(open_ledger(), "c")
    record(open_ledger(), "d")
    assert list("abcd") == users_in(layout.audit_log)


def test_lost_log(open_ledger: Opener, layout: Layout) -> None:
    """Records that a power loss took from the end of the log are appended by the next commit."""
    record(open_ledger(), "a", "b", "c")
    data = layout.audit_log.read_bytes()
    cut = data[: data.index(b"\n") + 30]  # the first record and a part of the second
    layout.audit_log.write_bytes(cut)
    record(open_ledger(), "d")
    lines = layout.audit_log.read_bytes().splitlines()
    assert (list("abcd"), cut.splitlines()[1]) == (users_in(layout.audit_log), lines[1])


def test_commit_that_settles_only(
    open_ledger: Opener, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit without records of its own appends the lost ones, too."""
    lose(open_ledger(), "a", monkeypatch)
    open_ledger().commit([])
    assert ["a"] == users_in(layout.audit_log)


@pytest.mark.parametrize("is_same", [True, False])
def test_rotation(open_ledger: Opener, layout: Layout, is_same: bool) -> None:  # noqa: FBT001
    """A rotation between two commits neither loses nor doubles a record."""
    ledger = open_ledger()
    record(ledger, "a", "b")
    rotated = rotate(layout, 1)
    record(ledger if is_same else open_ledger(), "c")
    assert (["a", "b"], ["c"]) == (users_in(rotated), users_in(layout.audit_log))


def test_rotation_with_a_lost_record(
    open_ledger: Opener, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record lost before a rotation is appended once, to the new log."""
    ledger = open_ledger()
    record(ledger, "a")
    lose(ledger, "b", monkeypatch)
    rotated = rotate(layout, 1)
    record(open_ledger(), "c")
    assert (["a"], ["b", "c"]) == (users_in(rotated), users_in(layout.audit_log))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_several_rotations(open_ledger: Opener, layout: Layout, count: int) -> None:
    """With a verifier started for each login, no rotation doubles records, however many come."""
    rotated = []
    for number in range(count, 0, -1):
        record(open_ledger(), f"u{number}")
        rotated.append(rotate(layout, number))
    record(open_ledger(), "last")
    assert ["last"] == users_in(layout.audit_log)
    assert [f"u{number}" for number in range(count, 0, -1)] == users_in(*rotated)


def test_compressed_rotation(open_ledger: Opener, layout: Layout) -> None:
    """Records are not doubled where the rotated log was compressed at once."""
    ledger = open_ledger()
    record(ledger, "a")
    ledger.close()
    rotated = rotate(layout, 1)
    rotated.with_suffix(".1.gz").write_bytes(gzip.compress(rotated.read_bytes()))
    rotated.unlink()
    record(open_ledger(), "b")
    assert ["b"] == users_in(layout.audit_log)


def test_long_records(open_ledger: Opener, layout: Layout) -> None:
    """Records as long as a local user can make them stand in the log once, too."""
    rhost = "\udcff" * 16384  # the longest field of a request, each byte six in JSON
    for user in "abcdefghijklmnop":
        record(open_ledger(), user, rhost=rhost)
    assert dict.fromkeys("abcdefghijklmnop", 1) == Counter(users_in(layout.audit_log))


def fail(*_arguments: object) -> int:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk(open_ledger: Opener, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the record cannot be written an error is raised; it is in the log once it can be."""
    ledger = open_ledger()
    record(ledger, "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        with pytest.raises(AuditError):
            record(ledger, "b")
    record(ledger, "c")
    assert list("abc") == users_in(layout.audit_log)


@pytest.mark.parametrize("tries", [1, 2, 5])
def test_log_that_others_can_read(open_ledger: Opener, layout: Layout, tries: int) -> None:
    """While the log is unsafe every commit is an error; once it is safe records are written."""
    layout.audit_log.touch()
    layout.audit_log.chmod(0o644)
    ledger = open_ledger()
    for _ in range(tries):
        with pytest.raises(AuditError):
            record(ledger, "a")
    layout.audit_log.chmod(0o640)
    record(ledger, "b")
    assert ["b"] == users_in(layout.audit_log)


def test_nothing_is_accepted_unrecorded(open_ledger: Opener, layout: Layout) -> None:
    """While the log is unsafe no claim is judged at all: no code is used up, no guess is free."""
    layout.audit_log.mkdir()
    ledger, judged = open_ledger(), []

    def judge(known: Known) -> Change:
        judged.append(known)
        return Change(accepted=True, events=(make_event(),))

    for _ in range(3):
        with pytest.raises(AuditError):
            ledger.commit([Claim("alice", (), judge)])
    assert [] == judged


def test_outbox_is_bounded(
    open_ledger: Opener, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many records there were, the outbox holds a few hundred, and the log all."""
    syncs: list[int] = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    ledger, users = open_ledger(), [f"u{number}" for number in range(1000)]
    counts = []
    for start in range(0, 1000, 20):
        record(ledger, *users[start : start + 20])
        counts.append(count_rows(layout))
    assert users == users_in(layout.audit_log)
    assert max(counts) <= 256 + 2 * 20
    assert 3 <= len(syncs) <= 5


def test_sync_before_rows_are_dropped(
    open_ledger: Opener, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the log cannot be synced, no row is dropped and no claim is judged."""
    ledger = open_ledger()
    record(ledger, *[f"u{number}" for number in range(300)])
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(AuditError):
        record(ledger, "late")
    assert (300, 300) == (count_rows(layout), len(users_in(layout.audit_log)))


def test_outlets_wait_for_verdicts(open_ledger: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever serves verdicts tells the other logs behind them; everybody else at once."""
    told: list[int] = []
    monkeypatch.setattr(Outlets, "send", lambda _, lines: told.append(len(lines)))
    ledger = open_ledger()
    record(ledger, "a", "b")
    ledger.follow(AuditRules(), lambda _: None)
    record(ledger, "c")
    record(ledger, "d", "e")
    before = list(told)
    ledger.tell_outlets()
    ledger.tell_outlets()
    record(ledger, "f")
    ledger.close()
    assert ([2], [2, 3, 1]) == (before, told)


def test_broken_state(open_ledger: Opener, layout: Layout) -> None:
    """Where the state cannot be used nothing is recorded."""
    layout.state.write_bytes(b"garbage" * 1000)
    layout.state.chmod(0o600)
    with pytest.raises(StateError):
        record(open_ledger(), "a")
    assert not layout.audit_log.exists()


def test_lock_that_cannot_be_made(open_ledger: Opener, layout: Layout) -> None:
    """A lock file that is a link is not followed, and nothing is committed."""
    (layout.library / "commit.lock").symlink_to("elsewhere")
    with pytest.raises(StateError, match=r"commit\.lock cannot be locked"):
        record(open_ledger(), "a")
    assert [layout.library / "commit.lock", layout.devices] == sorted(layout.library.iterdir())


def test_after_close(open_ledger: Opener, layout: Layout) -> None:
    """A ledger that was closed opens its files again."""
    ledger = open_ledger()
    record(ledger, "a")
    ledger.close()
    record(ledger, "b")
    assert ["a", "b"] == users_in(layout.audit_log)
