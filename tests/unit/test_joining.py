# SPDX-License-Identifier: Apache-2.0
"""The chain through what tears it: power cuts, restored states, logs that were cut or edited."""

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from audit_records import read_all, require_chain
from doubles import make_event
from ledgers import Opener

from pam_mfa.audit import AuditLog
from pam_mfa.errors import AuditError, BrokenSystemError, StateError
from pam_mfa.policy import AuditRules, OnFailure
from pam_mfa.store import Change, Claim
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.ledger import Ledger

pytest_plugins = ["ledger_fixtures"]


def record(ledger: Ledger | EmbeddedStore, *users: str) -> None:
    """Commit one claim with a record of each user."""
    change = Change(accepted=False, events=tuple(make_event(user) for user in users))
    ledger.commit([Claim("alice", (), lambda _: change)])


def records_in(layout: Layout) -> list[dict[str, Any]]:
    """Return the records in the log."""
    lines = layout.audit_log.read_bytes().splitlines()
    return [json.loads(line) for line in lines if line.endswith(b"}")]


def words_in(layout: Layout) -> list[str]:
    """Return the users of a log's records, and the reasons of those that are the log's own."""
    return [one.get("user") or one["reason"] for one in records_in(layout)]


def cut(layout: Layout, count: int, rest: bytes = b"") -> None:
    """Leave so many lines of the log, and something behind them."""
    lines = layout.audit_log.read_bytes().splitlines(keepends=True)
    layout.audit_log.write_bytes(b"".join(lines[:count]) + rest)


def forget_outbox(layout: Layout, open_ledger: Opener) -> None:
    """Let every record be known as safe in the log."""
    del layout
    open_ledger().commit([])


def test_chain_of_many_processes(open_ledger: Opener, layout: Layout) -> None:
    """Whoever writes, each record follows the one before."""
    one, other = open_ledger(), open_ledger()
    for number in range(5):
        record(one, f"a{number}", f"b{number}")
        record(other, f"c{number}")
        record(open_ledger(), f"d{number}")
    assert 20 == len(require_chain(read_all(layout.audit_log.parent)))


@pytest.mark.parametrize("is_same", [True, False])
def test_torn_line(open_ledger: Opener, layout: Layout, is_same: bool) -> None:  # noqa: FBT001
    """A line that a power cut has cut is closed, written anew, and a record tells of it."""
    ledger = open_ledger()
    record(ledger, "a")
    record(ledger, "b")
    torn = layout.audit_log.read_bytes().splitlines()[1][:77]
    cut(layout, 1, torn)
    record(ledger if is_same else open_ledger(), "c")
    lines = layout.audit_log.read_bytes().splitlines(keepends=True)
    assert torn + b"\n" == lines.pop(1)
    records = require_chain(lines)
    assert ["a", "b", "torn_line", "c"] == words_in(layout)
    expected = {"bytes": 77, "sha256": hashlib.sha256(torn).hexdigest()}
    assert expected == records[2]["torn"]


def test_torn_line_of_unknown_content(open_ledger: Opener, layout: Layout) -> None:
    """A torn line that is none of the outbox's is mended, too; the record follows the last one."""
    record(open_ledger(), "a")
    forget_outbox(layout, open_ledger)
    cut(layout, 1, b'{"caller')
    record(open_ledger(), "b")
    assert ["a", "torn_line", "b"] == words_in(layout)
    lines = layout.audit_log.read_bytes().splitlines(keepends=True)
    assert 3 == len(require_chain([lines[0], *lines[2:]]))


def test_torn_line_is_told_once(
    open_ledger: Opener, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is killed while mending leaves the rest to the next, who tells of it once."""
    record(open_ledger(), "a")
    forget_outbox(layout, open_ledger)
    cut(layout, 1, b"torn")

    def killed(_log: AuditLog, _lines: object) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(AuditLog, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                record(open_ledger(), "lost")
    record(open_ledger(), "b")
    assert ["a", "torn_line", "b"] == words_in(layout)


@pytest.mark.parametrize("is_restored", [False, True])
def test_state_that_is_lost(open_ledger: Opener, layout: Layout, is_restored: bool) -> None:  # noqa: FBT001
    """Where the state was deleted or restored nothing is judged or written until it is repaired."""
    record(open_ledger(), "a")
    open_ledger().close()
    backup = layout.state.read_bytes()
    ledger = open_ledger()
    record(ledger, "b", "c")
    ledger.close()
    for name in layout.library.glob("state.db*"):
        name.unlink()
    if is_restored:
        layout.state.write_bytes(backup)
        layout.state.chmod(0o600)
    for _ in range(2):
        with pytest.raises(StateError, match="older than the audit log"):
            record(open_ledger(), "d")
    assert ["a", "b", "c"] == words_in(layout)


def test_log_before_there_was_a_chain(open_ledger: Opener, layout: Layout) -> None:
    """Behind the records of an older program the chain begins with the hash of the last one."""
    line = b'{"time":"2026-01-02T03:04:05.000000Z","event_name":"VerifyMfa"}\n'
    layout.audit_log.write_bytes(line)
    layout.audit_log.chmod(0o640)
    record(open_ledger(), "a")
    found = records_in(layout)[1]
    assert ("state_lost", 1, hashlib.sha256(line[:-1]).hexdigest()) == (
        found["reason"], found["sequence"], found["previous"],
    )  # fmt: skip


def spoil_cut(layout: Layout) -> None:
    """Take records from the end."""
    cut(layout, 2)


def spoil_empty(layout: Layout) -> None:
    """Take all that is in the log."""
    layout.audit_log.write_bytes(b"")


def spoil_delete(layout: Layout) -> None:
    """Take the log itself."""
    layout.audit_log.unlink()


@pytest.mark.parametrize("spoil", [spoil_cut, spoil_empty, spoil_delete])
@pytest.mark.parametrize("is_same", [True, False])
def test_log_that_is_lost(
    open_ledger: Opener,
    layout: Layout,
    spoil: Callable[[Layout], None],
    is_same: bool,  # noqa: FBT001
) -> None:
    """Where records were taken away the chain leaves their places empty, and a record says so."""
    ledger = open_ledger()
    record(ledger, "a", "b", "c")
    record(ledger, "d")
    forget_outbox(layout, open_ledger)
    spoil(layout)
    record(ledger if is_same else open_ledger(), "e")
    resumed, last = records_in(layout)[-2:]
    assert ("log_lost", 5, 4, "e") == (
        resumed["reason"], resumed["sequence"], resumed["state_head"]["sequence"], last["user"],
    )  # fmt: skip
    assert resumed["previous"] == resumed["state_head"]["hash"]


def test_log_that_is_edited(open_ledger: Opener, layout: Layout) -> None:
    """Where the last record was edited, the chain goes on from the one that was written."""
    record(open_ledger(), "a", "b")
    forget_outbox(layout, open_ledger)
    written = layout.audit_log.read_bytes()
    layout.audit_log.write_bytes(written.replace(b'"user":"b"', b'"user":"x"'))
    record(open_ledger(), "c")
    found = records_in(layout)[2]
    expected = hashlib.sha256(written.splitlines()[1]).hexdigest()
    assert ("log_changed", expected) == (found["reason"], found["previous"])


def test_several_rotations_are_no_loss(open_ledger: Opener, layout: Layout) -> None:
    """However often the log is rotated, the chain goes on and nothing is said to be lost."""
    for number in range(9, 0, -1):
        record(open_ledger(), f"u{number}")
        layout.audit_log.rename(layout.audit_log.with_name(f"audit.jsonl.{number}"))
    record(open_ledger(), "last")
    records = require_chain(read_all(layout.audit_log.parent))
    assert [*(f"u{number}" for number in range(9, 0, -1)), "last"] == [
        one["user"] for one in records
    ]


def test_clock_that_goes_back(open_ledger: Opener, layout: Layout) -> None:
    """The chain is in the order of writing, whatever the clock says."""
    ledger = open_ledger()
    for at in (2e9, 1e9, 1.5e9):
        change = Change(accepted=False, events=(make_event(at=at),))
        ledger.commit([Claim("alice", (), lambda _, change=change: change)])  # type: ignore[misc]
    years = [one["time"][:4] for one in require_chain(read_all(layout.audit_log.parent))]
    assert ["2033", "2001", "2017"] == years


@pytest.mark.parametrize("spoil", ["readable", "directory", "full"])
def test_log_that_policy_can_do_without(
    open_ledger: Opener, layout: Layout, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    """With on_failure: allow a login goes on without the log, loudly; its record comes later."""
    ledger, told = open_ledger(), list[str]()

    def tell(error: BrokenSystemError) -> None:
        told.append(str(error))

    ledger.follow(AuditRules(on_failure=OnFailure.ALLOW, journal=False, syslog=False), tell)
    record(ledger, "a")
    aside = layout.audit_log.with_name("aside")
    with monkeypatch.context() as patch:
        if spoil == "readable":
            layout.audit_log.chmod(0o644)
        elif spoil == "directory":
            layout.audit_log.rename(aside)
            layout.audit_log.mkdir()
        else:
            patch.setattr(os, "write", lambda _descriptor, _data: 3)
        record(ledger, "b")
        record(ledger, "c")
    if spoil == "directory":
        layout.audit_log.rmdir()
        aside.rename(layout.audit_log)
    layout.audit_log.chmod(0o640)
    record(ledger, "d")
    assert ["a", "b", "c", "d"] == words_in(layout)
    require_chain(read_all(layout.audit_log.parent))
    assert [True, True] == [text.startswith("LOGIN NOT IN THE AUDIT LOG") for text in told]


def test_policy_that_denies(open_ledger: Opener, layout: Layout) -> None:
    """Without that word, a login that the log cannot take is an error."""
    ledger = open_ledger()
    ledger.follow(AuditRules(journal=False, syslog=False), print)
    layout.audit_log.mkdir()
    with pytest.raises(AuditError):
        record(ledger, "a")


def test_policies(open_ledger: Opener, layout: Layout) -> None:
    """Each policy is recorded once, by whichever process sees it first; also one that is broken."""
    one, other = open_ledger(), open_ledger()
    seen = (("aa" * 32, True), ("bb" * 32, False), ("aa" * 32, True))
    for digest, is_accepted in seen:
        for ledger in (one, other):
            ledger.note_policy(digest, is_accepted=is_accepted)
            record(ledger, "u")
    told = [one["policy"] for one in records_in(layout) if "policy" in one]
    assert [{"sha256": digest, "is_accepted": is_accepted} for digest, is_accepted in seen] == told


def test_older_policy_is_not_told_again(open_ledger: Opener, layout: Layout) -> None:
    """A process that has told of its policy does not tell of it again behind a newer one."""
    one, other = open_ledger(), open_ledger()
    for ledger, digest in ((one, "aa" * 32), (other, "bb" * 32)):
        ledger.note_policy(digest, is_accepted=True)
        record(ledger, "u")
    record(one, "late")
    assert ["policy_accepted", "u", "policy_accepted", "u", "late"] == words_in(layout)
