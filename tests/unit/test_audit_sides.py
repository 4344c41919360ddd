# SPDX-License-Identifier: Apache-2.0
"""The two sides of the audit log: what the store has written, the reading side finds whole."""

import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles import START, make_event, make_layout

from pam_mfa.audit import AuditLog, Event
from pam_mfa.audit_reading import ChainCheck, Kind, PublicKeys, Report, Wanted, find_logs, open_logs
from pam_mfa.audit_reading.following import Follower
from pam_mfa.audit_reading.kept_head import NAME, find_kept_head
from pam_mfa.audit_reading.reading import Reader
from pam_mfa.audit_reading.records import Selection
from pam_mfa.audit_reading.signatures import read_public_key
from pam_mfa.doctor.rebuilding import rebuild
from pam_mfa.store import Change, Claim
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.opening import read_log_end

HOSTILE = '\u202e"x","previous":"0","sequence":1,\n\x1b[2J\udcff'


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty root."""
    return make_layout(tmp_path)


@pytest.fixture
def store(layout: Layout) -> Iterator[EmbeddedStore]:
    """The store."""
    store = EmbeddedStore(layout)
    yield store
    store.close()


def commit(store: EmbeddedStore, *events: Event) -> None:
    """Make records durable."""
    change = Change(accepted=False, events=events)
    store.commit([Claim("", (), lambda _: change)])


def verify(layout: Layout) -> Report:
    """Return the report on the log, with the host's own key and the state's head."""
    kept = find_kept_head(*read_log_end(layout))
    assert kept is not None
    path = layout.library / "audit.pub"  # made by the first signature
    keys = PublicKeys([read_public_key(path)] if path.exists() else [])
    check = ChainCheck(Wanted(keys, [(NAME, kept.anchor)], ends=kept.ends))
    with open_logs(layout.audit_log) as logs:
        for log in logs:
            check.check(log)
    return check.finish()


def found(report: Report) -> list[tuple[Kind, int | None]]:
    """Return kinds and sequences of what was found."""
    return [(one.kind, one.sequence) for one in report.findings]


def test_written_and_whole(layout: Layout, store: EmbeddedStore) -> None:
    """A log of the real writer is intact, signed, and its end is the state's."""
    for number in range(20):
        commit(store, make_event(f"user{number}"), make_event("alice", detail=HOSTILE))
    store.follow_up(must_sign=True)
    report = verify(layout)
    assert [] == found(report)
    assert report.checkpoints > 0
    assert report.last is not None
    with open_logs(layout.audit_log) as logs:
        assert 20 == len(list(Reader(logs, Selection(user="alice")).records()))


def test_rotated_and_whole(layout: Layout, store: EmbeddedStore) -> None:
    """The chain runs on over a rotation."""
    for number in range(3, 0, -1):
        commit(store, make_event("alice"), make_event("bob"))
        layout.audit_log.rename(layout.audit_log.with_name(f"audit.jsonl.{number}"))
    commit(store, make_event("alice"))
    assert [] == found(verify(layout))


def test_clock_that_went_back(layout: Layout, store: EmbeddedStore) -> None:
    """A clock that was set back breaks no chain."""
    for moment in (START, START + 100, START - 10_000, START):
        commit(store, make_event("alice")._replace(at=moment))
    assert [] == found(verify(layout))


def test_cut_log(layout: Layout, store: EmbeddedStore) -> None:
    """Records that are cut off the end, the state still knows."""
    for _ in range(5):
        commit(store, make_event("alice"))
    store.close()  # nothing waits in the state any more
    lines = layout.audit_log.read_bytes().splitlines(keepends=True)
    layout.audit_log.write_bytes(b"".join(lines[:-2]))
    assert [(Kind.TRUNCATED, len(lines))] == found(verify(layout))


def test_record_on_its_way(
    layout: Layout, store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that a kill kept from the log waits in the state: nothing is missing."""
    commit(store, make_event("alice"))

    def killed(_log: AuditLog, _lines: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            commit(store, make_event("bob"))
    assert [] == found(verify(layout))
    commit(EmbeddedStore(layout), make_event("carol"))
    report = verify(layout)
    assert [] == found(report)


def test_first_record_on_its_way(
    layout: Layout, store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first record of all may wait in the state, too, where the log is still empty."""

    def killed(_log: AuditLog, _lines: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            commit(store, make_event("bob"))
    layout.audit_log.touch(0o640)
    assert [] == found(verify(layout))


def test_emptied_log(layout: Layout, store: EmbeddedStore) -> None:
    """A log that was emptied is truncated, though nothing in it can be wrong."""
    for _ in range(3):
        commit(store, make_event("alice"))
    store.close()
    os.truncate(layout.audit_log, 0)
    assert [Kind.TRUNCATED] == [kind for kind, _ in found(verify(layout))]


def test_torn_line(layout: Layout, store: EmbeddedStore) -> None:
    """A line that a power cut has torn is no finding once the writer has told of it."""
    commit(store, make_event("alice"))
    store.close()
    with layout.audit_log.open("ab") as file:
        file.write(b'{"caller_pid":12,"det')
    assert [Kind.TRUNCATED] == [kind for kind, _ in found(verify(layout))]
    again = EmbeddedStore(layout)
    commit(again, make_event("bob"))
    report = verify(layout)
    again.close()
    assert ([], ["MendLog"]) == (found(report), [one.event_name for one in report.notes])


def test_lost_state(layout: Layout, store: EmbeddedStore) -> None:
    """Where the state was lost and repaired the chain goes on, and the log says so."""
    commit(store, make_event("alice"))
    store.close()
    for path in layout.library.glob("state.db*"):
        path.unlink()
    rebuild(layout, START)
    again = EmbeddedStore(layout)
    commit(again, make_event("bob"))
    report = verify(layout)
    again.close()
    assert [] == found(report)
    assert ["state_lost"] == [one.reason for one in report.notes if one.event_name == "ResumeLog"]


def test_lost_records(layout: Layout, store: EmbeddedStore) -> None:
    """Records that were taken from the end are missing, also after the writer has gone on."""
    for _ in range(6):
        commit(store, make_event("alice"))
    store.close()
    lines = layout.audit_log.read_bytes().splitlines(keepends=True)
    first = json.loads(lines[-2])["sequence"]
    layout.audit_log.write_bytes(b"".join(lines[:-2]))
    again = EmbeddedStore(layout)
    commit(again, make_event("bob"))
    commit(again, make_event("bob"))
    report = verify(layout)
    again.close()
    assert [(Kind.REMOVED, first)] == found(report)
    assert ["log_lost"] == [one.reason for one in report.notes]


def test_edited_line(layout: Layout, store: EmbeddedStore) -> None:
    """An edit of any line is found at that line: by the chain, or the last one by the state."""
    for user in ("alice", "bob", "alice", "bob"):
        commit(store, make_event(user))
    store.close()
    lines = layout.audit_log.read_bytes().splitlines(keepends=True)
    for index, line in enumerate(lines):
        edited = line.replace(b'"host":"', b'"host":"x')
        layout.audit_log.write_bytes(b"".join((*lines[:index], edited, *lines[index + 1 :])))
        report = verify(layout)
        assert {index + 1} == {one.place.line for one in report.findings}


def write_and_rotate(layout: Layout, count: int) -> None:
    """Write records of so many users, with a rotation after every 20."""
    store = EmbeddedStore(layout)
    for number in range(count):
        commit(store, make_event(f"user{number}"))
        if number % 20 == 19:
            for old in sorted(find_logs(layout.audit_log), key=str, reverse=True)[:-1]:
                place = int(old.suffix[1:])
                old.rename(old.with_suffix(f".{place + 1}"))
            layout.audit_log.rename(layout.audit_log.with_name("audit.jsonl.1"))
    store.close()


def test_follow_and_verify_while_it_is_written(layout: Layout, store: EmbeddedStore) -> None:
    """Who follows a log sees each record once, over rotations; verifying finds nothing."""
    commit(store, make_event("first"))
    writer = multiprocessing.get_context("fork").Process(
        target=write_and_rotate, args=(layout, 150)
    )
    users: list[str] = []
    started = False
    deadline = time.monotonic() + 60

    def wait_and_start() -> None:
        nonlocal started
        if not started:
            started = True
            writer.start()
        assert time.monotonic() < deadline
        time.sleep(0.002)

    lines = Follower(layout.audit_log, wait_and_start).lines()
    for line in lines:
        assert isinstance(line, bytes)
        record = json.loads(line)
        if record["event_name"] == "VerifyMfa":
            users.append(record["user"])
        if len(users) % 40 == 1:
            with open_logs(layout.audit_log) as logs:
                check = ChainCheck(Wanted(PublicKeys()))
                for log in logs:
                    check.check(log)
                assert [] == found(check.finish())
        if users[-1:] == ["user149"]:
            break
    writer.join(60)
    assert [f"user{number}" for number in range(150)] == users


def test_every_pair_of_sides_agrees_on_the_number(layout: Layout, store: EmbeddedStore) -> None:
    """Sequences have no gap, and each hash is that of the line before, as both sides read them."""
    for _ in range(4):
        commit(store, make_event("alice"))
    with open_logs(layout.audit_log) as logs:
        records = list(Reader(logs, Selection()).records())
    assert all(
        after["sequence"] == before["sequence"] + 1 for before, after in itertools.pairwise(records)
    )
