# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: when the log is signed, by which key, and what becomes of it where it cannot be."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_records import read_all, require_chain
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from doubles import make_event, make_layout

from pam_mfa.policy import AuditRules
from pam_mfa.store import Change, Claim
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout

RULES = AuditRules(journal=False, syslog=False, checkpoint_every=5, checkpoint_within=100.0)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """An empty root."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    return make_layout(tmp_path)


@pytest.fixture
def told() -> list[str]:
    """What was told the system log."""
    return []


@pytest.fixture
def store(layout: Layout, told: list[str]) -> Iterator[EmbeddedStore]:
    """A store that signs every five records."""
    store = open_store(layout, told)
    yield store
    store.close()


def open_store(layout: Layout, told: list[str]) -> EmbeddedStore:
    """Open a store as a process of its own does."""
    store = EmbeddedStore(layout)
    store.follow(RULES, lambda error: told.append(str(error)))
    return store


def record(store: EmbeddedStore, count: int = 1) -> None:
    """Commit so many records, and sign where that is due."""
    for _ in range(count):
        change = Change(accepted=False, events=(make_event(),))
        store.commit([Claim("alice", (), lambda _, change=change: change)])  # type: ignore[misc]
        store.follow_up()


def checkpoints(layout: Layout) -> list[tuple[int, str]]:
    """Return the checkpoints' places and reasons; the chain and the signatures are checked."""
    records = require_chain(read_all(layout.audit_log.parent))
    return [(one["sequence"], one["reason"]) for one in records if "signature" in one]


def first(layout: Layout) -> dict[str, Any]:
    """Return the first checkpoint."""
    lines = read_all(layout.audit_log.parent)
    found: dict[str, Any] = next(one for one in map(json.loads, lines) if "signature" in one)
    return found


def test_interval(store: EmbeddedStore, layout: Layout) -> None:
    """The first record is signed at once, and from then on every so many."""
    record(store, 12)
    assert [(2, "start"), (8, "interval"), (14, "interval")] == checkpoints(layout)


def test_commit_never_signs(store: EmbeddedStore, layout: Layout) -> None:
    """A commit alone, which a login waits for, signs nothing and opens no key."""
    for _ in range(20):
        change = Change(accepted=False, events=(make_event(),))
        store.commit([Claim("alice", (), lambda _, change=change: change)])  # type: ignore[misc]
    assert ([], False) == (checkpoints(layout), layout.signing_key.exists())


@pytest.mark.parametrize("step", [101.0, -10.0])
def test_time(
    store: EmbeddedStore, layout: Layout, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """What was unsigned for so long, or since a clock went back, is signed with the next record."""
    now = [2e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    record(store, 2)
    now[0] += step
    record(store)
    assert [(2, "start"), (5, "interval")] == checkpoints(layout)


def test_rotation(store: EmbeddedStore, layout: Layout) -> None:
    """After a rotation the log is signed with the first record of the new file."""
    record(store, 2)
    layout.audit_log.rename(layout.audit_log.with_name("audit.jsonl.1"))
    record(store, 2)
    assert [(2, "start"), (5, "rotation")] == checkpoints(layout)


def test_asked(store: EmbeddedStore, layout: Layout) -> None:
    """Whatever was not signed yet is signed when that is asked for, and nothing twice."""
    record(store, 2)
    for _ in range(3):
        store.follow_up(must_sign=True)
    assert [(2, "start"), (4, "requested")] == checkpoints(layout)


def test_several_processes(layout: Layout, told: list[str]) -> None:
    """Processes that each write a little sign together as often as one that writes all."""
    for _ in range(12):
        store = open_store(layout, told)
        record(store)
        store.close()
    assert [(2, "start"), (8, "interval"), (14, "interval")] == checkpoints(layout)


def test_keys(store: EmbeddedStore, layout: Layout) -> None:
    """The first checkpoint has the public key, as the file has it; the private one is sealed."""
    record(store, 12)
    checkpoint, raw = first(layout), load_pem_public_key(layout.public_key.read_bytes())
    expected = raw.public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert expected == base64.b64decode(checkpoint["public_key"])
    assert 1 == sum(b'"public_key"' in line for line in read_all(layout.audit_log.parent))
    assert (0o600, 0o644) == (
        layout.signing_key.stat().st_mode & 0o777, layout.public_key.stat().st_mode & 0o777,
    )  # fmt: skip
    assert layout.signing_key.read_bytes().startswith(b"sealed:v1:")


def test_new_key(layout: Layout, told: list[str]) -> None:
    """A key that was lost is followed by a new one, which its first checkpoint tells."""
    for _ in range(2):
        store = open_store(layout, told)
        record(store, 6)
        store.close()
        layout.signing_key.unlink()
    keys = [line for line in read_all(layout.audit_log.parent) if b'"public_key"' in line]
    assert 2 == len(keys)
    require_chain(read_all(layout.audit_log.parent))


@pytest.mark.parametrize("content", [b"", b"sealed:v1:AAAA\n", b"\xff" * 10, b"x" * 5000])
def test_broken_key(store: EmbeddedStore, layout: Layout, told: list[str], content: bytes) -> None:
    """Where the key cannot be used records go on without checkpoints, and that is told once."""
    layout.signing_key.write_bytes(content)
    layout.signing_key.chmod(0o600)
    record(store, 12)
    assert ([], 1, 12) == (checkpoints(layout), len(told), len(read_all(layout.audit_log.parent)))
    assert str(layout.signing_key) in told[0]


def test_key_of_somebody_else(store: EmbeddedStore, layout: Layout, told: list[str]) -> None:
    """A key that others can read signs nothing."""
    record(store, 3)
    layout.signing_key.chmod(0o644)
    other = open_store(layout, told)
    record(other, 6)
    other.close()
    assert [(2, "start")] == checkpoints(layout)
    assert "audit.key has the mode 0644" in told[0]
